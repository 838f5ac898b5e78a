"""
The flow of one request: read it, find or start its flight, relay the answer, keep the image.

An ASGI application behind :class:`~imgproxy_cache.protocol.ClientConnection`.
"""

from __future__ import annotations

import asyncio
import re
import secrets
import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from email.utils import formatdate
from functools import partial
from typing import Final, NamedTuple, Protocol

import structlog
from starlette.types import Receive, Scope, Send

from imgproxy_cache.buffer import Buffer
from imgproxy_cache.core.answer_fields import AnswerFields, answer_headers, stored_fields
from imgproxy_cache.core.cache_status import cache_status, cache_status_of_failure
from imgproxy_cache.core.headers import Headers
from imgproxy_cache.core.imgproxy_path import ImgproxyPath, PathRules, read_path
from imgproxy_cache.core.key import KeyRules, identity_from_target, key_from_target
from imgproxy_cache.core.policy import (
    NotStored,
    StorageRules,
    why_not_stored,
    why_not_stored_whole,
)
from imgproxy_cache.core.printable import printable_target
from imgproxy_cache.core.request_fields import RequestFields, read_request_fields
from imgproxy_cache.core.sharing import flight_key
from imgproxy_cache.errors import (
    UpstreamBusy,
    UpstreamError,
    UpstreamTimedOut,
)
from imgproxy_cache.flight import ClientGone, Flight, Passenger
from imgproxy_cache.log import InfoLog
from imgproxy_cache.metrics import Metrics
from imgproxy_cache.uploads import Uploads
from imgproxy_cache.uploads.pending import Upload
from imgproxy_cache.upstream import Upstream

MAX_REQUEST_BODY_BYTES: Final = 64 * 1024
RETRY_AFTER_SECONDS: Final = 1
# Outcomes that have no other name yet.
BODY_TOO_LARGE: Final = "body-too-large"
CLIENT_GONE: Final = "client-gone"

log = structlog.get_logger()


class Client(Protocol):
    """What the proxy needs of a client's connection."""

    fields: RequestFields | None
    """Of its last request, for the next."""

    is_lost: bool
    """The client hung up."""
    on_lost: Callable[[], None] | None
    """Called when it does."""

    @property
    def has_refused(self) -> bool:
        """It has answered for itself, and told who counts."""

    def break_off(self) -> None: ...


class Request(NamedTuple):
    """A request as imgproxy is asked it (made in a third of a frozen dataclass's time)."""

    method: str
    target: bytes
    fields: RequestFields
    path: ImgproxyPath | None
    flight_key: Hashable | None

    def wire(self) -> bytes:
        return b"%b %b HTTP/1.1\r\n%b\r\n" % (
            self.method.encode("ascii"),
            self.target,
            self.fields.lines,
        )


@dataclass(slots=True)
class Answer:
    """What a client has been given, for log and metrics."""

    status: int = 0
    size: int = 0


