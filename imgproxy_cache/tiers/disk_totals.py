"""How much the disk tier's folders hold: a file that all workers share, and its lock."""

from __future__ import annotations

import fcntl
import os
from array import array
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

FOLDERS = 256
_PAIR_BYTES = 2 * 8
_FILE_BYTES = FOLDERS * _PAIR_BYTES


class Totals:
    """
    Bytes and items of each folder, and of all, as noted in an open file.

    The folders are changed by whoever has this, and by nobody else at the time.
    """

    def __init__(self, descriptor: int) -> None:
        content = os.pread(descriptor, _FILE_BYTES, 0)
        if len(content) != _FILE_BYTES:  # it is new, or the disk was full when it was
            content = bytes(_FILE_BYTES)
            os.pwrite(descriptor, content, 0)
        self._descriptor = descriptor
        self._figures = array("q", content)
        self.bytes = sum(self._figures[0::2])
        self.items = sum(self._figures[1::2])

    def largest_first(self) -> list[int]:
        """The folders that hold anything."""
        numbers = sorted(range(FOLDERS), key=lambda number: -self._figures[2 * number])
        return [number for number in numbers if self._of(number) != (0, 0)]

    def add(self, number: int, more_bytes: int, more_items: int) -> None:
        before_bytes, before_items = self._of(number)
        self.set(number, before_bytes + more_bytes, before_items + more_items)

    def set(self, number: int, new_bytes: int, new_items: int) -> None:
        before_bytes, before_items = self._of(number)
        pair = array("q", (new_bytes, new_items))
        os.pwrite(self._descriptor, pair, _PAIR_BYTES * number)
        self._figures[2 * number : 2 * number + 2] = pair
        self.bytes += new_bytes - before_bytes
        self.items += new_items - before_items

    def _of(self, number: int) -> tuple[int, int]:
        return self._figures[2 * number], self._figures[2 * number + 1]


@contextmanager
def locked_totals(path: Path) -> Iterator[Totals]:
    """Alone among all processes and threads, for a rename, or for looking through a folder."""
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(path, flags, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield Totals(descriptor)
    finally:
        os.close(descriptor)
