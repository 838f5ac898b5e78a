"""
Accepted images on their way into the spool, in batches and off the event loop.

An image that the store takes within :data:`GRACE_SECONDS` never touches the disk: most
do, and a write with its two syncs costs more than the upload.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import TypeVar

import structlog

from imgproxy_cache.core.spool_file import SpooledImage
from imgproxy_cache.pending import Pending
from imgproxy_cache.spool import Spool, SpoolFile

T = TypeVar("T")

log = structlog.get_logger()

# An answered image is in the spool within 250 ms: this, and a batch before it and its own.
GRACE_SECONDS = 0.08
BATCH_FILES = 32
BATCH_BYTES = 16 * 1024 * 1024
# How soon a disk that was full or failed is tried again.
DISK_RETRY_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class SpoolLimits:
    """Bounds of one process's part of the spool."""

    max_bytes: int
    max_files: int
    max_age_seconds: float


class Spooling:
    """Writes, reads and removes files of a :class:`~imgproxy_cache.spool.Spool`, in one thread."""

    def __init__(
        self, spool: Spool, limits: SpoolLimits, spooled: Callable[[Pending], None]
    ) -> None:
        self.limits = limits
        self.files = 0
        self.bytes = 0
        self.problem: str | None = None
        self.is_hurried = False  # the store is down, or we stop: no grace
        self._spool = spool
        self._spooled = spooled
        self._waiting: deque[Pending] = deque()
        self._task: asyncio.Task[None] | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="spool")

    def close(self) -> None:
        self._thread.shutdown()

    def add(self, image: Pending) -> None:
        self._waiting.append(image)
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._write_waiting())

    async def flush(self) -> None:
        """Write everything that waits now, or fail to."""
        self.is_hurried = True
        while self._waiting and self.problem is None:
            await self._write_batch()

    def count(self, file: SpoolFile, sign: int = 1) -> None:
        """A file came into our part of the spool, or left it."""
        self.files += sign
        self.bytes += sign * file.size

    async def forget(self, file: SpoolFile) -> None:
        """The image is stored, or given up."""
        self.count(file, -1)
        await self._in_thread(self._spool.remove, [file])

    async def read(self, file: SpoolFile) -> tuple[SpooledImage, bytes]:
        return await self._in_thread(self._spool.read, file)

    async def quarantine(self, file: SpoolFile, reason: str) -> None:
        self.count(file, -1)
        await self._in_thread(self._spool.quarantine, file, reason)

    async def adopt(self) -> AsyncIterator[list[SpoolFile]]:
        """What processes that ended have left, some at a time."""
        files = self._spool.adopt()
        while found := await self._in_thread(lambda: list(islice(files, 500))):
            for file in found:
                self.count(file)
            yield found

    async def note(self, text: str) -> None:
        await self._in_thread(self._spool.note, text)

    async def retry_was_asked_at(self) -> float:
        return await self._in_thread(self._spool.retry_was_asked_at)

    async def _write_waiting(self) -> None:
        while self._waiting:
            await self._grace()
            await self._write_batch()
            if self.problem is not None:
                await asyncio.sleep(DISK_RETRY_SECONDS)

    async def _grace(self) -> None:
        delay = self._waiting[0].due_at - asyncio.get_running_loop().time()
        if delay > 0 and not self.is_hurried:
            await asyncio.sleep(delay)

    async def _write_batch(self) -> None:
        batch = self._batch()
        if not batch:
            return
        forms = [image.spool_form() for image in batch]
        files, failure = await self._in_thread(
            lambda: self._spool.write([form() for form in forms])
        )
        self._set_problem(failure and f"{failure.filename}: {failure.strerror}")
        for image, file in zip(batch, files, strict=False):
            self.count(file)
            image.file = file
            self._spooled(image)
        self._waiting.extendleft(reversed(batch[len(files) :]))

    def _batch(self) -> list[Pending]:
        """The next images that are due, that are not stored yet, and for which there is room."""
        now = asyncio.get_running_loop().time()
        batch: list[Pending] = []
        size = 0
        while self._waiting and len(batch) < BATCH_FILES and size < BATCH_BYTES:
            image = self._waiting[0]
            if image.is_done:
                self._waiting.popleft()
                continue
            if image.due_at > now and not self.is_hurried:
                break
            if self._is_full(size + image.size, len(batch) + 1):
                self._set_problem("the spool is full")
                break
            batch.append(self._waiting.popleft())
            size += image.size
        return batch

    def _is_full(self, more_bytes: int, more_files: int) -> bool:
        return (
            self.bytes + more_bytes > self.limits.max_bytes
            or self.files + more_files > self.limits.max_files
        )

    def _set_problem(self, problem: str | None) -> None:
        """Say once that the spool takes nothing, and once that it does again."""
        if problem is not None and self.problem is None:
            log.error(
                "spool.failed",
                message=f"{problem}: images wait in memory only until there is room",
                problem=problem,
                files=self.files,
                bytes=self.bytes,
            )
        elif problem is None and self.problem is not None:
            log.info("spool.recovered", message="images go into the spool again")
        self.problem = problem

    async def _in_thread(self, work: Callable[..., T], *args: object) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work, *args)
