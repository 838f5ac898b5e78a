"""Which fields pass; what is expected is written by hand from RFC 9110."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imgproxy_cache.core.headers import (
    Headers,
    StoredFields,
    answer_headers,
    request_headers_for_upstream,
    stored_fields,
)
from tests.tapes import Tape, all_tapes

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


NAMES = st.sampled_from(
    [name for name, _ in OURS]
    + [b"host", b"connection", b"upgrade", b"te", b"trailer", b"expect", b"x-a", b"x-b", b"accept"]
    + [b"transfer-encoding", b"content-length", b"keep-alive", b"proxy-authorization", b"range"]
)
VALUES = st.one_of(
    st.binary(max_size=20),
    st.lists(NAMES, max_size=4).map(b" ,".join),
    st.lists(NAMES, max_size=4).map(lambda names: b",\t".join(names).upper()),
)
FIELDS = st.lists(st.tuples(NAMES, VALUES), max_size=12)
NEVER_PASSED_ON = {
    b"connection",
    b"keep-alive",
    b"proxy-authorization",
    b"te",
    b"trailer",
    b"transfer-encoding",
    b"upgrade",
}


def named_by_connection(headers: Headers) -> set[bytes]:
    values = b",".join(value for name, value in headers if name.lower() == b"connection")
    return {option.strip(b" \t").lower() for option in values.split(b",")} - {b"host"}


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


@given(headers=FIELDS, status=st.sampled_from([200, 204, 206, 304, 404, 502]))
def test_no_hop_by_hop_field_ever_reaches_a_client(headers: Headers, status: int) -> None:
    headers = [(name.title(), value) for name, value in headers]

    passed = answer_headers(headers, status=status, cache_status=b"c", request_id=None)

    names = {name.lower() for name, _ in passed}
    assert not NEVER_PASSED_ON & names
    assert not named_by_connection(headers) & names


def answered(headers: Headers, *, status: int = 200, request_id: bytes | None = None) -> Headers:
    return answer_headers(
        headers,
        status=status,
        cache_status=b"imgproxy-cache; fwd=uri-miss; stored",
        request_id=request_id,
    )


CACHE_STATUS = (b"Cache-Status", b"imgproxy-cache; fwd=uri-miss; stored")


def test_end_to_end_fields_of_an_answer_keep_case_order_and_number() -> None:
    fields = [
        (b"Server", b"imgproxy"),
        (b"Content-Type", b"image/jpeg"),
        (b"ETAG", b'"a"'),
        (b"Set-Cookie", b"a=1"),
        (b"set-cookie", b"b=2"),
        (b"Cache-Control", b"max-age=60"),
        (b"Content-Length", b"3"),
        (b"X-Request-Id", b"theirs"),
    ]
    assert answered(fields) == [*fields, CACHE_STATUS]


@pytest.mark.parametrize(
    "field",
    [
        (b"Connection", b"close"),
        (b"Keep-Alive", b"timeout=5"),
        (b"Proxy-Authenticate", b"Basic"),
        (b"Trailer", b"X-A"),
        (b"TRANSFER-ENCODING", b"chunked"),
        (b"Upgrade", b"h2c"),
    ],
    ids=lambda field: field[0].decode(),
)
def test_hop_by_hop_field_of_an_answer_stays_here(field: tuple[bytes, bytes]) -> None:
    assert answered([field]) == [CACHE_STATUS]


def test_field_that_the_answers_connection_names_stays_here() -> None:
    headers = [(b"X-Private", b"1"), (b"Connection", b"x-private"), (b"X-Other", b"2")]
    assert answered(headers) == [(b"X-Other", b"2"), CACHE_STATUS]


def test_cache_status_comes_behind_those_of_caches_nearer_to_the_source() -> None:
    theirs = (b"cache-status", b'"cdn"; hit')
    assert answered([theirs]) == [theirs, CACHE_STATUS]


@pytest.mark.parametrize("status", [400, 404, 429, 500, 504])
def test_error_is_not_to_be_cached_whatever_imgproxy_said(status: int) -> None:
    headers = [(b"cache-control", b"max-age=31536000, public"), (b"Content-Length", b"9")]
    assert answered(headers, status=status) == [
        (b"Content-Length", b"9"),
        (b"Cache-Control", b"no-store"),
        CACHE_STATUS,
    ]


@pytest.mark.parametrize("status", [204, 304])
def test_answer_that_has_no_body_has_no_length(status: int) -> None:
    assert answered([(b"Content-Length", b"0")], status=status) == [CACHE_STATUS]


def test_request_id_that_is_given_replaces_imgproxys() -> None:
    ours = (b"X-Request-Id", b"mine")
    assert answered([(b"X-Request-ID", b"theirs")], request_id=b"mine") == [ours, CACHE_STATUS]
    assert answered([], request_id=b"mine") == [ours, CACHE_STATUS]


@pytest.mark.parametrize("tape", all_tapes(), ids=str)
def test_recorded_answer_keeps_all_but_what_is_ours_to_change(tape: Tape) -> None:
    changed = {b"connection", b"keep-alive", b"transfer-encoding"}
    if tape.status >= 400:
        changed |= {b"cache-control"}
    if tape.status == 304:
        changed |= {b"content-length"}

    passed = answered(tape.headers, status=tape.status)

    no_store = [(b"Cache-Control", b"no-store")] if tape.status >= 400 else []
    kept = [field for field in tape.headers if field[0].lower() not in changed]
    assert passed == [*kept, *no_store, CACHE_STATUS]


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        pytest.param(
            [
                (b"CONTENT-TYPE", b"image/jpeg"),
                (b"Cache-Control", b"max-age=60, public"),
                (b"content-disposition", b'inline; filename="a.jpg"'),
                (b"ETag", b'"a"'),
            ],
            StoredFields("image/jpeg", "max-age=60, public", 'inline; filename="a.jpg"'),
            id="all three",
        ),
        pytest.param(
            [(b"Content-Type", b"image/png")], StoredFields("image/png", None, None), id="one"
        ),
        pytest.param(
            [
                (b"Content-Type", b"image/png"),
                (b"Cache-Control", b"max-age=60"),
                (b"Cache-Control", b"public"),
            ],
            StoredFields("image/png", "max-age=60, public", None),
            id="a repeated field is one list",
        ),
    ],
)
def test_three_fields_are_kept_with_an_image(headers: Headers, expected: StoredFields) -> None:
    assert stored_fields(headers) == expected
