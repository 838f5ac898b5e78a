"""Validation; what is expected is written by hand from RFC 9111 sections 3.2, 4.3.1 and 4.3.4."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given

from imgproxy_cache.core.answer_fields import AnswerFields, read_answer_fields
from imgproxy_cache.core.freshness import lifetimes
from imgproxy_cache.core.headers import Headers
from imgproxy_cache.core.hit import kept_from_answer
from imgproxy_cache.core.kept import KeptAnswer, Lifetimes
from imgproxy_cache.core.validation import (
    confirms,
    freshened,
    is_outage,
    updated_fields,
    validation_fields,
)
from tests.core.fields import FIELDS, NEVER_PASSED_ON, named_by_connection
from tests.tapes import tape

NOW = 1_700_000_000.0  # Tue, 14 Nov 2023 22:13:20 GMT
ETAG = (b"Etag", b'"source"')
MODIFIED = (b"Last-Modified", b"Wed, 21 Oct 2015 07:28:00 GMT")
CACHE_CONTROL = (b"Cache-Control", b"max-age=60, public")
TYPE = (b"Content-Type", b"image/jpeg")
OLD_DATE = (b"Date", b"Tue, 14 Nov 2023 22:12:10 GMT")
NEW_DATE = (b"Date", b"Tue, 14 Nov 2023 22:13:20 GMT")
OLD = Lifetimes(
    received_at=NOW - 70,
    age=0,
    fresh_until=NOW - 10,
    stale_while_revalidate_until=NOW - 10,
    stale_if_error_until=NOW + 50,
)
NEW = Lifetimes(
    received_at=NOW,
    age=0,
    fresh_until=NOW + 60,
    stale_while_revalidate_until=NOW + 60,
    stale_if_error_until=NOW + 120,
)
KEPT = KeptAnswer(
    name=b"plain/local:///a.jpg",
    selection=(),
    status=200,
    fields=(CACHE_CONTROL, TYPE, (b"X-A", b"1"), MODIFIED, OLD_DATE),
    body=b"image",
    content_sha256="6105d6cc76af400325e94d588ce511be5bfdbb73b437dc51eca43917d7a43e3d",
    etag=b'"source"',
    lifetimes=OLD,
)


def not_modified(*headers: tuple[bytes, bytes]) -> AnswerFields:
    return read_answer_fields(304, list(headers))


def test_both_validators_are_sent() -> None:
    assert validation_fields(KEPT) == [
        (b"if-none-match", b'"source"'),
        (b"if-modified-since", b"Wed, 21 Oct 2015 07:28:00 GMT"),
    ]


@pytest.mark.parametrize(
    ("kept", "expected"),
    [
        pytest.param(
            replace(KEPT, etag=b'W/"source"', fields=(TYPE,)),
            [(b"if-none-match", b'W/"source"')],
            id="a weak tag alone",
        ),
        pytest.param(
            replace(KEPT, etag=None, fields=((b"last-modified", b"foo"),)),
            [(b"if-modified-since", b"foo")],
            id="a date alone, as it came",
        ),
        pytest.param(replace(KEPT, etag=None, fields=(TYPE, OLD_DATE)), [], id="nothing"),
        pytest.param(
            replace(KEPT, etag=None, fields=(MODIFIED, MODIFIED)), [], id="two dates are none"
        ),
    ],
)
def test_only_validators_that_came_are_sent(kept: KeptAnswer, expected: Headers) -> None:
    assert validation_fields(kept) == expected


VARYING = replace(KEPT, fields=(*KEPT.fields, (b"Vary", b"Accept")))


@pytest.mark.parametrize(
    ("kept", "headers", "expected"),
    [
        pytest.param(KEPT, [ETAG], True, id="the tag"),
        pytest.param(KEPT, [(b"ETag", b'W/"source"')], True, id="the tag, weakened"),
        pytest.param(KEPT, [(b"ETag", b'"other"')], False, id="another tag"),
        pytest.param(KEPT, [(b"ETag", b'"other"'), MODIFIED], False, id="another tag, same date"),
        pytest.param(
            KEPT,
            [ETAG, (b"Last-Modified", b"Wed, 21 Oct 2015 07:28:01 GMT")],
            True,
            id="the tag, another date",
        ),
        pytest.param(replace(KEPT, etag=None), [ETAG], False, id="a tag where there was none"),
        pytest.param(KEPT, [MODIFIED], True, id="the date"),
        pytest.param(
            KEPT,
            [(b"Last-Modified", b"Wed, 21 Oct 2015 07:28:01 GMT")],
            False,
            id="another date",
        ),
        pytest.param(
            replace(KEPT, fields=(TYPE,)), [MODIFIED], False, id="a date where there was none"
        ),
        pytest.param(KEPT, [], True, id="no validator, as 3.30 answers"),
        pytest.param(VARYING, [ETAG, (b"vary", b"ACCEPT")], True, id="varies by the same"),
        pytest.param(VARYING, [ETAG], True, id="does not repeat by what it varies"),
        pytest.param(KEPT, [ETAG, (b"Vary", b"Accept")], False, id="varies by now"),
        pytest.param(VARYING, [ETAG, (b"Vary", b"DPR")], False, id="varies by something else"),
        pytest.param(VARYING, [ETAG, (b"Vary", b"*")], False, id="varies by anything"),
        pytest.param(
            replace(KEPT, fields=((b"Vary", b"DPR"), (b"Vary", b"Width"))),
            [ETAG, (b"Vary", b"Width, DPR")],
            True,
            id="varied by two fields, in two lines",
        ),
        pytest.param(
            replace(KEPT, fields=((b"Vary", b"DPR, Width"),)),
            [ETAG, (b"Vary", b"DPR"), (b"Vary", b"Width")],
            True,
            id="varies by two fields, in two lines",
        ),
        pytest.param(KEPT, [ETAG, (b"Vary", b"Accept-Encoding")], True, id="varies by nothing"),
    ],
)
def test_304_confirms_what_it_is_about(kept: KeptAnswer, headers: Headers, expected: bool) -> None:
    assert confirms(kept, not_modified(*headers)) is expected


def test_304_changes_the_fields_that_it_has_and_no_other() -> None:
    answer = not_modified(
        (b"cache-control", b"max-age=3600"),
        (b"X-B", b"2"),
        (b"X-B", b"3"),
        (b"ETag", b'W/"source"'),
        NEW_DATE,
    )
    assert freshened(KEPT, answer, NEW) == replace(
        KEPT,
        fields=(
            TYPE,
            (b"X-A", b"1"),
            MODIFIED,
            (b"cache-control", b"max-age=3600"),
            (b"X-B", b"2"),
            (b"X-B", b"3"),
            NEW_DATE,
        ),
        etag=b'W/"source"',
        lifetimes=NEW,
    )


@pytest.mark.parametrize(
    "field",
    [
        (b"Content-Type", b"text/html"),
        (b"Content-Length", b"10"),
        (b"content-encoding", b"gzip"),
        (b"Content-Range", b"bytes 0-1/2"),
        (b"Set-Cookie", b"a=b"),
        (b"X-Request-Id", b"theirs"),
        (b"Age", b"5"),
        (b"Accept-Ranges", b"none"),
        (b"Connection", b"x-a"),
        (b"Proxy-Authenticate", b"Basic"),
    ],
    ids=lambda field: field[0].decode(),
)
def test_304_changes_nothing_about_the_body_and_brings_nothing_of_one_client(
    field: tuple[bytes, bytes],
) -> None:
    kept = freshened(KEPT, not_modified(field, NEW_DATE), NEW)
    assert kept == replace(KEPT, fields=(*KEPT.fields[:-1], NEW_DATE), lifetimes=NEW)


@pytest.mark.parametrize(
    "name",
    [b"Content-Foo", b"Content-Security-Policy", b"Expires", b"X-Frame-Options", b"Content-MD5"],
    ids=bytes.decode,
)
def test_304_changes_any_other_field(name: bytes) -> None:
    kept = replace(KEPT, fields=((name, b"old"), NEW_DATE))
    answer = not_modified((name.lower(), b"new"), NEW_DATE)
    assert freshened(kept, answer, NEW).fields == ((name.lower(), b"new"), NEW_DATE)


def test_304_without_a_date_is_of_its_arrival() -> None:
    assert freshened(KEPT, not_modified(ETAG), NEW).fields == (*KEPT.fields[:-1], NEW_DATE)


@pytest.mark.parametrize(
    ("headers", "fresh_until"),
    [
        pytest.param([NEW_DATE], NOW + 60, id="as long as before"),
        pytest.param([(b"Cache-Control", b"max-age=10")], NOW + 10, id="as it says"),
        pytest.param([(b"Age", b"20")], NOW + 40, id="less its age"),
        pytest.param([(b"Cache-Control", b"no-store")], None, id="no longer to be kept"),
        pytest.param([(b"Cache-Control", b"no-cache")], None, id="to be asked for every time"),
        pytest.param([(b"Cache-Control", b"max-age=0")], None, id="not fresh again"),
        pytest.param(
            [(b"Cache-Control", b"public"), (b"Cache-Control", b"max-age=10")],
            NOW + 10,
            id="as it says in two lines",
        ),
    ],
)
def test_304_says_how_long_what_is_kept_is_fresh_again(
    headers: Headers, fresh_until: float | None
) -> None:
    read = lifetimes(
        updated_fields(KEPT, not_modified(*headers), NOW),
        NOW,
        stale_while_revalidate_seconds=0,
        stale_if_error_seconds=0,
    )
    assert (read and read.fresh_until) == fresh_until


@pytest.mark.parametrize(
    ("headers", "left"),
    [
        pytest.param([NEW_DATE], None, id="by the new Date"),
        pytest.param([], None, id="by the date of its arrival"),
        pytest.param(
            [NEW_DATE, (b"Expires", b"Tue, 14 Nov 2023 22:13:30 GMT")], 10, id="by the new Expires"
        ),
    ],
)
def test_expires_is_counted_anew(headers: Headers, left: float | None) -> None:
    expired = (b"Expires", b"Tue, 14 Nov 2023 22:13:10 GMT")
    kept = replace(KEPT, fields=(TYPE, expired, OLD_DATE))
    read = lifetimes(
        updated_fields(kept, not_modified(*headers), NOW),
        NOW,
        stale_while_revalidate_seconds=0,
        stale_if_error_seconds=0,
    )
    assert (read and read.fresh_until - NOW) == left


def test_recorded_304_confirms_the_recorded_200_and_freshens_it() -> None:
    image, answer = tape("etag-http", "4.0.12"), tape("source-etag-304", "4.0.12")
    kept = kept_from_answer(
        name=KEPT.name,
        selection=(),
        status=200,
        fields=read_answer_fields(200, image.headers),
        body=image.body,
        content_sha256=KEPT.content_sha256,
        lifetimes=OLD,
    )
    fields = read_answer_fields(answer.status, answer.headers)
    asked = {name: value for name, value in answer.request_headers if name == b"if-none-match"}

    assert dict(validation_fields(kept)) == asked | {
        b"if-modified-since": b"Wed, 21 Oct 2015 07:28:00 GMT"
    }
    assert confirms(kept, fields)
    assert dict(freshened(kept, fields, NEW).fields) == {
        **dict(kept.fields),
        b"Date": dict(answer.headers)[b"Date"],
    }


@given(headers=FIELDS)
def test_no_hop_by_hop_field_of_a_304_is_kept(headers: Headers) -> None:
    headers = [(name.title(), value) for name, value in headers]
    kept = freshened(replace(KEPT, fields=()), not_modified(*headers), NEW)
    names = {name.lower() for name, _ in kept.fields} - {b"date"}
    assert not NEVER_PASSED_ON & names
    assert not named_by_connection(headers) & names


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (200, False),
        (304, False),
        (400, False),
        (403, False),
        (404, False),
        (422, False),
        (429, True),
        (500, True),
        (501, False),
        (502, True),
        (503, True),
        (504, True),
        (505, False),
    ],
)
def test_outage_is_what_stale_images_may_stand_in_for(status: int, expected: bool) -> None:
    assert is_outage(status) is expected
