"""What was made of a request's bytes, for the next that has the same."""

from __future__ import annotations

from typing import TypeVar

V = TypeVar("V")

# What an entry takes besides its strings, as tracemalloc sees it in CPython 3.11 to 3.13
# (tests/read_through/test_remembered.py holds it against that).
ENTRY_BYTES = 250
FIELD_BYTES = 130


class Remembered(dict[bytes, V]):
    """
    A dictionary of no more than `max_bytes`.

    When it is full all is forgotten: what comes again is worked out again, for 10 us, and nothing
    is counted or ordered when something is found.
    """

    def __init__(self, max_bytes: int) -> None:
        super().__init__()
        self._max_bytes = max_bytes
        self._bytes = 0

    def remember(self, key: bytes, value: V, size: int) -> None:
        """`size`: the bytes of the strings in key and value, and what else there is in these."""
        if key not in self:
            size += ENTRY_BYTES
            if self._bytes + size > self._max_bytes:
                self.clear()
                self._bytes = 0
            self._bytes += size
        self[key] = value
