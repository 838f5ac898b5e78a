"""
Which of many entries stay when there is no room for all: S3-FIFO, bounded in bytes and items.

Chosen by measuring (`python -m benchmarks.eviction`): Zipf(1.0) over 20,000 images, room for a
tenth of them; the second column while a crawler walks through images that nobody else asks for.

======================  ======  =======  ====================================
hits of people          alone   crawled  a request costs, with what it puts
======================  ======  =======  ====================================
this                    74.9 %  74.4 %   1.0-2.0 us
SIEVE                   74.7 %  72.2 %   0.3-0.6 us
cachebox (LRU)          69.7 %  57.0 %   0.3-0.4 us
cachetools (LRU)        69.7 %  57.0 %   0.8-1.5 us
theine (W-TinyLFU)      75.5 %  72.8 %   1.6-2.4 us, bounded in items only
======================  ======  =======  ====================================

A hit costs the same here and in SIEVE, and one rendered image less in a hundred saves 70 us a
request: that decides.  No kept library does it bounded in bytes: those named after it count items.

Source: Yang et al., FIFO queues are all you need for cache eviction, SOSP 2023
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Generic, TypeVar

V = TypeVar("V")

# The paper's: what is asked for only once leaves the tenth and not the rest.
SMALL_SHARE = 0.1
MOST_VISITS = 3
# A remembered key: an entry of an OrderedDict and two integers, as tracemalloc sees it.
GHOST_BYTES = 150


class Entry(Generic[V]):
    """Where a value lies; `visits` are counted by whoever takes it from here."""

    __slots__ = ("size", "value", "visits")

    def __init__(self, value: V | None, size: int) -> None:
        self.value = value
        """None as soon as it is evicted, removed, or another has taken its place."""
        self.size = size
        self.visits = 0


class S3Fifo(Generic[V]):
    """
    Values by key, as many as fit.

    New ones wait in a small queue; those that are asked for again go on into the main one,
    and so do those that come back soon after they were evicted (of which the ghosts tell:
    hashes of keys, because keys can be long).
    """

    def __init__(self, *, max_bytes: int, max_items: int) -> None:
        self.max_bytes = max_bytes
        self.max_items = max_items
        self.hits = 0
        self.evictions = 0
        self._small: OrderedDict[bytes, Entry[V]] = OrderedDict()
        self._main: OrderedDict[bytes, Entry[V]] = OrderedDict()
        self._ghosts: OrderedDict[int, int] = OrderedDict()
        self._small_bytes = 0
        self._main_bytes = 0
        self._ghost_bytes = 0
        """What the entries took of which there are ghosts."""

    def __len__(self) -> int:
        return len(self._small) + len(self._main)

    @property
    def size(self) -> int:
        return self._small_bytes + self._main_bytes + len(self._ghosts) * GHOST_BYTES

    def find(self, key: bytes) -> V | None:
        """A hit moves nothing: it leaves a mark."""
        entry = self.entry(key)
        if entry is None:
            return None
        entry.visits += 1
        self.hits += 1
        return entry.value

    def entry(self, key: bytes) -> Entry[V] | None:
        """For who asks for it again and again, and counts visits and hits as :meth:`find` does."""
        return self._main.get(key) or self._small.get(key)

    def put(self, key: bytes, value: V, size: int) -> bool:
        """Whether there is room; an earlier value is gone in any case."""
        was_main = self.remove(key)
        if size > self.max_bytes or self.max_items < 1:
            return False
        while self.size + size > self.max_bytes or len(self) >= self.max_items:
            self._make_room()
        entry = Entry(value, size)
        if was_main or self._forget_ghost(key):
            self._main[key] = entry
            self._main_bytes += size
        else:
            self._small[key] = entry
            self._small_bytes += size
        return True

    def remove(self, key: bytes) -> bool:
        """Whether it had come as far as the main queue."""
        if (entry := self._main.pop(key, None)) is not None:
            self._main_bytes -= entry.size
            entry.value = None
            return True
        if (entry := self._small.pop(key, None)) is not None:
            self._small_bytes -= entry.size
            entry.value = None
        return False

    def _make_room(self) -> None:
        """Evict one entry, or forget a ghost where nothing else is left."""
        if not self and self._ghosts:
            self._ghost_bytes -= self._ghosts.popitem(last=False)[1]
        elif self._small and (self._small_bytes >= self.max_bytes * SMALL_SHARE or not self._main):
            self._evict_from_small()
        else:
            self._evict_from_main()

    def _evict_from_small(self) -> None:
        key, entry = self._small.popitem(last=False)
        self._small_bytes -= entry.size
        if entry.visits:
            entry.visits = 0
            self._main[key] = entry
            self._main_bytes += entry.size
        else:
            self.evictions += 1
            entry.value = None
            self._remember_ghost(key, entry.size)

    def _evict_from_main(self) -> None:
        key, entry = self._main.popitem(last=False)
        if entry.visits:
            entry.visits = min(entry.visits, MOST_VISITS) - 1
            self._main[key] = entry
        else:
            self._main_bytes -= entry.size
            self.evictions += 1
            entry.value = None

    def _remember_ghost(self, key: bytes, size: int) -> None:
        """As many as would fit into the main queue."""
        self._forget_ghost(key)  # of another key with this hash
        self._ghosts[hash(key)] = size
        self._ghost_bytes += size
        while (
            self._ghost_bytes > self.max_bytes * (1 - SMALL_SHARE)
            or len(self._ghosts) > self.max_items
        ):
            self._ghost_bytes -= self._ghosts.popitem(last=False)[1]

    def _forget_ghost(self, key: bytes) -> bool:
        size = self._ghosts.pop(hash(key), None)
        if size is None:
            return False
        self._ghost_bytes -= size
        return True
