"""Answers in a folder that all workers share, and that outlives them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Generator
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Final
from weakref import WeakValueDictionary

import structlog

from imgproxy_cache.core.kept import Kept, KeptAnswer, Signpost, TierKey
from imgproxy_cache.core.kept_file import read_kept_file
from imgproxy_cache.errors import FolderError, KeptFileError
from imgproxy_cache.tiers import Counts, Heads
from imgproxy_cache.tiers.descriptors import share_of_descriptors
from imgproxy_cache.tiers.disk_folder import DiskFolder, OpenFile, was_received_later
from imgproxy_cache.tiers.disk_reading import DiskReading
from imgproxy_cache.tiers.disk_writing import RETRY_SECONDS, DiskWriting
from imgproxy_cache.tiers.on_disk import MOST_NOW_BYTES, OnDisk, OpenFiles

log = structlog.get_logger()

MOST_ITEMS = 4_000_000
MOST_OPEN = 4096
# How often the other workers are told what was used here.
LOOK_SECONDS = 2.0
# What waits at the end is given so long.
CLOSE_SECONDS = 1.0
# Damaged files are said no more often.
SAY_SECONDS = 60.0


class DiskTier:
    """
    A :class:`~imgproxy_cache.tiers.Tier` on disk: `find` answers at once, for files that are open
    already, and `get` for all.

    Puts and removals are written by a thread; what waits for it is seen by `get`, and takes
    no more than `queue_bytes` and `queue_items`: what comes on top is not taken.

    Of `counts`, bytes and items are those of all workers.
    """

    name: Final = "disk"

    def __init__(
        self,
        folder: DiskFolder,
        reading: DiskReading,
        *,
        heads: Heads,
        now: Callable[[], float],
        max_open: int,
        queue_bytes: int,
        queue_items: int,
    ) -> None:
        self._folder = folder
        self._now = now
        self._loop = asyncio.get_running_loop()
        self._counts = Counts()
        self._reading = reading
        self._reads: dict[TierKey, asyncio.Task[Kept | None]] = {}
        # Large answers that clients are still being given: there once, and not once for each.
        self._given: WeakValueDictionary[TierKey, KeptAnswer] = WeakValueDictionary()
        self._writing = DiskWriting(
            folder, self._counts, max_bytes=queue_bytes, max_items=queue_items
        )
        self._files = OpenFiles(max_files=max_open, heads=heads, close=reading.close_file)
        self._count_steps: Generator[None] | None = None
        self._said_at = -SAY_SECONDS

    @property
    def counts(self) -> Counts:
        room = self._folder.room
        self._counts.bytes, self._counts.items = room.bytes, room.items
        self._counts.evictions = room.evictions
        return self._counts

    @property
    def max_bytes(self) -> int:
        """Of all workers."""
        return self._folder.room.max_bytes

    @property
    def problem(self) -> str | None:
        """Why nothing is taken at the moment."""
        return self._writing.problem

    def find(self, key: TierKey) -> OnDisk | Signpost | None:
        """What is open; for everything else, and for what cannot be read at once, see `get`."""
        found = self._files.find(key, self._now())
        if found is not None:
            self._counts.hits += 1
        return found

    async def get(self, key: TierKey) -> Kept | None:
        if key in self._writing.waiting:
            kept = self._writing.waiting[key]
        elif (found := self._files.find(key, self._now())) is None:
            kept = await self._read(key)
        elif isinstance(found, Signpost):
            kept = found
        elif found.is_cold:
            found.is_cold = False
            return self._given.get(key) or await self._read(key)  # a hit that `find` has counted
        else:
            kept = self._given.get(key) or found.kept_at(self._now()) or await self._read(key)
        if kept is None:
            self._counts.misses += 1
        else:
            self._counts.hits += 1
        return kept

    def put(self, key: TierKey, kept: Kept) -> None:
        self._forget(key)
        if self._writing.put(key, kept):
            self._counts.puts += 1
        else:
            self._counts.refused += 1

    def remove(self, key: TierKey) -> None:
        self._forget(key)
        self._writing.remove(key)

    def take_over(self, path: Path, key: TierKey) -> None:
        """
        Move a file of the spool here, or remove it where that cannot be.

        What was received later keeps its place.  Blocks: this alone is called in a thread.  `get`
        sees it within a second.

        Raises:
            OSError: it could not even be removed
        """
        with suppress(OSError, FolderError, KeptFileError):
            waiting = self._writing.waiting.get(key)
            if isinstance(waiting, KeptAnswer):
                self._put_behind(waiting, key, path)
            else:
                self._folder.prepare()
                self._folder.take_over(path, key)
        path.unlink(missing_ok=True)

    def _put_behind(self, waiting: KeptAnswer, key: TierKey, path: Path) -> None:
        """In a thread: what is still to be written would take the place of a file moved now."""
        kept = read_kept_file(path.read_bytes())
        if isinstance(kept, KeptAnswer) and not was_received_later(waiting, kept):
            self._loop.call_soon_threadsafe(self.put, key, kept)

    async def settle(self) -> None:
        """Wait until everything is written, or let go."""
        await self._writing.settle()

    def _forget(self, key: TierKey) -> None:
        """What was there, and what is being read, is no longer what the key stands for."""
        self._files.forget(key)
        self._reads.pop(key, None)
        self._given.pop(key, None)

    async def _read(self, key: TierKey) -> Kept | None:
        """Once for all who ask at the same time."""
        task = self._reads.get(key)
        if task is None:
            task = self._reads[key] = asyncio.create_task(self._read_file(key))
        return await asyncio.shield(task)

    async def _read_file(self, key: TierKey) -> Kept | None:
        file: OpenFile | None = None
        try:
            file = await self._reading.read(key)
        except KeptFileError as exc:
            self._counts.broken += 1
            self._say_damaged(exc)
        except OSError:  # TimeoutError is one
            self._counts.errors += 1
        is_current = self._reads.get(key) is asyncio.current_task()
        if is_current:
            del self._reads[key]
        if file is None:
            return None
        if is_current:
            self._files.add(key, file, self._now())
            if isinstance(file.kept, KeptAnswer) and file.head.size > MOST_NOW_BYTES:
                self._given[key] = file.kept
        else:
            self._reading.close_file(file.descriptor)
        return file.kept

    def _say_damaged(self, failure: KeptFileError) -> None:
        time = asyncio.get_running_loop().time()
        if time - self._said_at >= SAY_SECONDS:
            self._said_at = time
            message = f"a file was not what was written, and is removed: {failure}"
            log.warning("disk.damaged", message=message, files=self._counts.broken)

    async def count(self) -> None:
        """Look through everything, at half speed: a start does not wait for it."""
        loop = asyncio.get_running_loop()
        is_done = False
        while not is_done:
            began = loop.time()
            try:
                is_done = await self._writing.run(self._count_some)
            except (OSError, FolderError) as exc:
                self._writing.failed(exc)
                await asyncio.sleep(RETRY_SECONDS)
            await asyncio.sleep(loop.time() - began)

    def _count_some(self) -> bool:
        """Whether that was all."""
        if self._count_steps is None:
            self._count_steps = self._folder.count()
        try:
            return next(self._count_steps, self) is self
        except OSError:
            self._count_steps = None
            raise

    def _stop_counting(self) -> None:
        steps, self._count_steps = self._count_steps, None
        if steps is not None:
            steps.close()

    async def look(self) -> None:
        """Now and then tell the other workers what was used, and see what they have put."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            await self.tell()

    async def tell(self) -> None:
        """Tell the other workers what was used here since the last time."""
        with suppress(OSError, FolderError):
            await self._writing.run(partial(self._tell, self._files.take_used()))

    def _tell(self, used: list[TierKey]) -> None:
        for key in used:
            self._folder.used(key)
        self._folder.room.look()

    async def close(self) -> None:
        with suppress(OSError, FolderError):
            async with asyncio.timeout(CLOSE_SECONDS):
                await self.settle()
                await self.tell()
                await self._writing.run(self._stop_counting)
        for task in self._reads.values():
            task.cancel()
        self._writing.close()
        self._files.close()
        self._reading.close()


@asynccontextmanager
async def open_disk_tier(
    root: Path,
    place: str,
    *,
    max_bytes: int,
    heads: Heads,
    now: Callable[[], float],
    queue_bytes: int,
    queue_items: int,
) -> AsyncIterator[DiskTier]:
    """
    The tier of the store at `place`, under `root`.

    A disk that fails keeps nobody from serving: it is tried again.
    """
    folder = DiskFolder(root, place, max_bytes=max_bytes, max_items=MOST_ITEMS)
    tier = DiskTier(
        folder,
        DiskReading(folder.open),
        heads=heads,
        now=now,
        max_open=share_of_descriptors(MOST_OPEN),
        queue_bytes=queue_bytes,
        queue_items=queue_items,
    )
    tasks = [asyncio.create_task(tier.count()), asyncio.create_task(tier.look())]
    try:
        yield tier
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await tier.close()
