"""What waits to be written into the disk tier, and the thread that does it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import TypeVar

import structlog

from imgproxy_cache.core.kept import Kept, KeptAnswer, TierKey
from imgproxy_cache.errors import FolderError
from imgproxy_cache.tiers import Counts
from imgproxy_cache.tiers.disk_folder import DiskFolder

T = TypeVar("T")

log = structlog.get_logger()

BATCH_ITEMS = 16
# How soon a disk that was full or failed is tried again.
RETRY_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class _Outcome:
    """Of a batch: how many are done, of which some were too large, and why not more."""

    done: int
    too_large: int
    failure: Exception | None = None


class DiskWriting:
    """
    Writes and removes files one after the other, in the order of the last word on each key.

    Holds no more than `max_bytes` and `max_items`, removals aside.  A disk that fails takes
    nothing for a while: what waits is let go, but for removals, which are tried until they succeed.
    """

    def __init__(
        self, folder: DiskFolder, counts: Counts, *, max_bytes: int, max_items: int
    ) -> None:
        self.waiting: dict[TierKey, Kept | None] = {}
        """What is not written yet; None is a removal."""
        self.problem: str | None = None
        """Why nothing is taken."""
        self._folder = folder
        self._counts = counts
        self._max_bytes = max_bytes
        self._max_items = max_items
        self._bytes = 0
        self._retry_at = 0.0
        self._is_prepared = False
        self._task: asyncio.Task[None] | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="disk-write")

    def put(self, key: TierKey, kept: Kept) -> bool:
        """Whether it is taken."""
        self._drop(key)
        size = _size(kept)
        may_try = self.problem is None or asyncio.get_running_loop().time() >= self._retry_at
        has_room = self._bytes + size <= self._max_bytes and len(self.waiting) < self._max_items
        if may_try and has_room:
            self.waiting[key] = kept
            self._bytes += size
            self._start()
        return may_try and has_room

    def remove(self, key: TierKey) -> None:
        self._drop(key)
        self.waiting[key] = None
        self._start()

    async def settle(self) -> None:
        """Wait until nothing waits."""
        while self._task is not None and not self._task.done():
            await asyncio.wait([self._task])

    async def run(self, work: Callable[[], T]) -> T:
        """
        Do something else with the folder, between two batches.

        Raises:
            OSError, FolderError: as from `work`, or the folder cannot be made
        """
        return await self._in_thread(partial(self._prepared, work))

    def failed(self, failure: Exception) -> None:
        """Say once that nothing is kept."""
        self._counts.errors += 1
        self._retry_at = asyncio.get_running_loop().time() + RETRY_SECONDS
        if self.problem is None:
            message = f"{failure}: answers on disk are still given, new ones not kept"
            log.error("disk.failed", message=message, problem=str(failure))
        self.problem = str(failure)

    def _recovered(self) -> None:
        if self.problem is not None:
            self.problem = None
            log.info("disk.recovered", message="answers are kept on disk again")

    def close(self) -> None:
        """What hangs is not waited for."""
        if self._task is not None:
            self._task.cancel()
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _drop(self, key: TierKey) -> None:
        self._bytes -= _size(self.waiting.pop(key, None))

    def _start(self) -> None:
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._write_all())

    async def _write_all(self) -> None:
        while self.waiting:
            batch = list(islice(self.waiting.items(), BATCH_ITEMS))
            outcome = await self._in_thread(partial(self._write, batch))
            self._counts.refused += outcome.too_large
            for key, kept in batch[: outcome.done]:
                if key in self.waiting and self.waiting[key] is kept:
                    self._drop(key)
            if outcome.failure is None:
                self._recovered()
            else:
                self.failed(outcome.failure)
                self._let_go()
                if self.waiting:
                    await asyncio.sleep(RETRY_SECONDS)

    def _let_go(self) -> None:
        for key in [key for key, kept in self.waiting.items() if kept is not None]:
            self._counts.refused += 1
            self._drop(key)

    def _write(self, batch: list[tuple[TierKey, Kept | None]]) -> _Outcome:
        too_large = 0
        for done, (key, kept) in enumerate(batch):
            try:
                too_large += not self._prepared(partial(self._write_one, key, kept))
            except (OSError, FolderError) as exc:
                return _Outcome(done, too_large, exc)
        return _Outcome(len(batch), too_large)

    def _write_one(self, key: TierKey, kept: Kept | None) -> bool:
        """Whether it is not too large; what was there before is gone in any case."""
        if kept is not None and self._folder.write(key, kept):
            return True
        self._folder.remove(key)
        return kept is None

    def _prepared(self, work: Callable[[], T]) -> T:
        """Do something with the folder, which somebody may have removed."""
        try:
            if self._is_prepared:
                return work()
        except FileNotFoundError:
            pass
        except OSError:
            self._is_prepared = False
            raise
        self._folder.prepare()
        self._is_prepared = True
        return work()

    async def _in_thread(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)


def _size(kept: Kept | None) -> int:
    return len(kept.body) if isinstance(kept, KeptAnswer) else 0
