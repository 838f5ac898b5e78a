"""The memory that images in flight may take, shared fairly by all of a worker's fetches."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable


class Claim:
    """A wait for `size` bytes of the buffer: granted, refused or withdrawn, once."""

    __slots__ = ("granted", "refused", "size", "timer")

    def __init__(self, size: int, granted: Callable[[], None], refused: Callable[[], None]) -> None:
        self.size = size
        self.granted = granted
        self.refused = refused
        self.timer: asyncio.TimerHandle | None = None


class Buffer:
    """
    Counts bytes; holds none itself.

    Claims are served first come first served, so that a large image is not
    starved by small ones; each waits for up to `wait_seconds`, and beyond
    `max_waiting` of them a further one is refused at once.
    """

    def __init__(self, max_bytes: int, *, wait_seconds: float, max_waiting: int) -> None:
        self.max_bytes = max_bytes
        self.max_waiting = max_waiting
        self._wait_seconds = wait_seconds
        self.used = 0
        self._claims: deque[Claim] = deque()

    @property
    def waiting(self) -> int:
        return len(self._claims)

    @property
    def is_full(self) -> bool:
        """Whether something new has to wait."""
        return self.used >= self.max_bytes or bool(self._claims)

    def take(self, size: int) -> bool:
        """Take `size` bytes now, if nobody waits for some and they are free."""
        if self._claims or self.used + size > self.max_bytes:
            return False
        self.used += size
        return True

    def overdraw(self, size: int) -> None:
        """Count `size` bytes that are in memory already, room or not."""
        self.used += size

    def give_back(self, size: int) -> None:
        self.used -= size
        if self._claims:
            self._serve()

    def claim(self, size: int, granted: Callable[[], None], refused: Callable[[], None]) -> Claim:
        """Wait for `size` bytes; with 0, for the buffer not to be full."""
        claim = Claim(size, granted, refused)
        seconds = self._wait_seconds if len(self._claims) < self.max_waiting else 0.0
        claim.timer = asyncio.get_running_loop().call_later(seconds, self._refuse, claim)
        self._claims.append(claim)
        return claim

    def withdraw(self, claim: Claim) -> None:
        """Wait no longer; neither of the claim's callbacks will be called."""
        self._remove(claim)
        self._serve()

    def _refuse(self, claim: Claim) -> None:
        self._remove(claim)
        claim.refused()
        self._serve()

    def _remove(self, claim: Claim) -> None:
        self._claims.remove(claim)
        if claim.timer is not None:
            claim.timer.cancel()

    def _serve(self) -> None:
        while self._claims:
            claim = self._claims[0]
            if self.used >= self.max_bytes or self.used + claim.size > self.max_bytes:
                return
            self._remove(claim)
            self.used += claim.size
            claim.granted()
