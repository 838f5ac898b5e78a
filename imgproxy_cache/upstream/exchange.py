"""One request and its answer, as the one who asks sees them."""

from __future__ import annotations

import asyncio
from typing import Protocol

from imgproxy_cache.core.headers import Headers
from imgproxy_cache.errors import UpstreamError


class AnswerSink(Protocol):
    """
    Takes one answer, in this order: began, any number of chunks, then
    ended; or failed, at any moment and as the last call.
    """

    def answer_began(self, status: int, headers: Headers) -> None: ...

    def chunk_came(self, chunk: bytes) -> None: ...

    def answer_ended(self, *, is_whole: bool) -> None:
        """The answer is over; `is_whole` if its framing proves that nothing is missing."""

    def fetch_failed(self, error: UpstreamError) -> None: ...


class Queue(Protocol):
    """Where an exchange waits for a connection."""

    def leave_queue(self, exchange: Exchange) -> None: ...


class Carrier(Protocol):
    """The connection that an exchange runs over."""

    def pause(self) -> None: ...

    def resume(self) -> None: ...

    def close(self) -> None: ...


class Exchange:
    """One request, from waiting for a connection to the end of the answer."""

    __slots__ = (
        "_connection",
        "_queue",
        "_timer",
        "is_head",
        "is_over",
        "is_retry",
        "request",
        "sink",
    )

    def __init__(self, queue: Queue, request: bytes, sink: AnswerSink, is_head: bool) -> None:
        self.request = request
        self.sink = sink
        self.is_head = is_head
        self.is_retry = False
        self.is_over = False
        self._queue = queue
        self._connection: Carrier | None = None
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
        """Give up: leave the queue, or close the connection, which ends imgproxy's work."""
        if self.is_over:
            return
        self.is_over = True
        if self._timer is not None:
            self._queue.leave_queue(self)
            self.stop_waiting()
        elif self._connection is not None:
            self._connection.close()

    def wait(self, timer: asyncio.TimerHandle) -> None:
        self._timer = timer

    def stop_waiting(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def sent_on(self, connection: Carrier) -> None:
        self._connection = connection

    def fail(self, error: UpstreamError) -> None:
        if not self.is_over:
            self.is_over = True
            self.sink.fetch_failed(error)
