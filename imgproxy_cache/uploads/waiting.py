"""The images that a store does not have yet: which is next, how old they are, what they take."""

from __future__ import annotations

from collections.abc import Iterator
from heapq import heapify, heappop, heappush
from itertools import count

from imgproxy_cache.core.key import Key
from imgproxy_cache.uploads.pending import Pending

_Entry = tuple[float, int, Pending]
_Heap = list[_Entry]
# What is done stays in a heap until it comes to the top, or until it is most of it.
_SPARE = 1000


class Waiting:
    """
    Oldest first; of each key the newest, and one at a time on its way.

    An image that was taken comes back by :meth:`put_back`, or is finished.
    """

    def __init__(self) -> None:
        self.items = 0
        """Images whose bytes are in memory."""
        self.bytes = 0
        self.bytes_on_their_way = 0
        self._ready: _Heap = []
        self._by_age: _Heap = []
        self._numbers = count()
        self._newest: dict[Key, Pending] = {}
        self._behind: dict[Key, Pending] = {}
        self._on_their_way: dict[Key, Pending] = {}

    def __len__(self) -> int:
        return len(self._newest)

    def __iter__(self) -> Iterator[Pending]:
        return iter(self._newest.values())

    @property
    def on_their_way(self) -> int:
        return len(self._on_their_way)

    def newest(self, key: Key) -> Pending | None:
        return self._newest.get(key)

    def is_superseded(self, pending: Pending) -> bool:
        """A newer image of its key waits."""
        return self._newest.get(pending.key) is not pending

    def is_on_its_way(self, pending: Pending) -> bool:
        return self._on_their_way.get(pending.key) is pending

    @property
    def oldest(self) -> Pending | None:
        while self._by_age and self._by_age[0][2].is_done:
            heappop(self._by_age)
        return self._by_age[0][2] if self._by_age else None

    def add(self, pending: Pending) -> Pending | None:
        """Let it wait; return what need not wait any more, because one of the two is newer."""
        other = self._newest.get(pending.key)
        if other is not None and other.accepted_at > pending.accepted_at:
            return pending
        self._newest[pending.key] = pending
        if pending.upload is not None:
            self.items += 1
            self.bytes += pending.size
        entry = (pending.accepted_at, next(self._numbers), pending)
        self._push(self._by_age, entry)
        self._push(self._ready, entry)
        return None if self._on_their_way.get(pending.key) is other else other

    def next(self) -> Pending | None:
        """The first that is not on its way already."""
        while self._ready:
            pending = self._ready[0][2]
            if not pending.is_done and pending.key not in self._on_their_way:
                return pending
            heappop(self._ready)
            if not pending.is_done:
                self._behind[pending.key] = pending
        return None

    def take(self, pending: Pending) -> None:
        """It is on its way: `pending` is what :meth:`next` returned."""
        heappop(self._ready)
        self._on_their_way[pending.key] = pending
        self.bytes_on_their_way += pending.size
        pending.was_read = pending.upload is None
        if pending.was_read:
            self.bytes += pending.size

    def arrived(self, pending: Pending) -> None:
        """It is not on its way any more, wherever that ended; another of its key may go."""
        del self._on_their_way[pending.key]
        self.bytes_on_their_way -= pending.size
        if pending.was_read:
            pending.was_read = False
            self.bytes -= pending.size
        behind = self._behind.pop(pending.key, None)
        if behind is not None:
            self.put_back(behind, behind.accepted_at)

    def put_back(self, pending: Pending, order: float) -> None:
        """It may be taken (again), after those of a lower order."""
        self._push(self._ready, (order, next(self._numbers), pending))

    def finish(self, pending: Pending) -> None:
        """It is stored, or given up."""
        pending.is_done = True
        self.release(pending)
        if self._newest.get(pending.key) is pending:
            del self._newest[pending.key]

    def release(self, pending: Pending) -> None:
        """Give up the memory of an image."""
        if pending.upload is not None:
            pending.content_sha256 = pending.upload.content_sha256
            pending.upload = None
            self.items -= 1
            self.bytes -= pending.size

    def clear(self) -> None:
        self._newest.clear()
        self._ready.clear()
        self._by_age.clear()
        self._behind.clear()
        self.items = self.bytes = 0

    def _push(self, heap: _Heap, entry: _Entry) -> None:
        heappush(heap, entry)
        if len(heap) > 2 * len(self._newest) + _SPARE:
            heap[:] = [entry for entry in heap if not entry[2].is_done]
            heapify(heap)
