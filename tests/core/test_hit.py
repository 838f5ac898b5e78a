"""Answers out of a tier; the fields are written by hand from RFC 9110, 9111 and 9211."""

from __future__ import annotations

import asyncio
from collections.abc import MutableMapping
from dataclasses import replace
from hashlib import sha256
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from uvicorn.protocols.http.flow_control import FlowControl

from imgproxy_cache.core.answer_fields import read_answer_fields
from imgproxy_cache.core.cache_status import cache_status_of_hit
from imgproxy_cache.core.headers import Headers
from imgproxy_cache.core.hit import (
    HitHeads,
    fields_of_stored_image,
    hit_lines,
    kept_from_answer,
    lasting_fields,
    passing_fields,
)
from imgproxy_cache.core.kept import KeptAnswer, Lifetimes
from imgproxy_cache.cycle import AnswerCycle
from tests.core.fields import FIELDS, NEVER_PASSED_ON, named_by_connection
from tests.core.lifetimes import FOR_AN_HOUR, NOW
from tests.tapes import Tape, all_tapes

DATE = (b"Date", b"Tue, 14 Nov 2023 22:13:19 GMT")
CSP = (b"Content-Security-Policy", b"script-src 'none'")
SANDBOX = (
    b"Content-Security-Policy",
    b"default-src 'none'; style-src 'unsafe-inline'; img-src data:; sandbox",
)
KEPT = KeptAnswer(
    name=b"plain/local:///a.jpg",
    selection=(),
    status=200,
    fields=((b"Cache-Control", b"max-age=3600"), (b"Content-Type", b"image/jpeg"), DATE),
    body=b"image",
    # printf image | sha256sum
    content_sha256="6105d6cc76af400325e94d588ce511be5bfdbb73b437dc51eca43917d7a43e3d",
    etag=b'"source"',
    lifetimes=FOR_AN_HOUR,
)
ETAG = (b"ETag", b'"6105d6cc76af400325e94d588ce511be"')
MEMORY = b"imgproxy-cache; hit; ttl=3600; detail=memory"


def hit(
    kept: KeptAnswer = KEPT, seconds_later: float = 0, request_id: bytes | None = None
) -> Headers:
    """All fields of a hit."""
    now = NOW + seconds_later
    status = cache_status_of_hit(kept.lifetimes, now, b"memory")
    passing = passing_fields(kept.lifetimes, now=now, cache_status=status, request_id=request_id)
    return [*lasting_fields(kept), *passing]


def kept_of(
    headers: Headers, *, status: int = 200, lifetimes: Lifetimes = FOR_AN_HOUR, body: bytes = b""
) -> KeptAnswer:
    return kept_from_answer(
        name=KEPT.name,
        selection=(),
        status=status,
        fields=read_answer_fields(status, headers),
        body=body,
        content_sha256=sha256(body).hexdigest(),
        lifetimes=lifetimes,
    )


def test_hit_has_the_kept_fields_and_then_its_own() -> None:
    assert hit(seconds_later=59.5) == [
        (b"Cache-Control", b"max-age=3600"),
        (b"Content-Type", b"image/jpeg"),
        DATE,
        (b"Content-Length", b"5"),
        ETAG,
        (b"Accept-Ranges", b"bytes"),
        (b"Age", b"59"),
        (b"Cache-Status", b"imgproxy-cache; hit; ttl=3540; detail=memory"),
    ]


def test_hit_has_the_request_id_of_a_client_that_sent_one() -> None:
    assert hit(request_id=b"my-id")[-2:] == [
        (b"X-Request-Id", b"my-id"),
        (b"Cache-Status", MEMORY),
    ]


def test_cache_status_comes_behind_those_of_the_caches_before_us() -> None:
    theirs = (b"cache-status", b'"cdn"; hit')
    kept = kept_of([(b"Content-Type", b"image/jpeg"), theirs])
    assert [field for field in hit(kept) if field[0].lower() == b"cache-status"] == [
        theirs,
        (b"Cache-Status", MEMORY),
    ]


def test_size_of_a_body_that_is_elsewhere_is_told() -> None:
    assert lasting_fields(replace(KEPT, body=b""), size=5) == lasting_fields(KEPT)


@pytest.mark.parametrize(
    ("status", "names"),
    [
        pytest.param(200, [b"Content-Length", b"ETag", b"Accept-Ranges"], id="image"),
        pytest.param(404, [b"Content-Length"], id="nothing there: no validator, no ranges"),
        pytest.param(204, [], id="no body"),
        pytest.param(304, [], id="not modified"),
    ],
)
def test_fields_about_the_body_are_those_that_the_status_has(
    status: int, names: list[bytes]
) -> None:
    kept = replace(KEPT, status=status, fields=())
    assert [name for name, _ in lasting_fields(kept)] == names


