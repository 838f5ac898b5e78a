"""Fewer and larger pages for what is in memory."""

from __future__ import annotations

import ctypes
import os
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

PAGE_BYTES: Final = 4096
HUGE_PAGE_BYTES: Final = 2 * 1024 * 1024
# A page that is less full would take more memory than it is worth.
LEAST_FULL: Final = 0.5
MADV_COLLAPSE: Final = 25  # Linux 6.1 and later: asm-generic/mman-common.h

_MAPS = Path("/proc/self/maps")
_ANONYMOUS = re.compile(rb"([0-9a-f]+)-([0-9a-f]+) rw-p \S+ 00:00 0 *(?:\[heap\])?")
_POLICY = Path("/sys/kernel/mm/transparent_hugepage/enabled")


def gather_in_huge_pages() -> int:
    """
    Have the kernel move what the interpreter has in memory now into huge pages; how many.

    Of small ones a request uses some hundreds, and renders between two requests have the processor
    forget where each of them is: 7 % of what a new image costs, and up to 6 % of a hit.  Takes
    15 ms for 26 MB, and a megabyte of memory more.  0 where the kernel has none, or none for us.
    """
    gathered = 0
    with suppress(OSError, AttributeError):  # another system, or another libc
        if b"[never]" not in _POLICY.read_bytes() and os.sysconf("SC_PAGE_SIZE") == PAGE_BYTES:
            gathered = sum(map(_Collapse(), _places()))
    return gathered


class _Collapse:
    """Make one huge page of those at an address, if most of them are there; whether it was made."""

    def __init__(self) -> None:
        libc = ctypes.CDLL(None)
        self._mincore, self._madvise = libc.mincore, libc.madvise
        self._mincore.argtypes = (ctypes.c_size_t, ctypes.c_size_t, ctypes.c_char_p)
        self._madvise.argtypes = (ctypes.c_size_t, ctypes.c_size_t, ctypes.c_int)
        self._is_there = ctypes.create_string_buffer(HUGE_PAGE_BYTES // PAGE_BYTES)

    def __call__(self, start: int) -> bool:
        is_there = self._is_there
        if self._mincore(start, HUGE_PAGE_BYTES, is_there) != 0:
            return False
        if is_there.raw.count(1) < len(is_there) * LEAST_FULL:
            return False
        return bool(self._madvise(start, HUGE_PAGE_BYTES, MADV_COLLAPSE) == 0)


def _places() -> Iterator[int]:
    """Where in our memory there may be huge pages: those of the heap, and of Python's arenas."""
    for line in _MAPS.read_bytes().splitlines():
        found = _ANONYMOUS.fullmatch(line)
        if found is not None:
            start, end = int(found[1], 16), int(found[2], 16)
            first = -(-start // HUGE_PAGE_BYTES) * HUGE_PAGE_BYTES
            yield from range(first, end - HUGE_PAGE_BYTES + 1, HUGE_PAGE_BYTES)
