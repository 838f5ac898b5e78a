"""
Single-flight: one fetch from imgproxy, and everyone who waits for its answer.

The fetch belongs to the cache and not to the client that happened to ask first: it
reads imgproxy at full speed into a bounded buffer, goes on when clients hang up,
and feeds each of them at its own pace.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Final

from imgproxy_cache.buffer import Buffer, Claim
from imgproxy_cache.core.answer_fields import AnswerFields, read_answer_fields
from imgproxy_cache.core.headers import Headers
from imgproxy_cache.core.policy import NotStored
from imgproxy_cache.errors import UpstreamBusy, UpstreamError
from imgproxy_cache.fills import Fill
from imgproxy_cache.upstream import Exchange, Upstream

NO_FIELDS: Final = AnswerFields([], {})
# How much of an answer that is not buffered is read ahead of its slowest client.
STREAM_WINDOW_BYTES: Final = 256 * 1024


class ClientGone(Exception):  # noqa: N818 - an event, not an error
    """The client of a :class:`Passenger` hung up."""


class Flight:
    """
    One request to imgproxy, its answer as far as it has come, and its passengers.

    An answer is buffered whole when it may be (`max_object_bytes`, the buffer's
    room); otherwise it streams: imgproxy is read no faster than the slowest
    passenger, and what all have taken is dropped.

    What is to be done with the answer is the business of `fill`; `landed` is called once
    when it has ended, whole or not.
    """

    __slots__ = (
        "_buffer",
        "_chunks",
        "_claim",
        "_exchange",
        "_first",
        "_is_head",
        "_landed",
        "_max_object_bytes",
        "_passengers",
        "_sleepers",
        "_taken",
        "_upstream",
        "_window",
        "began_at",
        "error",
        "fields",
        "fill",
        "has_begun",
        "is_over",
        "is_streaming",
        "is_whole",
        "size",
        "status",
        "why_not_stored",
    )

    def __init__(
        self,
        upstream: Upstream,
        buffer: Buffer,
        fill: Fill,
        is_head: bool,
        max_object_bytes: int,
        landed: Callable[[Flight], None],
    ) -> None:
        self.fill = fill
        self.status = 0
        self.fields = NO_FIELDS
        self.why_not_stored: NotStored | None = None
        self.size = 0
        self.has_begun = False  # passengers may see status and header fields
        self.is_streaming = False
        self.is_over = False
        self.is_whole = False
        self.error: UpstreamError | None = None
        self.began_at = 0.0
        """On the event loop's clock."""
        self._upstream = upstream
        self._buffer = buffer
        self._is_head = is_head
        self._max_object_bytes = max_object_bytes
        self._landed = landed
        self._exchange: Exchange | None = None
        self._claim: Claim | None = None
        self._taken = 0  # bytes of the buffer that are ours
        self._chunks: deque[bytes] = deque()
        self._first = 0  # number of the first chunk that is still here
        self._window = 0  # bytes in _chunks, while streaming
        self._passengers: set[Passenger] = set()
        self._sleepers: list[asyncio.Future[None]] = []  # of passengers that wait for progress

    def start(self) -> None:
        self.began_at = asyncio.get_running_loop().time()
        if self._buffer.is_full:
            self._claim = self._buffer.claim(0, self._fetch, self._refuse)
        else:
            self._fetch()

    def board(self) -> Passenger:
        passenger = Passenger(self)
        self._passengers.add(passenger)
        return passenger

    @property
    def can_be_boarded(self) -> bool:
        """Whether a newcomer would still see all of the answer."""
        return not self.is_over and self._first == 0

    @property
    def chunks(self) -> tuple[bytes, ...]:
        return tuple(self._chunks)

    def leave(self, passenger: Passenger) -> None:
        """
        A passenger goes, served or not.

        What imgproxy was not asked for yet is dropped with the last of them, and
        so is a stream, which nobody would empty; an answer that is buffered
        comes in all the same.
        """
        self._passengers.discard(passenger)
        if self._passengers:
            if self.is_streaming:
                self.drop_what_all_have_taken()
        elif self.is_over:
            self._give_back()
        elif self._exchange is None or not self._exchange.is_sent or self.is_streaming:
            self._abandon()

    # AnswerSink

    def answer_began(self, status: int, headers: Headers) -> None:
        self.status = status
        self.fields = fields = read_answer_fields(status, headers)
        self.why_not_stored = self.fill.judge(status, fields)
        length = 0 if self._is_head else fields.content_length
        if length is None:
            self._show()
        elif length > self._max_object_bytes or length > self._buffer.max_bytes:
            self._stream()
            self._show()
        elif self._buffer.take(length):
            self._taken = length
            self._show()
        else:
            self._claim = self._buffer.claim(length, self._granted, self._refuse)
            self._pause()

    def chunk_came(self, chunk: bytes) -> None:
        self.size += len(chunk)
        self._chunks.append(chunk)
        if self.is_streaming:
            self._window += len(chunk)
            if self._window > STREAM_WINDOW_BYTES:
                self._pause()
        elif self.size > self._taken and self._claim is None:
            self._take_more(len(chunk))
        if self._sleepers:
            self._wake()

    def answer_ended(self, *, is_whole: bool) -> None:
        if self._claim is not None:  # all of it came before its turn
            self._buffer.withdraw(self._claim)
            self._claim = None
            self._buffer.overdraw(self.size)
            self._taken = self.size
            self._show()
        self.is_whole = is_whole
        self._end()

    def fetch_failed(self, error: UpstreamError) -> None:
        self.error = error
        self._end()

    # Below: in the order in which the above calls it

    def _fetch(self) -> None:
        self._claim = None
        self._exchange = self._upstream.fetch(self.fill.wire(), self, is_head=self._is_head)

    def _refuse(self) -> None:
        self._claim = None
        self.error = UpstreamBusy(
            f"{self._buffer.max_bytes} bytes of buffer are full of images on their way to clients"
        )
        self._abandon()

    def _abandon(self) -> None:
        exchange = self._exchange
        self._end()
        if exchange is not None:
            exchange.abandon()

    def _end(self) -> None:
        if self.is_over:
            return
        self.is_over = True
        if self._claim is not None:
            self._buffer.withdraw(self._claim)
            self._claim = None
        self._exchange = None  # it refers to us: the collector would have to find that out
        self._landed(self)
        if self._sleepers:
            self._wake()
        if not self._passengers:
            self._give_back()

    def _give_back(self) -> None:
        taken, self._taken = self._taken, 0
        self._chunks.clear()
        if taken:
            self._buffer.give_back(taken)

    def _granted(self) -> None:
        self._taken = self._claim.size if self._claim is not None else 0
        self._claim = None
        self._show()
        self._resume()

    def _show(self) -> None:
        self.has_begun = True
        if self._sleepers:
            self._wake()

    def _take_more(self, size: int) -> None:
        """An answer of unknown length takes room as it grows, and streams when there is none."""
        if self.size <= self._max_object_bytes and self._buffer.take(size):
            self._taken += size
        else:
            self._stream()

    def _stream(self) -> None:
        self.is_streaming = True
        self.why_not_stored = self.why_not_stored or NotStored.TOO_LARGE
        if not self._passengers:
            self._abandon()
            return
        self._window = sum(map(len, self._chunks))
        self.drop_what_all_have_taken()
        if self._window > STREAM_WINDOW_BYTES:
            self._pause()

    def drop_what_all_have_taken(self) -> None:
        """What no passenger of a stream needs any more can go."""
        slowest = min((p.position for p in self._passengers), default=self._first)
        while self._first < slowest:
            self._window -= len(self._chunks.popleft())
            self._first += 1
        if self._taken > self._window:
            surplus = self._taken - self._window
            self._taken = self._window
            self._buffer.give_back(surplus)
        if self._window <= STREAM_WINDOW_BYTES:
            self._resume()

    def _pause(self) -> None:
        if self._exchange is not None:
            self._exchange.pause()

    def _resume(self) -> None:
        if self._exchange is not None:
            self._exchange.resume()

    def _wake(self) -> None:
        sleepers, self._sleepers = self._sleepers, []
        for sleeper in sleepers:
            if not sleeper.done():
                sleeper.set_result(None)

    # For Passenger

    def progress(self) -> asyncio.Future[None]:
        """Done when there is more of the answer, or it is over."""
        sleeper: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._sleepers.append(sleeper)
        return sleeper

    def chunk(self, number: int) -> bytes | None:
        """A piece of the body, if it has come."""
        index = number - self._first
        return self._chunks[index] if index < len(self._chunks) else None

    def is_last(self, number: int) -> bool:
        """Whether all pieces before this number are all of the answer."""
        return self.is_over and self.error is None and number == self._first + len(self._chunks)


