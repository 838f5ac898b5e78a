"""Which fields pass; what is expected is written by hand from RFC 9110."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imgproxy_cache.core.headers import Headers, request_headers_for_upstream
from tests.core.fields import FIELDS, NEVER_PASSED_ON, named_by_connection

OURS: Headers = [
    (b"accept-encoding", b"identity"),
    (b"x-forwarded-for", b"203.0.113.7"),
    (b"x-forwarded-proto", b"http"),
    (b"x-forwarded-host", b"img.example"),
]
HOST = (b"host", b"img.example")


def sent(
    headers: Headers, *, peer_is_trusted: bool = False, keep_accept_encoding: bool = False
) -> Headers:
    return request_headers_for_upstream(
        headers,
        client_ip=b"203.0.113.7",
        scheme=b"http",
        peer_is_trusted=peer_is_trusted,
        keep_accept_encoding=keep_accept_encoding,
    )


@pytest.mark.parametrize(
    "field",
    [
        (b"accept", b"image/webp,*/*"),
        (b"authorization", b"Bearer s3cret"),
        (b"cookie", b"a=b"),
        (b"range", b"bytes=0-9"),
        (b"if-none-match", b'"x"'),
        (b"x-request-id", b"my-id-1"),
        (b"forwarded", b"for=192.0.2.1"),
        (b"x-custom", b"\xe4 bytes as they came"),
    ],
    ids=lambda field: field[0].decode(),
)
def test_end_to_end_field_reaches_imgproxy_as_it_came(field: tuple[bytes, bytes]) -> None:
    assert sent([HOST, field]) == [HOST, field, *OURS]


@pytest.mark.parametrize(
    "name",
    [
        b"connection",
        b"content-length",
        b"expect",
        b"http2-settings",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    ],
    ids=bytes.decode,
)
def test_hop_by_hop_field_and_those_about_a_body_stay_here(name: bytes) -> None:
    assert sent([HOST, (name, b"1")]) == [HOST, *OURS]


def test_repeated_fields_stay_apart_and_in_order() -> None:
    repeated = [(b"accept", b"image/webp"), (b"x-a", b"1"), (b"accept", b"*/*")]
    assert sent([HOST, *repeated]) == [HOST, *repeated, *OURS]


def test_field_that_connection_names_stays_here_wherever_it_stands() -> None:
    headers = [
        (b"x-before", b"1"),
        HOST,
        (b"connection", b"close, X-Before ,"),
        (b"connection", b"X-After"),
        (b"x-after", b"2"),
        (b"x-other", b"3"),
    ]
    assert sent(headers) == [HOST, (b"x-other", b"3"), *OURS]


def test_connection_cannot_take_the_host_away() -> None:
    assert sent([(b"connection", b"host"), HOST]) == [HOST, *OURS]


def test_accept_encoding_is_identity_so_that_the_body_is_the_image() -> None:
    assert sent([(b"accept-encoding", b"gzip, br"), HOST]) == [HOST, *OURS]


def test_accept_encoding_passes_where_it_is_kept() -> None:
    field = (b"accept-encoding", b"gzip, br")
    assert sent([field, HOST], keep_accept_encoding=True) == [field, HOST, *OURS[1:]]
    assert sent([HOST], keep_accept_encoding=True) == [HOST, *OURS[1:]]


FORGED = [
    (b"x-forwarded-for", b"192.0.2.1"),
    (b"x-forwarded-for", b"192.0.2.2, 192.0.2.3"),
    (b"x-forwarded-proto", b"https"),
    (b"x-forwarded-host", b"other.example"),
    (b"x-forwarded-port", b"444"),
]


def test_forwarded_fields_of_anybody_are_replaced() -> None:
    assert sent([HOST, *FORGED]) == [HOST, *OURS]


def test_forwarded_fields_of_a_trusted_peer_are_extended() -> None:
    assert sent([HOST, *FORGED], peer_is_trusted=True) == [
        HOST,
        OURS[0],
        (b"x-forwarded-for", b"192.0.2.1, 192.0.2.2, 192.0.2.3, 203.0.113.7"),
        (b"x-forwarded-proto", b"https"),
        (b"x-forwarded-host", b"other.example"),
        (b"x-forwarded-port", b"444"),
    ]


def test_what_a_trusted_peer_does_not_say_we_say() -> None:
    assert sent([HOST], peer_is_trusted=True) == [HOST, *OURS]
    assert sent([HOST, (b"x-forwarded-proto", b"https")], peer_is_trusted=True) == [
        HOST,
        OURS[0],
        (b"x-forwarded-proto", b"https"),
        (b"x-forwarded-for", b"203.0.113.7"),
        (b"x-forwarded-host", b"img.example"),
    ]


@given(headers=FIELDS, peer_is_trusted=st.booleans(), keep=st.booleans())
def test_no_hop_by_hop_field_ever_reaches_imgproxy(
    headers: Headers, peer_is_trusted: bool, keep: bool
) -> None:
    passed = sent(headers, peer_is_trusted=peer_is_trusted, keep_accept_encoding=keep)

    names = [name for name, _ in passed]
    assert not NEVER_PASSED_ON & set(names)
    assert not {b"content-length", b"expect"} & set(names)
    for name in (b"x-forwarded-for", b"x-forwarded-proto", b"x-forwarded-host"):
        assert names.count(name) == 1
    ours = {name for name, _ in OURS}
    assert not named_by_connection(headers) & (set(names) - ours)
