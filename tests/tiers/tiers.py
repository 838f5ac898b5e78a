"""Tiers of every kind, as what they are for tests: small, and waited for."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Protocol

from imgproxy_cache.core.image import Image, image_from_answer
from imgproxy_cache.core.kept import Kept, KeptAnswer, Lifetimes, TierKey
from imgproxy_cache.core.key import key_from_target, stored_name_from_target
from imgproxy_cache.stores import Store
from imgproxy_cache.stores.reader import Reader
from imgproxy_cache.tiers import Counts, Tier
from imgproxy_cache.tiers.disk import DiskTier
from imgproxy_cache.tiers.disk_folder import DiskFolder
from imgproxy_cache.tiers.disk_reading import READ_SECONDS, DiskReading
from imgproxy_cache.tiers.memory import Held, MemoryTier
from imgproxy_cache.tiers.store import StoreTier
from tests.tiers.answers import NOW

PLACE = "s3://images/processed"
MIB = 1024 * 1024


class Heads:
    """Heads that say when they were made, and of what; `made` counts what lasts and what passes."""

    def __init__(self) -> None:
        self.made = [0, 0]

    def lasting(self, kept: KeptAnswer, size: int) -> bytes:
        self.made[0] += 1
        return b"HTTP/1.1 %d\r\nContent-Length: %d\r\n" % (kept.status, size)

    def passing(self, lifetimes: Lifetimes, now: float) -> bytes:
        self.made[1] += 1
        return b"At: %.2f\r\n\r\n" % now


class Written:
    """Takes hits, and remembers what was written, and how."""

    def __init__(self) -> None:
        self.written: list[tuple[str, bytes]] = []
        self.file_bytes = 0
        """What the files take of which something was written."""

    def send(self, data: bytes | bytearray) -> None:
        self.written.append(("send", bytes(data)))

    def send_file(self, head: bytes, descriptor: int, at: int, size: int) -> None:
        self.file_bytes += os.fstat(descriptor).st_blocks * 512
        self.written.append(("send_file", head + os.pread(descriptor, size, at)))

    def write(self, data: bytes) -> None:
        self.written.append(("write", data))


class Settled(Tier, Protocol):
    async def settle(self) -> None:
        """Wait until what was put is where it belongs."""


class InMemory:
    """The memory tier, with those who count its misses."""

    def __init__(self, *, max_bytes: int, max_items: int) -> None:
        self._tier = MemoryTier(
            max_bytes=max_bytes, max_items=max_items, max_files=100, heads=Heads()
        )

    @property
    def counts(self) -> Counts:
        return self._tier.counts

    async def get(self, key: TierKey) -> Kept | None:
        found = self._tier.find(key)
        if found is None:
            self._tier.counts.misses += 1
        return found.kept if isinstance(found, Held) else found

    def put(self, key: TierKey, kept: Kept) -> None:
        self._tier.put(key, kept)

    def remove(self, key: TierKey) -> None:
        self._tier.remove(key)

    async def settle(self) -> None:
        pass


class InStore:
    """
    The store tier with all that happens around it: what is put or removed is so in the store
    before the next get.
    """

    def __init__(self, store: Store, reader: Reader) -> None:
        self._store = store
        self._tier = StoreTier(
            reader,
            miss_seconds=30,
            miss_items=1000,
            max_bytes=64 * MIB,
            stale_while_revalidate_seconds=60.5,
            stale_if_error_seconds=86_400,
        )
        self._waiting: dict[TierKey, Kept | None] = {}

    @property
    def counts(self) -> Counts:
        return self._tier.counts

    async def get(self, key: TierKey) -> Kept | None:
        await self.settle()
        return await self._tier.get(stored_name_from_target(key), key)

    def put(self, key: TierKey, kept: Kept) -> None:
        self._waiting[key] = kept
        self._tier.expect(key_from_target(key))

    def remove(self, key: TierKey) -> None:
        self._waiting[key] = None

    async def settle(self) -> None:
        waiting, self._waiting = self._waiting, {}
        for key, kept in waiting.items():
            if isinstance(kept, KeptAnswer):
                image = _image(key, kept)
                await asyncio.to_thread(self._store.put, key_from_target(key), image)
            else:
                await self._store.delete(key_from_target(key))

    def close(self) -> None:
        self._tier.close()


def _image(path: bytes, kept: KeptAnswer) -> Image:
    fields = {name: value.decode() for name, value in kept.fields}
    return image_from_answer(
        path=path,
        body=kept.body,
        content_type=fields[b"Content-Type"],
        cache_control=fields[b"Cache-Control"],
        content_disposition=None,
        at=kept.lifetimes.received_at,
    )


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
        heads=Heads(),
        now=clock or Clock(),
        max_open=max_open,
        queue_bytes=queue_bytes,
        queue_items=queue_items,
    )
    try:
        yield tier
    finally:
        await tier.close()
