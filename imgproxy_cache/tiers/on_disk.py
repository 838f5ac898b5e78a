"""Answers on disk whose files are open: hits that need no thread."""

from __future__ import annotations

import errno
import os
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import replace

from imgproxy_cache.core.kept import KeptAnswer, Signpost, TierKey
from imgproxy_cache.tiers import Heads, Wire
from imgproxy_cache.tiers.disk_folder import OpenFile
from imgproxy_cache.tiers.hit import Hit

# Reading more than this takes longer than the way to a thread and back (0.1 ms).
MOST_NOW_BYTES = 1024 * 1024
# Where the kernel cannot tell (below), what was read so lately is taken to be in its cache still.
WARM_SECONDS = 30.0
# What the kernel had in its cache so lately, it has: the file is sent from there.  That can wait
# for the disk, but does not copy: 5 of 13 us for 30 KB.  What was not given in this second or the
# one before is read, which asks the kernel.
SEND_SECONDS = 2.0


class PageCache:
    """
    Reads files as far as that needs no disk.

    Linux tells on ext4, xfs and btrfs.  It does not on tmpfs, which has no disk, and on overlayfs,
    where containers have what is no volume: there, reading waits for the disk in the rare case
    that something was forgotten :data:`WARM_SECONDS` after it was read.
    """

    def __init__(self, *, can_tell: bool = hasattr(os, "RWF_NOWAIT")) -> None:
        self.can_tell = can_tell

    def read(self, descriptor: int, into: memoryview, at: int, *, is_warm: bool) -> bool:
        """Whether all of it was read."""
        try:
            if self.can_tell:
                try:
                    return os.preadv(descriptor, [into], at, os.RWF_NOWAIT) == len(into)
                except OSError as exc:
                    if exc.errno != errno.EOPNOTSUPP:
                        raise
                    self.can_tell = False
            return is_warm and os.preadv(descriptor, [into], at) == len(into)
        except OSError:  # not in the cache, or a disk that fails: a thread will see
            return False


class OnDisk(Hit):
    """An answer on disk, its file open."""

    __slots__ = ("_body_at", "_cache", "_descriptor", "_read_at", "is_cold")

    def __init__(
        self, file: OpenFile, metadata: KeptAnswer, cache: PageCache, heads: Heads, now: float
    ) -> None:
        super().__init__(metadata, file.head.size, heads)
        self.is_cold = False
        """Its body could not be read without waiting."""
        self._descriptor = file.descriptor
        self._body_at = file.head.body_at
        self._cache = cache
        self._read_at = now

    def give(self, now: float, wire: Wire) -> bool:
        """
        Write the whole answer, as it is in this second.

        False, and nothing is written, where it is not fresh, the body is large, or has to be
        waited for.
        """
        if not self._from <= now < self._until:
            if now >= self.metadata.lifetimes.fresh_until:
                return False
            was_given_lately = self._from <= now < self._from + SEND_SECONDS
            self._make_head(now)
            if not was_given_lately:
                return self._give_read(now, wire)
        wire.send_file(self._head, self._descriptor, self._body_at, self.size)
        return True

    def _give_read(self, now: float, wire: Wire) -> bool:
        head = self._head
        data = bytearray(len(head) + self.size) if self.size <= MOST_NOW_BYTES else bytearray()
        data[: len(head)] = head
        if not self._read(memoryview(data)[len(head) :], now):
            self._from = self._until = 0.0
            return False
        wire.send(data)
        return True

    def kept_at(self, now: float) -> KeptAnswer | None:
        """The whole answer; None as in :meth:`give`."""
        body = bytearray(self.size if self.size <= MOST_NOW_BYTES else 0)
        return (
            replace(self.metadata, body=bytes(body)) if self._read(memoryview(body), now) else None
        )

    def _read(self, into: memoryview, now: float) -> bool:
        is_warm = abs(now - self._read_at) < WARM_SECONDS
        self.is_cold = len(into) != self.size or not self._cache.read(
            self._descriptor, into, self._body_at, is_warm=is_warm
        )
        if not self.is_cold:
            self._read_at = now
        return not self.is_cold


class _Entry:
    __slots__ = ("checked_at", "descriptor", "is_used", "what")

    def __init__(self, descriptor: int, what: OnDisk | Signpost, second: int) -> None:
        self.descriptor = descriptor
        self.what = what
        self.checked_at = second
        self.is_used = False


class OpenFiles:
    """
    The files that were used last, open.

    What another worker replaces or removes is noticed within a second: the file has no name
    any more.  `close` may wait for the disk, which frees what has no name when it is closed.
    """

    def __init__(self, *, max_files: int, heads: Heads, close: Callable[[int], object]) -> None:
        self._max_files = max_files
        self._heads = heads
        self._close = close
        self._cache = PageCache()
        self._entries: OrderedDict[TierKey, _Entry] = OrderedDict()
        self._used: set[TierKey] = set()

    def __len__(self) -> int:
        return len(self._entries)

    def find(self, key: TierKey, now: float) -> OnDisk | Signpost | None:
        entry = self._entries.get(key)
        if entry is None:
            return None
        second = int(now)
        if second != entry.checked_at:
            if not os.fstat(entry.descriptor).st_nlink:
                self.forget(key)
                return None
            entry.checked_at = second
        if not entry.is_used:
            entry.is_used = True
            self._used.add(key)
        self._entries.move_to_end(key)
        return entry.what

    def add(self, key: TierKey, file: OpenFile, now: float) -> None:
        """A file that was read just now: it is ours to close."""
        self.forget(key)
        kept = file.head.kept
        if not isinstance(kept, Signpost):
            what: OnDisk | Signpost = OnDisk(file, kept, self._cache, self._heads, now)
        else:
            what = kept
        self._entries[key] = _Entry(file.descriptor, what, int(now))
        while len(self._entries) > self._max_files:
            self.forget(next(iter(self._entries)))

    def forget(self, key: TierKey) -> None:
        entry = self._entries.pop(key, None)
        if entry is not None:
            self._used.discard(key)
            self._close(entry.descriptor)

    def take_used(self) -> list[TierKey]:
        """Those that were found since this was called last, and are open still."""
        used = [key for key in self._used if key in self._entries]
        self._used.clear()
        for key in used:
            self._entries[key].is_used = False
        return used

    def close(self) -> None:
        while self._entries:
            os.close(self._entries.popitem()[1].descriptor)
