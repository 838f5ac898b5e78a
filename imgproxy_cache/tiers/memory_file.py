"""Bodies that are in memory, and yet in files: the kernel sends them without a copy."""

from __future__ import annotations

import os
import resource

# Of the kernel for each, on top of whole pages: inode, entry and file (Slab in /proc/meminfo).
FILE_BYTES = 1200
PAGE_BYTES = resource.getpagesize()


class MemoryFile:
    """A body in a file that is on no disk and has no name; open for as long as this lives."""

    __slots__ = ("_files", "descriptor")

    def __init__(self, descriptor: int, files: MemoryFiles) -> None:
        self.descriptor = descriptor
        self._files = files

    def __del__(self) -> None:  # not earlier: who has found an answer may still send it
        self._files.close(self.descriptor)

    def read(self, size: int) -> bytes:
        return os.pread(self.descriptor, size, 0)


class MemoryFiles:
    """No more than `most` at a time; none where the system has no such files."""

    def __init__(self, most: int) -> None:
        self.most = most if hasattr(os, "memfd_create") else 0
        self._open = 0

    def hold(self, body: bytes | memoryview) -> MemoryFile | None:
        """None where there is no room for another."""
        if self._open >= self.most:
            return None
        try:
            descriptor = os.memfd_create("image")
        except OSError:
            return None
        self._open += 1
        file = MemoryFile(descriptor, self)
        try:
            return file if os.write(descriptor, body) == len(body) else None
        except OSError:
            return None

    def close(self, descriptor: int) -> None:
        os.close(descriptor)
        self._open -= 1


def file_bytes(size: int) -> int:
    """What a body of so many bytes takes in a file."""
    return FILE_BYTES + size + -size % PAGE_BYTES
