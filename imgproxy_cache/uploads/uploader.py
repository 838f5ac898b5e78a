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
from contextlib import suppress
from typing import Any

import structlog

from imgproxy_cache.core.breaker import OF_THE_IMAGE, Permission, delay_seconds
from imgproxy_cache.errors import SpoolFileError, StoreBugError, StoreError
from imgproxy_cache.stores import Store
from imgproxy_cache.threads import Threads
from imgproxy_cache.uploads.attempt import Stored, attempt
from imgproxy_cache.uploads.dedup import Dedup, Put
from imgproxy_cache.uploads.events import UploadEvents
from imgproxy_cache.uploads.handover import ConfirmedImages, hand_over
from imgproxy_cache.uploads.outages import Outages
from imgproxy_cache.uploads.pending import Pending
from imgproxy_cache.uploads.spool_folder import SpoolFile
from imgproxy_cache.uploads.spooling import Spooling
from imgproxy_cache.uploads.waiting import Waiting

log = structlog.get_logger()

# Uploads begin, and are seen to have ended, so often: at 500 a second twenty at a time, for a
# fraction of what each alone would cost.
TURN_SECONDS = 0.04
# What threads may have before them, to be busy until the next turn; and no more than a share of
# what may be in memory at all, because memory that is on its way is not given up.
GIVEN_AHEAD = 256
GIVEN_SHARE = 4
# An image that the store refuses so often while it takes others is set aside ...
MAX_STRIKES = 6
# ... but not for what is never the image's fault.
OF_THE_STORE = frozenset({"busy", "timeout", "unreachable", "tls", "clock", "bucket", "region"})