# kept_from_answer


def test_answer_is_kept_with_its_end_to_end_fields_as_they_came() -> None:
    came: Headers = [
        (b"cache-control", b"max-age=60, public"),
        (b"Content-Type", b"image/jpeg"),
        (b"LINK", b"<https://example.com/a.jpg>; rel=canonical"),
        (b"X-Origin-Width", b"451"),
        (b"Vary", b"Accept"),
        (b"Vary", b"DPR"),
        SANDBOX,
        (b"X-Content-Type-Options", b"nosniff"),
        (b"Content-MD5", b"Q2hlY2sgSW50ZWdyaXR5IQ=="),
        (b"Last-Modified", b"Wed, 21 Oct 2015 07:28:00 GMT"),
        (b"Expires", b"Fri, 01 Jan 2038 01:01:01 GMT"),
        DATE,
    ]
    kept = kept_of(came, body=b"image")
    assert kept == replace(KEPT, fields=tuple(came), etag=None)


@pytest.mark.parametrize(
    "name",
    [
        b"Accept-Ranges",
        b"Age",
        b"Content-Length",
        b"ETAG",
        b"Set-Cookie",
        b"x-request-id",
        b"Proxy-Authentication-Info",
        b"Connection",
        b"Keep-Alive",
        b"Proxy-Authenticate",
        b"Transfer-Encoding",
    ],
    ids=bytes.decode,
)
def test_field_that_is_made_anew_or_concerns_one_client_is_not_kept(name: bytes) -> None:
    assert kept_of([(name, b"1"), DATE]).fields == (DATE,)


@pytest.mark.parametrize(
    ("headers", "etag"),
    [
        pytest.param([(b"Etag", b'"a"')], b'"a"', id="strong"),
        pytest.param([(b"ETag", b'W/"a"')], b'W/"a"', id="weak"),
        pytest.param([], None, id="none"),
        pytest.param([(b"ETag", b'"a"'), (b"ETag", b'"b"')], None, id="two"),
    ],
)
def test_entity_tag_of_imgproxy_is_kept_aside(headers: Headers, etag: bytes | None) -> None:
    assert kept_of(headers).etag == etag


def test_answer_without_a_date_gets_that_of_its_arrival() -> None:
    at = FOR_AN_HOUR._replace(received_at=784111777.9)
    assert kept_of([], lifetimes=at).fields == ((b"Date", b"Sun, 06 Nov 1994 08:49:37 GMT"),)


@pytest.mark.parametrize(
    ("headers", "added"),
    [
        pytest.param([(b"Content-Type", b"image/svg+xml")], (CSP,), id="SVG without a policy"),
        pytest.param(
            [(b"Content-Type", b"Image/SVG+XML; charset=utf-8")], (CSP,), id="SVG, said oddly"
        ),
        pytest.param([(b"Content-Type", b"image/svg+xml"), SANDBOX], (), id="SVG with its policy"),
        pytest.param([(b"Content-Type", b"image/png")], (), id="PNG without a policy"),
    ],
)
def test_svg_is_never_kept_without_a_policy(headers: Headers, added: tuple[Any, ...]) -> None:
    assert kept_of([DATE, *headers]).fields == (DATE, *headers, *added)


@given(headers=FIELDS)
def test_no_hop_by_hop_field_is_kept(headers: Headers) -> None:
    headers = [(name.title(), value) for name, value in headers]
    names = {name.lower() for name, _ in kept_of(headers).fields} - {b"date"}
    assert not NEVER_PASSED_ON & names
    assert not named_by_connection(headers) & names


IMAGES = [tape for tape in all_tapes() if tape.method == "GET" and tape.expected == "stored"]


@pytest.mark.parametrize("tape", IMAGES, ids=str)
def test_hit_differs_from_the_recorded_answer_in_what_is_ours_alone(tape: Tape) -> None:
    kept = kept_of(tape.headers, body=tape.body)

    ours = {b"etag", b"x-request-id", b"content-length", b"connection"}
    theirs = [field for field in tape.headers if field[0].lower() not in ours]
    assert hit(kept) == [
        *theirs,
        (b"Content-Length", b"%d" % len(tape.body)),
        (b"ETag", b'"%b"' % sha256(tape.body).hexdigest()[:32].encode()),
        (b"Accept-Ranges", b"bytes"),
        (b"Age", b"0"),
        (b"Cache-Status", MEMORY),
    ]


# fields_of_stored_image

