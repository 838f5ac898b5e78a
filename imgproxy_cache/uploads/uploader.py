"""
Attempts to store what waits, and what follows from each.

Oldest first, at most `concurrency` at once, one at a time for each key.  A store that
fails is left in peace but for a probe (:mod:`~imgproxy_cache.core.breaker`); an image
that alone fails is tried again with growing delays, and set aside in the end.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from time import perf_counter
from typing import Any, cast

import structlog

from imgproxy_cache.core.breaker import OF_THE_IMAGE, Permission, delay_seconds
from imgproxy_cache.core.image import Image
from imgproxy_cache.errors import SpoolError, SpoolFileError, StoreError
from imgproxy_cache.stores import Store
from imgproxy_cache.uploads.deadlines import Deadlines
from imgproxy_cache.uploads.dedup import Dedup
from imgproxy_cache.uploads.events import UploadEvents
from imgproxy_cache.uploads.outages import Outages
from imgproxy_cache.uploads.pending import INLINE_BYTES, Pending, image_from_spool
from imgproxy_cache.uploads.spooling import Spooling
from imgproxy_cache.uploads.waiting import Waiting

log = structlog.get_logger()

UPLOAD_BYTES_PER_SECOND = 256 * 1024
# An image that the store refuses so often while it takes others is set aside ...
MAX_STRIKES = 6
# ... but not for what is never the image's fault.
OF_THE_STORE = frozenset({"busy", "timeout", "unreachable", "tls", "clock", "bucket", "region"})


class Uploader:
    """
    The tasks that store what waits.

    A task lives while there is something to upload, so that none can be missing later.
    `upload_seconds` are for an upload of no bytes; memory is given up when more than half of
    `max_items` or `max_bytes` is taken, and the spool has the image.
    """

    def __init__(
        self,
        store: Store,
        events: UploadEvents,
        *,
        concurrency: int,
        max_items: int,
        max_bytes: int,
        upload_seconds: float,
        now: Callable[[], float],
        jitter: Callable[[], float],
        info_log: Callable[..., None] | None,
    ) -> None:
        self.spool: Spooling | None = None
        self.waiting = Waiting()
        self.outages = Outages(self.levels, jitter)
        self.deadlines = Deadlines()
        self.ended = asyncio.Event()
        """An attempt, or a write into the spool."""
        self.attempts = 0
        """Those that have ended."""
        self.is_closed = False
        self._place = store.place
        self._dedup = Dedup(store)
        self._events = events
        self._concurrency = concurrency
        self._max_items = max_items
        self._max_bytes = max_bytes
        self._upload_seconds = upload_seconds
        self._now = now
        self._jitter = jitter
        self._info_log = info_log or log.info  # of what every image pays for
        self._successes = 0
        self._joining = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()
        self._side_tasks: set[asyncio.Task[None]] = set()
        bucket = store.place.partition("://")[2].partition("/")[0]
        self._bucket = bucket or store.place
        self._message = "Uploaded to S3" if store.place.startswith("s3://") else "Stored"

    @property
    def oldest_seconds(self) -> float:
        """Age of the image that waits longest; 0 if none does."""
        oldest = self.waiting.oldest
        return self.age(oldest) if oldest is not None else 0.0

    async def stop(self) -> None:
        """End what is under way."""
        for task in (tasks := tuple(self._tasks)):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def settle(self) -> None:
        """Wait until the files of what is stored are removed."""
        await asyncio.gather(*self._side_tasks)

    def start(self) -> None:
        """One task more, if there may be something for it to do."""
        if len(self._tasks) < self._concurrency and not self.is_closed and self.outages.may_ask():
            task = asyncio.create_task(self._work())
            self._tasks.add(task)

    async def _work(self) -> None:
        try:
            while (pending := self.waiting.next()) is not None and not self._must_wait(pending):
                permission = self.outages.permission()
                if permission is Permission.NO:
                    break
                await self._upload(pending, was_probe=permission is Permission.AS_PROBE)
        finally:
            # No await since nothing was found: whatever is offered from now on starts a task.
            self._tasks.discard(cast(asyncio.Task[None], asyncio.current_task()))

    def _must_wait(self, pending: Pending) -> bool:
        """What is read from the spool gets no more than half of the memory, but at least a turn."""
        return (
            pending.upload is None
            and self.waiting.on_their_way > 0
            and self.waiting.bytes + pending.size > self._max_bytes // 2
        )

    async def _upload(self, pending: Pending, *, was_probe: bool) -> None:
        """One attempt, and what follows from it."""
        self.waiting.take(pending)
        pending.attempts += 1
        try:
            image = await self._image(pending)
        except SpoolFileError as exc:
            await self._quarantine(pending, str(exc))
        except FileNotFoundError:  # an operator removed it
            self.finish(pending)
        except (OSError, SpoolError) as exc:
            self._try_later(pending, self._error(pending, exc, "look at CACHE_SPOOL_DIR", "disk"))
        else:
            await self._store(pending, image, was_probe=was_probe)
            was_probe = False
        finally:
            self.outages.told_nothing(was_probe=was_probe)
            self.waiting.arrived(pending)
            self.attempts += 1
            self.ended.set()
            if pending.was_in_spool:
                self.start()  # memory that others waited for may be free

    async def _image(self, pending: Pending) -> Image:
        if pending.upload is None and pending.file is not None and self.spool is not None:
            spooled, body = await self.spool.read(pending.file)
            pending.content_sha256 = spooled.content_sha256
            pending.path = spooled.path.encode("ascii")
            return image_from_spool(spooled, body)
        if pending.size <= INLINE_BYTES:
            return pending.image()
        # One at a time: until its chunks have gone, an image is in memory twice.
        async with self._joining:
            image = await asyncio.to_thread(pending.image)
            pending.keep_joined(image.body)
        return image

    async def _store(self, pending: Pending, image: Image, *, was_probe: bool) -> None:
        started = perf_counter()
        seconds = self._upload_seconds + pending.size / UPLOAD_BYTES_PER_SECOND
        try:
            is_new = await self.deadlines.within(
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
        if self.outages.succeeded():
            self._store_recovered()
        if is_new:
            age = self.age(pending)
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
        self.finish(pending)

    async def _failed(self, pending: Pending, error: StoreError, *, was_probe: bool) -> None:
        if self.outages.failed(error, was_probe=was_probe):
            self._store_failed()
        if self.waiting.is_superseded(pending):
            self.supersede(pending)
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
        if self.outages.is_open:
            # Behind the others: a probe must not be this image for ever.
            self.waiting.put_back(pending, self._now())
            # A little more: the loop's clock and the breaker's differ by a millisecond.
            delay = self.outages.probe_at - time.monotonic() + 0.005
            loop.call_later(max(0.0, delay), self.start)
        else:
            delay = delay_seconds(pending.attempts, error.kind, self._jitter())
            loop.call_later(delay, self._try_again, pending)

    def _try_again(self, pending: Pending) -> None:
        if not pending.is_done:
            self.waiting.put_back(pending, pending.accepted_at)
            self.start()

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
            self.finish(pending)
        else:
            await self._quarantine(pending, str(error))

    async def _quarantine(self, pending: Pending, reason: str) -> None:
        file, pending.file = pending.file, None
        if file is not None and self.spool is not None:
            self._events.quarantined(pending.size)
            log.error("spool.quarantined", file=file.path.name, message=reason)
            await self.spool.quarantine(file, reason)
        self.finish(pending)

    def supersede(self, pending: Pending) -> None:
        """A newer image of its key has taken its place."""
        self._events.superseded(pending.size)
        self.finish(pending)

    def finish(self, pending: Pending) -> None:
        """It is stored, or given up."""
        self.waiting.finish(pending)
        self._forget_file(pending)

    def _forget_file(self, pending: Pending) -> None:
        file, pending.file = pending.file, None
        if file is not None and self.spool is not None:
            self._aside(self.spool.forget(file))

    def _aside(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._side_tasks.add(task)
        task.add_done_callback(self._side_tasks.discard)

    def spooled(self, pending: Pending) -> None:
        """Called by the spool: the image survives a restart."""
        self._events.spooled(pending.size, self.age(pending))
        if pending.is_done:
            self._forget_file(pending)
        elif not self.waiting.is_on_its_way(pending):
            self._release_if_needed(pending)
        self.ended.set()

    def _release_if_needed(self, pending: Pending) -> None:
        """Give up the memory of an image in the spool that will not be uploaded soon."""
        waiting = self.waiting
        is_filling = waiting.bytes > self._max_bytes // 2 or waiting.items > self._max_items // 2
        if pending.file is not None and (self.outages.is_open or is_filling):
            waiting.release(pending)
            pending.was_in_spool = True

    def _store_failed(self) -> None:
        if self.spool is not None:
            self.spool.is_hurried = True
            for pending in self.waiting:
                if not self.waiting.is_on_its_way(pending):
                    self._release_if_needed(pending)

    def _store_recovered(self) -> None:
        if self.spool is not None:
            self.spool.is_hurried = self.is_closed
        for _ in range(self._concurrency):
            self.start()

    def try_now(self) -> None:
        """Ask a store that is down without further delay."""
        self.outages.ask_now()
        self.start()

    def age(self, pending: Pending) -> float:
        """In seconds; clocks are set back now and then."""
        return max(0.0, self._now() - pending.accepted_at)

    def levels(self) -> dict[str, float]:
        """How much waits, for the log."""
        return {
            "waiting": len(self.waiting),
            "memory_bytes": self.waiting.bytes,
            "spool_files": self.spool.files if self.spool else 0,
            "spool_bytes": self.spool.bytes if self.spool else 0,
            "oldest_seconds": round(self.oldest_seconds, 1),
        }
