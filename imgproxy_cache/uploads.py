r"""
What happens to an image after it was answered: it is stored, however long that takes.

::

    offer -> memory -> store.put -> done
                |  \                ^
                |   spool (disk) ---|   after a restart, or when memory is needed
                v
              dropped, and counted, when neither has room

Oldest first, at most `concurrency` at once, one at a time for each key.  A store that
fails is left in peace but for a probe (:mod:`~imgproxy_cache.core.breaker`); an image
that alone fails is tried again with growing delays, and set aside in the end.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import Callable, Coroutine
from heapq import heappop, heappush
from itertools import count
from time import perf_counter
from types import TracebackType
from typing import Any, Protocol, Self

import structlog

from imgproxy_cache.core.breaker import Breaker, Change, delay_seconds
from imgproxy_cache.core.image import Image
from imgproxy_cache.core.key import Key
from imgproxy_cache.dedup import Dedup
from imgproxy_cache.errors import SpoolFileError, StoreError
from imgproxy_cache.pending import INLINE_BYTES, Pending, Upload, image_from_spool
from imgproxy_cache.spool import Spool
from imgproxy_cache.spooling import GRACE_SECONDS, Spooling, SpoolLimits
from imgproxy_cache.stores import Store

log = structlog.get_logger()

# An image that the store refuses so often while it takes others is set aside.
MAX_STRIKES = 6
TICK_SECONDS = 1.0
ADOPT_SECONDS = 5.0
SUMMARY_SECONDS = 60.0


class UploadEvents(Protocol):
    """Is told what becomes of every image that was offered."""

    def accepted(self, size: int) -> None:
        """It waits for its upload; what follows for it is one of stored ... quarantined."""

    def spooled(self, size: int) -> None:
        """It would survive a restart."""

    def retried(self, kind: str) -> None:
        """An attempt failed, and there will be another: the kind of the StoreError."""

    def stored(self, size: int, seconds: float) -> None:
        """The store has it; `seconds` from the start of its upload, without waiting."""

    def unchanged(self, size: int) -> None:
        """The store had it, or it waits for its upload already."""

    def failed(self, kind: str) -> None:
        """Given up: it could be kept nowhere."""

    def superseded(self) -> None:
        """A newer image of its key took its place before it was stored."""

    def dropped(self, size: int) -> None:
        """There was no room for it, or it waited for too long."""

    def quarantined(self, size: int) -> None:
        """Set aside in the spool: it is damaged, or the store will not have it."""

    def abandoned(self, items: int) -> None:
        """So many were lost at the end: neither stored nor in the spool."""


class Uploads:
    """
    The images that wait, and the tasks that store them.

    A task lives while there is something to upload, so that none can be missing later.
    `max_items` and `max_bytes` bound what is in memory, the spool has its own limits.
    With `spool_is_lasting` a stop does not wait for what is safe in the spool.
    """

    def __init__(
        self,
        store: Store,
        events: UploadEvents,
        *,
        concurrency: int,
        max_items: int,
        max_bytes: int,
        spool: Spool | None = None,
        spool_limits: SpoolLimits | None = None,
        spool_is_lasting: bool = False,
        now: Callable[[], float] = time.time,
    ) -> None:
        self.max_items = max_items
        self.max_bytes = max_bytes
        self._store = store
        self._dedup = Dedup(store)
        self._events = events
        self._concurrency = concurrency
        self._now = now
        self._spooling = (
            Spooling(spool, spool_limits, self._spooled) if spool and spool_limits else None
        )
        self._spool_is_lasting = spool_is_lasting
        self._breaker = Breaker()
        self._last_error = ""
        self._ready: list[tuple[float, int, Pending]] = []
        self._numbers = count()
        self._newest: dict[Key, Pending] = {}  # what waits for a key, or is on its way
        self._behind: dict[Key, Pending] = {}  # what waits for another upload of its key
        self._uploading: set[Key] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._side_tasks: set[asyncio.Task[None]] = set()
        self._ticker: asyncio.Task[None] | None = None
        self._working = 0
        self._items = 0
        self._bytes = 0
        self._successes = 0
        self._is_closed = False
        self._is_dropping = False
        self._retry_asked_at = 0.0
        bucket = store.place.partition("://")[2].partition("/")[0]
        self._bucket = bucket or store.place
        self._message = "Uploaded to S3" if store.place.startswith("s3://") else "Stored"

    # What is asked from outside

    @property
    def queue_items(self) -> int:
        """Images in memory that wait for their upload or are on their way."""
        return self._items

    @property
    def queue_bytes(self) -> int:
        """Their bytes."""
        return self._bytes

    @property
    def spool(self) -> Spooling | None:
        return self._spooling

    @property
    def oldest_seconds(self) -> float:
        """Age of the image that waits longest; 0 if none does."""
        return max(0.0, self._now() - self._ready[0][0]) if self._ready else 0.0

    @property
    def store_problem(self) -> str | None:
        """Why nothing is uploaded at the moment, None if all is well."""
        return self._last_error if self._breaker.is_open else None

    def offer(self, upload: Upload) -> bool:
        """Take the image if there is room for it; never waits, never raises."""
        waiting = self._newest.get(upload.key)
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
        self._items += 1
        self._bytes += upload.size
        self._events.accepted(upload.size)
        self._wait(pending)
        if self._spooling is not None:
            self._spooling.add(pending)
        return True

    async def drain(self, deadline: float) -> int:
        """
        Wait until everything is stored, what is offered meanwhile included, but not longer
        than to the deadline on the event loop's clock; then take nothing more.

        A lasting spool that holds everything is as good.  Returns how many images
        had to be abandoned; a line in the log names their number as well.
        """
        loop = asyncio.get_running_loop()
        if self._spooling is not None:
            await self._spooling.flush()
        while self._tasks and (left := deadline - loop.time()) > 0 and not self._is_safe():
            await asyncio.wait(self._tasks, timeout=left, return_when=asyncio.FIRST_COMPLETED)
        self._is_closed = True
        if self._spooling is not None:
            await self._spooling.flush()
        tasks = tuple(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        return self._abandon()

    def _is_safe(self) -> bool:
        return self._spool_is_lasting and all(p.file is not None for p in self._newest.values())

    def _abandon(self) -> int:
        left = [pending for pending in self._newest.values() if not pending.is_done]
        lost = [pending for pending in left if pending.file is None]
        if lost:
            self._events.abandoned(len(lost))
            log.warning(
                "upload.abandoned",
                message="neither stored nor in the spool when time was up",
                items=len(lost),
                bytes=sum(pending.size for pending in lost),
            )
        if len(left) > len(lost):
            log.info(
                "upload.left",
                message="in the spool for the next start",
                items=len(left) - len(lost),
                spool_is_lasting=self._spool_is_lasting,
            )
        self._ready.clear()
        self._newest.clear()
        self._items = self._bytes = 0
        return len(lost)

    async def __aenter__(self) -> Self:
        self._ticker = asyncio.create_task(self._tick())
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._ticker is not None:
            self._ticker.cancel()
        await self.drain(deadline=0)
        if self._spooling is not None:
            self._spooling.close()

    # Waiting

    def _has_room(self, size: int) -> bool:
        return self._items < self.max_items and self._bytes + size <= self.max_bytes

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
                queue_items=self._items,
                queue_bytes=self._bytes,
            )

    def _wait(self, pending: Pending) -> None:
        """The newest image of a key takes the place of one that waits."""
        other = self._newest.get(pending.key)
        if other is not None and other.accepted_at > pending.accepted_at:
            self._events.superseded()
            self._finish(pending)
            return
        self._newest[pending.key] = pending
        if other is not None and not other.is_uploading:
            self._events.superseded()
            self._finish(other)
        self._push(pending, pending.accepted_at)

    def _push(self, pending: Pending, order: float) -> None:
        heappush(self._ready, (order, next(self._numbers), pending))
        self._start_task()

    def _start_task(self) -> None:
        if self._working < self._concurrency and not self._is_closed:
            self._working += 1
            task = asyncio.create_task(self._work())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def _spooled(self, pending: Pending) -> None:
        """Called by the spool: the image would survive a restart."""
        self._events.spooled(pending.size)
        if pending.is_done:
            self._forget_file(pending)
        elif not pending.is_uploading and (
            self._breaker.is_open or self._bytes > self.max_bytes // 2
        ):
            self._release(pending)

    def _release(self, pending: Pending) -> None:
        """Give up the memory of an image."""
        if pending.upload is not None:
            pending.upload = None
            self._items -= 1
            self._bytes -= pending.size

    # Uploading

    async def _work(self) -> None:
        while (pending := self._next()) is not None:
            await self._upload(pending)
        # No await since nothing was found: whatever is offered from now on starts a task.
        self._working -= 1
        if not self._ready:
            self._is_dropping = False

    def _next(self) -> Pending | None:
        """The oldest image that may be uploaded now."""
        while self._ready:
            pending = self._ready[0][2]
            if pending.is_done:
                heappop(self._ready)
            elif pending.key in self._uploading:
                heappop(self._ready)
                self._behind[pending.key] = pending
            elif self._breaker.may_ask(asyncio.get_running_loop().time()):
                heappop(self._ready)
                return pending
            else:
                return None
        return None

    async def _upload(self, pending: Pending) -> None:
        """One attempt, and what follows from it."""
        started = perf_counter()
        pending.is_uploading = True
        self._uploading.add(pending.key)
        try:
            is_new = await self._dedup.put(pending.key, await self._image(pending))
        except StoreError as exc:
            await self._failed(pending, exc)
        except SpoolFileError as exc:
            self._breaker.was_not_asked()
            await self._quarantine(pending, str(exc))
        except FileNotFoundError:  # an operator removed it
            self._breaker.was_not_asked()
            self._finish(pending)
        except Exception as exc:
            await self._failed(pending, self._bug(pending, exc))
        else:
            self._succeeded(pending, perf_counter() - started, is_new=is_new)
        finally:
            pending.is_uploading = False
            self._uploading.discard(pending.key)
            behind = self._behind.pop(pending.key, None)
            if behind is not None:
                self._push(behind, behind.accepted_at)

    async def _image(self, pending: Pending) -> Image:
        if pending.upload is None and pending.file is not None and self._spooling is not None:
            spooled, body = await self._spooling.read(pending.file)
            pending.content_sha256 = spooled.content_sha256
            pending.path = spooled.path.encode("ascii")
            return image_from_spool(spooled, body)
        if pending.size > INLINE_BYTES:
            return await asyncio.to_thread(pending.image)
        return pending.image()

    def _succeeded(self, pending: Pending, seconds: float, *, is_new: bool) -> None:
        self._successes += 1
        if self._breaker.succeeded() is Change.CLOSED:
            self._store_recovered()
        if is_new:
            self._events.stored(pending.size, seconds)
            log.info(
                "upload.stored",
                message=self._message,
                path=pending.printable_path,
                bucket=self._bucket,
                key=pending.key,
                bytes=pending.size,
                seconds=round(seconds, 4),
            )
        else:
            self._events.unchanged(pending.size)
            log.debug("upload.unchanged", path=pending.printable_path, key=pending.key)
        self._finish(pending)

    async def _failed(self, pending: Pending, error: StoreError) -> None:
        loop = asyncio.get_running_loop()
        self._last_error = str(error)
        if self._breaker.failed(error.kind, loop.time(), random.random()) is Change.OPENED:
            self._store_failed(error)
        if pending.attempts == 1 or pending.successes_seen != self._successes:
            pending.strikes += 1
            pending.successes_seen = self._successes
        if pending.strikes >= MAX_STRIKES:
            await self._give_up(pending, error)
            return
        self._events.retried(error.kind)
        if self._breaker.is_open:
            # Behind the others: a probe must not be this image for ever.
            self._push(pending, self._now())
            loop.call_at(self._breaker.probe_at, self._start_task)
        else:
            log.warning("upload.retried", message=str(error), key=pending.key, kind=error.kind)
            delay = delay_seconds(pending.attempts, error.kind, random.random())
            loop.call_later(delay, self._push, pending, pending.accepted_at)

    def _bug(self, pending: Pending, exc: Exception) -> StoreError:
        return StoreError(
            operation=f"put {pending.key}",
            place=self._store.place,
            cause=f"{type(exc).__name__}: {exc}",
            hint="this is a bug in imgproxy-cache: please report it",
            kind="bug",
        )

    async def _give_up(self, pending: Pending, error: StoreError) -> None:
        """The store takes others and not this one."""
        log.error(
            "upload.failed",
            message=str(error),
            path=pending.printable_path,
            key=pending.key,
            place=error.place,
            operation=error.operation,
            cause=error.cause,
            hint=error.hint,
            kind=error.kind,
            bytes=pending.size,
        )
        if pending.file is None:
            self._events.failed(error.kind)
            self._finish(pending)
        else:
            await self._quarantine(pending, str(error))

    async def _quarantine(self, pending: Pending, reason: str) -> None:
        file, pending.file = pending.file, None
        if file is not None and self._spooling is not None:
            self._events.quarantined(pending.size)
            log.error("spool.quarantined", file=file.path.name, reason=reason)
            await self._spooling.quarantine(file, reason)
        self._finish(pending)

    def _finish(self, pending: Pending) -> None:
        pending.is_done = True
        self._release(pending)
        if self._newest.get(pending.key) is pending:
            del self._newest[pending.key]
        self._forget_file(pending)

    def _forget_file(self, pending: Pending) -> None:
        file, pending.file = pending.file, None
        if file is not None and self._spooling is not None:
            self._aside(self._spooling.forget(file))

    def _aside(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._side_tasks.add(task)
        task.add_done_callback(self._side_tasks.discard)

    # A store that fails, and is back

    def _store_failed(self, error: StoreError) -> None:
        log.error(
            "store.failed",
            message=f"{error}; images are kept until it is back",
            place=error.place,
            kind=error.kind,
            cause=error.cause,
            hint=error.hint,
            **self._levels(),
        )
        if self._spooling is not None:
            self._spooling.is_hurried = True
            for pending in self._newest.values():
                if pending.file is not None and not pending.is_uploading:
                    self._release(pending)

    def _store_recovered(self) -> None:
        log.info("store.recovered", message="storing again", **self._levels())
        if self._spooling is not None:
            self._spooling.is_hurried = False
        for _ in range(min(self._concurrency, len(self._ready))):
            self._start_task()

    def _levels(self) -> dict[str, object]:
        spool = self._spooling
        return {
            "waiting": len(self._newest),
            "memory_bytes": self._bytes,
            "spool_files": spool.files if spool else 0,
            "spool_bytes": spool.bytes if spool else 0,
            "oldest_seconds": round(self.oldest_seconds, 1),
        }

    # What is to be done now and then

    async def _tick(self) -> None:
        last_adopted = last_summary = float("-inf")
        loop = asyncio.get_running_loop()
        while True:
            if self._spooling is not None:
                if loop.time() - last_adopted >= ADOPT_SECONDS:
                    last_adopted = loop.time()
                    await self._adopt(self._spooling)
                await self._look_after(self._spooling)
            if self._breaker.is_open and loop.time() - last_summary >= SUMMARY_SECONDS:
                if last_summary > 0:
                    log.warning("store.awaited", message=self._last_error, **self._levels())
                last_summary = loop.time()
            await asyncio.sleep(TICK_SECONDS)

    async def _adopt(self, spooling: Spooling) -> None:
        """Take over what an earlier run or a worker that died has left."""
        adopted = 0
        try:
            async for files in spooling.adopt():
                adopted += len(files)
                for file in files:
                    self._wait(
                        Pending(
                            key=file.key,
                            accepted_at=file.accepted_at,
                            due_at=0,
                            size=file.size,
                            upload=None,
                            file=file,
                        )
                    )
        except OSError as exc:
            log.error("spool.failed", message=f"cannot be scanned: {exc}", problem=str(exc))
        if adopted:
            log.info("spool.adopted", message="uploading what was left", items=adopted)

    async def _look_after(self, spooling: Spooling) -> None:
        too_old = self._now() - spooling.limits.max_age_seconds
        while self._ready and self._ready[0][0] < too_old:
            pending = heappop(self._ready)[2]
            if not pending.is_done:
                self._events.dropped(pending.size)
                log.warning("spool.expired", key=pending.key, bytes=pending.size)
                self._finish(pending)
        try:
            asked_at = await spooling.retry_was_asked_at()
            if asked_at > self._retry_asked_at:
                self._retry_asked_at = asked_at
                self._breaker.ask_now()
                self._start_task()
            note = {"problem": self.store_problem, "spool_problem": spooling.problem}
            await spooling.note(json.dumps({**note, **self._levels()}))
        except OSError:
            pass  # told by the writes that fail as well
