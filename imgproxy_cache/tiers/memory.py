"""Answers in this process's memory, ready for the wire."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Final

from imgproxy_cache.core.kept import Kept, KeptAnswer, Signpost, TierKey
from imgproxy_cache.tiers import Counts, HeadAt, Wire
from imgproxy_cache.tiers.s3_fifo import S3Fifo

# Up to here head and body go out in one write, which saves 4 us; copying this much once a second
# costs as much.  Larger bodies are there once for all clients that read slowly, not once a second.
ONE_WRITE_BYTES = 64 * 1024
# One that takes more of the tier would push out dozens to save one render.
LARGEST_SHARE = 8

# What an entry takes besides the bytes of its strings (a head with no more than the fields that
# are made for each hit among it), as tracemalloc sees it in CPython 3.11 to
# 3.13 (tests/tiers/test_memory.py holds it against that): objects, tuples, the dictionary's part.
ENTRY_BYTES = 1100
FIELD_BYTES = 175


class Held:
    """
    An answer in memory, its body there once.

    `metadata` is the answer without its body, `size` the body's.
    """

    __slots__ = ("_head", "_head_at", "_second", "_wire", "metadata", "rest", "size")

    def __init__(self, kept: KeptAnswer, head_at: HeadAt) -> None:
        self.metadata = replace(kept, body=b"")
        self.size = len(kept.body)
        self._head_at = head_at
        self.rest = kept.body if self.size > ONE_WRITE_BYTES else b""
        """What of the body is not in :meth:`wire_at`; empty but for large ones."""
        self._second = -1
        self._head = b""
        self._wire = b"" if self.rest else kept.body

    @property
    def kept(self) -> KeptAnswer:
        """The whole answer; up to :data:`ONE_WRITE_BYTES` its body is a copy."""
        return replace(self.metadata, body=self.rest or self._wire[len(self._head) :])

    def give(self, now: float, wire: Wire) -> bool:
        """Write the whole answer, as it is in this second.  True: see :meth:`OnDisk.give`."""
        wire.write(self.wire_at(now))
        if self.rest:
            wire.write(self.rest)
        return True

    def wire_at(self, now: float) -> bytes:
        """
        What to write for a whole hit, and then :attr:`rest`.

        Its head is that of the whole second, and made once for each.
        """
        if not 0 <= now - self._second < 1:
            self._make_head(int(now))
        return self._wire

    def head_at(self, now: float) -> bytes:
        """The head alone, as `HEAD` gets it."""
        self.wire_at(now)
        return self._head

    def _make_head(self, second: int) -> None:
        head = self._head_at(self.metadata, self.size, float(second))
        if self.rest:
            self._wire = head
        else:
            body = memoryview(self._wire)[len(self._head) :]
            self._wire = b"".join((head, body))
        self._head = head
        self._second = second


class MemoryTier:
    """
    A :class:`~imgproxy_cache.tiers.Tier` that answers at once: `find` is for hits that shall
    cost next to nothing (whoever finds nothing counts the miss), `get` for everybody else.

    `max_bytes` is for all that the entries take in memory, within some percent (resident it is a
    sixth more: the allocator's gaps); with 0 the tier is empty for ever.
    """

    name: Final = "memory"

    def __init__(self, *, max_bytes: int, max_items: int, head_at: HeadAt) -> None:
        self._counts = Counts()
        self._entries: S3Fifo[Held | Signpost] = S3Fifo(max_bytes=max_bytes, max_items=max_items)
        self.find: Callable[[TierKey], Held | Signpost | None] = self._entries.find
        self.max_bytes = max_bytes
        self._largest = max_bytes // LARGEST_SHARE
        self._head_at = head_at

    @property
    def counts(self) -> Counts:
        counts, entries = self._counts, self._entries
        counts.hits, counts.evictions = entries.hits, entries.evictions
        counts.items, counts.bytes = len(entries), entries.size
        return counts

    def get(self, key: TierKey) -> Kept | None:
        found = self.find(key)
        if found is None:
            self._counts.misses += 1
        return found.kept if isinstance(found, Held) else found

    def put(self, key: TierKey, kept: Kept) -> None:
        if not self.max_bytes:
            self._counts.refused += 1
            return
        size = entry_bytes(key, kept)
        if size <= self._largest:
            what = kept if isinstance(kept, Signpost) else Held(kept, self._head_at)
            self._entries.put(key, what, size)
            self._counts.puts += 1
        else:
            self._entries.remove(key)
            self._counts.refused += 1

    def remove(self, key: TierKey) -> None:
        self._entries.remove(key)


def entry_bytes(key: TierKey, kept: Kept) -> int:
    """What an entry takes in memory, with its head for the wire."""
    size = ENTRY_BYTES + len(key) + len(kept.name)
    if isinstance(kept, Signpost):
        return size + sum(FIELD_BYTES + len(name) for name in kept.names)
    pairs = kept.fields + kept.selection
    # Twice: as they came, and in the head.
    fields = sum(2 * (len(name) + len(value)) for name, value in pairs)
    return size + fields + FIELD_BYTES * len(pairs) + len(kept.etag or b"") + len(kept.body)
