"""
How much the disk tier holds, of all workers, and what is removed when that is too much.

What a folder holds is changed under the lock of its `totals` only, and noted there.  A process
that is killed between the two leaves a figure that is wrong by one file, until the folder is
looked through the next time.

Nobody keeps a list of all files: a million of them would delay the start, and take memory in
each worker.  A file's modification time says when it was used last, and of a thousand or more
files the longest unused go first; of all, where there are no more.

Everything here blocks, and is called in threads.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Generator, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from imgproxy_cache.tiers.disk_totals import FOLDERS, Totals, locked_totals

BLOCK_BYTES = 4096
SAMPLE_FILES = 1000
# A removal makes room for more than the one that asked for it: looking around costs 5 ms and more.
SPARE_SHARE = 64
# But not more than this of one sample, else files go that were used lately.
SAMPLE_SHARE = 8

NAME = re.compile(r"[0-9a-f]{62}\.kept")


@dataclass(frozen=True, slots=True)
class _Used:
    """A file, with when it was used last."""

    at: int
    folder: int
    name: str
    size: int


class Room:
    """
    Bounds what the folders 00 to ff under `path` hold.

    Methods raise OSError as the file system does.  Safe to call from several threads.
    """

    def __init__(self, path: Path, *, max_bytes: int, max_items: int) -> None:
        self.max_bytes = max_bytes
        self.max_items = max_items
        self.bytes = 0
        """Of all workers, as this process has seen it last."""
        self.items = 0
        self.evictions = 0
        """By this process."""
        self._path = path

    @contextmanager
    def locked(self) -> Iterator[Totals]:
        with locked_totals(self._path / "totals") as totals:
            try:
                yield totals
            finally:
                self.bytes, self.items = totals.bytes, totals.items

    @contextmanager
    def locked_for(self, size: int) -> Iterator[Totals]:
        """With room for one more file, for which nobody else can take it."""
        while True:
            with self.locked() as totals:
                if self._has_room(totals, size, 1):
                    yield totals
                    return
            self.make_for(size)

    def look(self) -> None:
        """See how much there is now."""
        with self.locked():
            pass

    def make_for(self, size: int) -> None:
        """Remove the longest unused until one more file fits."""
        while self._evict(size, 1):
            pass

    def count(self) -> Generator[None]:
        """Look through everything, in steps, and remove what is too much."""
        for number in range(FOLDERS):
            with self.locked() as totals:
                self._look_through(totals, number)
            yield
        while self._evict(0, 0):
            yield

    def _evict(self, more_bytes: int, more_items: int) -> bool:
        """Remove some, if there is no room for so much more: whether that was so."""
        with self.locked() as totals:
            if self._has_room(totals, more_bytes, more_items):
                return False
            sample = self._sample(totals)
            more_bytes += self.max_bytes // SPARE_SHARE // BLOCK_BYTES * BLOCK_BYTES
            more_items += self.max_items // SPARE_SHARE
            for used in sample[: max(1, len(sample) // SAMPLE_SHARE)]:
                if self._has_room(totals, more_bytes, more_items):
                    break
                self._file(used).unlink(missing_ok=True)
                totals.add(used.folder, -used.size, -1)
                self.evictions += 1
            return True

    def _has_room(self, totals: Totals, more_bytes: int, more_items: int) -> bool:
        return (
            totals.bytes + more_bytes <= self.max_bytes
            and totals.items + more_items <= self.max_items
        )

    def _sample(self, totals: Totals) -> list[_Used]:
        """
        Files, the longest unused first.

        Names are hashes, so that one folder is as good as another: the largest are looked at,
        because a wrong figure is found there.
        """
        sample: list[_Used] = []
        for number in totals.largest_first():
            if len(sample) >= SAMPLE_FILES:
                break
            sample += self._look_through(totals, number)
        return sorted(sample, key=lambda used: used.at)

    def _look_through(self, totals: Totals, number: int) -> list[_Used]:
        """What a folder holds, and note it."""
        folder = self._path / f"{number:02x}"
        remove_unless_folder(folder)
        found: list[_Used] = []
        with suppress(FileNotFoundError), os.scandir(folder) as entries:
            for entry in entries:
                if NAME.fullmatch(entry.name):
                    found += _used(number, entry)
        totals.set(number, sum(used.size for used in found), len(found))
        return found

    def _file(self, used: _Used) -> Path:
        return self._path / f"{used.folder:02x}" / used.name


def size_on_disk(size: int) -> int:
    """What so many bytes take, in whole blocks."""
    return -(-size // BLOCK_BYTES) * BLOCK_BYTES


def remove_unless_folder(path: Path) -> None:
    """In the place of a folder of ours nobody has anything else, a link in particular."""
    with suppress(FileNotFoundError):
        if not stat.S_ISDIR(path.lstat().st_mode):
            path.unlink()


def _used(number: int, entry: os.DirEntry[str]) -> list[_Used]:
    """None, where it is gone or no file."""
    try:
        found = entry.stat(follow_symlinks=False)
    except FileNotFoundError:
        return []
    if stat.S_ISDIR(found.st_mode):
        return []
    return [_Used(found.st_mtime_ns, number, entry.name, size_on_disk(found.st_size))]
