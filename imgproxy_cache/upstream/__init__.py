"""
One server over HTTP/1.1: a bounded pool of connections, and one exchange at a time on each.

imgproxy, and S3 for those who read from it.  Nothing here knows what an image is.  An
:class:`Exchange` carries ready bytes to the server and hands what comes back, as it comes, to an
:class:`AnswerSink`; it runs on protocol callbacks alone, without a task or a copy of its own,
because this is where a request spends most of the time that is ours.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from time import monotonic
from types import TracebackType
from typing import Any, Self, TypeVar

from imgproxy_cache.errors import (
    UpstreamBusy,
    UpstreamError,
    UpstreamTimedOut,
    UpstreamUnreachable,
)
from imgproxy_cache.upstream.connection import Connection
from imgproxy_cache.upstream.exchange import AnswerSink, Exchange

__all__ = ["AnswerSink", "Exchange", "Upstream"]

# imgproxy closes a connection that was idle for 10 seconds: ours goes first, so
# that a request seldom meets a connection on its way out.
MAX_IDLE_SECONDS = 8.0

T = TypeVar("T")


class Upstream:
    """
    The connections to one server, which messages call `name`; over TLS if there is `tls`.

    At most `max_connections` requests are there at once; further ones wait,
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
        name: str = "imgproxy",
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.max_connections = max_connections
        self.max_waiting = max_waiting
        self.in_use = 0
        self._host = host
        self._port = port
        self._name = name
        self._tls = tls
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
        for task in self._connecting:
            task.cancel()
        # What is made in the same moment is among the open ones then.
        await asyncio.gather(*self._connecting, return_exceptions=True)
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
        exchange = Exchange(self, request, sink, is_head)
        if self.in_use < self.max_connections:
            self.in_use += 1
            self._send(exchange)
        elif len(self._waiting) < self.max_waiting:
            cause = f"no connection to {self._name} was free for {self._wait_seconds:g} s"
            error = UpstreamBusy(cause)
            exchange.wait(self._loop.call_later(self._wait_seconds, self._give_up, exchange, error))
            self._waiting.append(exchange)
        else:
            error = UpstreamBusy(
                f"{self.max_waiting} requests are waiting for {self._name} already"
            )
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
                connection = await self._connected()
        except TimeoutError:
            seconds = self._connect_timeout_seconds
            error: UpstreamError = UpstreamTimedOut(f"did not accept a connection in {seconds:g} s")
        except OSError as exc:
            error = UpstreamUnreachable(exc.strerror or str(exc) or type(exc).__name__)
            error.__cause__ = exc
        except UnicodeError as exc:  # out of the idna codec
            error = UpstreamUnreachable(f"{self._host!r} is no host name: {exc}")
        else:
            connection.send(exchange)
            return
        self.release(None)
        exchange.fail(error)

    async def _connected(self) -> Connection:
        found = await self._loop.getaddrinfo(self._host, self._port, type=socket.SOCK_STREAM)
        return await first_to_accept(
            self._dial, [str(at[0]) for *_, at in found], self._connect_timeout_seconds
        )

    async def _dial(self, address: str) -> Connection:
        _, connection = await self._loop.create_connection(
            lambda: Connection(self),
            address,
            self._port,
            ssl=self._tls,
            server_hostname=self._host if self._tls else None,
        )
        return connection

    def retry(self, exchange: Exchange) -> None:
        """Send it again, in the same slot, on a connection that the server cannot be closing."""
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
        now = monotonic()
        for connection in tuple(self._open):
            connection.check_time(
                now,
                max_idle_seconds=self._max_idle_seconds,
                read_timeout_seconds=self._read_timeout_seconds,
            )
        interval = min(1.0, self._read_timeout_seconds / 4)
        self._sweep_timer = self._loop.call_later(interval, self._sweep)


async def first_to_accept(
    dial: Callable[[str], Awaitable[T]], addresses: Sequence[str], seconds: float
) -> T:
    """
    A connection to one of a host's addresses, in their order.

    Those that are silent share the time: one of them that is down does not make all of the host so.

    Raises:
        OSError: what became of the last one
    """
    loop = asyncio.get_running_loop()
    ends_at = loop.time() + seconds
    problem = OSError("no address")
    try:
        for tried, address in enumerate(addresses):
            now = loop.time()
            try:
                async with asyncio.timeout((ends_at - now) / (len(addresses) - tried)):
                    return await dial(address)
            except OSError as exc:
                problem = exc
        raise problem
    finally:
        del problem  # its traceback refers to us, and to who asked
