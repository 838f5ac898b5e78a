"""Answers in our own name: out of what is kept, and where imgproxy gave none."""

from __future__ import annotations

import re
import secrets
import time
from dataclasses import dataclass
from time import perf_counter
from typing import Final, Protocol

from starlette.types import Receive

from imgproxy_cache.core.cache_status import Forwarded, cache_status_of_failure
from imgproxy_cache.core.conditional import reply
from imgproxy_cache.core.headers import Headers
from imgproxy_cache.core.hit import hit_lines
from imgproxy_cache.core.http_date import http_date
from imgproxy_cache.core.request import Request
from imgproxy_cache.errors import (
    UpstreamBroken,
    UpstreamBusy,
    UpstreamError,
    UpstreamFailing,
    UpstreamTimedOut,
)
from imgproxy_cache.read_through import Found

MAX_REQUEST_BODY_BYTES: Final = 64 * 1024
RETRY_AFTER_SECONDS: Final = 1
# How much of a kept image is copied for a client at a time: as much as of one that streams.
PIECE_BYTES: Final = 256 * 1024
# Outcomes that have no other name yet.
BODY_TOO_LARGE: Final = "body-too-large"
CLIENT_GONE: Final = "client-gone"


class Recipient(Protocol):
    """What one client is given, on its way there: :class:`~imgproxy_cache.cycle.AnswerCycle`."""

    @property
    def is_behind(self) -> bool: ...

    async def caught_up(self) -> None: ...

    def begin(self, status: int, headers: Headers) -> None: ...

    def begin_with_lines(self, status: int, lines: bytes, size: int) -> None: ...

    def write(self, body: bytes, *, is_last: bool) -> None: ...


@dataclass(slots=True)
class Answer:
    """What one client is given, and how much of it so far."""

    request: Request
    recipient: Recipient
    status: int = 0
    size: int = 0
    first_byte_at: float = 0.0
    """On perf_counter's clock."""

    def begin(self, status: int, headers: Headers) -> None:
        self.status = status
        self.first_byte_at = perf_counter()
        self.recipient.begin(status, headers)

    async def give_whole(self, status: int, lines: bytes, body: bytes) -> None:
        """Send all of an answer, whose fields come as they are written."""
        recipient = self.recipient
        self.status = status
        self.first_byte_at = perf_counter()
        recipient.begin_with_lines(status, lines, len(body))
        if recipient.is_behind or len(body) > PIECE_BYTES:
            await self.end(body)
            return
        recipient.write(body, is_last=True)
        self.size = len(body)
        if recipient.is_behind:
            await recipient.caught_up()

    async def write(self, body: bytes, *, is_last: bool) -> None:
        """Send so much of the body, as fast as the client takes it."""
        recipient = self.recipient
        if recipient.is_behind:  # with the answer before this one
            await recipient.caught_up()
        recipient.write(body, is_last=is_last)
        self.size += len(body)
        if recipient.is_behind:
            await recipient.caught_up()

    async def end(self, body: bytes, start: int = 0, end: int | None = None) -> None:
        """
        Send what of the body is from `start` up to, but not with, `end`.

        A client that reads slowly has no copy of all of it: that is there once for all of them.
        """
        end = len(body) if end is None else end
        is_last = False
        while not is_last:
            is_last = end - start <= PIECE_BYTES
            piece = body[start : end if is_last else start + PIECE_BYTES]
            await self.write(piece, is_last=is_last)
            start += len(piece)


async def read_away_body(headers: Headers, receive: Receive) -> str | None:
    """Read the body, which imgproxy has no use for; what kept it from coming whole, if so."""
    size = sum(int(value) for name, value in headers if name == b"content-length")
    if size > MAX_REQUEST_BODY_BYTES:
        return BODY_TOO_LARGE
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return CLIENT_GONE
        size += len(message["body"])
        if size > MAX_REQUEST_BODY_BYTES:
            return BODY_TOO_LARGE
        if not message["more_body"]:
            return None


async def give(found: Found, answer: Answer, *, now: float, cache_status: bytes) -> None:
    """Answer with what is kept: all of it, a part, or that the client has it already."""
    request = answer.request
    fields = request.fields
    if request.method == "GET" and not fields.conditions:
        lines = hit_lines(
            found.metadata,
            now=now,
            cache_status=cache_status,
            request_id=fields.request_id,
            size=found.size,
        )
        await answer.give_whole(found.metadata.status, lines, found.kept.body)
        return
    what = reply(
        found.metadata,
        fields.conditions,
        method=request.method,
        now=now,
        cache_status=cache_status,
        request_id=fields.request_id,
        size=found.size,
    )
    answer.begin(what.status, what.fields)
    if what.end:
        await answer.end(found.kept.body, what.start, what.end)
    else:
        await answer.end(b"")


async def answer_failure(error: UpstreamError, answer: Answer, forwarded: Forwarded) -> None:
    """Say that imgproxy gave no answer."""
    headers: Headers = []
    if isinstance(error, UpstreamBusy | UpstreamFailing):
        status = 503
        said = "is busy: " if isinstance(error, UpstreamBusy) else ""
        headers.append((b"Retry-After", b"%d" % RETRY_AFTER_SECONDS))
    elif isinstance(error, UpstreamTimedOut):
        status, said = 504, "did not answer in time: it "
    elif isinstance(error, UpstreamBroken):
        status, said = 502, "gave no answer: it "
    else:
        status, said = 502, "cannot be reached: "
    was_asked = not isinstance(error, UpstreamFailing)
    cache_status = cache_status_of_failure(name_of(error), forwarded if was_asked else None)
    headers.append((b"Cache-Status", cache_status))
    await _answer(status, f"imgproxy {said}{error}", headers, answer)


async def refuse_body(answer: Answer) -> None:
    """Say that the request has too large a body."""
    await _answer(
        413, f"a request body must not be over {MAX_REQUEST_BODY_BYTES} bytes", [], answer
    )


async def _answer(status: int, reason: str, headers: Headers, answer: Answer) -> None:
    body = f"{reason}\n".encode()
    headers = [
        (b"Content-Type", b"text/plain; charset=utf-8"),
        (b"Content-Length", b"%d" % len(body)),
        (b"Cache-Control", b"no-store"),
        (b"Date", http_date(int(time.time()))),
        (b"X-Request-ID", answer.request.fields.request_id or new_request_id()),
        *headers,
    ]
    answer.begin(status, headers)
    await answer.end(body)


def new_request_id() -> bytes:
    return secrets.token_urlsafe(16).encode("ascii")


def name_of(error: UpstreamError) -> str:
    """`UpstreamTimedOut` -> `timed-out`: the token for `Cache-Status` and metrics."""
    words = re.findall("[A-Z][a-z]+", type(error).__name__)
    return "-".join(words[1:]).lower()
