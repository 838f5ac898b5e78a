"""Uploads into a store that does as it is told, for tests of what becomes of them."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import random

from imgproxy_cache.core.image import Image, StoredObject
from imgproxy_cache.core.kept import KeptAnswer
from imgproxy_cache.core.key import Key, key_from_target
from imgproxy_cache.errors import StoreError
from imgproxy_cache.uploads import Uploads
from imgproxy_cache.uploads.handover import ConfirmedImages
from imgproxy_cache.uploads.pending import Upload
from imgproxy_cache.uploads.spool import Spool, open_spool
from imgproxy_cache.uploads.spooling import SpoolLimits

NOW = 1_770_091_506.0  # date -d 2026-02-03T04:05:06Z +%s
PATH = b"/resize:fill:300:300/plain/https://example.com/image.jpg"
KEY = Key("c9009a400f110797b2710ce2a5bd60a4")
PLACE = "s3://images/processed"
SECONDS = 10.0

DOWN = StoreError(
    operation="put any",
    place=PLACE,
    cause="connection refused",
    hint="start it",
    kind="unreachable",
)


@dataclass
class GatedStore:
    """Keeps images in a dictionary; a put waits at the gate, and fails with what it is told."""

    place: str = PLACE
    images: dict[Key, Image] = field(default_factory=dict)
    gate: threading.Event = field(default_factory=threading.Event)
    failure: Exception | None = None
    poisoned: dict[Key, Exception] = field(default_factory=dict)
    """Keys that alone fail."""
    asked: list[Key] = field(default_factory=list)
    at_once: int = 0
    most_at_once: int = 0
    keys_at_once: set[Key] = field(default_factory=set)
    _counting: threading.Lock = field(default_factory=threading.Lock)

    def create(self, key: Key, image: Image) -> bool:
        with self._counting:
            self.asked.append(key)
            self.at_once += 1
            self.most_at_once = max(self.at_once, self.most_at_once)
            assert key not in self.keys_at_once, "one upload at a time for each key"
            self.keys_at_once.add(key)
        try:
            self.gate.wait()
            failure = self.poisoned.get(key) or self.failure
            if failure is not None:
                raise failure
            if key in self.images:
                return False
            self.images[key] = image
            return True
        finally:
            with self._counting:
                self.at_once -= 1
                self.keys_at_once.discard(key)

    def put(self, key: Key, image: Image) -> None:
        self.images[key] = image

    def find(self, key: Key) -> StoredObject | None:
        image = self.images[key]
        return StoredObject(
            len(image.body), None, image.path_sha256, image.content_sha256, image.stored_at
        )

    def get(self, key: Key, max_bytes: int | None = None) -> Image | None:
        return self.images.get(key)

    async def delete(self, key: Key) -> None:
        self.images.pop(key, None)

    async def check(self) -> None:
        """It is always there."""


@dataclass
class Recorded:
    """Every event, in order."""

    events: list[tuple[str, object]] = field(default_factory=list)

    def accepted(self, size: int) -> None:
        self.events.append(("accepted", size))

    def adopted(self, size: int, age: float) -> None:
        assert size > 0
        assert age >= 0
        self.events.append(("adopted", age))

    def spooled(self, size: int, age: float) -> None:
        assert age >= 0
        self.events.append(("spooled", size))

    def retried(self, size: int, kind: str) -> None:
        self.events.append(("retried", kind))

    def stored(self, size: int, age: float, seconds: float) -> None:
        assert age >= 0
        assert 0 <= seconds < SECONDS
        self.events.append(("stored", size))

    def unchanged(self, size: int) -> None:
        self.events.append(("unchanged", size))

    def superseded(self, size: int) -> None:
        self.events.append(("superseded", size))

    def failed(self, size: int, kind: str) -> None:
        self.events.append(("failed", kind))

    def quarantined(self, size: int) -> None:
        self.events.append(("quarantined", size))

    def dropped(self, size: int) -> None:
        self.events.append(("dropped", size))

    def expired(self, size: int, age: float) -> None:
        self.events.append(("expired", age))

    def left(self, items: int, size: int) -> None:
        self.events.append(("left", items))

    def abandoned(self, items: int, size: int) -> None:
        self.events.append(("abandoned", items))

    def count(self, name: str) -> int:
        return sum(event == name for event, _ in self.events)


@dataclass
class Setup:
    store: GatedStore
    recorded: Recorded
    uploads: Uploads
    concurrency: int

    async def settle(self) -> None:
        """Until the uploads that can run wait at the gate."""
        await self.until(lambda: self.store.at_once == min(self.concurrency, self.uploads.waiting))

    async def until(self, is_so: Callable[[], bool]) -> None:
        async with asyncio.timeout(SECONDS):
            while not is_so():
                await asyncio.sleep(0.001)

    async def drain(self, seconds: float = SECONDS) -> int:
        return await self.uploads.drain(asyncio.get_running_loop().time() + seconds)

    @property
    def spool_files(self) -> int:
        assert self.uploads.spool is not None
        return self.uploads.spool.files


@asynccontextmanager
async def uploading(
    *,
    concurrency: int = 2,
    max_items: int = 10,
    max_bytes: int = 1000,
    is_open: bool = True,
    spool: Path | Callable[[], Spool] | None = None,
    limits: SpoolLimits = SpoolLimits(10**9, 10**6, 10**9),  # noqa: B008
    is_lasting: bool = True,
    now: Callable[[], float] = lambda: NOW,
    jitter: Callable[[], float] = random,
    disk: ConfirmedImages | None = None,
    keeps_store_fresh: bool = False,
) -> AsyncIterator[Setup]:
    store, recorded = GatedStore(), Recorded()
    if is_open:
        store.gate.set()
    try:
        async with Uploads(
            store,
            recorded,
            concurrency=concurrency,
            max_items=max_items,
            max_bytes=max_bytes,
            open_spool=_opener(spool) if isinstance(spool, Path) else spool,
            spool_limits=limits,
            spool_is_lasting=is_lasting,
            now=now,
            jitter=jitter,
            disk=disk,
            keeps_store_fresh=keeps_store_fresh,
        ) as uploads:
            yield Setup(store, recorded, uploads, concurrency)
    finally:
        store.gate.set()  # else their threads would wait there for ever


def _opener(root: Path) -> Callable[[], Spool]:
    return lambda: open_spool(root, PLACE, sync=True)


def upload(key: Key = KEY, *chunks: bytes) -> Upload:
    chunks = chunks or (b"hello ", b"world")
    return Upload(
        key=key,
        path=PATH,
        chunks=chunks,
        size=sum(map(len, chunks)),
        content_type="image/jpeg",
        cache_control="max-age=31536000, public",
        content_disposition=None,
    )


def numbered(number: int, *chunks: bytes, kept: KeptAnswer | None = None) -> Upload:
    """The upload of a path of its own, under its right key."""
    path = b"/_/rs:fit:%d:0/plain/local:///image.jpg" % number
    chunks = chunks or (b"image %d" % number,)
    return Upload(
        key=key_from_target(path),
        path=path,
        chunks=chunks,
        size=sum(map(len, chunks)),
        content_type="image/jpeg",
        cache_control="max-age=31536000, public",
        content_disposition=None,
        kept=kept,
    )


def keys(number: int) -> list[Key]:
    return [Key(f"{n:032x}") for n in range(number)]
