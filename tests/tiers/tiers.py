"""Tiers of every kind, as what they are for tests: small, and waited for."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Protocol

from imgproxy_cache.core.kept import Kept, KeptAnswer, TierKey
from imgproxy_cache.tiers import Counts, Tier
from imgproxy_cache.tiers.disk import DiskTier
from imgproxy_cache.tiers.disk_folder import DiskFolder
from imgproxy_cache.tiers.disk_reading import READ_SECONDS, DiskReading
from imgproxy_cache.tiers.memory import MemoryTier
from tests.tiers.answers import NOW

PLACE = "s3://images/processed"
MIB = 1024 * 1024


def head_at(metadata: KeptAnswer, size: int, now: float) -> bytes:
    """A head that says when it was made, and of what."""
    return b"HTTP/1.1 %d\r\nContent-Length: %d\r\nAt: %.2f\r\n\r\n" % (metadata.status, size, now)


class Settled(Tier, Protocol):
    async def settle(self) -> None:
        """Wait until what was put is where it belongs."""


class InMemory:
    """The memory tier, whose `get` is no coroutine."""

    def __init__(self, *, max_bytes: int, max_items: int) -> None:
        self._tier = MemoryTier(max_bytes=max_bytes, max_items=max_items, head_at=head_at)

    @property
    def counts(self) -> Counts:
        return self._tier.counts

    async def get(self, key: TierKey) -> Kept | None:
        return self._tier.get(key)

    def put(self, key: TierKey, kept: Kept) -> None:
        self._tier.put(key, kept)

    def remove(self, key: TierKey) -> None:
        self._tier.remove(key)

    async def settle(self) -> None:
        pass


def disk_folder(
    root: Path, place: str = PLACE, *, max_bytes: int = 64 * MIB, max_items: int = 10_000
) -> DiskFolder:
    return DiskFolder(root, place, max_bytes=max_bytes, max_items=max_items)


class Clock:
    """Stands still unless it is set."""

    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> float:
        return self.now


@asynccontextmanager
async def disk_tier(
    folder: DiskFolder,
    *,
    clock: Clock | None = None,
    max_open: int = 100,
    queue_bytes: int = 64 * MIB,
    queue_items: int = 10_000,
    read_seconds: float = READ_SECONDS,
) -> AsyncIterator[DiskTier]:
    """The disk tier, but for what it does every now and then."""
    tier = DiskTier(
        folder,
        DiskReading(folder.open, read_seconds=read_seconds),
        head_at=head_at,
        now=clock or Clock(),
        max_open=max_open,
        queue_bytes=queue_bytes,
        queue_items=queue_items,
    )
    try:
        yield tier
    finally:
        await tier.close()