class Proxy:
    """
    Answers every request from imgproxy, and hands good images to `uploads`.

    `peer_is_trusted` says whose ``X-Forwarded-*`` are believed; `now` is the
    time in seconds since the epoch.
    """

    def __init__(
        self,
        *,
        upstream: Upstream,
        buffer: Buffer,
        uploads: Uploads,
        metrics: Metrics,
        info_log: InfoLog,
        path_rules: PathRules,
        storage_rules: StorageRules,
        key_rules: KeyRules,
        peer_is_trusted: Callable[[str], bool],
        now: Callable[[], float],
    ) -> None:
        self._upstream = upstream
        self._buffer = buffer
        self._uploads = uploads
        self._metrics = metrics
        self._info_log = info_log
        self._path_rules = path_rules
        self._storage_rules = storage_rules
        self._key_rules = key_rules
        self._peer_is_trusted = peer_is_trusted
        self._now = now
        self._flights: dict[Hashable, Flight] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        began = time.perf_counter()
        client: Client = scope["extensions"]["imgproxy_cache"]
        request = self._read(scope, client)
        answer = Answer()
        if request.fields.has_body:
            problem = await _read_away_body(scope["headers"], receive)
            if problem == BODY_TOO_LARGE:
                await _refuse_body(request, answer, send)
            if problem is not None:
                if not client.has_refused:
                    self._report(request, answer, problem, began)
                return
        flight, collapsed = self._find_or_start(request)
        passenger = flight.board()
        client.on_lost = passenger.hang_up
        if client.is_lost:
            passenger.hang_up()
        try:
            await passenger.beginning()
            await _relay(request, flight, passenger, collapsed, answer, send)
            outcome = str(flight.why_not_stored or "stored")
        except ClientGone:
            outcome = CLIENT_GONE
        except UpstreamError as error:
            outcome = _name(error)
            if answer.status:
                client.break_off()
            else:
                await _answer_failure(request, error, answer, send)
            _log_failure(request, answer, error)
        finally:
            client.on_lost = None
            flight.leave(passenger)
        self._report(request, answer, outcome, began, collapsed=collapsed)

    async def finish(self, deadline: float) -> None:
        """
        Wait for images whose clients have gone, but not longer than to the deadline on
        the event loop's clock.  How many are then still missing is logged.
        """
        loop = asyncio.get_running_loop()
        while flights := [one for one in self._flights.values() if one.why_not_stored is None]:
            left = deadline - loop.time()
            if left <= 0:
                log.warning("fetch.abandoned", items=len(flights))
                return
            await asyncio.wait([flights[0].progress()], timeout=left)

    def _read(self, scope: Scope, client: Client) -> Request:
        method: str = scope["method"]
        target: bytes = scope["raw_path"]
        path = read_path(target, self._path_rules)
        fields = client.fields
        if path is not None and path.is_raw:
            fields = self._fields(scope, keep_accept_encoding=True)
        elif fields is None or fields.received != scope["headers"]:
            fields = client.fields = self._fields(scope, keep_accept_encoding=False)
        key = flight_key(method, target, path, fields.sharing)
        return Request(method, target, fields, path, key)

    def _fields(self, scope: Scope, *, keep_accept_encoding: bool) -> RequestFields:
        client_ip: str = scope["client"][0]
        return read_request_fields(
            scope["headers"],
            client_ip=client_ip.encode("ascii"),
            scheme=scope["scheme"].encode("ascii"),
            peer_is_trusted=self._peer_is_trusted(client_ip),
            keep_accept_encoding=keep_accept_encoding,
            cookie_passthrough=self._storage_rules.cookie_passthrough,
        )

    def _find_or_start(self, request: Request) -> tuple[Flight, bool]:
        """The flight that fetches this answer, and whether it was under way."""
        key = request.flight_key
        if key is not None:
            flight = self._flights.get(key)
            if flight is not None and flight.can_be_boarded:
                return flight, True
        flight = Flight(
            self._upstream,
            self._buffer,
            request.wire(),
            is_head=request.method == "HEAD",
            max_object_bytes=self._storage_rules.max_object_bytes,
            judge=partial(self._judge, request),
            landed=partial(self._landed, request),
        )
        if key is not None:
            self._flights[key] = flight
        flight.start()
        return flight, False

    def _judge(self, request: Request, status: int, fields: AnswerFields) -> NotStored | None:
        return why_not_stored(
            self._storage_rules,
            method=request.method,
            path=request.path,
            request_headers=request.fields.for_upstream,
            status=status,
            fields=fields.by_name,
            now=self._now(),
        )

    def _landed(self, request: Request, flight: Flight) -> None:
        """The fetch is over: keep the image, if it is one."""
        if self._flights.get(request.flight_key) is flight:
            del self._flights[request.flight_key]
        if not flight.status:
            return
        self._metrics.fetch_ended(flight.status, flight.size)
        if flight.why_not_stored is not None:
            return
        why_not = why_not_stored_whole(
            self._storage_rules, size=flight.size, complete=flight.is_whole
        )
        if why_not is not None:
            self._metrics.refused(why_not)
            log.warning(
                "image.refused",
                message="announced as stored, but the body is not to be kept",
                target=printable_target(request.target),
                reason=why_not,
                bytes=flight.size,
            )
            return
        fields = stored_fields(flight.fields)
        self._uploads.offer(
            Upload(
                key=key_from_target(request.target, self._key_rules),
                path=identity_from_target(request.target, self._key_rules),
                chunks=flight.chunks,
                size=flight.size,
                content_type=fields.content_type,
                cache_control=fields.cache_control,
                content_disposition=fields.content_disposition,
            )
        )

    def _report(
        self,
        request: Request,
        answer: Answer,
        outcome: str,
        began: float,
        *,
        collapsed: bool = False,
    ) -> None:
        seconds = time.perf_counter() - began
        self._metrics.request_ended(
            outcome,
            collapsed=collapsed,
            seconds=seconds,
            size=answer.size,
        )
        self._info_log(
            "request.served",
            method=request.method,
            target=printable_target(request.target),
            status=answer.status,
            bytes=answer.size,
            milliseconds=round(seconds * 1000, 2),
            outcome=outcome,
            collapsed=collapsed,
        )


