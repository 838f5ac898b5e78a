"""
`python -m benchmarks.eviction`: which images a full cache should keep, and what deciding costs.

Two traces of 300,000 requests each, Zipf(1.0) over 20,000 images of 30 KB (log-normal): alone, and
with a crawler that asks for another image, and for each only once, after every request.  A hit is
counted for what people ask for; the crawler's cannot be any.  Libraries take part where they are
installed (`uv pip install cachebox cachetools theine`).
"""

import random
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from importlib import import_module
from importlib.util import find_spec
from itertools import accumulate
from typing import Any, Protocol

from imgproxy_cache.tiers.s3_fifo import S3Fifo

IMAGES = 20_000
REQUESTS = 300_000
# exp of it is the median: with this spread, 30 KB in the mean.
LOG_MEDIAN, LOG_SPREAD, MOST_BYTES = 10.0, 0.8, 500_000
ROOM = (0.01, 0.1, 0.3)
MANY = 1_000_000_000


class Cache(Protocol):
    def find(self, key: bytes) -> object | None: ...

    def put(self, key: bytes, value: bytes, size: int) -> object: ...


class Lru:
    """What most caches do."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._bytes = 0
        self._entries: OrderedDict[bytes, tuple[bytes, int]] = OrderedDict()

    def find(self, key: bytes) -> object | None:
        found = self._entries.get(key)
        if found is not None:
            self._entries.move_to_end(key)
        return found

    def put(self, key: bytes, value: bytes, size: int) -> None:
        self._entries[key] = (value, size)
        self._bytes += size
        while self._bytes > self._max_bytes:
            self._bytes -= self._entries.popitem(last=False)[1][1]


class _Node:
    __slots__ = ("key", "newer", "older", "size", "value", "visited")

    def __init__(self, key: bytes, value: bytes, size: int) -> None:
        self.key = key
        self.value = value
        self.size = size
        self.visited = False
        self.older = self.newer = self


class Sieve:
    """Source: Zhang et al., SIEVE is simpler than LRU, NSDI 2024"""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._bytes = 0
        self._nodes: dict[bytes, _Node] = {}
        self._end = self._hand = _Node(b"", b"", 0)

    def find(self, key: bytes) -> object | None:
        node = self._nodes.get(key)
        if node is None:
            return None
        node.visited = True
        return node.value

    def put(self, key: bytes, value: bytes, size: int) -> None:
        while self._bytes + size > self._max_bytes:
            self._evict()
        node = self._nodes[key] = _Node(key, value, size)
        newest = self._end.older
        node.older, node.newer = newest, self._end
        newest.newer = self._end.older = node
        self._bytes += size

    def _evict(self) -> None:
        hand = self._hand
        while hand is self._end or hand.visited:
            hand.visited = False
            hand = hand.newer
        hand.older.newer, hand.newer.older = hand.newer, hand.older
        self._hand = hand.newer
        del self._nodes[hand.key]
        self._bytes -= hand.size


class Library:
    """A package's cache, which takes sizes as `put` wants it to, or counts items of 30 KB."""

    def __init__(self, cache: Any, put: Callable[[Any, bytes, bytes, int], object]) -> None:
        self._get = cache.get
        self._cache = cache
        self._put = put

    def find(self, key: bytes) -> object | None:
        found: object | None = self._get(key)
        return found

    def put(self, key: bytes, value: bytes, size: int) -> None:
        self._put(self._cache, key, value, size)


class Theine(Library):
    def find(self, key: bytes) -> object | None:
        found: object | None = self._get(key)[0]
        return found


def caches() -> Iterator[tuple[str, Callable[[int], Cache]]]:
    yield "S3-FIFO (ours)", lambda room: S3Fifo(max_bytes=room, max_items=MANY)
    yield "SIEVE", Sieve
    yield "LRU", Lru
    if find_spec("cachetools"):
        lru = import_module("cachetools").LRUCache
        yield (
            "cachetools, LRU",
            lambda room: Library(lru(room, getsizeof=lambda kept: kept[1]), _put_pair),
        )
    if find_spec("cachebox"):
        fast_lru = import_module("cachebox").LRUCache
        yield (
            "cachebox, LRU",
            lambda room: Library(fast_lru(room, getsizeof=lambda _, kept: kept[1]), _put_pair),
        )
    if find_spec("theine"):
        tiny_lfu = import_module("theine").Cache
        yield (
            "theine, W-TinyLFU, by items",
            lambda room: Theine(tiny_lfu(room // 30_000, nolock=True), _put_alone),
        )


def _put_pair(cache: Any, key: bytes, value: bytes, size: int) -> None:
    cache[key] = (value, size)


def _put_alone(cache: Any, key: bytes, value: bytes, size: int) -> None:
    cache.set(key, value)


def traces(chance: random.Random) -> dict[str, list[tuple[bytes, int]]]:
    """What is asked for, with its size."""
    images = [
        (b"/rs:fit:%d:0/plain/https://shop.example/images/%040d.jpg" % (n, n), _size(chance))
        for n in range(IMAGES)
    ]
    weights = list(accumulate(1 / rank for rank in range(1, IMAGES + 1)))
    asked = chance.choices(images, cum_weights=weights, k=REQUESTS)
    crawled = ((b"/crawled/%070d.jpg" % n, _size(chance)) for n in range(REQUESTS))
    both = [request for pair in zip(asked, crawled, strict=True) for request in pair]
    return {"Zipf": asked, "Zipf and a crawler": both}


def _size(chance: random.Random) -> int:
    return min(MOST_BYTES, int(chance.lognormvariate(LOG_MEDIAN, LOG_SPREAD)))


def replayed(cache: Cache, trace: list[tuple[bytes, int]]) -> tuple[float, float]:
    """Hits for each request of people, and nanoseconds for each request."""
    hits = 0
    began = time.perf_counter()
    for key, size in trace:
        if cache.find(key) is None:
            cache.put(key, key, size)
        else:
            hits += 1
    return hits / REQUESTS, (time.perf_counter() - began) / len(trace) * 1e9


def main() -> None:
    chance = random.Random(1)  # one trace for everybody
    everything = IMAGES * 30_500
    print(f"{'':30}" + "".join(f"{f'room for {room:.0%}':>20}" for room in ROOM))
    for title, trace in traces(chance).items():
        print(title)
        for name, make in caches():
            cells = [replayed(make(int(everything * room)), trace) for room in ROOM]
            print(f"  {name:28}" + "".join(f"{hits:>10.1%}{ns:>7.0f} ns" for hits, ns in cells))


if __name__ == "__main__":
    main()
