"""
imgproxy over HTTP/1.1: a bounded pool of connections, and one exchange at a time on each.

Nothing here knows what an image is.  An :class:`Exchange` carries ready bytes to
imgproxy and hands what comes back, as it comes, to an :class:`AnswerSink`; it runs
on protocol callbacks alone, without a task or a copy of its own, because this is
where a request spends most of the time that is ours.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Coroutine
from types import TracebackType
from typing import Any, Protocol, Self, cast

import httptools

from imgproxy_cache.core.framing import is_close_delimited
from imgproxy_cache.core.headers import Headers
from imgproxy_cache.errors import (
    UpstreamBroken,
    UpstreamBusy,
    UpstreamError,
    UpstreamTimedOut,
    UpstreamUnreachable,
)

# imgproxy closes a connection that was idle for 10 seconds: ours goes first, so
# that a request seldom meets a connection on its way out.
MAX_IDLE_SECONDS = 8.0


class AnswerSink(Protocol):
    """
    Takes one answer of imgproxy, in this order: began, any number of chunks, then
    ended; or failed, at any moment and as the last call.
    """

    def answer_began(self, status: int, headers: Headers) -> None: ...

    def chunk_came(self, chunk: bytes) -> None: ...

    def answer_ended(self, *, is_whole: bool) -> None:
        """The answer is over; `is_whole` if its framing proves that nothing is missing."""

    def fetch_failed(self, error: UpstreamError) -> None: ...


class Exchange:
    """One request to imgproxy, from waiting for a connection to the end of the answer."""

    __slots__ = (
        "_connection",
        "_timer",
        "_upstream",
        "is_head",
        "is_over",
        "is_retry",
        "request",
        "sink",
    )

    def __init__(
        self, upstream: Upstream, request: bytes, sink: AnswerSink, *, is_head: bool
    ) -> None:
        self.request = request
        self.sink = sink
        self.is_head = is_head
        self.is_retry = False
        self.is_over = False
        self._upstream = upstream
        self._connection: Connection | None = None
        self._timer: asyncio.TimerHandle | None = None

    @property
    def is_sent(self) -> bool:
        return self._connection is not None

    def pause(self) -> None:
        """Stop reading the answer (back-pressure), until :meth:`resume`."""
        if self._connection is not None and not self.is_over:
            self._connection.pause()

    def resume(self) -> None:
        # Once it is over the connection may be another exchange's.
        if self._connection is not None and not self.is_over:
            self._connection.resume()

    def abandon(self) -> None:
        """Give up: leave the queue, or close the connection, which ends the work in imgproxy."""
        if self.is_over:
            return
        self.is_over = True
        if self._timer is not None:
            self._upstream.leave_queue(self)
            self.stop_waiting()
        elif self._connection is not None:
            self._connection.close()

    def wait(self, timer: asyncio.TimerHandle) -> None:
        self._timer = timer

    def stop_waiting(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def sent_on(self, connection: Connection) -> None:
        self._connection = connection

    def fail(self, error: UpstreamError) -> None:
        if not self.is_over:
            self.is_over = True
            self.sink.fetch_failed(error)


class Upstream:
    """
    The connections to imgproxy.

    At most `max_connections` requests are at imgproxy at once; further ones wait,
    first come first served, up to `wait_seconds` and `max_waiting` of them, and
    then fail with :class:`UpstreamBusy`.  An answer that does not begin, or
    stalls, for `read_timeout_seconds` fails with :class:`UpstreamTimedOut`.  A
    request that fails on a reused connection before the first byte of its answer
    is sent once more, on a fresh one.
    """

    def __init__(
        self,
        host: str,
        port: int,
        *,
        max_connections: int,
        max_waiting: int,
        wait_seconds: float,
        connect_timeout_seconds: float,
        read_timeout_seconds: float,
        max_idle_seconds: float = MAX_IDLE_SECONDS,
    ) -> None:
        self.max_connections = max_connections
        self.max_waiting = max_waiting
        self.in_use = 0
        self._host = host
        self._port = port
        self._wait_seconds = wait_seconds
        self._connect_timeout_seconds = connect_timeout_seconds
        self._read_timeout_seconds = read_timeout_seconds
        self._max_idle_seconds = max_idle_seconds
        self._idle: list[Connection] = []
        self._open: set[Connection] = set()
        self._waiting: deque[Exchange] = deque()
        self._connecting: set[asyncio.Task[None]] = set()
        self._sweep_timer: asyncio.TimerHandle | None = None

    async def __aenter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        self._sweep()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._sweep_timer is not None:
            self._sweep_timer.cancel()
        for exchange in tuple(self._waiting):
            self._give_up(exchange, UpstreamBusy("shutting down"))
        for task in tuple(self._connecting):
            task.cancel()
        for connection in tuple(self._open):
            connection.close()

    @property
    def waiting(self) -> int:
        """Requests that wait for a connection."""
        return len(self._waiting)

    @property
    def open_connections(self) -> int:
        return len(self._open)

    def fetch(self, request: bytes, sink: AnswerSink, *, is_head: bool = False) -> Exchange:
        """Send `request` as soon as a connection is free; the answer goes to `sink`."""
        exchange = Exchange(self, request, sink, is_head=is_head)
        if self.in_use < self.max_connections:
            self.in_use += 1
            self._send(exchange)
        elif len(self._waiting) < self.max_waiting:
            error = UpstreamBusy(f"no connection to imgproxy was free for {self._wait_seconds:g} s")
            exchange.wait(self._loop.call_later(self._wait_seconds, self._give_up, exchange, error))
            self._waiting.append(exchange)
        else:
            error = UpstreamBusy(f"{self.max_waiting} requests are waiting for imgproxy already")
            self._loop.call_soon(exchange.fail, error)
        return exchange

    def _give_up(self, exchange: Exchange, error: UpstreamError) -> None:
        self.leave_queue(exchange)
        exchange.stop_waiting()
        exchange.fail(error)

    def leave_queue(self, exchange: Exchange) -> None:
        self._waiting.remove(exchange)

    def _send(self, exchange: Exchange) -> None:
        while self._idle:
            connection = self._idle.pop()
            if connection.is_usable(self._max_idle_seconds):
                connection.send(exchange)
                return
            connection.close()
        self._start(self._send_on_fresh_connection(exchange))

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = self._loop.create_task(work)
        self._connecting.add(task)
        task.add_done_callback(self._connecting.discard)

    async def _send_on_fresh_connection(self, exchange: Exchange) -> None:
        try:
            async with asyncio.timeout(self._connect_timeout_seconds):
                _, connection = await self._loop.create_connection(
                    lambda: Connection(self), self._host, self._port
                )
        except TimeoutError:
            seconds = self._connect_timeout_seconds
            error: UpstreamError = UpstreamTimedOut(f"did not accept a connection in {seconds:g} s")
        except OSError as exc:
            error = UpstreamUnreachable(exc.strerror or str(exc) or type(exc).__name__)
        except UnicodeError as exc:  # out of the idna codec
            error = UpstreamUnreachable(f"{self._host!r} is no host name: {exc}")
        else:
            connection.send(exchange)
            return
        self.release(None)
        exchange.fail(error)

    def retry(self, exchange: Exchange) -> None:
        """Send it again, in the same slot, on a connection that imgproxy cannot be closing."""
        exchange.is_retry = True
        self._start(self._send_on_fresh_connection(exchange))

    def release(self, connection: Connection | None) -> None:
        """A slot is free, and with it `connection` if it can be used again."""
        if connection is not None:
            self._idle.append(connection)
        if self._waiting:
            exchange = self._waiting.popleft()
            exchange.stop_waiting()
            self._send(exchange)
        else:
            self.in_use -= 1

    def opened(self, connection: Connection) -> None:
        self._open.add(connection)

    def closed(self, connection: Connection) -> None:
        self._open.discard(connection)
        if connection in self._idle:
            self._idle.remove(connection)

    def _sweep(self) -> None:
        """
        Close what was idle or silent for too long.

        One pass a second (or four in a read timeout) over at most
        `max_connections` is cheaper than a timer for each request.
        """
        now = self._loop.time()
        for connection in tuple(self._open):
            connection.check_time(
                now,
                max_idle_seconds=self._max_idle_seconds,
                read_timeout_seconds=self._read_timeout_seconds,
            )
        interval = min(1.0, self._read_timeout_seconds / 4)
        self._sweep_timer = self._loop.call_later(interval, self._sweep)


class Connection(asyncio.Protocol):
    """One connection to imgproxy, parsed by httptools."""

    def __init__(self, upstream: Upstream) -> None:
        self._upstream = upstream
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport
        self._parser = httptools.HttpResponseParser(self)
        self._exchange: Exchange | None = None
        self._was_used = False
        self._is_reusable = False
        self._is_paused = False
        self._got_bytes = False
        self._last_read = self._loop.time()  # the sweep may come before the first request
        self._status = 0
        self._headers: Headers = []

    # What the pool and the exchange ask for

    def is_usable(self, max_idle_seconds: float) -> bool:
        idle_seconds = self._loop.time() - self._last_read
        return idle_seconds < max_idle_seconds and not self._transport.is_closing()

    def send(self, exchange: Exchange) -> None:
        if exchange.is_over:  # abandoned while the connection was being made
            self._last_read = self._loop.time()
            self._was_used = True  # it may be closed by the time it is asked for
            self._upstream.release(self)
            return
        if self._transport.is_closing():
            self._upstream.release(None)
            exchange.fail(UpstreamBroken("closed a connection it had just accepted"))
            return
        self._exchange = exchange
        self._got_bytes = False
        self._status = 0
        self._headers = []
        self._last_read = self._loop.time()
        exchange.sent_on(self)
        self._transport.write(exchange.request)

    def pause(self) -> None:
        if not self._is_paused:
            self._is_paused = True
            self._transport.pause_reading()

    def resume(self) -> None:
        if self._is_paused:
            self._is_paused = False
            self._last_read = self._loop.time()
            self._transport.resume_reading()

    def close(self) -> None:
        self._transport.abort()

    def check_time(
        self, now: float, *, max_idle_seconds: float, read_timeout_seconds: float
    ) -> None:
        silent_seconds = now - self._last_read
        if self._exchange is None:
            if silent_seconds >= max_idle_seconds:
                self.close()
        elif silent_seconds >= read_timeout_seconds and not self._is_paused:
            self._fail(UpstreamTimedOut(f"sent nothing for {read_timeout_seconds:g} s"))

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._upstream.opened(self)

    def data_received(self, data: bytes) -> None:
        if self._exchange is None:
            self.close()  # imgproxy speaks only when it was asked
            return
        self._last_read = self._loop.time()
        self._got_bytes = True
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._fail(UpstreamBroken("switched protocols, which nobody asked for"))
        except httptools.HttpParserError as exc:
            if self._exchange is not None:
                self._fail(UpstreamBroken(f"sent what is not HTTP: {exc}"))
            else:
                self._is_reusable = False
        if self._exchange is None and not self._transport.is_closing():
            self._free()

    def connection_lost(self, exc: Exception | None) -> None:
        self._upstream.closed(self)
        if self._exchange is None:
            return
        if not self._got_bytes and self._was_used and not self._exchange.is_retry:
            exchange, self._exchange = self._exchange, None
            if exchange.is_over:
                self._upstream.release(None)
            else:
                self._upstream.retry(exchange)
        elif self._status and exc is None and is_close_delimited(self._headers):
            self._end(is_whole=False, reusable=False)
            self._upstream.release(None)
        else:
            self._fail(UpstreamBroken("closed the connection in the middle of its answer"))

    def _fail(self, error: UpstreamError) -> None:
        exchange, self._exchange = self._exchange, None
        self.close()
        self._upstream.release(None)
        if exchange is not None:
            exchange.fail(error)

    def _end(self, *, is_whole: bool, reusable: bool) -> None:
        exchange, self._exchange = self._exchange, None
        self._was_used = True
        self._is_reusable = reusable
        if exchange is not None and not exchange.is_over:
            exchange.is_over = True
            exchange.sink.answer_ended(is_whole=is_whole)

    def _free(self) -> None:
        """
        Give the connection back, once all that was read with the answer's end is parsed:
        bytes that follow an answer must not become the beginning of the next one.
        """
        if self._is_paused:
            self.resume()
        if self._is_reusable:
            self._upstream.release(self)
        else:
            self.close()
            self._upstream.release(None)

    # httptools callbacks

    def on_message_begin(self) -> None:
        self._headers = []
        if self._exchange is None:  # a second answer to one request
            self._is_reusable = False

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers.append((name, value))

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        exchange = self._exchange
        if status < 200 or exchange is None:  # 100 and 103 precede the answer
            return
        self._status = status
        if not exchange.is_over:
            exchange.sink.answer_began(status, self._headers)
        if exchange.is_head and not self._transport.is_closing():
            # The parser cannot be told that no body follows: it is replaced.
            reusable = self._parser.should_keep_alive()
            self._parser = httptools.HttpResponseParser(self)
            self._end(is_whole=True, reusable=reusable)

    def on_body(self, chunk: bytes) -> None:
        exchange = self._exchange
        if exchange is None:  # what follows an answer to HEAD
            self._is_reusable = False
        elif not exchange.is_over:
            exchange.sink.chunk_came(chunk)

    def on_message_complete(self) -> None:
        # An exchange that was given up meanwhile is left to connection_lost, for its slot.
        if self._exchange is not None and self._status and not self._transport.is_closing():
            self._end(is_whole=True, reusable=self._parser.should_keep_alive())
