"""What an answer's fields come to; what is expected is written by hand from RFC 9110."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imgproxy_cache.core.answer_fields import (
    StoredFields,
    answer_headers,
    read_answer_fields,
    stored_fields,
)
from imgproxy_cache.core.headers import Headers
from tests.core.fields import FIELDS, NEVER_PASSED_ON, named_by_connection
from tests.tapes import Tape, all_tapes


@given(headers=FIELDS, status=st.sampled_from([200, 204, 206, 304, 404, 502]))
def test_no_hop_by_hop_field_ever_reaches_a_client(headers: Headers, status: int) -> None:
    headers = [(name.title(), value) for name, value in headers]

    passed = answered(headers, status=status)

    names = {name.lower() for name, _ in passed}
    assert not NEVER_PASSED_ON & names
    assert not named_by_connection(headers) & names


def answered(headers: Headers, *, status: int = 200, request_id: bytes | None = None) -> Headers:
    return answer_headers(
        read_answer_fields(status, headers),
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


def test_cookies_are_set_for_the_client_that_asked_first_alone() -> None:
    cookie = (b"Set-Cookie", b"session=1")
    assert answered([cookie]) == [cookie, CACHE_STATUS]
    assert cookie not in answered([cookie], request_id=b"mine")


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
    assert stored_fields(read_answer_fields(200, headers)) == expected


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        pytest.param([(b"CONTENT-length", b"30000")], 30000, id="said"),
        pytest.param([], None, id="not said"),
        pytest.param([(b"Content-Length", b"many")], None, id="no number"),
    ],
)
def test_length_of_a_body_is_what_is_declared(headers: Headers, expected: int | None) -> None:
    assert read_answer_fields(200, headers).content_length == expected


@pytest.mark.parametrize("status", [204, 304])
def test_length_of_a_body_that_cannot_be_is_zero(status: int) -> None:
    assert read_answer_fields(status, [(b"Content-Length", b"30000")]).content_length == 0