class Passenger:
    """
    One client's place in a :class:`Flight`.

    What waits raises :class:`ClientGone` once :meth:`hang_up` was called, and
    the flight's :class:`~imgproxy_cache.errors.UpstreamError` when it failed.
    """

    __slots__ = ("_is_gone", "_wakeup", "flight", "position")

    def __init__(self, flight: Flight) -> None:
        self.position = 0
        self.flight = flight
        self._is_gone = False
        self._wakeup: asyncio.Future[None] | None = None

    async def beginning(self) -> None:
        """Wait for status and header fields."""
        flight = self.flight
        while self._is_gone or not flight.has_begun:
            await self._progress()
        if flight.error is not None and flight.chunk(0) is None:
            raise flight.error  # nothing was sent yet: an answer of its own is still possible

    async def next_chunk(self) -> tuple[bytes, bool]:
        """Wait for more of the body; the flag says that nothing follows."""
        while (taken := self.take()) is None:
            await self._progress()
        return taken

    async def end(self) -> None:
        """Wait until all of the answer is there, or it turned out to be too large for that."""
        flight = self.flight
        while self._is_gone or not (flight.is_over or flight.is_streaming):
            await self._progress()

    def take(self) -> tuple[bytes, bool] | None:
        """As :meth:`next_chunk`, but None where that would wait."""
        if self._is_gone:  # a stream keeps nothing for it any more
            return None
        flight = self.flight
        chunk = flight.chunk(self.position)
        if chunk is None:
            return (b"", True) if flight.is_last(self.position) else None
        self.position += 1
        if flight.is_streaming:
            flight.drop_what_all_have_taken()
        return chunk, flight.is_last(self.position)

    def hang_up(self) -> None:
        """The client is gone; callable at any moment."""
        self._is_gone = True
        self.leave()
        if self._wakeup is not None and not self._wakeup.done():
            self._wakeup.set_result(None)

    def leave(self) -> None:
        self.flight.leave(self)

    def _progress(self) -> asyncio.Future[None]:
        if self._is_gone:
            raise ClientGone
        if self.flight.error is not None:
            raise self.flight.error
        self._wakeup = self.flight.progress()
        return self._wakeup
