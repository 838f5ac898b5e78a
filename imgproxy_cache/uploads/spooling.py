"""
Accepted images on their way into the spool, in batches and off the event loop.

An image that the store takes within :data:`GRACE_SECONDS` never touches the disk: most
do, and a write with its syncs costs more than the upload.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

import structlog

from imgproxy_cache.core.kept import KeptAnswer, TierKey
from imgproxy_cache.errors import SpoolError
from imgproxy_cache.uploads.pending import Pending, Upload, spooled_from_upload
from imgproxy_cache.uploads.spool import Spool
from imgproxy_cache.uploads.spool_folder import SpoolFile

T = TypeVar("T")

log = structlog.get_logger()

# An answered image is in the spool within 250 ms: this, a turn, the batch before it and its own.
GRACE_SECONDS = 0.1
# The writer looks no more often than this, so that a healthy store's images cost it nothing.
TURN_SECONDS = 0.03
BATCH_FILES = 32
BATCH_BYTES = 16 * 1024 * 1024
# What stands before an image in its file, at a guess.
HEAD_BYTES = 512
# What comes to that of an answer, but for its name and fields.
KEPT_BYTES = 384
ADOPTED_AT_ONCE = 200
# How soon a disk that was full or failed is tried again.
DISK_RETRY_SECONDS = 1.0
FULL = "the spool is full"


@dataclass(frozen=True, slots=True)
class SpoolLimits:
    """Bounds of one process's part of the spool."""

    max_bytes: int
    max_files: int
    max_age_seconds: float


