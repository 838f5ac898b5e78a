"""The image to store; the hashes come from `printf %s ... | sha256sum`."""

import pytest

from imgproxy_cache.core.image import (
    Image,
    image_from_answer,
    seconds_from_words,
    time_in_words,
)


def test_image_carries_its_fields_and_what_proves_them() -> None:
    image = image_from_answer(
        path=b"/a",
        body=b"hello",
        content_type="image/jpeg",
        cache_control="max-age=31536000, public",
        content_disposition=None,
        at=1_795_221_245.999,  # date -u -d 2026-11-21T00:34:05Z +%s
    )

    assert image == Image(
        body=b"hello",
        content_type="image/jpeg",
        cache_control="max-age=31536000, public",
        content_disposition=None,
        path_sha256="6a50dc8584134c7de537c0052ff6d236bf874355e050c90523e0c5ff2a543a28",
        content_sha256="2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824",
        stored_at="2026-11-21T00:34:05Z",
    )


@pytest.mark.parametrize(
    "seconds", [0, 1_795_221_245, 253_402_300_799], ids=["1970", "2026", "9999"]
)
def test_time_is_read_as_it_was_written(seconds: int) -> None:
    assert seconds_from_words(time_in_words(seconds)) == seconds


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("", id="none"),
        pytest.param("Z", id="zone alone"),
        pytest.param("2026-11-21T00:34:05", id="no zone"),
        pytest.param("2026-11-21T00:34:05+01:00", id="another zone"),
        pytest.param("2026-02-30T00:34:05Z", id="no such day"),
        pytest.param("10000-01-01T00:00:00Z", id="five digits"),
        pytest.param("Sat, 21 Nov 2026 00:34:05 GMT", id="another form"),
        pytest.param("2026-11-21T00:34:05\udcffZ", id="no text"),
    ],
)
def test_what_is_no_such_time_is_told(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - by whatever text
        seconds_from_words(text)
