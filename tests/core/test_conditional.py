"""Conditions and ranges; what is expected is written by hand from RFC 9110 and 9111."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imgproxy_cache.core.conditional import Reply, reply
from imgproxy_cache.core.headers import Headers
from imgproxy_cache.core.hit import lasting_fields
from imgproxy_cache.core.kept import KeptAnswer, Lifetimes

NOW = 1_700_000_000.0  # Tue, 14 Nov 2023 22:13:20 GMT
BODY = b"0123456789"
# printf 0123456789 | sha256sum
SHA256 = "84d89877f0d4041efb6bf91a16f0248f2fd573e6af05c19f96bedb9f882f7882"
OURS = b'"84d89877f0d4041efb6bf91a16f0248f"'
MODIFIED = b"Wed, 21 Oct 2015 07:28:00 GMT"
A_SECOND_LATER = b"Wed, 21 Oct 2015 07:28:01 GMT"
A_SECOND_EARLIER = b"Wed, 21 Oct 2015 07:27:59 GMT"
MADE = b"Tue, 14 Nov 2023 22:13:10 GMT"
ORIGIN = (b"Access-Control-Allow-Origin", b"*")
UPSTREAM = (b"Cache-Status", b'"cdn"; hit')
KEPT = KeptAnswer(
    name=b"plain/local:///a.jpg",
    selection=(),
    status=200,
    fields=(
        ORIGIN,
        (b"Cache-Control", b"max-age=3600"),
        (b"Content-Disposition", b'inline; filename="a.jpg"'),
        (b"Content-Location", b"/a.jpg"),
        (b"Content-Security-Policy", b"script-src 'none'"),
        (b"Content-Type", b"image/jpeg"),
        (b"Expires", b"Tue, 14 Nov 2023 23:13:10 GMT"),
        (b"Last-Modified", MODIFIED),
        (b"Server", b"imgproxy"),
        (b"Vary", b"Accept"),
        UPSTREAM,
        (b"Date", MADE),
    ),
    body=BODY,
    content_sha256=SHA256,
    etag=b'"source"',
    lifetimes=Lifetimes(
        received_at=NOW - 10,
        age=0,
        fresh_until=NOW + 3590,
        stale_while_revalidate_until=NOW + 3590,
        stale_if_error_until=NOW + 3590,
    ),
)
AGE = (b"Age", b"10")
HIT = b"imgproxy-cache; hit; ttl=3590; detail=memory"
CACHE_STATUS = (b"Cache-Status", HIT)
BROWSER: Headers = [(b"host", b"img.example"), (b"accept", b"image/webp,*/*")]


def replied(kept: KeptAnswer = KEPT, method: str = "GET", **asked: Any) -> Reply:
    """To a request with these fields, `_` for `-`."""
    fields = [(name.replace("_", "-").encode(), value) for name, value in asked.items()]
    return reply(kept, BROWSER + fields, method=method, now=NOW, cache_status=HIT)


def without(name: bytes, kept: KeptAnswer = KEPT) -> KeptAnswer:
    return replace(kept, fields=tuple(field for field in kept.fields if field[0] != name))


def dated(name: bytes, value: bytes, kept: KeptAnswer = KEPT) -> KeptAnswer:
    return replace(kept, fields=(*without(name, kept).fields, (name, value)))


# whole values


def test_plain_request_gets_the_whole_as_a_hit() -> None:
    fields = [*lasting_fields(KEPT), AGE, CACHE_STATUS]
    assert replied() == Reply(200, fields, 0, 10)
    assert replied(method="HEAD") == Reply(200, fields, 0, 0)


def test_part_has_the_fields_of_the_whole_and_its_place() -> None:
    assert replied(range=b"bytes=2-4") == Reply(
        206,
        [
            *KEPT.fields,
            (b"Content-Length", b"3"),
            (b"ETag", OURS),
            (b"Accept-Ranges", b"bytes"),
            (b"Content-Range", b"bytes 2-4/10"),
            AGE,
            CACHE_STATUS,
        ],
        2,
        5,
    )


def test_not_modified_has_what_a_cache_updates_by_and_nothing_about_the_body() -> None:
    expected = Reply(
        304,
        [
            ORIGIN,
            (b"Cache-Control", b"max-age=3600"),
            (b"Content-Location", b"/a.jpg"),
            (b"Expires", b"Tue, 14 Nov 2023 23:13:10 GMT"),
            (b"Vary", b"Accept"),
            UPSTREAM,
            (b"Date", MADE),
            (b"ETag", OURS),
            AGE,
            CACHE_STATUS,
        ],
        0,
        0,
    )
    assert replied(if_none_match=OURS) == expected
    assert replied(method="HEAD", if_none_match=OURS) == expected


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_failed_precondition_is_an_answer_of_our_own(method: str) -> None:
    assert replied(method=method, if_match=b'"other"') == Reply(
        412,
        [
            ORIGIN,
            (b"Vary", b"Accept"),
            UPSTREAM,
            (b"Content-Length", b"0"),
            (b"Cache-Control", b"no-store"),
            (b"Date", b"Tue, 14 Nov 2023 22:13:20 GMT"),
            CACHE_STATUS,
        ],
        0,
        0,
    )


def test_range_behind_the_end_is_told_where_that_is() -> None:
    assert replied(range=b"bytes=10-") == Reply(
        416,
        [
            ORIGIN,
            (b"Vary", b"Accept"),
            UPSTREAM,
            (b"Content-Length", b"0"),
            (b"Cache-Control", b"no-store"),
            (b"Date", b"Tue, 14 Nov 2023 22:13:20 GMT"),
            (b"Content-Range", b"bytes */10"),
            CACHE_STATUS,
        ],
        0,
        0,
    )


@pytest.mark.parametrize(
    "asked",
    [
        pytest.param({}, id="whole"),
        pytest.param({"range": b"bytes=0-0"}, id="part"),
        pytest.param({"if_none_match": b"*"}, id="not modified"),
        pytest.param({"if_match": b'"x"'}, id="precondition failed"),
        pytest.param({"range": b"bytes=99-"}, id="range not satisfiable"),
    ],
)
def test_every_answer_has_the_clients_request_id_and_says_how_it_was_come_by(
    asked: dict[str, bytes],
) -> None:
    fields = [(name.replace("_", "-").encode(), value) for name, value in asked.items()]
    answer = reply(KEPT, fields, method="GET", now=NOW, cache_status=HIT, request_id=b"my-id")
    assert answer.fields[-2:] == [
        (b"X-Request-Id", b"my-id"),
        CACHE_STATUS,
    ]


@pytest.mark.parametrize(
    "asked",
    [
        pytest.param([], id="whole"),
        pytest.param([(b"range", b"bytes=-3")], id="part"),
        pytest.param([(b"range", b"bytes=10-")], id="range not satisfiable"),
        pytest.param([(b"if-none-match", OURS)], id="not modified"),
    ],
)
def test_body_that_is_elsewhere_is_answered_by_its_size(asked: Headers) -> None:
    given: dict[str, Any] = {"method": "GET", "now": NOW, "cache_status": HIT}
    head = replace(KEPT, body=b"")
    assert reply(head, asked, size=10, **given) == reply(KEPT, asked, **given)


# If-None-Match, If-Match


@pytest.mark.parametrize(
    ("value", "weakly", "strongly"),
    [
        pytest.param(OURS, True, True, id="ours"),
        pytest.param(b"W/" + OURS, True, False, id="ours, weakened on the way"),
        pytest.param(b"*", True, True, id="any"),
        pytest.param(b'"1234", ' + OURS + b', "5678"', True, True, id="in a list"),
        pytest.param(b',, "1234" ,\t' + OURS + b" ,", True, True, id="in a list, said oddly"),
        pytest.param(b"W/" + OURS + b", " + OURS, True, True, id="weakened, and as it was"),
        pytest.param(b'"a,b", W/' + OURS, True, False, id="behind a comma in a tag"),
        pytest.param(b'"other"', False, False, id="another"),
        pytest.param(b'"source"', False, False, id="imgproxy's"),
        pytest.param(OURS[1:-1], False, False, id="without quotes"),
        pytest.param(OURS.upper(), False, False, id="in capitals"),
        pytest.param(OURS[:-2] + b'"', False, False, id="a part of it"),
        pytest.param(b'"x' + OURS[1:], False, False, id="the end of another"),
        pytest.param(b"", False, False, id="nothing"),
        pytest.param(b'"*"', False, False, id="a star in quotes"),
        pytest.param(b'*, "other"', False, False, id="a star in a list"),
        pytest.param(b"W/", False, False, id="no tag"),
    ],
)
def test_entity_tags_are_compared_weakly_for_a_304_and_strongly_for_a_412(
    value: bytes, weakly: bool, strongly: bool
) -> None:
    assert replied(if_none_match=value).status == (304 if weakly else 200)
    assert replied(if_match=value).status == (200 if strongly else 412)


@pytest.mark.parametrize("name", [b"if-none-match", b"if-match"], ids=bytes.decode)
def test_several_lines_are_one_list(name: bytes) -> None:
    lines = [(name, b'"1234"'), (b"x-other", b""), (name, OURS)]
    status = reply(KEPT, lines, method="GET", now=NOW, cache_status=HIT).status
    assert status == (304 if name == b"if-none-match" else 200)


# If-Modified-Since, If-Unmodified-Since

NOT_DATES = [
    pytest.param(b"", id="nothing"),
    pytest.param(b"0", id="a number"),
    pytest.param(b"yesterday", id="no date"),
    pytest.param(MODIFIED.replace(b"GMT", b"UTC"), id="not in GMT"),
    pytest.param(MODIFIED + b", " + MODIFIED, id="two dates"),
    pytest.param(b"9" * 5000, id="no end of digits"),
]


@pytest.mark.parametrize(
    ("value", "status"),
    [
        pytest.param(MODIFIED, 304, id="when it was modified"),
        pytest.param(A_SECOND_LATER, 304, id="a second later"),
        pytest.param(A_SECOND_EARLIER, 200, id="a second earlier"),
        pytest.param(b"Wednesday, 21-Oct-15 07:28:00 GMT", 304, id="as in RFC 850"),
        pytest.param(b"Wed Oct 21 07:28:00 2015", 304, id="as asctime()"),
        pytest.param(b"Fri, 31 Dec 9999 23:59:59 GMT", 304, id="in the future"),
    ],
)
def test_image_is_not_modified_since_a_date_that_is_not_before_its_last_modified(
    value: bytes, status: int
) -> None:
    assert replied(if_modified_since=value).status == status
    assert replied(method="HEAD", if_modified_since=value).status == status
    assert replied(if_modified_since=b" " + value + b"\t").status == status


@pytest.mark.parametrize("value", NOT_DATES)
def test_no_date_is_no_condition(value: bytes) -> None:
    assert replied(if_modified_since=value).status == 200
    assert replied(if_unmodified_since=value).status == 200


@pytest.mark.parametrize(
    ("kept", "since", "status"),
    [
        pytest.param(without(b"Last-Modified"), MADE, 304, id="Date in the place of none"),
        pytest.param(
            without(b"Last-Modified"), b"Tue, 14 Nov 2023 22:13:09 GMT", 200, id="before Date"
        ),
        pytest.param(
            dated(b"Date", A_SECOND_LATER, without(b"Last-Modified")),
            A_SECOND_LATER,
            304,
            id="Date long before it arrived",
        ),
        pytest.param(dated(b"Last-Modified", b"foo"), MADE, 304, id="of one that is no date"),
        pytest.param(
            without(b"Date", without(b"Last-Modified")),
            b"Tue, 14 Nov 2023 22:13:10 GMT",
            304,
            id="arrival in the place of both",
        ),
        pytest.param(
            without(b"Date", without(b"Last-Modified")),
            b"Tue, 14 Nov 2023 22:13:09 GMT",
            200,
            id="before it arrived",
        ),
    ],
)
def test_image_without_last_modified_was_modified_when_it_was_made(
    kept: KeptAnswer, since: bytes, status: int
) -> None:
    assert replied(kept, if_modified_since=since).status == status


@pytest.mark.parametrize(
    ("kept", "value", "status"),
    [
        pytest.param(KEPT, MODIFIED, 200, id="when it was modified"),
        pytest.param(KEPT, A_SECOND_LATER, 200, id="a second later"),
        pytest.param(KEPT, A_SECOND_EARLIER, 412, id="a second earlier"),
        pytest.param(without(b"Last-Modified"), A_SECOND_EARLIER, 200, id="no Last-Modified"),
        pytest.param(dated(b"Last-Modified", b"foo"), A_SECOND_EARLIER, 200, id="that is no date"),
    ],
)
def test_precondition_fails_for_an_image_modified_since(
    kept: KeptAnswer, value: bytes, status: int
) -> None:
    assert replied(kept, if_unmodified_since=value).status == status


# RFC 9110 section 13.2.2


@pytest.mark.parametrize(
    ("asked", "status"),
    [
        pytest.param(
            {"if_match": OURS, "if_unmodified_since": A_SECOND_EARLIER},
            200,
            id="If-Match before If-Unmodified-Since",
        ),
        pytest.param({"if_match": b'"x"', "if_none_match": OURS}, 412, id="If-Match first"),
        pytest.param({"if_match": OURS, "if_none_match": OURS}, 304, id="then If-None-Match"),
        pytest.param(
            {"if_unmodified_since": A_SECOND_EARLIER, "if_none_match": OURS},
            412,
            id="If-Unmodified-Since first",
        ),
        pytest.param(
            {"if_unmodified_since": MODIFIED, "if_modified_since": MODIFIED},
            304,
            id="then If-Modified-Since",
        ),
        pytest.param(
            {"if_none_match": b'"x"', "if_modified_since": MODIFIED},
            200,
            id="If-None-Match before If-Modified-Since",
        ),
        pytest.param(
            {"if_none_match": OURS, "if_modified_since": A_SECOND_EARLIER},
            304,
            id="If-None-Match before If-Modified-Since, the other way",
        ),
        pytest.param({"if_none_match": OURS, "range": b"bytes=0-1"}, 304, id="304 before a part"),
        pytest.param({"if_match": b'"x"', "range": b"bytes=0-1"}, 412, id="412 before a part"),
        pytest.param({"if_match": OURS, "range": b"bytes=0-1"}, 206, id="a part of what matches"),
        pytest.param(
            {"if_none_match": b'"x"', "range": b"bytes=99-"}, 416, id="no part of what is new"
        ),
        pytest.param(
            {"if_none_match": OURS, "if_range": b'"x"', "range": b"bytes=0-1"},
            304,
            id="304 before If-Range",
        ),
    ],
)
def test_conditions_have_an_order(asked: dict[str, Any], status: int) -> None:
    assert replied(**asked).status == status


@pytest.mark.parametrize("status", [404, 301])
def test_conditions_are_of_what_would_be_a_success(status: int) -> None:
    kept = replace(KEPT, status=status)
    asked: dict[str, Any] = {"if_none_match": b"*", "if_match": b'"x"', "range": b"bytes=0-1"}
    assert replied(kept, **asked) == replied(kept)
    assert replied(kept).status == status


# Range


@pytest.mark.parametrize(
    ("value", "body", "content_range"),
    [
        (b"bytes=0-0", b"0", b"bytes 0-0/10"),
        (b"bytes=0-9", BODY, b"bytes 0-9/10"),
        (b"bytes=0-", BODY, b"bytes 0-9/10"),
        (b"bytes=9-", b"9", b"bytes 9-9/10"),
        (b"bytes=3-99", b"3456789", b"bytes 3-9/10"),
        (b"bytes=9-9", b"9", b"bytes 9-9/10"),
        (b"bytes=-1", b"9", b"bytes 9-9/10"),
        (b"bytes=-10", BODY, b"bytes 0-9/10"),
        (b"bytes=-11", BODY, b"bytes 0-9/10"),
        (b"BYTES=0-1", b"01", b"bytes 0-1/10"),
        (b" bytes=0-1\t", b"01", b"bytes 0-1/10"),
        (b"bytes=,0-1 ,\t,", b"01", b"bytes 0-1/10"),
        (b"bytes=007-0008", b"78", b"bytes 7-8/10"),
        (b"bytes=3-" + b"9" * 10_000, b"3456789", b"bytes 3-9/10"),
        (b"bytes=-" + b"9" * 10_000, BODY, b"bytes 0-9/10"),
        (b"bytes=" + b"0" * 10_000 + b"7-8", b"78", b"bytes 7-8/10"),
    ],
    ids=lambda value: repr(value)[:20],
)
def test_part_is_given(value: bytes, body: bytes, content_range: bytes) -> None:
    answer = replied(range=value)
    assert answer.status == 206
    assert BODY[answer.start : answer.end] == body
    assert (b"Content-Range", content_range) in answer.fields
    assert (b"Content-Length", b"%d" % len(body)) in answer.fields


@pytest.mark.parametrize(
    "value",
    [
        b"bytes=10-",
        b"bytes=10-10",
        b"bytes=99-100",
        b"bytes=-0",
        b"bytes=-" + b"0" * 10_000,
        b"bytes=" + b"9" * 10_000 + b"-",
    ],
    ids=lambda value: repr(value)[:20],
)
def test_part_without_a_byte_cannot_be_given(value: bytes) -> None:
    assert replied(range=value).status == 416


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"bytes",
        b"bytes=",
        b"bytes=,",
        b"bytes=-",
        b"bytes=a-b",
        b"bytes=0",
        b"bytes=0-1-2",
        b"bytes=--1",
        b"bytes=+1-2",
        b"bytes=1 -2",
        b"bytes=0x1-0x2",
        b"bytes=1-0",
        b"bytes=\xb2-",
        b"bytes:0-1",
        b"bytes =0-1",
        b"bits=0-1",
        b"=0-1",
        b"0-1",
        b"bytes=0-1=2",
        b"bytes=0-0,2-3",
        b"bytes=0-0, 99-",
        b"bytes=" + b"0-0," * 10_000 + b"0-0",
    ],
    ids=lambda value: repr(value)[:30],
)
def test_range_that_is_none_or_more_than_one_is_answered_with_the_whole(value: bytes) -> None:
    assert replied(range=value) == replied()


def test_two_lines_of_range_are_answered_with_the_whole() -> None:
    lines = [(b"range", b"bytes=0-0"), (b"range", b"bytes=1-1")]
    assert reply(KEPT, lines, method="GET", now=NOW, cache_status=HIT) == replied()


@pytest.mark.parametrize("value", [b"bytes=0-1", b"bytes=99-"], ids=repr)
def test_head_has_no_parts(value: bytes) -> None:
    assert replied(method="HEAD", range=value) == replied(method="HEAD")


# If-Range


@pytest.mark.parametrize(
    ("kept", "value", "status"),
    [
        pytest.param(KEPT, OURS, 206, id="our tag"),
        pytest.param(KEPT, b" " + OURS + b" ", 206, id="our tag and white space"),
        pytest.param(KEPT, b"W/" + OURS, 200, id="our tag, weakened"),
        pytest.param(KEPT, b'"other"', 200, id="another tag"),
        pytest.param(KEPT, b'"source"', 200, id="imgproxy's tag"),
        pytest.param(KEPT, b"*", 200, id="a star is no tag here"),
        pytest.param(KEPT, OURS + b', "other"', 200, id="a list is no tag"),
        pytest.param(KEPT, OURS[1:-1], 200, id="no quotes"),
        pytest.param(KEPT, b"", 200, id="nothing"),
        pytest.param(KEPT, MODIFIED, 206, id="the date"),
        pytest.param(KEPT, b"Wednesday, 21-Oct-15 07:28:00 GMT", 206, id="the date, otherwise"),
        pytest.param(KEPT, A_SECOND_LATER, 200, id="a later date"),
        pytest.param(KEPT, A_SECOND_EARLIER, 200, id="an earlier date"),
        pytest.param(KEPT, b"yesterday", 200, id="no date"),
        pytest.param(without(b"Last-Modified"), MADE, 200, id="no Last-Modified"),
        pytest.param(dated(b"Date", A_SECOND_LATER), MODIFIED, 206, id="made a second later"),
        pytest.param(dated(b"Date", MODIFIED), MODIFIED, 200, id="made in the same second"),
        pytest.param(without(b"Date"), MODIFIED, 200, id="made nobody knows when"),
        pytest.param(
            replace(KEPT, selection=((b"accept", b"3"),)), MODIFIED, 200, id="a variant's date"
        ),
        pytest.param(
            replace(KEPT, selection=((b"accept", b"3"),)), OURS, 206, id="a variant's own tag"
        ),
    ],
)
def test_part_is_given_only_of_the_very_image_that_the_client_has(
    kept: KeptAnswer, value: bytes, status: int
) -> None:
    answer = replied(kept, range=b"bytes=2-4", if_range=value)
    assert answer.status == status
    assert (answer.start, answer.end) == ((2, 5) if status == 206 else (0, 10))


def test_if_range_without_range_means_nothing() -> None:
    assert replied(if_range=b'"other"') == replied()


def test_range_that_cannot_be_given_is_refused_of_the_very_image() -> None:
    assert replied(range=b"bytes=10-", if_range=OURS).status == 416
    assert replied(range=b"bytes=10-", if_range=b'"other"').status == 200


# anything

NUMBERS = st.one_of(st.integers(0, 12), st.just(10**30)).map(str)
RANGES = st.one_of(
    st.binary(max_size=30),
    st.lists(st.builds("{}-{}".format, NUMBERS | st.just(""), NUMBERS | st.just("")), max_size=3)
    .map(",".join)
    .map(lambda ranges: b"bytes=" + ranges.encode()),
)
TAGS = st.sampled_from([OURS, b"W/" + OURS, b'"x"', b"*", MODIFIED, A_SECOND_EARLIER, b""])
ASKED = st.fixed_dictionaries(
    {},
    optional={
        b"range": RANGES,
        b"if-range": TAGS | st.binary(max_size=10),
        b"if-none-match": TAGS | st.binary(max_size=10),
        b"if-match": TAGS | st.binary(max_size=10),
        b"if-modified-since": TAGS | st.binary(max_size=10),
        b"if-unmodified-since": TAGS | st.binary(max_size=10),
    },
)


@given(asked=ASKED, body=st.binary(max_size=12))
def test_any_request_gets_an_answer_that_is_one(asked: dict[bytes, bytes], body: bytes) -> None:
    kept = replace(KEPT, body=body)
    answer = reply(kept, list(asked.items()), method="GET", now=NOW, cache_status=HIT)
    named = {name.lower(): value for name, value in answer.fields}
    given_ = body[answer.start : answer.end]

    assert 0 <= answer.start <= answer.end <= len(body)
    assert named[b"cache-status"] == CACHE_STATUS[1]
    if answer.status == 304:
        assert b"content-length" not in named
        assert named[b"etag"] == OURS
    else:
        assert int(named[b"content-length"]) == len(given_)
    if answer.status == 206:
        assert given_
        place = b"bytes %d-%d/%d" % (answer.start, answer.end - 1, len(body))
        assert named[b"content-range"] == place
    elif answer.status == 200:
        assert given_ == body
    else:
        assert answer.status in (304, 412, 416)
        assert not given_


@given(asked=ASKED)
def test_head_is_answered_as_get_but_without_parts_and_bodies(asked: dict[bytes, bytes]) -> None:
    given: dict[str, Any] = {"now": NOW, "cache_status": HIT}
    without_range = [field for field in asked.items() if field[0] != b"range"]
    head = reply(KEPT, list(asked.items()), method="HEAD", **given)
    get = reply(KEPT, without_range, method="GET", **given)
    assert head == get._replace(start=0, end=0)
