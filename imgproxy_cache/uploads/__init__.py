r"""
What happens to an image after it was answered: it is stored, however long that takes.

::

    offer -> memory -> dedup -> store
                |  \              ^
                |   spool (disk) -|   after a restart, or when memory is needed
                v
              dropped, and counted, when neither has room

What the store has confirmed may go on to a tier on disk: see
:mod:`~imgproxy_cache.uploads.handover`.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from contextlib import suppress
from random import random
from types import TracebackType
from typing import Self

import structlog

from imgproxy_cache.errors import SpoolError
from imgproxy_cache.stores import Store
from imgproxy_cache.uploads.events import UploadEvents
from imgproxy_cache.uploads.handover import ConfirmedImages
from imgproxy_cache.uploads.pending import Pending, Upload
from imgproxy_cache.uploads.spool import Spool
from imgproxy_cache.uploads.spool_folder import SpoolFile
from imgproxy_cache.uploads.spooling import GRACE_SECONDS, Spooling, SpoolLimits
from imgproxy_cache.uploads.uploader import Uploader

log = structlog.get_logger()

TICK_SECONDS = 1.0
ADOPT_SECONDS = 5.0
# Writing what waits into the spool is worth more than being in time by so much.
LAST_FLUSH_SECONDS = 0.5
# A store that was down is asked once more when we stop.
LAST_PROBE_SECONDS = 1.0


class Uploads:
    """
    The images that wait for the store: in memory, within bounds, and in the spool.

    `max_items` and `max_bytes` bound what is in memory, the spool has its own limits.
    With `spool_is_lasting` a stop does not wait for a store that is down.

    `disk` gets what the store has confirmed, of uploads that are `kept`; it outlives this.  With
    `keeps_store_fresh` the store's objects are read back by their `stored_at`: see
    :class:`~imgproxy_cache.uploads.dedup.Dedup`.
    """

    def __init__(
        self,
        store: Store,
        events: UploadEvents,
        *,
        concurrency: int,
        max_items: int,
        max_bytes: int,
        open_spool: Callable[[], Spool] | None = None,
        spool_limits: SpoolLimits | None = None,
        spool_is_lasting: bool = False,
        now: Callable[[], float] = time.time,
        jitter: Callable[[], float] = random,
        info_log: Callable[..., None] | None = None,
        disk: ConfirmedImages | None = None,
        keeps_store_fresh: bool = False,
    ) -> None:
        self.max_items = max_items
        self.max_bytes = max_bytes
        self._uploader = Uploader(
            store,
            events,
            concurrency=concurrency,
            max_items=max_items,
            max_bytes=max_bytes,
            now=now,
            jitter=jitter,
            info_log=info_log,
            disk=disk,
            keeps_store_fresh=keeps_store_fresh,
        )
        self.spool: Spooling | None = None
        if open_spool is not None and spool_limits is not None:
            self.spool = Spooling(
                open_spool,
                spool_limits,
                spooled=self._uploader.spooled,
                see_what_is_done=self._uploader.see_what_ended,
                take_over=disk.take_over if disk is not None else None,
            )
            self._uploader.spool = self.spool
        self._waiting = self._uploader.waiting
        self._outages = self._uploader.outages
        self._events = events
        self._spool_is_lasting = spool_is_lasting
        self._now = now
        self._ticker: asyncio.Task[None] | None = None
        self._is_closed = False
        self._is_dropping = False
        self._retry_asked_at = 0.0
        self._last_note = ""
        self._scan_problem = ""

    @property
    def queue_items(self) -> int:
        """Images in memory that wait for their upload or are on their way."""
        return self._waiting.items

    @property
    def queue_bytes(self) -> int:
        """Their bytes, and those of what is read from the spool for its upload."""
        return self._waiting.bytes

    @property
    def waiting(self) -> int:
        """All images that the store does not have yet, in memory or in the spool."""
        return len(self._waiting)

    @property
    def oldest_seconds(self) -> float:
        """Age of the image that waits longest; 0 if none does."""
        return self._uploader.oldest_seconds

    @property
    def store_problem(self) -> str | None:
        """Why nothing is uploaded at the moment, None if all is well."""
        return self._outages.problem

    @property
    def spool_problem(self) -> str | None:
        """Why nothing goes into the spool at the moment, None if all is well."""
        return self.spool.problem if self.spool is not None else None

    def offer(self, upload: Upload) -> bool:
        """Take the image if there is room for it; never waits, never raises."""
        waiting = self._waiting.newest(upload.key)
        if waiting is not None and waiting.is_same_as(upload):
            self._events.unchanged(upload.size)
            return True
        if self._is_closed or not self._has_room(upload.size):
            self._drop(upload)
            return False
        pending = Pending(
            key=upload.key,
            accepted_at=self._now(),
            due_at=asyncio.get_running_loop().time() + GRACE_SECONDS,
            size=upload.size,
            upload=upload,
            path=upload.path,
        )
        self._is_dropping &= self._waiting.items > 0
        self._events.accepted(upload.size)
        self._wait(pending)
        if self.spool is not None:
            self.spool.add(pending)
        return True

    async def adopt(self) -> None:
        """Take over what an earlier run or a worker that died has left; done now and then."""
        if self.spool is None:
            return
        adopted, problem = 0, ""
        try:
            async for files in self.spool.adopt():
                adopted += len(files)
                for file in files:
                    self._adopt_file(file)
        except (OSError, SpoolError) as exc:
            problem = str(exc)
        if problem and problem != self._scan_problem:
            log.error("spool.failed", message=f"cannot be scanned: {problem}", problem=problem)
        self._scan_problem = problem
        if adopted:
            log.info("spool.adopted", message="uploading what was left", items=adopted)

    async def drain(self, deadline: float) -> int:
        """
        Wait until everything is stored, what is offered meanwhile included, but not longer
        than to the deadline on the event loop's clock; then take nothing more.

        What is left goes into the spool.  Where that lasts, a store that is down is not waited
        for.  Returns how many images were lost; a line in the log names their number as well.
        """
        loop = asyncio.get_running_loop()
        await self._flush(deadline)
        tried, patience = self._uploader.attempts, loop.time() + LAST_PROBE_SECONDS
        self._uploader.try_now()
        while self._waiting and (left := deadline - loop.time()) > 0:
            if self._is_safe_elsewhere() and (
                self._uploader.attempts > tried or loop.time() > patience
            ):
                break
            self._uploader.ended.clear()
            with suppress(TimeoutError):
                await asyncio.wait_for(self._uploader.ended.wait(), min(left, LAST_PROBE_SECONDS))
        self._is_closed = self._uploader.is_closed = True
        await self._flush(deadline)
        self._uploader.stop()
        return self._abandon()

    async def __aenter__(self) -> Self:
        self._ticker = asyncio.create_task(self._tick())
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.drain(deadline=0)
        if self._ticker is not None:
            self._ticker.cancel()
            await asyncio.gather(self._ticker, return_exceptions=True)
        await self._uploader.settle()
        if self.spool is not None:
            await self.spool.close()

    async def _flush(self, deadline: float) -> None:
        if self.spool is not None:
            left = deadline - asyncio.get_running_loop().time()
            await self.spool.flush(max(left, LAST_FLUSH_SECONDS))

    def _is_safe_elsewhere(self) -> bool:
        """The store is down, and everything is in a spool that lasts."""
        return (
            self._outages.is_open
            and self._spool_is_lasting
            and all(pending.file is not None for pending in self._waiting)
        )

    def _abandon(self) -> int:
        left = [pending for pending in self._waiting if pending.file is not None]
        lost = [pending for pending in self._waiting if pending.file is None]
        left_bytes = sum(pending.size for pending in left)
        lost_bytes = sum(pending.size for pending in lost)
        if lost:
            self._events.abandoned(len(lost), lost_bytes)
            log.warning(
                "upload.abandoned",
                message="neither stored nor in the spool when time was up",
                items=len(lost),
                bytes=lost_bytes,
            )
        if left:
            self._events.left(len(left), left_bytes)
            where = "in the spool for the next start"
            if not self._spool_is_lasting:
                where += ", if this machine's temporary folder is still there"
            log.info("upload.left", message=where, items=len(left), bytes=left_bytes)
        self._waiting.clear()
        return len(lost)

    def _has_room(self, size: int) -> bool:
        waiting = self._waiting
        return waiting.items < self.max_items and waiting.bytes + size <= self.max_bytes

    def _drop(self, upload: Upload) -> None:
        self._events.dropped(upload.size)
        if not self._is_dropping:
            self._is_dropping = True
            log.warning(
                "upload.dropped",
                message="images are not stored: said once, until the queue has been empty again",
                reason="stopping" if self._is_closed else "the upload queue is full",
                key=upload.key,
                bytes=upload.size,
                queue_items=self.queue_items,
                queue_bytes=self.queue_bytes,
            )

    def _wait(self, pending: Pending) -> None:
        older = self._waiting.add(pending)
        if older is not None:
            self._uploader.supersede(older)
        self._uploader.start()

    async def _tick(self) -> None:
        next_adoption = 0.0
        while True:
            if self.spool is not None:
                if time.monotonic() >= next_adoption:
                    await self.adopt()
                    next_adoption = time.monotonic() + ADOPT_SECONDS
                self._expire(self.spool.limits.max_age_seconds)
                await self.spool.look_again()
                with suppress(OSError, SpoolError):  # writing will tell, if it cannot
                    await self._look_for_operator(self.spool)
            self._outages.summarise()
            await asyncio.sleep(TICK_SECONDS)

    def _adopt_file(self, file: SpoolFile) -> None:
        pending = Pending(
            key=file.key,
            accepted_at=file.accepted_at,
            due_at=0,
            size=file.size,
            upload=None,
            file=file,
        )
        self._events.adopted(file.size, self._uploader.age(pending))
        self._wait(pending)

    def _expire(self, max_age_seconds: float) -> None:
        too_old = self._now() - max_age_seconds
        while (
            (oldest := self._waiting.oldest) is not None
            and oldest.accepted_at < too_old
            and not self._waiting.is_on_its_way(oldest)
        ):
            age = self._uploader.age(oldest)
            self._events.expired(oldest.size, age)
            log.warning("upload.expired", key=oldest.key, bytes=oldest.size, age_seconds=round(age))
            self._uploader.finish(oldest)

    async def _look_for_operator(self, spool: Spooling) -> None:
        """Do what `imgproxy-cache spool` asks for, and leave word for it."""
        asked_at = await spool.retry_was_asked_at()
        if asked_at > self._retry_asked_at:
            self._retry_asked_at = asked_at
            await self.adopt()  # what was set aside may have been brought back
            self._uploader.try_now()
        note = json.dumps(
            {
                "store_problem": self.store_problem,
                "spool_problem": self.spool_problem,
                "memory_items": self.queue_items,
                "reasons": self._outages.reasons(),
            }
        )
        if note != self._last_note:
            self._last_note = note
            await spool.note(note)