# What a store keeps is not all that settings make imgproxy send.
FROM_SETTINGS = (b"access-control-", b"vary", b"link", b"x-origin-", b"x-result-")
OF_ONE_ANSWER = (b"etag", b"last-modified", b"x-request-id", b"content-length", b"connection")


@pytest.mark.parametrize("tape", IMAGES, ids=str)
def test_stored_image_gets_what_imgproxy_had_sent_with_it(tape: Tape) -> None:
    sent = {name.lower(): value for name, value in tape.headers}
    fields = fields_of_stored_image(
        sent[b"content-type"].decode(),
        sent[b"cache-control"].decode(),
        sent[b"content-disposition"].decode(),
    )

    expected = [
        field
        for field in tape.headers
        if not field[0].lower().startswith((*FROM_SETTINGS, *OF_ONE_ANSWER))
    ]
    if tape.version.startswith("3."):  # gets the stricter policy of 4
        expected = [SANDBOX if field == CSP else field for field in expected]
    assert [*fields, (b"Date", sent[b"date"])] == expected


@pytest.mark.parametrize(
    ("stored", "expected"),
    [
        pytest.param(
            ("image/png", None, None),
            (SANDBOX, (b"Content-Type", b"image/png"), (b"Server", b"imgproxy")),
            id="nothing else is known",
        ),
        pytest.param(
            ("image/png", None, 'inline; filename="\xe9.png"'),
            (
                (b"Content-Disposition", b'inline; filename="\xe9.png"'),
                SANDBOX,
                (b"Content-Type", b"image/png"),
                (b"Server", b"imgproxy"),
            ),
            id="bytes as they came",
        ),
        pytest.param(
            ("image/png;\r\nSet-Cookie: a=b", "max-age=1\n", "\x00inline; filename=\u20ac"),
            (
                (b"Cache-Control", b"max-age=1"),
                (b"Content-Disposition", b"inline; filename=?"),
                SANDBOX,
                (b"Content-Type", b"image/png;Set-Cookie: a=b"),
                (b"Server", b"imgproxy"),
            ),
            id="what another wrote into the store",
        ),
    ],
)
def test_stored_image_gets_no_field_that_was_not_kept(
    stored: tuple[str, str | None, str | None], expected: tuple[Any, ...]
) -> None:
    assert fields_of_stored_image(*stored) == expected


# hit_lines


@given(
    fields=FIELDS,
    status=st.sampled_from([200, 204, 304, 404]),
    size=st.integers(0, 10**9),
    request_id=st.sampled_from([None, b"my-id"]),
)
def test_lines_are_those_of_the_fields(
    fields: Headers, status: int, size: int, request_id: bytes | None
) -> None:
    kept = replace(KEPT, status=status, fields=tuple(fields), body=b"")
    given: Any = {"now": NOW + 9, "cache_status": MEMORY, "request_id": request_id}
    expected = [*lasting_fields(kept, size=size), *passing_fields(kept.lifetimes, **given)]
    lines = [b"%b: %b\r\n" % field for field in expected]
    assert hit_lines(kept, **given, size=size) == b"".join(lines)


# HitHeads


class Wire:
    """The transport of a cycle: what was written to it."""

    def __init__(self) -> None:
        self.written = b""

    def write(self, data: bytes) -> None:
        self.written += data

    def get_extra_info(self, name: str) -> None:
        return None


async def written_by_the_cycle(fields: Headers, status: int, body: bytes) -> bytes:
    wire = Wire()
    transport = cast("asyncio.Transport", wire)
    scope: MutableMapping[str, Any] = {"method": "GET", "http_version": "1.1"}
    cycle = AnswerCycle(
        cast("Any", scope),
        transport,
        FlowControl(transport),
        expects_100_continue=False,
        keep_alive=True,
        on_response=lambda: None,
    )
    await cycle.send({"type": "http.response.start", "status": status, "headers": fields})
    await cycle.send({"type": "http.response.body", "body": body})
    return wire.written


LINES = st.lists(
    st.tuples(
        st.text("ABab-", min_size=1).map(str.encode),
        st.text("ab ,\xe9").map(lambda text: text.encode("latin-1")),
    )
)


@given(fields=LINES, status=st.sampled_from([200, 299, 404]))
def test_head_is_written_as_the_ordinary_path_writes_it(fields: Headers, status: int) -> None:
    kept = replace(KEPT, status=status, fields=tuple(fields))
    written = asyncio.run(written_by_the_cycle(hit(kept, 9), status, kept.body))
    heads = HitHeads(b"memory")
    head = heads.lasting(kept, len(kept.body)) + heads.passing(kept.lifetimes, NOW + 9)
    assert head + kept.body == written
