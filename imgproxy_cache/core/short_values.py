"""What was made of the value of a header field, for the next that has the same."""

from collections.abc import Callable
from functools import lru_cache, wraps
from typing import TypeVar

V = TypeVar("V")


def remembered_if_short(
    *, most: int, longest: int
) -> Callable[[Callable[[bytes], V]], Callable[[bytes], V]]:
    """
    Remember what the function made of the `most` values that came last.

    Of more than `longest` bytes it is worked out each time: strangers choose values, and a
    thousand of 64 KB would be 64 MB.
    """

    def decorate(function: Callable[[bytes], V]) -> Callable[[bytes], V]:
        remembered = lru_cache(maxsize=most)(function)

        @wraps(function)
        def read(value: bytes) -> V:
            return remembered(value) if len(value) <= longest else function(value)

        return read

    return decorate
