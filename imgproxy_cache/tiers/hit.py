"""Answers that can be given at once, with a head that is right for a second."""

from __future__ import annotations

from math import floor

from imgproxy_cache.core.kept import KeptAnswer
from imgproxy_cache.tiers import Heads


class Hit:
    """`metadata` is the answer without its body, `size` the body's."""

    __slots__ = ("_from", "_head", "_heads", "_lasting_bytes", "_until", "metadata", "size")

    def __init__(self, metadata: KeptAnswer, size: int, heads: Heads) -> None:
        self.metadata = metadata
        self.size = size
        self._heads = heads
        self._head = b""
        self._lasting_bytes = 0
        # When the head is right, and the answer fresh.
        self._from = self._until = 0.0

    def _make_head(self, now: float) -> None:
        """
        That of the whole second.

        What all hits have in common is made once: with 1,000 images that are asked for all the
        time, each worker makes 1,000 heads a second.
        """
        lasting = self._head[: self._lasting_bytes]
        if not lasting:
            lasting = self._heads.lasting(self.metadata, self.size)
            self._lasting_bytes = len(lasting)
        second = float(floor(now))
        self._head = lasting + self._heads.passing(self.metadata.lifetimes, second)
        self._from = second
        self._until = min(second + 1, self.metadata.lifetimes.fresh_until)
