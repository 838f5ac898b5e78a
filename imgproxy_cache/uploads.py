r"""
What happens to an image after it was answered: it is stored, however long that takes.

::

    offer -> memory -> dedup -> store
                |  \              ^
                |   spool (disk) -|   after a restart, or when memory is needed
                v
              dropped, and counted, when neither has room

Oldest first, at most `concurrency` at once, one at a time for each key.  A store that
fails is left in peace but for a probe (:mod:`~imgproxy_cache.core.breaker`); an image
that alone fails is tried again with growing delays, and set aside in the end.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Coroutine
from contextlib import suppress
from random import random
from time import perf_counter
from types import TracebackType
from typing import Any, Self, cast

import structlog

from imgproxy_cache.core.breaker import OF_THE_IMAGE, Permission, delay_seconds
from imgproxy_cache.core.image import Image
from imgproxy_cache.deadlines import Deadlines
from imgproxy_cache.dedup import Dedup
from imgproxy_cache.errors import SpoolError, SpoolFileError, StoreError
from imgproxy_cache.outages import Outages
from imgproxy_cache.pending import INLINE_BYTES, Pending, Upload, image_from_spool
from imgproxy_cache.spool import Spool
from imgproxy_cache.spool_folder import SpoolFile
from imgproxy_cache.spooling import GRACE_SECONDS, Spooling, SpoolLimits
from imgproxy_cache.stores import Store
from imgproxy_cache.upload_events import UploadEvents
from imgproxy_cache.waiting import Waiting

log = structlog.get_logger()

# An upload that takes longer has failed: a store that hangs is asked again soon after it is back.
UPLOAD_SECONDS = 10.0
UPLOAD_BYTES_PER_SECOND = 256 * 1024
# An image that the store refuses so often while it takes others is set aside ...
MAX_STRIKES = 6
# ... but not for what is never the image's fault.
OF_THE_STORE = frozenset({"busy", "timeout", "unreachable", "tls", "clock", "bucket", "region"})
TICK_SECONDS = 1.0
ADOPT_SECONDS = 5.0
# Writing what waits into the spool is worth more than being in time by so much.
LAST_FLUSH_SECONDS = 0.5
# A store that was down is asked once more when we stop.
LAST_PROBE_SECONDS = 1.0


class Uploads:
    """
    The images that wait, and the tasks that store them.

    A task lives while there is something to upload, so that none can be missing later.
    `max_items` and `max_bytes` bound what is in memory, the spool has its own limits.
    With `spool_is_lasting` a stop does not wait for a store that is down.
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
        upload_seconds: float = UPLOAD_SECONDS,
        now: Callable[[], float] = time.time,
        jitter: Callable[[], float] = random,
        info_log: Callable[..., None] | None = None,
    ) -> None:
        self.max_items = max_items
        self.max_bytes = max_bytes
        self.spool: Spooling | None = None
        if open_spool is not None and spool_limits is not None:
            self.spool = Spooling(open_spool, spool_limits, self._spooled)
        self._place = store.place
        self._dedup = Dedup(store)
        self._deadlines = Deadlines()
        self._events = events
        self._concurrency = concurrency
        self._spool_is_lasting = spool_is_lasting
        self._upload_seconds = upload_seconds
        self._now = now
        self._jitter = jitter
        self._info_log = info_log or log.info  # of what every image pays for
        self._waiting = Waiting()
        self._outages = Outages(self._levels, jitter)
        self._tasks: set[asyncio.Task[None]] = set()
        self._side_tasks: set[asyncio.Task[None]] = set()
        self._ticker: asyncio.Task[None] | None = None
        self._ended = asyncio.Event()  # an upload, or a write into the spool
        self._attempts = 0  # that have ended
        self._successes = 0
        self._is_closed = False
        self._is_dropping = False
        self._retry_asked_at = 0.0
        self._last_note = ""
        bucket = store.place.partition("://")[2].partition("/")[0]
        self._bucket = bucket or store.place
        self._message = "Uploaded to S3" if store.place.startswith("s3://") else "Stored"

    # What is asked from outside

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
        oldest = self._waiting.oldest
        return self._age(oldest) if oldest is not None else 0.0

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
        self._events.accepted(upload.size)
        self._wait(pending)
        if self.spool is not None:
            self.spool.add(pending)
        return True

    async def adopt(self) -> None:
        """Take over what an earlier run or a worker that died has left; done now and then."""
        if self.spool is None:
            return
        adopted = 0
        try:
            async for files in self.spool.adopt():
                adopted += len(files)
                for file in files:
                    self._adopt_file(file)
        except (OSError, SpoolError) as exc:
            log.error("spool.failed", message=f"cannot be scanned: {exc}", problem=str(exc))
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
        tried, patience = self._attempts, loop.time() + LAST_PROBE_SECONDS
        self._try_now()
        while self._waiting and (left := deadline - loop.time()) > 0:
            if self._is_safe_elsewhere() and (self._attempts > tried or loop.time() > patience):
                break
            self._ended.clear()
            with suppress(TimeoutError):
                await asyncio.wait_for(self._ended.wait(), min(left, LAST_PROBE_SECONDS))
        self._is_closed = True
        await self._flush(deadline)
        for task in (tasks := tuple(self._tasks)):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
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
        await asyncio.gather(*self._side_tasks)
        if self.spool is not None:
            await self.spool.close()

    # The end

    async def _flush(self, deadline: float) -> None:
        if self.spool is not None:
            left = deadline - asyncio.get_running_loop().time()
            with suppress(TimeoutError):
                await asyncio.wait_for(self.spool.flush(), max(left, LAST_FLUSH_SECONDS))

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

    # Waiting

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
            self._supersede(older)
        self._start_task()

    def _supersede(self, pending: Pending) -> None:
        self._events.superseded(pending.size)
        self._finish(pending)

    def _start_task(self) -> None:
        if len(self._tasks) < self._concurrency and not self._is_closed and self._outages.may_ask():
            task = asyncio.create_task(self._work())
            self._tasks.add(task)

    def _spooled(self, pending: Pending) -> None:
        """Called by the spool: the image survives a restart."""
        self._events.spooled(pending.size, self._age(pending))
        if pending.is_done:
            self._forget_file(pending)
        elif not self._waiting.is_on_its_way(pending):
            self._release_if_needed(pending)
        self._ended.set()

    def _release_if_needed(self, pending: Pending) -> None:
        """Give up the memory of an image in the spool that will not be uploaded soon."""
        waiting = self._waiting
        is_filling = waiting.bytes > self.max_bytes // 2 or waiting.items > self.max_items // 2
        if pending.file is not None and (self._outages.is_open or is_filling):
            waiting.release(pending)
            pending.was_in_spool = True

    # Uploading

    async def _work(self) -> None:
        try:
            while (pending := self._waiting.next()) is not None and not self._must_wait(pending):
                permission = self._outages.permission()
                if permission is Permission.NO:
                    break
                await self._upload(pending, was_probe=permission is Permission.AS_PROBE)
        finally:
            # No await since nothing was found: whatever is offered from now on starts a task.
            self._tasks.discard(cast(asyncio.Task[None], asyncio.current_task()))
        if not self._waiting.items:
            self._is_dropping = False

    def _must_wait(self, pending: Pending) -> bool:
        """What is read from the spool gets no more than half of the memory, but at least a turn."""
        return (
            pending.upload is None
            and self._waiting.on_their_way > 0
            and self._waiting.bytes + pending.size > self.max_bytes // 2
        )

    async def _upload(self, pending: Pending, *, was_probe: bool) -> None:
        """One attempt, and what follows from it."""
        self._waiting.take(pending)
        pending.attempts += 1
        try:
            image = await self._image(pending)
        except SpoolFileError as exc:
            await self._quarantine(pending, str(exc))
        except FileNotFoundError:  # an operator removed it
            self._finish(pending)
        except (OSError, SpoolError) as exc:
            self._try_later(pending, self._error(pending, exc, "look at CACHE_SPOOL_DIR", "disk"))
        else:
            await self._store(pending, image, was_probe=was_probe)
            was_probe = False
        finally:
            self._outages.told_nothing(was_probe=was_probe)
            self._waiting.arrived(pending)
            self._attempts += 1
            self._ended.set()
            if pending.was_in_spool:
                self._start_task()  # memory that others waited for may be free

    async def _image(self, pending: Pending) -> Image:
        if pending.upload is None and pending.file is not None and self.spool is not None:
            spooled, body = await self.spool.read(pending.file)
            pending.content_sha256 = spooled.content_sha256
            pending.path = spooled.path.encode("ascii")
            return image_from_spool(spooled, body)
        if pending.size > INLINE_BYTES:
            return await asyncio.to_thread(pending.image)
        return pending.image()

    async def _store(self, pending: Pending, image: Image, *, was_probe: bool) -> None:
        started = perf_counter()
        seconds = self._upload_seconds + pending.size / UPLOAD_BYTES_PER_SECOND
        try:
            is_new = await self._deadlines.within(
                seconds, self._dedup.put(pending.key, image, self._now())
            )
        except StoreError as exc:
            await self._failed(pending, exc, was_probe=was_probe)
        except TimeoutError:
            error = self._error(pending, f"no answer in {seconds:.0f} s", "is it down?", "timeout")
            await self._failed(pending, error, was_probe=was_probe)
        except Exception as exc:
            hint = "this is a bug in imgproxy-cache: please report it"
            error = self._error(pending, f"{type(exc).__name__}: {exc}", hint, "bug")
            await self._failed(pending, error, was_probe=was_probe)
        else:
            self._succeeded(pending, len(image.body), perf_counter() - started, is_new=is_new)

    def _error(self, pending: Pending, cause: Exception | str, hint: str, kind: str) -> StoreError:
        return StoreError(
            operation=f"put {pending.key}",
            place=self._place,
            cause=str(cause),
            hint=hint,
            kind=kind,
        )

    def _succeeded(self, pending: Pending, size: int, seconds: float, *, is_new: bool) -> None:
        self._successes += 1
        if self._outages.succeeded():
            self._store_recovered()
        if is_new:
            age = self._age(pending)
            self._events.stored(size, age, seconds)
            self._info_log(
                "upload.stored",
                message=self._message,
                path=pending.printable_path,
                bucket=self._bucket,
                key=pending.key,
                bytes=size,
                seconds=round(seconds, 4),
                age_seconds=round(age, 3),
            )
        else:
            self._events.unchanged(size)
            log.debug("upload.unchanged", path=pending.printable_path, key=pending.key)
        self._finish(pending)

    async def _failed(self, pending: Pending, error: StoreError, *, was_probe: bool) -> None:
        if self._outages.failed(error, was_probe=was_probe):
            self._store_failed()
        if self._waiting.is_superseded(pending):
            self._supersede(pending)
            return
        if error.kind not in OF_THE_STORE and (
            error.kind in OF_THE_IMAGE or pending.successes_seen not in (-1, self._successes)
        ):
            pending.strikes += 1
        pending.successes_seen = self._successes
        if pending.strikes >= MAX_STRIKES:
            await self._give_up(pending, error)
        else:
            self._try_later(pending, error)

    def _try_later(self, pending: Pending, error: StoreError) -> None:
        self._events.retried(pending.size, error.kind)
        log.debug("upload.retried", message=str(error), key=pending.key, kind=error.kind)
        loop = asyncio.get_running_loop()
        self._release_if_needed(pending)
        if self._outages.is_open:
            # Behind the others: a probe must not be this image for ever.
            self._waiting.put_back(pending, self._now())
            # A little more: the loop's clock and the breaker's differ by a millisecond.
            delay = self._outages.probe_at - time.monotonic() + 0.005
            loop.call_later(max(0.0, delay), self._start_task)
        else:
            delay = delay_seconds(pending.attempts, error.kind, self._jitter())
            loop.call_later(delay, self._try_again, pending)

    def _try_again(self, pending: Pending) -> None:
        if not pending.is_done:
            self._waiting.put_back(pending, pending.accepted_at)
            self._start_task()

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
            self._events.failed(pending.size, error.kind)
            self._finish(pending)
        else:
            await self._quarantine(pending, str(error))

    async def _quarantine(self, pending: Pending, reason: str) -> None:
        file, pending.file = pending.file, None
        if file is not None and self.spool is not None:
            self._events.quarantined(pending.size)
            log.error("spool.quarantined", file=file.path.name, message=reason)
            await self.spool.quarantine(file, reason)
        self._finish(pending)

    def _finish(self, pending: Pending) -> None:
        self._waiting.finish(pending)
        self._forget_file(pending)

    def _forget_file(self, pending: Pending) -> None:
        file, pending.file = pending.file, None
        if file is not None and self.spool is not None:
            self._aside(self.spool.forget(file))

    def _aside(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._side_tasks.add(task)
        task.add_done_callback(self._side_tasks.discard)

    # A store that fails, and is back

    def _store_failed(self) -> None:
        if self.spool is not None:
            self.spool.is_hurried = True
            for pending in self._waiting:
                if not self._waiting.is_on_its_way(pending):
                    self._release_if_needed(pending)

    def _store_recovered(self) -> None:
        if self.spool is not None:
            self.spool.is_hurried = self._is_closed
        for _ in range(self._concurrency):
            self._start_task()

    def _try_now(self) -> None:
        self._outages.ask_now()
        self._start_task()

    def _age(self, pending: Pending) -> float:
        """In seconds; clocks are set back now and then."""
        return max(0.0, self._now() - pending.accepted_at)

    def _levels(self) -> dict[str, float]:
        return {
            "waiting": len(self._waiting),
            "memory_bytes": self._waiting.bytes,
            "spool_files": self.spool.files if self.spool else 0,
            "spool_bytes": self.spool.bytes if self.spool else 0,
            "oldest_seconds": round(self.oldest_seconds, 1),
        }

    # What is to be done now and then

    async def _tick(self) -> None:
        next_adoption = 0.0
        while True:
            self._deadlines.end_overdue()
            if self.spool is not None:
                if time.monotonic() >= next_adoption:
                    await self.adopt()
                    next_adoption = time.monotonic() + ADOPT_SECONDS
                self._expire(self.spool.limits.max_age_seconds)
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
            was_in_spool=True,
        )
        self._events.adopted(file.size, self._age(pending))
        self._wait(pending)

    def _expire(self, max_age_seconds: float) -> None:
        too_old = self._now() - max_age_seconds
        while (
            (oldest := self._waiting.oldest) is not None
            and oldest.accepted_at < too_old
            and not self._waiting.is_on_its_way(oldest)
        ):
            age = self._age(oldest)
            self._events.expired(oldest.size, age)
            log.warning("upload.expired", key=oldest.key, bytes=oldest.size, age_seconds=round(age))
            self._finish(oldest)

    async def _look_for_operator(self, spool: Spooling) -> None:
        """Do what `imgproxy-cache spool` asks for, and leave word for it."""
        asked_at = await spool.retry_was_asked_at()
        if asked_at > self._retry_asked_at:
            self._retry_asked_at = asked_at
            self._try_now()
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
