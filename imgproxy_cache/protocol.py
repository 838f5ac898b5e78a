"""
uvicorn's HTTP protocol, with what it leaves out.

* The target reaches the application as the bytes that came (``scope["raw_path"]``,
  query included): uvicorn drops fragments and turns ``http://evil/p`` into ``/p``.
* What is no request for us is refused here: a target that is not an ASCII path,
  not exactly one ``Host`` (RFC 9112 section 3.2).
* Limits that uvicorn and llhttp do not have: size and time of a request's head,
  time of its body, and clients that do not take their answer.
* What is at hand for a request that is known byte for byte is given before anything is parsed:
  by the application's fast lane, if it has one (its lifespan's state, `fast_lane`).
* The application can watch the connection (``scope["extensions"]["imgproxy_cache"]``
  is the :class:`ClientConnection`) without a task that waits for ``http.disconnect``.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from enum import Enum, auto
from time import perf_counter
from typing import Any, Final, NoReturn

import httptools
from uvicorn._types import ASGI3Application
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from imgproxy_cache.client_socket import ClientSocket
from imgproxy_cache.core.framing import has_body
from imgproxy_cache.core.repeated_head import lines_behind_target, target_before
from imgproxy_cache.core.request_fields import RequestFields
from imgproxy_cache.cycle import NOBODY_WAITS, AnswerCycle, reset
from imgproxy_cache.read_through.fast_lane import FastLane, KnownHead
from imgproxy_cache.refusals import (
    BAD_HOST,
    BAD_REQUEST,
    BAD_TARGET,
    HEAD_TOO_LARGE,
    MAX_HEAD_BYTES,
    MAX_HEAD_FIELDS,
    MAX_TARGET_BYTES,
    SLOW_REQUEST,
    TARGET_TOO_LONG,
    Refusal,
)
from imgproxy_cache.stalls import MIN_CLIENT_BYTES_PER_SECOND, StallWatch

# What a connection may keep of a request while it waits for the next (as it came, its lines and its
# fields): browsers send less, and ten thousand connections times 64 KB would be two gigabytes.
MAX_KEPT_HEAD_BYTES: Final = 4 * 1024
ARRIVAL_SECONDS: Final = 10.0
# A close with unread bytes resets the connection, and the client may never see why:
# what it still sends is read for so long, and ignored.
LINGER_SECONDS: Final = 2.0
# What a body may come to on the wire: one that was refused with 413 and is sent nonetheless,
# or one in chunks, whose sizes, extensions and trailers no callback counts.
MAX_BODY_WIRE_BYTES: Final = 1024 * 1024


class _Refused(Exception):  # noqa: N818 - ends the parser's run
    """Raised in a parser's callback, after :attr:`ClientConnection._refusal` was set."""


class Phase(Enum):
    """How far the newest request has come in."""

    IDLE = auto()
    HEAD = auto()
    BODY = auto()


IDLE, HEAD, BODY = Phase  # as Phase.IDLE each costs 0.1 us on Python 3.11, a dozen times a request


