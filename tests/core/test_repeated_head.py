"""Requests that repeat the head of one before: which do, and what their target is."""

import pytest

from imgproxy_cache.core.repeated_head import lines_behind_target, target_before

LINES = b" HTTP/1.1\r\nHost: img.example\r\nAccept: */*\r\n\r\n"


@pytest.mark.parametrize(
    "request_bytes",
    [
        pytest.param(b"HEAD /a" + LINES, id="another method"),
        pytest.param(b"get /a" + LINES, id="a method in lower case"),
        pytest.param(b"\r\nGET /a" + LINES, id="an empty line first"),
        pytest.param(b"GET  /a" + LINES, id="two spaces"),
        pytest.param(b"GET /a HTTP/1.0\r\nHost: img.example\r\n\r\n", id="HTTP/1.0"),
        pytest.param(b"GET /a HTTP/1.1\nHost: img.example\r\n\r\n", id="a bare line feed"),
        pytest.param(b"GET /a" + LINES + b"body", id="a body"),
        pytest.param(b"GET /a", id="half a request"),
        pytest.param(b"", id="nothing"),
    ],
)
def test_only_the_lines_of_a_plain_get_may_come_again(request_bytes: bytes) -> None:
    assert lines_behind_target(request_bytes) is None


def test_lines_are_what_stands_behind_the_target() -> None:
    assert lines_behind_target(b"GET /a//b?c#d" + LINES) == LINES


@pytest.mark.parametrize(
    ("before", "target"),
    [
        pytest.param(b"GET /a", b"/a", id="a path"),
        pytest.param(b"GET /", b"/", id="the root"),
        pytest.param(b"GET //a/../b?c#d", b"//a/../b?c#d", id="an odd path"),
        pytest.param(
            b"GET /" + bytes(range(0x21, 0x7F)), b"/" + bytes(range(0x21, 0x7F)), id="printable"
        ),
        pytest.param(b"GET a", None, id="no slash"),
        pytest.param(b"GET http://evil.example/a", None, id="absolute form"),
        pytest.param(b"GET ", None, id="no target"),
        pytest.param(b"", None, id="nothing"),
        pytest.param(b"HEAD /a", None, id="another method"),
        pytest.param(b"\r\nGET /a", None, id="an empty line first"),
        pytest.param(b"GET /a\n", None, id="a line feed behind it"),
        pytest.param(b"GET /a b", None, id="a space"),
        pytest.param(b"GET /a\x00", None, id="nul"),
        pytest.param(b"GET /a\x7f", None, id="delete"),
        pytest.param(b"GET /\xc3\xa4", None, id="UTF-8"),
        pytest.param(b"GET /a" + LINES + b"GET /b", None, id="another request before it"),
        pytest.param(b"GET /a HTTP/1.1\r\nB: c\r\nD:", None, id="another line before them"),
    ],
)
def test_target_is_all_that_may_differ(before: bytes, target: bytes | None) -> None:
    assert target_before(LINES, before + LINES) == target


@pytest.mark.parametrize(
    "request_bytes",
    [
        pytest.param(b"GET /a HTTP/1.1\r\nHost: img.example\r\nAccept: a/b\r\n\r\n", id="other"),
        pytest.param(b"GET /a" + LINES + b"GET /b", id="more behind them"),
        pytest.param(b"GET /a" + LINES[:-1], id="cut"),
    ],
)
def test_other_lines_are_not_those_lines(request_bytes: bytes) -> None:
    assert target_before(LINES, request_bytes) is None
