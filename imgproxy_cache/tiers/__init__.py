"""Places where whole answers are kept, so that imgproxy need not be asked again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from imgproxy_cache.core.kept import Kept, KeptAnswer, Lifetimes, TierKey


class Heads(Protocol):
    """Status line, fields and empty line of the hits of a tier: `lasting` and then `passing`."""

    def lasting(self, kept: KeptAnswer, size: int) -> bytes:
        """What all hits have: of an answer without its body, for a body of so many bytes."""

    def passing(self, lifetimes: Lifetimes, now: float) -> bytes:
        """What those have that are given at a time, in whole seconds since the epoch."""


class Wire(Protocol):
    """What takes a hit: a connection that has nothing left to write."""

    def send(self, data: bytes | bytearray) -> None:
        """All of an answer."""

    def send_file(self, head: bytes, descriptor: int, at: int, size: int) -> None:
        """A head, and so many bytes of a file."""

    def write(self, data: bytes) -> None:
        """Part of an answer that is too large to be copied for a client that reads slowly."""


@dataclass(slots=True)
class Counts:
    """What has happened in a tier since the process began, and what is in it now."""

    hits: int = 0
    misses: int = 0
    puts: int = 0
    refused: int = 0
    """Not taken: too large for the tier, or more than it can write at the moment."""
    evictions: int = 0
    broken: int = 0
    """Found damaged, or another program's: a miss, and gone."""
    errors: int = 0
    """The place itself failed."""
    items: int = 0
    bytes: int = 0


class Counted(Protocol):
    """Something that counts what happens in it."""

    @property
    def counts(self) -> Counts: ...


class Tier(Counted, Protocol):
    """
    Keeps answers and signposts by tier key, for as long as there is room.

    Bounded in bytes and in items.  Whole or nothing: whatever happens in the middle of
    a put, :meth:`get` returns what was put, as it was put, or None.  A later put of a key
    takes the place of an earlier one.  What is expired is returned as well: whether it
    may be given to a client is decided elsewhere.

    Nothing here raises for what a tier holds or for the place it lies in.  What is damaged
    is a miss, counted, and removed; a place that fails is a miss, counted.

    Not for threads: all methods are called in the event loop, and none of them stalls it.
    """

    async def get(self, key: TierKey) -> Kept | None: ...

    def put(self, key: TierKey, kept: Kept) -> None:
        """Take it, or leave it: then an earlier one is gone as well.  Seen by the next get."""

    def remove(self, key: TierKey) -> None:
        """Seen by the next get."""
