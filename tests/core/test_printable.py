"""What of a target may stand in the log."""

import pytest

from imgproxy_cache.core.printable import fits_a_target, printable_target


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        pytest.param(b"/_/w:9/plain/https://e/a.jpg", "/_/w:9/plain/https://e/a.jpg", id="plain"),
        pytest.param(
            b"/_/plain/https://e/a.jpg@webp", "/_/plain/https://e/a.jpg@webp", id="format"
        ),
        pytest.param(b"/_/plain/local:///a.jpg@png", "/_/plain/local:///a.jpg@png", id="local"),
        pytest.param(b"/a?token=1", "/a", id="query"),
        pytest.param(
            b"/_/plain/https://me:pw@e/a.jpg@webp", "/_/plain/https://***@e/a.jpg@webp", id="user"
        ),
        pytest.param(b"/_/plain/https:/me:pw@e/a", "/_/plain/https:/***@e/a", id="one slash"),
        pytest.param(b"/\xff", "/\\xff", id="no text"),
    ],
)
def test_target_is_shown_without_what_is_secret(target: bytes, expected: str) -> None:
    assert printable_target(target) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("", True, id="nothing"),
        pytest.param('!/%20"{}~', True, id="from the first to the last"),
        pytest.param("/a b", False, id="a blank"),
        pytest.param("/a\x7f", False, id="a control character"),
        pytest.param("/\u00e4", False, id="beyond ASCII"),
        pytest.param("/\udcff", False, id="no text"),
    ],
)
def test_text_of_a_target(text: str, expected: bool) -> None:
    assert fits_a_target(text) is expected