class Spooling:
    """
    Works on the files of a :class:`~imgproxy_cache.uploads.spool.Spool`, in one thread.

    The spool is opened when it is first needed, and again when its folder is gone: a disk
    that fails keeps nobody from serving.  `spooled` is told of each image that is safe, and
    `see_what_is_done` called before any is written.  `take_over` gets files that are handed over:
    see :class:`~imgproxy_cache.uploads.handover.ConfirmedImages`.
    """

    def __init__(
        self,
        open_spool: Callable[[], Spool],
        limits: SpoolLimits,
        *,
        spooled: Callable[[Pending], None],
        see_what_is_done: Callable[[], None],
        take_over: Callable[[Path, TierKey], None] | None = None,
    ) -> None:
        self.limits = limits
        self.files = 0
        self.bytes = 0
        self.problem: str | None = None
        self.is_hurried = False
        """The store is down, or we stop: no grace."""
        self._open_spool = open_spool
        self._spool: Spool | None = None
        self._spooled = spooled
        self._see_what_is_done = see_what_is_done
        self._take_over = take_over
        self._waiting: deque[Pending] = deque()
        self._writer: asyncio.Task[None] | None = None
        self._flusher: asyncio.Task[None] | None = None
        self._writing = asyncio.Lock()
        self._refused_bytes = 0  # of the image that the disk did not take
        self._forgotten: list[tuple[SpoolFile, TierKey | None]] = []
        self._remover: asyncio.Task[None] | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="spool")

    async def close(self) -> None:
        for task in (self._writer, self._flusher):
            if task is not None:
                task.cancel()
        await self._in_thread(self._close_spool)
        self._thread.shutdown()

    def add(self, image: Pending) -> None:
        """Have it written, unless it is done before its turn comes."""
        self._waiting.append(image)
        if self._writer is None or self._writer.done():
            self._writer = asyncio.create_task(self._write_all())

    async def flush(self, seconds: float) -> None:
        """
        Write everything that waits now, or fail to, and wait for that; but not for longer.

        What is being written when time is up is not given up: it may be there the next time.
        """
        self.is_hurried = True
        if self._flusher is None or self._flusher.done():
            self._flusher = asyncio.create_task(self._write_now())
        await asyncio.wait([self._flusher], timeout=seconds)
        if self._flusher.done():
            self._flusher.result()

    def count(self, file: SpoolFile, sign: int = 1) -> None:
        """A file came into our part of the spool, or left it."""
        self.files += sign
        self.bytes += sign * file.size

    def forget(self, file: SpoolFile, *, hand_over_as: TierKey | None = None) -> None:
        """
        The image is stored, or given up: soon and with others its file is handed over under that
        key, or removed.
        """
        self.count(file, -1)
        self._forgotten.append((file, hand_over_as))
        if self._remover is None or self._remover.done():
            self._remover = asyncio.create_task(self._remove_all())

    async def settle(self) -> None:
        """Wait until the files of what is stored are where they belong."""
        if self._remover is not None:
            await self._remover

    async def quarantine(self, file: SpoolFile, reason: str) -> None:
        self.count(file, -1)
        with suppress(OSError):
            await self._with_spool(lambda spool: spool.quarantine(file, reason))

    async def adopt(self) -> AsyncIterator[list[SpoolFile]]:
        """
        What processes that ended have left, some at a time.

        Raises:
            OSError, SpoolError: the rest has to be looked for again
        """
        files = await self._with_spool(lambda spool: spool.adopt())
        while True:
            found, failure = await self._in_thread(lambda: _some(files))
            for file in found:
                self.count(file)
            if found:
                yield found
            if failure is not None:
                raise failure
            if len(found) < ADOPTED_AT_ONCE:
                return

    async def note(self, text: str) -> None:
        await self._with_spool(lambda spool: spool.note(text))

    async def look_again(self) -> None:
        """
        See whether what kept images out still does, where none waits whose writing would tell.

        None that a store which works takes in time is ever written: the problem would be said to
        last when it is long mended.
        """
        if self.problem is None:
            return
        async with self._writing:
            if self._waiting:
                return
            if self.problem == FULL:
                self._set_problem(FULL if self._is_full(0, 0) else None)
                return
            failure: Exception | None = None
            try:
                await self._with_spool(lambda spool: spool.try_to_write(self._refused_bytes))
            except (OSError, SpoolError) as exc:
                failure = exc
            await self._told(failure)

    async def retry_was_asked_at(self) -> float:
        return await self._with_spool(lambda spool: spool.retry_was_asked_at())

    async def _write_now(self) -> None:
        while await self._write_batch():
            pass

    async def _write_all(self) -> None:
        while self._waiting:
            if self.problem is not None:
                await asyncio.sleep(DISK_RETRY_SECONDS)
            elif not self.is_hurried:
                due_at = self._waiting[0].due_at
                await asyncio.sleep(max(TURN_SECONDS, due_at - asyncio.get_running_loop().time()))
            await self._write_batch()

    async def _remove_all(self) -> None:
        while self._forgotten:
            files, self._forgotten = self._forgotten, []
            with suppress(OSError, SpoolError):  # what stays is found stored after the next start
                await self._with_spool(partial(self._part_with, files))

    def _part_with(self, files: list[tuple[SpoolFile, TierKey | None]], spool: Spool) -> None:
        for file, key in files:
            with suppress(OSError):
                if key is None or self._take_over is None:
                    spool.remove(file)
                else:
                    self._take_over(file.path, key)

    async def _write_batch(self) -> bool:
        """Whether any was written."""
        async with self._writing:
            batch, is_full = self._batch()
            problem = FULL if is_full else None
            if not batch:
                self._set_problem(problem or self.problem)
                return False
            files: list[SpoolFile] = []
            failure: Exception | None
            try:
                files, failure = await self._with_spool(
                    lambda spool: spool.write(
                        [spooled_from_upload(upload, image.accepted_at) for image, upload in batch]
                    )
                )
            except (OSError, SpoolError) as exc:
                failure = exc
            for (image, _), file in zip(batch, files, strict=False):
                self.count(file)
                image.file = file
                self._spooled(image)
            self._waiting.extendleft(image for image, _ in reversed(batch[len(files) :]))
            if failure is not None:
                self._refused_bytes = _bytes_on_disk(batch[len(files)][1])
            await self._told(failure, otherwise=problem)
            return bool(files)

    async def _told(self, failure: Exception | None, *, otherwise: str | None = None) -> None:
        """What the disk said."""
        self._set_problem(otherwise if failure is None else _problem(failure))
        if isinstance(failure, FileNotFoundError):
            await self._in_thread(self._close_spool)  # somebody has removed the folder

    def _batch(self) -> tuple[list[tuple[Pending, Upload]], bool]:
        """
        The next images that are due, that are not stored yet, and for which there is room; and
        whether there is none for the one after them.

        Their bytes are taken hold of: the upload may end before the thread begins.
        """
        self._see_what_is_done()
        now = asyncio.get_running_loop().time()
        batch: list[tuple[Pending, Upload]] = []
        size = 0
        while self._waiting and len(batch) < BATCH_FILES and size < BATCH_BYTES:
            image = self._waiting[0]
            if image.upload is not None and image.size <= self.limits.max_bytes:
                if image.due_at > now and not self.is_hurried:
                    break
                more = _bytes_on_disk(image.upload)
                if self._is_full(size + more, len(batch) + 1):
                    return batch, True
                batch.append((image, image.upload))
                size += more
            self._waiting.popleft()
        return batch, False

    def _is_full(self, more_bytes: int, more_files: int) -> bool:
        # Full until a tenth is free again: else it would be said with every image.
        share = 0.9 if self.problem == FULL else 1.0
        return (
            self.bytes + more_bytes > self.limits.max_bytes * share
            or self.files + more_files > self.limits.max_files * share
        )

    def _set_problem(self, problem: str | None) -> None:
        """Say once that the spool takes nothing, and once that it does again."""
        if problem is not None and self.problem is None:
            log.error(
                "spool.failed",
                message=f"{problem}: images wait in memory only",
                problem=problem,
                files=self.files,
                bytes=self.bytes,
            )
        elif problem is None and self.problem is not None:
            log.info("spool.recovered", message="images go into the spool again")
        self.problem = problem

    async def _with_spool(self, work: Callable[[Spool], T]) -> T:
        return await self._in_thread(lambda: work(self._opened()))

    def _opened(self) -> Spool:
        if self._spool is None:
            self._spool = self._open_spool()
        return self._spool

    def _close_spool(self) -> None:
        spool, self._spool = self._spool, None
        if spool is not None:
            spool.close()

    async def _in_thread(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)


def _problem(failure: Exception) -> str:
    """For an operator, whom neither a number nor the name of a temporary file tells anything."""
    if isinstance(failure, OSError):
        return f"{failure.strerror}: look at CACHE_SPOOL_DIR"
    return str(failure)


def _bytes_on_disk(upload: Upload) -> int:
    """At a guess, which the description's length decides."""
    return upload.size + HEAD_BYTES + (_bytes_to_describe(upload.kept) if upload.kept else 0)


def _bytes_to_describe(kept: KeptAnswer) -> int:
    pairs = (*kept.fields, *kept.selection)
    return KEPT_BYTES + len(kept.name) + sum(len(name) + len(value) + 8 for name, value in pairs)


def _some(files: Iterator[SpoolFile]) -> tuple[list[SpoolFile], OSError | None]:
    """The next files; those that were taken over are not forgotten when the one after fails."""
    found: list[SpoolFile] = []
    try:
        for file in files:
            found.append(file)
            if len(found) == ADOPTED_AT_ONCE:
                break
    except OSError as exc:
        return found, exc
    return found, None
