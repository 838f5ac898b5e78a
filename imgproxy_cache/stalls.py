"""Clients that do not take their answer."""

from __future__ import annotations

import asyncio
import fcntl
import sys
import termios
from collections.abc import Callable
from typing import Final

from imgproxy_cache.cycle import reset

# What a client has to take of its answer, on average over the time in which it may stall: a byte
# now and then would hold our memory for ever.  As http.sys (MinBytesPerSecond) and Kestrel
# (MinResponseDataRate) have it.
MIN_CLIENT_BYTES_PER_SECOND: Final = 240.0


class StallWatch:
    """
    Watches one client while its transport has something left to write.

    One that in `seconds` takes less than `min_bytes_per_second` of its answer is cut off, and
    `was_cut_off` called.
    """

    __slots__ = (
        "_loop",
        "_min_bytes",
        "_seconds",
        "_timer",
        "_transport",
        "_untaken",
        "_untaken_at",
        "_untaken_when_idle",
        "_was_cut_off",
    )

    def __init__(
        self,
        transport: asyncio.Transport,
        loop: asyncio.AbstractEventLoop,
        *,
        seconds: float,
        min_bytes_per_second: float,
        was_cut_off: Callable[[], None],
    ) -> None:
        self._transport = transport
        self._loop = loop
        self._seconds = seconds
        self._min_bytes = max(1.0, min_bytes_per_second * seconds)
        self._was_cut_off = was_cut_off
        self._timer: asyncio.TimerHandle | None = None
        self._untaken = 0  # bytes that the client still had to take at this time
        self._untaken_at = 0.0
        self._untaken_when_idle = 0

    def watch(self) -> None:
        """More was written, and not all of it taken: begin to count anew."""
        self._untaken = 0
        if self._timer is None:
            self._check_later()

    def still_reads(self) -> bool:
        """
        Whether the client has taken, since this was asked before, as much of its answer as it has
        to, and not yet all: then it is not idle.  What is in the system's hands no other timer
        watches.
        """
        untaken = self._bytes_to_take()
        taken, self._untaken_when_idle = self._untaken_when_idle - untaken, untaken
        return untaken > 0 and (taken < 0 or taken >= self._min_bytes)

    def end(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _check_later(self) -> None:
        self._timer = self._loop.call_later(min(self._seconds / 4, 5.0), self._check)

    def _check(self) -> None:
        self._timer = None
        if not self._transport.get_write_buffer_size():
            return
        now = self._loop.time()
        untaken = self._bytes_to_take()
        taken = self._untaken - untaken
        if taken < 0 or taken >= self._min_bytes:
            self._untaken, self._untaken_at = untaken, now
        elif now - self._untaken_at >= self._seconds:
            self._was_cut_off()
            reset(self._transport)
            return
        self._check_later()

    def _bytes_to_take(self) -> int:
        return self._transport.get_write_buffer_size() + _unacknowledged(self._transport)


def _unacknowledged(transport: asyncio.Transport) -> int:
    """
    Bytes that the system has taken from us, and the client not yet: often megabytes.

    Only when a third of them is gone does it take more of ours.  0 where it cannot be asked.
    """
    connection = transport.get_extra_info("socket")
    try:
        answer: bytes = fcntl.ioctl(connection.fileno(), termios.TIOCOUTQ, bytes(4))
    except OSError:
        return 0
    return int.from_bytes(answer, sys.byteorder)