class ClientConnection(HttpToolsProtocol):
    """
    One client's connection.

    A request, its body included, has `arrival_seconds` to arrive.  One that is
    refused here is told to `request_was_refused`, with its target as far as it came,
    and to nobody else.  A client that in `client_stall_seconds` takes
    less than `min_client_bytes_per_second` of its answer is cut off, and
    `client_was_cut_off` called.
    """

    def __init__(
        self,
        *args: Any,
        client_stall_seconds: float,
        client_was_cut_off: Callable[[], None],
        request_was_refused: Callable[[Refusal, bytes], None],
        arrival_seconds: float = ARRIVAL_SECONDS,
        min_client_bytes_per_second: float = MIN_CLIENT_BYTES_PER_SECOND,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self._fast_lane: FastLane | None = self.app_state.get("fast_lane")
        self._known_head: KnownHead | None = None
        self._wire: ClientSocket | None = None  # from the first hit on
        self._read: bytes | None = None  # what came last, if it is all of one request
        self._lines: bytes | None = None  # behind its target, if they may come again
        self._arrival_seconds = arrival_seconds
        self._stalls: StallWatch
        self._stall_seconds = client_stall_seconds
        self._min_bytes_per_second = min_client_bytes_per_second
        self._was_cut_off = client_was_cut_off
        self._was_refused = request_was_refused
        self._phase = IDLE
        self._refusal: Refusal | None = None
        self._head_bytes = 0  # of its fields, then of the target as well; or all, as they came
        self._head_wire_bytes = 0  # of the reads in which it did not end
        self._hosts = 0
        self._body_bytes = 0
        self._arrival_timer: asyncio.TimerHandle | None = None
        # For the application: set and read here, and not through methods, on every request.
        self.is_lost = False
        self.on_lost: Callable[[], None] | None = None
        self._scope_of_all: dict[str, object] = {}
        self.fields: RequestFields | None = None  # kept here for the application
        self._idle_since = 0.0  # on perf_counter's clock
        self.pipeline: deque[tuple[AnswerCycle, ASGI3Application]] = deque()  # type: ignore[assignment]
        self.answering: AnswerCycle  # what the client is given, or was last

    @property
    def has_refused(self) -> bool:
        """Whether the newest request was refused here, though the application may know of it."""
        return self._refusal is not None

    def break_off(self) -> None:
        """End the connection so that the client sees that its answer is not whole."""
        self.answering.disconnected = True  # uvicorn need not complain of what is meant
        reset(self.transport)

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._stalls = StallWatch(
            transport,
            self.loop,
            seconds=self._stall_seconds,
            min_bytes_per_second=self._min_bytes_per_second,
            was_cut_off=self._was_cut_off,
        )
        if self.client is None:  # it has gone already, and its address with it
            transport.abort()
            return
        self._scope_of_all = {
            "type": "http",
            "asgi": {"version": self.asgi_version, "spec_version": "2.3"},
            "server": self.server,
            "client": self.client,
            "scheme": self.scheme,
            "root_path": "",
            "query_string": b"",
            "state": self.app_state,
            "extensions": {"imgproxy_cache": self},
            # Of each request: a copy that already has the keys need not grow.
            "http_version": "",
            "method": "",
            "path": "",
            "raw_path": b"",
            "headers": [],
        }
        self._expect_more()

    def connection_lost(self, exc: Exception | None) -> None:
        for timer in (self._arrival_timer, self.timeout_keep_alive_task):
            if timer is not None:
                timer.cancel()
        self._stalls.end()
        super().connection_lost(exc)
        if self.cycle is not None:  # with a pipeline, not the one that is being answered
            self.answering.disconnected = True
        self.is_lost = True
        if self._wire is not None:
            self._wire.detach()
        if self.on_lost is not None:
            self.on_lost()

    def data_received(self, data: bytes) -> None:
        if self._refusal is not None:
            return
        is_first = self._phase is IDLE and (self.cycle is None or self.cycle.response_complete)
        if is_first and (
            (self._fast_lane is not None and self._is_answered_at_once(data))
            or (self._lines is not None and self._begins_again(data, self._lines))
        ):
            return
        self._parse(data, is_first=is_first)

    def _parse(self, data: bytes, *, is_first: bool) -> None:
        phase_before = self._phase
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self.cycle.keep_alive = False  # what follows would not be HTTP/1.1
        except httptools.HttpParserError:
            self._refuse(self._refusal or BAD_REQUEST)
            return
        if phase_before is HEAD and self._phase is HEAD:
            # One field without an end is in no callback's count.
            self._head_wire_bytes += len(data)
            if self._head_wire_bytes > MAX_TARGET_BYTES + MAX_HEAD_BYTES:
                self._refuse(HEAD_TOO_LARGE)
                return
        elif phase_before is BODY and self._phase is BODY:
            self._body_bytes += len(data)
            if self._body_bytes > MAX_BODY_WIRE_BYTES:
                self.transport.abort()
                return
        is_alone = is_first and self._phase is IDLE and not self.pipeline
        self._read = data if is_alone and len(data) <= MAX_KEPT_HEAD_BYTES else None
        self._lines = self._lines_that_may_come_again(data) if is_alone else None
        if self.pipeline:  # nothing is read until its turn comes
            self._expect_no_more()
        elif self._phase is not IDLE or not self._is_answering():
            self._expect_more()
        elif self._arrival_timer is not None:
            self._expect_no_more()

    def _is_answered_at_once(self, data: bytes) -> bool:
        lane, head, transport = self._fast_lane, self._known_head, self.transport
        if lane is None or transport.get_write_buffer_size():
            return False
        # A client's next request has the head of the one before.
        if head is None or not data.endswith(head.lines):
            head = self._known_head = lane.known_head(data)
            if head is None:
                return False
        if self._wire is None:
            self._wire = ClientSocket(transport)
        answered_at = lane.answer(data, head, self._wire)
        if answered_at is None:
            return False
        self.server_state.total_requests += 1
        if self._arrival_timer is not None:
            self._expect_no_more()
        if transport.get_write_buffer_size():
            self._stalls.watch()
        self._idle_since = answered_at
        if self.timeout_keep_alive_task is None:
            self._close_when_idle_after(self.timeout_keep_alive)
        return True

    def _lines_that_may_come_again(self, data: bytes) -> bytes | None:
        lines = lines_behind_target(data) if len(data) <= MAX_KEPT_HEAD_BYTES else None
        # There was a request, if there are any: empty lines may come alone.
        if lines is None or not self.cycle.keep_alive or has_body(self.headers):
            return None
        return lines

    def _begins_again(self, data: bytes, lines: bytes) -> bool:
        """
        Whether this is a request with the head of the one before, which then has begun.

        Not to parse it takes 6 us off the 78 that a request of four fields costs.
        """
        target = target_before(lines, data)
        if target is None or len(target) > MAX_TARGET_BYTES:
            return False
        self.url = target
        self._head_bytes = len(data)
        self._read = data
        cycle = self._cycle_of(b"GET", "1.1", keep_alive=True)
        cycle.more_body = False
        self._start_asgi_task(cycle, self.app)
        return True

    def read_alone(self) -> bytes | None:
        """What the fast lane can learn from: see :class:`~imgproxy_cache.proxy.Client`."""
        read, self._read = self._read, None
        return read if self.answering.keep_alive else None

    def pause_writing(self) -> None:
        super().pause_writing()
        self._stalls.watch()

    # httptools callbacks

    def on_message_begin(self) -> None:
        self._phase = HEAD
        self._head_bytes = 0
        self._head_wire_bytes = 0
        self._hosts = 0
        self.url = b""
        self.expect_100_continue = False
        self.headers = []

    def on_url(self, url: bytes) -> None:
        self.url += url
        if len(self.url) > MAX_TARGET_BYTES:
            self._reject(TARGET_TOO_LONG)

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._phase is not HEAD:
            return  # a trailer must not pass for a header field
        self._head_bytes += len(name) + len(value) + 4
        if self._head_bytes > MAX_HEAD_BYTES or len(self.headers) == MAX_HEAD_FIELDS:
            self._reject(HEAD_TOO_LARGE)
        name = name.lower()
        if name == b"host":
            self._hosts += 1
        elif name == b"expect" and value.lower() == b"100-continue":
            self.expect_100_continue = True
        self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        target = self.url
        method = self.parser.get_method()
        http_version = self.parser.get_http_version()
        if http_version not in {"1.1", "1.0"}:  # llhttp knows 0.9 and 2.0 as well
            self._reject(BAD_REQUEST)
        if not target.startswith(b"/") or not target.isascii() or method == b"CONNECT":
            self._reject(BAD_TARGET)
        if self._hosts != 1:
            self._reject(BAD_HOST)
        self._phase = BODY
        self._head_bytes += len(target)
        self._body_bytes = 0
        previous = self.cycle
        keep_alive = http_version != "1.0" and self.parser.should_keep_alive()
        cycle = self._cycle_of(method, http_version, keep_alive=keep_alive)
        if previous is None or previous.response_complete:
            self._start_asgi_task(cycle, self.app)
        else:  # pipelined
            self.flow.pause_reading()
            self.pipeline.appendleft((cycle, self.app))

    def _cycle_of(self, method: bytes, http_version: str, *, keep_alive: bool) -> AnswerCycle:
        """That of the newest request, whose head is here."""
        target = self.url
        scope: Any = self._scope_of_all.copy()
        scope["http_version"] = http_version
        scope["method"] = method.decode("ascii")
        scope["path"] = target.partition(b"?")[0].decode("ascii")
        scope["raw_path"] = target
        scope["headers"] = self.headers
        self.scope = scope
        self.cycle = cycle = AnswerCycle(
            scope,
            self.transport,
            self.flow,
            self.expect_100_continue and http_version != "1.0",  # RFC 9110 section 10.1.1
            keep_alive,
            self.on_response_complete,
        )
        return cycle

    def on_message_complete(self) -> None:
        self._phase = IDLE
        if not self.cycle.response_complete:
            self.cycle.more_body = False
            if self.cycle.message_event is not NOBODY_WAITS:
                self.cycle.message_event.set()

    def on_response_complete(self) -> None:
        self.server_state.total_requests += 1
        if self.transport.get_write_buffer_size():
            self._stalls.watch()
        if self.transport.is_closing():
            return
        if self.flow.read_paused:
            self.flow.resume_reading()
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
            if self._phase is not IDLE and not self.pipeline:
                self._expect_more()
        else:
            if self._head_bytes > MAX_KEPT_HEAD_BYTES and self._phase is IDLE:
                self._forget_request()
            self._is_idle_since(perf_counter())
        if self._refusal is not None and not self._is_answering():
            self._answer_refusal(self._refusal)

    def _start_asgi_task(self, cycle: AnswerCycle, app: ASGI3Application) -> None:  # type: ignore[override]
        self.answering = cycle
        cycle.start(app, self.loop, self.tasks)

    # Connections that wait for another request

    def _forget_request(self) -> None:
        self.fields = self._read = self._lines = None
        self.url = self.scope["raw_path"] = b""
        self.headers = self.scope["headers"] = []
        self.scope["path"] = ""

    def _is_idle_since(self, seconds: float) -> None:
        self._idle_since = seconds
        if self.timeout_keep_alive_task is None:
            self._close_when_idle_after(self.timeout_keep_alive)

    def _close_when_idle_after(self, seconds: float) -> None:
        # One timer for the connection's life, set anew when it fires too early, costs less than
        # one for each request.
        self.timeout_keep_alive_task = self.loop.call_later(
            seconds, self.timeout_keep_alive_handler
        )

    def timeout_keep_alive_handler(self) -> None:
        self.timeout_keep_alive_task = None
        if self._phase is not IDLE or self._is_answering():
            return  # set again with the next answer
        left = self._idle_since + self.timeout_keep_alive - perf_counter()
        if left <= 0.001 and self._stalls.still_reads():
            left = self.timeout_keep_alive
        if left > 0.001:
            self._close_when_idle_after(left)
        else:
            self.transport.close()

    # Requests that do not arrive, or are none

    def _is_answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _expect_more(self) -> None:
        if self._arrival_timer is None:
            self._arrival_timer = self.loop.call_later(self._arrival_seconds, self._did_not_arrive)

    def _expect_no_more(self) -> None:
        if self._arrival_timer is not None:
            self._arrival_timer.cancel()
            self._arrival_timer = None

    def _did_not_arrive(self) -> None:
        if self._phase is IDLE:
            self.transport.close()
        elif self._refusal is None:
            self._refuse(SLOW_REQUEST)

    def _reject(self, refusal: Refusal) -> NoReturn:
        self._refusal = refusal
        raise _Refused

    def _refuse(self, refusal: Refusal) -> None:
        """Answer with an error, after the answers that are owed, and close."""
        self._refusal = refusal
        if self._phase is BODY and self.cycle.response_started:  # with 413
            self.transport.abort()
            return
        self._was_refused(refusal, self.url[:MAX_TARGET_BYTES])
        if self._phase is BODY and self.pipeline:  # it has not begun, and will not
            self.pipeline.popleft()
            self.cycle = self.pipeline[0][0] if self.pipeline else self.answering
            self._phase = IDLE
        if self._phase is not BODY and self._is_answering():
            return  # its turn comes in on_response_complete
        self._answer_refusal(refusal)

    def _answer_refusal(self, refusal: Refusal) -> None:
        self._unset_keepalive_if_required()
        if self.transport.is_closing():
            return
        if self.cycle is not None:  # whose application may have begun to read the body
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        self.transport.write(refusal.wire)
        self.transport.write_eof()
        self._expect_no_more()
        self._arrival_timer = self.loop.call_later(LINGER_SECONDS, self.transport.abort)