class Uploader:
    """
    Stores what waits.

    Attempts are made in threads; what follows from them is decided in the event loop.  Memory is
    given up when more than half of `max_items` or `max_bytes` is taken, and the spool has the
    image.  `disk` gets what the store has confirmed.
    """

    def __init__(
        self,
        store: Store,
        events: UploadEvents,
        *,
        concurrency: int,
        max_items: int,
        max_bytes: int,
        now: Callable[[], float],
        jitter: Callable[[], float],
        info_log: Callable[..., None] | None,
        disk: ConfirmedImages | None,
        keeps_store_fresh: bool,
    ) -> None:
        self.spool: Spooling | None = None
        self.waiting = Waiting()
        self.outages = Outages(self.levels, jitter)
        self.ended = asyncio.Event()
        """An attempt, or a write into the spool."""
        self.attempts = 0
        """Those that have ended."""
        self.is_closed = False
        self._place = store.place
        self._dedup = Dedup(store, keeps_fresh=keeps_store_fresh)
        self._disk = disk
        self._events = events
        self._max_items = max_items
        self._max_bytes = max_bytes
        self._now = now
        self._jitter = jitter
        self._info_log = info_log or log.info  # of what every image pays for
        self._successes = 0
        self._concurrency = concurrency
        self._most_given = concurrency + min(GIVEN_AHEAD, max_items // GIVEN_SHARE)
        self._most_bytes_given = max_bytes // GIVEN_SHARE
        self._threads = Threads(self._attempt, concurrency, name="upload")
        self._loop = asyncio.get_running_loop()
        self._turn: asyncio.TimerHandle | None = None
        self._is_halted = False
        self._side_tasks: set[asyncio.Task[None]] = set()
        self._bucket = store.place.partition("://")[2].partition("/")[0] or store.place
        self._message = "Uploaded to S3" if store.place.startswith("s3://") else "Stored"

    @property
    def oldest_seconds(self) -> float:
        """Age of the image that waits longest; 0 if none does."""
        oldest = self.waiting.oldest
        return self.age(oldest) if oldest is not None else 0.0

    def stop(self) -> None:
        """See what has ended, and want to know nothing more of what is under way."""
        self.see_what_ended()
        if self._turn is not None:
            self._turn.cancel()
        self._threads.close()

    async def settle(self) -> None:
        """Wait until the spool's files are where they belong."""
        await asyncio.gather(*self._side_tasks)
        if self.spool is not None:
            await self.spool.settle()

    def start(self) -> None:
        """Attempts to store what waits, with the next turn."""
        if self._turn is None and not self.is_closed:
            self._turn = self._loop.call_later(TURN_SECONDS, self._take_turn)

    def _take_turn(self) -> None:
        """See what came of attempts, and have others made."""
        if self._turn is not None:
            self._turn.cancel()
            self._turn = None
        self.see_what_ended()
        self._is_halted = False
        while not self.is_closed and (pending := self._next()) is not None:
            if self.outages.is_open:
                if self.outages.permission() is Permission.NO:
                    break
                pending.is_probe = True
            self.waiting.take(pending)
            self._threads.give(pending)
        if self.waiting.next() is not None and not self.outages.is_open:
            self._threads.call_when_dry(self._turn_early)
        self._threads.wake()
        if self.waiting.on_their_way:
            self.start()

    def _turn_early(self) -> None:
        """In a thread: there is nothing to do, and something waits."""
        with suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(self._take_turn)

    def see_what_ended(self) -> None:
        """Let follow what has to, without waiting for the next turn."""
        for pending, outcome in self._threads.ended():
            self._attempted(pending, outcome)
            self.ended.set()

    def _next(self) -> Pending | None:
        """What may be given to the threads."""
        waiting = self.waiting
        given = waiting.on_their_way
        if given >= self._most_given or (
            given >= self._concurrency and waiting.bytes_on_their_way >= self._most_bytes_given
        ):
            return None
        pending = waiting.next()
        # What is read from the spool gets no more than half of the memory, but at least a turn.
        must_wait = (
            pending is not None
            and pending.upload is None
            and given > 0
            and waiting.bytes + pending.size > self._max_bytes // 2
        )
        return None if must_wait else pending

    def _attempt(self, pending: Pending) -> tuple[Pending, Stored | BaseException | None]:
        """In a thread: what came of it; None if it was not begun."""
        if self._is_halted or (self.outages.is_open and not pending.is_probe):
            return pending, None
        try:
            return pending, attempt(self._dedup, pending, self._now())
        except StoreError as exc:
            # Nothing else is begun until it is clear whether the store is down.
            self._is_halted = True
            return pending, exc
        except BaseException as exc:  # obstore's own bugs are no Exceptions
            return pending, exc

    def _attempted(self, pending: Pending, outcome: Stored | BaseException | None) -> None:
        """What follows."""
        was_probe, pending.is_probe = pending.is_probe, False
        try:
            if outcome is None:
                self._not_begun(pending)
                return
            pending.attempts += 1
            self.attempts += 1
            if isinstance(outcome, Stored):
                self._succeeded(pending, outcome)
            else:
                self._not_stored(pending, outcome, was_probe=was_probe)
        finally:
            if was_probe:
                self.outages.probe_told_nothing()
            self.waiting.arrived(pending)

    def _not_begun(self, pending: Pending) -> None:
        if self.waiting.is_superseded(pending):
            self.supersede(pending)
        else:
            self.waiting.put_back(pending, pending.accepted_at)
            self._release_if_needed(pending)

    def _not_stored(self, pending: Pending, failure: BaseException, *, was_probe: bool) -> None:
        match failure:
            case StoreError():
                self._failed(pending, failure, was_probe=was_probe)
            case SpoolFileError():
                self._quarantine(pending, str(failure))
            case FileNotFoundError():  # an operator removed it
                self.finish(pending)
            case OSError():
                error = StoreError(
                    operation=f"put {pending.key}",
                    place=self._place,
                    cause=str(failure),
                    hint="look at CACHE_SPOOL_DIR",
                    kind="disk",
                )
                self._try_later(pending, error)
            case _:
                error = StoreBugError(failure, operation=f"put {pending.key}", place=self._place)
                self._failed(pending, error, was_probe=was_probe)

    def _succeeded(self, pending: Pending, stored: Stored) -> None:
        size, put, seconds = stored
        self._successes += 1
        if self.outages.succeeded():
            self._store_recovered()
        if put is Put.NEW:
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
        disk = self._disk
        if disk is not None and put is not Put.LATER and not self.waiting.is_superseded(pending):
            hand_over(disk, self.spool, pending)
        self.finish(pending)

    def _failed(self, pending: Pending, error: StoreError, *, was_probe: bool) -> None:
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
            self._give_up(pending, error)
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

    def _give_up(self, pending: Pending, error: StoreError) -> None:
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
            self._quarantine(pending, str(error))

    def _quarantine(self, pending: Pending, reason: str) -> None:
        file, pending.file = pending.file, None
        if file is not None and self.spool is not None:
            self._events.quarantined(pending.size)
            log.error("spool.quarantined", file=file.path.name, message=reason)
            self._aside(self._set_aside(self.spool, file, pending, reason))
        else:
            self.finish(pending)

    async def _set_aside(
        self, spool: Spooling, file: SpoolFile, pending: Pending, reason: str
    ) -> None:
        await spool.quarantine(file, reason)
        self.finish(pending)
        self.ended.set()

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
            self.spool.forget(file)

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

    def _store_failed(self) -> None:
        if self.spool is not None:
            self.spool.is_hurried = True
            for pending in self.waiting:
                if not self.waiting.is_on_its_way(pending):
                    self._release_if_needed(pending)

    def _store_recovered(self) -> None:
        if self.spool is not None:
            self.spool.is_hurried = self.is_closed
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