async def _read_away_body(headers: Headers, receive: Receive) -> str | None:
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


async def _relay(
    request: Request,
    flight: Flight,
    passenger: Passenger,
    collapsed: bool,
    answer: Answer,
    send: Send,
) -> None:
    answer.status = flight.status
    headers = answer_headers(
        flight.fields,
        cache_status=cache_status(flight.why_not_stored, collapsed=collapsed),
        request_id=(request.fields.request_id or _new_request_id()) if collapsed else None,
    )
    await send({"type": "http.response.start", "status": flight.status, "headers": headers})
    if not flight.is_over and flight.chunk(0) is None:
        # The head waits for the first bytes of a body, to go with them; not for imgproxy.
        await send({"type": "http.response.body", "body": b"", "more_body": True})
    is_last = False
    while not is_last:
        chunk, is_last = passenger.take() or await passenger.next_chunk()
        await send({"type": "http.response.body", "body": chunk, "more_body": not is_last})
        answer.size += len(chunk)


async def _answer_failure(
    request: Request, error: UpstreamError, answer: Answer, send: Send
) -> None:
    headers: Headers = []
    if isinstance(error, UpstreamBusy):
        status, reason = 503, f"imgproxy is busy: {error}"
        headers.append((b"Retry-After", b"%d" % RETRY_AFTER_SECONDS))
    elif isinstance(error, UpstreamTimedOut):
        status, reason = 504, f"imgproxy did not answer in time: it {error}"
    else:
        status, reason = 502, f"imgproxy cannot be reached: {error}"
    headers.append((b"Cache-Status", cache_status_of_failure(_name(error))))
    await _answer(request, status, reason, headers, answer, send)


async def _refuse_body(request: Request, answer: Answer, send: Send) -> None:
    reason = f"a request body must not be over {MAX_REQUEST_BODY_BYTES} bytes"
    await _answer(request, 413, reason, [], answer, send)


async def _answer(
    request: Request, status: int, reason: str, headers: Headers, answer: Answer, send: Send
) -> None:
    """Answer in our own name with one line of text."""
    body = f"{reason}\n".encode()
    answer.status = status
    headers = [
        (b"Content-Type", b"text/plain; charset=utf-8"),
        (b"Content-Length", b"%d" % len(body)),
        (b"Cache-Control", b"no-store"),
        (b"Date", formatdate(usegmt=True).encode("ascii")),
        (b"X-Request-ID", request.fields.request_id or _new_request_id()),
        *headers,
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
    answer.size = len(body)


def _new_request_id() -> bytes:
    return secrets.token_urlsafe(16).encode("ascii")


def _name(error: UpstreamError) -> str:
    """`UpstreamTimedOut` -> `timed-out`: the token for `Cache-Status` and metrics."""
    words = re.findall("[A-Z][a-z]+", type(error).__name__)
    return "-".join(words[1:]).lower()


def _log_failure(request: Request, answer: Answer, error: UpstreamError) -> None:
    log.warning(
        "request.failed",
        method=request.method,
        target=printable_target(request.target),
        status=answer.status,
        reason=_name(error),
        message=str(error),
    )
