"""
Hits for requests that are known, byte for byte, but for their target.

A browser sends the same lines with each request for the images of a page.  What the
ordinary way (llhttp, :mod:`~imgproxy_cache.proxy`) has made of such lines once is
remembered: nothing is parsed or decided here that was not parsed and decided there, so
that its limits and refusals hold here as well.
"""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter
from typing import Final, Protocol

from imgproxy_cache.core.headers import Headers
from imgproxy_cache.core.request_fields import RequestFields
from imgproxy_cache.read_through import ReadThrough

# 2 MB at most.  When they are full, all are forgotten: each costs one request on the ordinary way.
MAX_HEADS: Final = 1024
MAX_HEAD_BYTES: Final = 2048
_GET: Final = b"GET "
_HTTP: Final = b" HTTP/1.1\r\n"
_END: Final = b"\r\n\r\n"


class HitEvents(Protocol):
    """Who counts the hits."""

    def hit_at_once(self, tier: str, seconds: float, size: int) -> None: ...


class FastLane:
    """What can be given at once for the bytes of a request, without parsing them."""

    def __init__(
        self, read_through: ReadThrough, events: HitEvents, *, now: Callable[[], float]
    ) -> None:
        self._at_hand = read_through.at_hand
        self._hit = events.hit_at_once
        self._now = now
        # What follows the target, to the fields in it by which variants are selected.
        self._heads: dict[bytes, Headers] = {}

    def answer(self, request: bytes, write: Callable[[bytes | bytearray], None]) -> bool:
        """
        Write the answer to these bytes, if they are one request that is known; else False.

        Never for a connection that does not take what was written before.
        """
        began = perf_counter()
        end = request.find(b" ", 4)
        headers = self._heads.get(request[end:])
        if headers is None or not request.startswith(_GET):
            return False
        hit = self._at_hand(request[4:end], headers)
        if hit is None:
            return False
        now = self._now()
        if now >= hit.metadata.lifetimes.fresh_until:
            return False
        wire = hit.wire_at(now)
        if wire is None:
            return False
        write(wire)
        if hit.rest:
            write(hit.rest)
        self._hit(hit.tier, perf_counter() - began, hit.size)
        return True

    def learn(self, request: bytes, fields: RequestFields) -> None:
        """
        Remember what was made of a request that came whole and alone in one read, and was a hit.

        It was of HTTP/1.1, on a connection that stays open.
        """
        head = request[request.find(b" ", 4) :]
        if (
            len(head) > MAX_HEAD_BYTES
            or not request.startswith(_GET)
            or not head.startswith(_HTTP)
            or not head.endswith(_END)
            or fields.conditions
            or fields.has_body
            or fields.request_id is not None
        ):
            return
        if len(self._heads) >= MAX_HEADS:
            self._heads.clear()
        # Where the client is, these bytes do not tell.
        self._heads[head] = [
            field for field in fields.for_upstream if not field[0].startswith(b"x-forwarded-")
        ]
