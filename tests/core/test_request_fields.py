"""What the header fields of a request come to."""

import pytest

from imgproxy_cache.core.headers import Headers
from imgproxy_cache.core.request_fields import RequestFields, read_request_fields

BROWSER: Headers = [(b"host", b"img.example"), (b"accept", b"image/webp,*/*")]


def read(received: Headers, *, cookie_passthrough: bool = False) -> RequestFields:
    return read_request_fields(
        received,
        client_ip=b"192.0.2.7",
        scheme=b"http",
        peer_is_trusted=False,
        keep_accept_encoding=False,
        cookie_passthrough=cookie_passthrough,
    )


def test_fields_are_written_as_imgproxy_reads_them() -> None:
    assert read(BROWSER).lines == (
        b"host: img.example\r\n"
        b"accept: image/webp,*/*\r\n"
        b"accept-encoding: identity\r\n"
        b"x-forwarded-for: 192.0.2.7\r\n"
        b"x-forwarded-proto: http\r\n"
        b"x-forwarded-host: img.example\r\n"
    )


@pytest.mark.parametrize(
    ("field", "expected"),
    [
        pytest.param((b"x-request-id", b"my-id_1"), b"my-id_1", id="as imgproxy would echo it"),
        pytest.param((b"x-request-id", b"a b!"), None, id="not as imgproxy would echo it"),
        pytest.param((b"x-request-id", b""), None, id="empty"),
        pytest.param((b"x-other", b"my-id"), None, id="another field"),
    ],
)
def test_request_id_is_taken_where_imgproxy_would_take_it(
    field: tuple[bytes, bytes], expected: bytes | None
) -> None:
    assert read([*BROWSER, field]).request_id == expected


def test_field_that_connection_takes_away_neither_passes_nor_chooses_a_flight() -> None:
    plain = read([(b"host", b"img.example")])
    taken_away = read([*BROWSER, (b"connection", b"accept")])
    assert taken_away.lines == plain.lines
    assert taken_away.sharing == plain.sharing


def test_cookies_keep_a_request_apart_only_where_imgproxy_passes_them_on() -> None:
    received = [*BROWSER, (b"cookie", b"a=1")]
    assert read(received).sharing == read(BROWSER).sharing
    assert read(received, cookie_passthrough=True).sharing is None


def test_body_is_known_by_its_announcement() -> None:
    assert not read(BROWSER).has_body
    assert read([*BROWSER, (b"content-length", b"3")]).has_body
