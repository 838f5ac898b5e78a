"""Answers in this process's memory, ready for the wire."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Final

from imgproxy_cache.core.kept import Kept, KeptAnswer, Signpost, TierKey, without_body
from imgproxy_cache.tiers import Counts, Heads, Wire
from imgproxy_cache.tiers.hit import Hit
from imgproxy_cache.tiers.memory_file import MemoryFile, MemoryFiles, file_bytes
from imgproxy_cache.tiers.s3_fifo import S3Fifo

# Up to here head and body go out in one write, which saves 4 us; copying this much once a second
# costs as much.  Larger bodies are there once for all clients that read slowly, not once a second.
ONE_WRITE_BYTES = 64 * 1024
# From here on it costs less to have the kernel send a file than to have it copy the body: 2 of
# 12 us for 30 KB, 4 of 16 for 60.
LEAST_IN_FILE_BYTES = 12 * 1024
# One that takes more of the tier would push out dozens to save one render.
LARGEST_SHARE = 8

# What an entry takes besides the bytes of its strings (a head with no more than the fields that
# are made for each hit among it), as tracemalloc sees it in CPython 3.11 to
# 3.13 (tests/tiers/test_memory.py holds it against that): objects, tuples, the dictionary's part.
ENTRY_BYTES = 1280
FIELD_BYTES = 175


class Held(Hit):
    """An answer in memory, its body there once."""

    __slots__ = ("_file", "_files", "_rest", "_wire")

    def __init__(self, kept: KeptAnswer, heads: Heads, files: MemoryFiles) -> None:
        super().__init__(without_body(kept), len(kept.body), heads)
        self._files = files
        # The body is in one of three: in a file from the first hit on, the rest of a large one, or
        # behind the head in what is written.
        self._file: MemoryFile | None = None
        self._rest = kept.body if self.size > ONE_WRITE_BYTES else b""
        self._wire = b"" if self._rest else kept.body

    @property
    def kept(self) -> KeptAnswer:
        """The whole answer; up to :data:`ONE_WRITE_BYTES` its body is a copy."""
        return replace(self.metadata, body=self._body)

    @property
    def _body(self) -> bytes:
        if self._file is not None:
            return self._file.read(self.size)
        return self._rest or self._wire[len(self._head) :]

    def give(self, now: float, wire: Wire) -> bool:
        """Write the whole answer, as it is in this second.  False where it is not fresh."""
        if not self._from <= now < self._until:
            if now >= self.metadata.lifetimes.fresh_until:
                return False
            self._make_head(now)
        if self._file is not None:
            wire.send_file(self._head, self._file.descriptor, 0, self.size)
        elif self._rest:
            wire.write(self._head)
            wire.write(self._rest)
        else:
            wire.send(self._wire)
        return True

    def _make_head(self, now: float) -> None:
        body = memoryview(self._wire)[len(self._head) :]
        super()._make_head(now)
        if not self._rest and not self._is_in_file(body):
            self._wire = b"".join((self._head, body))

    def _is_in_file(self, body: memoryview) -> bool:
        """Whether the body is in a file, where it comes when it may."""
        if self._file is None and may_be_in_file(self.size):
            self._file = self._files.hold(body)
            if self._file is not None:
                self._wire = b""
        return self._file is not None


class MemoryTier:
    """
    A :class:`~imgproxy_cache.tiers.Tier` that has `find` in the place of `get`: it answers at once,
    and costs next to nothing.  Whoever finds nothing counts the miss.

    `max_bytes` is for all that the entries take in memory, within some percent (resident it is a
    sixth more: the allocator's gaps); with 0 the tier is empty for ever.  No more than `max_files`
    bodies are in files.
    """

    name: Final = "memory"

    def __init__(self, *, max_bytes: int, max_items: int, max_files: int, heads: Heads) -> None:
        self._counts = Counts()
        self.entries: S3Fifo[Held | Signpost] = S3Fifo(max_bytes=max_bytes, max_items=max_items)
        self.find: Callable[[TierKey], Held | Signpost | None] = self.entries.find
        self.max_bytes = max_bytes
        self._largest = max_bytes // LARGEST_SHARE
        self._heads = heads
        self._files = MemoryFiles(max_files)

    @property
    def counts(self) -> Counts:
        counts, entries = self._counts, self.entries
        counts.hits, counts.evictions = entries.hits, entries.evictions
        counts.items, counts.bytes = len(entries), entries.size
        return counts

    def put(self, key: TierKey, kept: Kept) -> None:
        if not self.max_bytes:
            self._counts.refused += 1
            return
        size = entry_bytes(key, kept)
        if size > self._largest:
            self.entries.remove(key)
            self._counts.refused += 1
            return
        self._counts.puts += 1
        if isinstance(kept, Signpost):
            self.entries.put(key, kept, size)
            return
        if self._files.most and may_be_in_file(len(kept.body)):
            size += file_bytes(len(kept.body)) - len(kept.body)
        self.entries.put(key, Held(kept, self._heads, self._files), size)

    def remove(self, key: TierKey) -> None:
        self.entries.remove(key)


def may_be_in_file(size: int) -> bool:
    """Whether a body of so many bytes is better sent by the kernel."""
    return LEAST_IN_FILE_BYTES <= size <= ONE_WRITE_BYTES


def entry_bytes(key: TierKey, kept: Kept) -> int:
    """What an entry takes in memory, with its head for the wire."""
    size = ENTRY_BYTES + len(key) + len(kept.name)
    if isinstance(kept, Signpost):
        return size + sum(FIELD_BYTES + len(name) for name in kept.names)
    pairs = kept.fields + kept.selection
    # Twice: as they came, and in the head.
    fields = sum(2 * (len(name) + len(value)) for name, value in pairs)
    return size + fields + FIELD_BYTES * len(pairs) + len(kept.etag or b"") + len(kept.body)
