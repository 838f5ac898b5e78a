"""The store as the farthest tier: what was put there for pages is read back for the proxy."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from enum import Enum, auto
from functools import partial
from random import random
from weakref import WeakValueDictionary

import structlog

from imgproxy_cache.core.breaker import OF_THE_IMAGE, Breaker, Change, Permission
from imgproxy_cache.core.image import Image
from imgproxy_cache.core.kept import KeptAnswer
from imgproxy_cache.core.key import Key, StoredName
from imgproxy_cache.core.stored import answer_from_store
from imgproxy_cache.errors import StoreBugError, StoredImageError, StoreError
from imgproxy_cache.stores.reader import Get, Outcome, Reader, Unread
from imgproxy_cache.tiers import Counts
from imgproxy_cache.tiers.recent_keys import RecentKeys

log = structlog.get_logger()

# imgproxy takes 5 to 50 ms: a store that takes longer than this is of no use as a cache.
STORE_SECONDS = 2.0
# Hashing so much takes 50 us; more is for a thread, the way to which and back takes as long.
PROVED_AT_ONCE_BYTES = 64 * 1024
# An image that was handed to the uploads is in the store soon: until then a miss means nothing.
UPLOAD_SECONDS = 10.0
# As long it is remembered that an image is broken, until the next upload replaces it.
BROKEN_SECONDS = 600.0
MOST_BROKEN = 10_000
# A client that reads slowly may take this much memory, as one of imgproxy's streams does.
LARGE_BYTES = 256 * 1024
# Broken images are said no more often.
SAY_SECONDS = 60.0


class _Nothing(Enum):
    """What may come of asking, beside answers and failures."""

    MISSING = auto()
    """Or it does not say for how long it is fresh."""
    UNREAD = auto()
    """It was not asked, or there is no memory for it now: that says nothing of the store."""


_Outcome = KeptAnswer | StoredImageError | StoreError | _Nothing


class _Asking:
    """One get under way, until its outcome was told, be it by the clock."""

    __slots__ = ("answer", "ends_at", "key", "name", "path_sha256", "was_probe")

    def __init__(
        self,
        stored_name: StoredName,
        name: bytes,
        answer: asyncio.Future[KeptAnswer | None],
        *,
        was_probe: bool,
    ) -> None:
        self.key, self.path_sha256 = stored_name
        self.name = name
        self.answer = answer
        self.was_probe = was_probe
        self.ends_at = 0.0


class StoreTier:
    """
    Images out of a :class:`~imgproxy_cache.stores.Store`, by its reader, each proved to be what was
    put there.

    A key that is not there is not asked for again for `miss_seconds` (at most `miss_items` such
    keys are remembered; with 0 of either none).  What has more than `max_bytes` is not read: it is
    none of ours.  A store that fails is left alone for a growing
    time (:mod:`~imgproxy_cache.core.breaker`), and asked by one at a time then.  The stale
    windows are the operator's, as for :func:`~imgproxy_cache.core.freshness.lifetimes`.

    Large images are proved in threads: nothing here stalls the event loop, and nothing raises for
    what the store does or holds.  `clock` counts seconds, `jitter` gives numbers from [0, 1).

    Of `counts`, those are misses for which the store was asked; items and bytes stay 0.
    """

    def __init__(
        self,
        reader: Reader,
        *,
        miss_seconds: float,
        miss_items: int,
        max_bytes: int,
        stale_while_revalidate_seconds: float,
        stale_if_error_seconds: float,
        clock: Callable[[], float] = time.monotonic,
        jitter: Callable[[], float] = random,
        store_seconds: float = STORE_SECONDS,
    ) -> None:
        self._reader = reader
        self._max_bytes = max_bytes
        self._store_seconds = store_seconds
        self._stale_while_revalidate_seconds = stale_while_revalidate_seconds
        self._stale_if_error_seconds = stale_if_error_seconds
        self._clock = clock
        self._jitter = jitter
        self._counts = Counts()
        self._missing = RecentKeys(seconds=miss_seconds, max_items=miss_items, clock=clock)
        self._expected = RecentKeys(seconds=UPLOAD_SECONDS, max_items=miss_items, clock=clock)
        self._broken = RecentKeys(seconds=BROKEN_SECONDS, max_items=MOST_BROKEN, clock=clock)
        self._breaker = Breaker()
        # Large answers that clients are still being given, for which nearer tiers may have no
        # room: there once, and not once for each.
        self._given: WeakValueDictionary[Key, KeptAnswer] = WeakValueDictionary()
        self._problem = ""
        self._said_at = float("-inf")
        self._loop = asyncio.get_running_loop()
        # The oldest first: one timer for all costs less than one for each.
        self._under_way: dict[_Asking, Get] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._proving: set[asyncio.Task[None]] = set()

    @property
    def counts(self) -> Counts:
        return self._counts

    @property
    def problem(self) -> str | None:
        """Why the store is not asked at the moment, but for a probe; None if it works."""
        return self._problem if self._breaker.is_open else None

    def may_have(self, key: Key) -> bool:
        """Whether to ask: it was not missing a moment ago, and the store works."""
        return key not in self._missing and self._breaker.may_ask(self._clock())

    async def get(self, stored_name: StoredName, name: bytes) -> KeptAnswer | None:
        """
        The image under this name, fresh or stale, as the answer of a tier's name; None for a miss.

        It takes no longer than :data:`STORE_SECONDS`.  Who asks twice at once has the store asked
        twice; who asks while another is being given a large answer is given that.
        """
        key = stored_name.key
        if key in self._missing:
            return None
        given = self._given.get(key)
        if given is not None and given.name == name:
            self._counts.hits += 1
            return given
        permission = self._breaker.permission(self._clock())
        if permission is Permission.NO:
            return None
        was_probe = permission is Permission.AS_PROBE
        asking = _Asking(stored_name, name, self._loop.create_future(), was_probe=was_probe)
        asking.ends_at = self._loop.time() + self._store_seconds
        if self._timer is None:
            self._timer = self._loop.call_at(asking.ends_at, self._give_up)
        self._under_way[asking] = self._reader.get(
            key, self._max_bytes, partial(self._told, asking)
        )
        # It outlives the one who asks: the breaker has to be told what came of it.
        return await asking.answer

    def is_broken(self, key: Key) -> bool:
        """What the store has there is not what was put there, whatever it says of itself."""
        return key in self._broken

    def expect(self, key: Key) -> None:
        """An image of this key was just handed to the uploads: the store will have it soon."""
        self._broken.discard(key)
        self._missing.discard(key)
        self._given.pop(key, None)
        self._expected.add(key)

    def close(self) -> None:
        """Ask nothing more: who still waits gets a miss."""
        for asking, get in tuple(self._under_way.items()):
            self._leave(asking, get)
        for task in tuple(self._proving):
            task.cancel()
        if self._timer is not None:
            self._timer.cancel()

    def _told(self, asking: _Asking, outcome: Outcome) -> None:
        if isinstance(outcome, Unread):
            self._end(asking, _Nothing.UNREAD)
        elif not isinstance(outcome, Image):
            self._end(asking, _Nothing.MISSING if outcome is None else outcome)
        elif len(outcome.body) <= PROVED_AT_ONCE_BYTES:
            self._end(asking, self._proved(asking, outcome))
        else:
            task = asyncio.create_task(self._prove_large(asking, outcome))
            self._proving.add(task)
            task.add_done_callback(self._proving.discard)

    async def _prove_large(self, asking: _Asking, image: Image) -> None:
        self._end(asking, await asyncio.to_thread(self._proved, asking, image))

    def _proved(self, asking: _Asking, image: Image) -> _Outcome:
        try:
            answer = answer_from_store(
                image,
                path_sha256=asking.path_sha256,
                name=asking.name,
                stale_while_revalidate_seconds=self._stale_while_revalidate_seconds,
                stale_if_error_seconds=self._stale_if_error_seconds,
            )
        except StoredImageError as exc:
            return exc
        except Exception as exc:
            return StoreBugError(exc, operation=f"get {asking.key}", place=self._reader.place)
        return answer or _Nothing.MISSING

    def _give_up(self) -> None:
        """Wait no longer for what is over."""
        self._timer = None
        now = self._loop.time()
        for asking, get in tuple(self._under_way.items()):
            if asking.ends_at > now:
                self._timer = self._loop.call_at(asking.ends_at, self._give_up)
                break
            get.abandon()  # of those that were left meanwhile, once more
            self._end(asking, self._no_answer(asking))

    def _no_answer(self, asking: _Asking) -> StoreError:
        return StoreError(
            operation=f"get {asking.key}",
            place=self._reader.place,
            cause=f"no answer in {self._store_seconds:g} s",
            hint="look at the network",
            kind="timeout",
        )

    def _leave(self, asking: _Asking, get: Get) -> None:
        get.abandon()
        self._end(asking, _Nothing.UNREAD)

    def _end(self, asking: _Asking, outcome: _Outcome) -> None:
        if asking not in self._under_way:  # one that is being proved was given up
            return
        del self._under_way[asking]
        if not asking.answer.done():  # else who asked was cancelled
            asking.answer.set_result(outcome if isinstance(outcome, KeptAnswer) else None)
        if outcome is _Nothing.UNREAD:
            self._breaker.told_nothing(was_probe=asking.was_probe)
        elif isinstance(outcome, StoreError):
            self._failed(asking, outcome)
        else:
            self._works(asking, outcome)

    def _works(self, asking: _Asking, outcome: KeptAnswer | StoredImageError | _Nothing) -> None:
        """An image that is missing, or broken, says that its store is not."""
        if self._breaker.succeeded() is Change.CLOSED:
            log.info("store.read_recovered", message="images are read from the store again")
        if isinstance(outcome, KeptAnswer):
            self._counts.hits += 1
            if len(outcome.body) > LARGE_BYTES:
                self._given[asking.key] = outcome
            return
        if isinstance(outcome, StoredImageError):
            self._counts.broken += 1
            self._broken.add(asking.key)
            self._say_rejected(asking, str(outcome))
        else:
            self._counts.misses += 1
        if asking.key not in self._expected:
            self._missing.add(asking.key)

    def _failed(self, asking: _Asking, error: StoreError) -> None:
        self._counts.errors += 1
        self._problem = str(error)
        change = self._breaker.failed(
            error.kind, self._clock(), self._jitter(), was_probe=asking.was_probe
        )
        if error.kind in OF_THE_IMAGE:
            self._missing.add(asking.key)
            self._say_rejected(asking, str(error))
        elif change is Change.OPENED:
            log.warning(
                "store.read_failed",
                message=f"{error}; images come from imgproxy until it is back",
                place=error.place,
                operation=error.operation,
                cause=error.cause,
                hint=error.hint,
                kind=error.kind,
            )
            for waiting, get in tuple(self._under_way.items()):
                if not get.has_begun:
                    self._leave(waiting, get)

    def _say_rejected(self, asking: _Asking, why: str) -> None:
        if self._clock() - self._said_at >= SAY_SECONDS:
            self._said_at = self._clock()
            log.warning(
                "image.rejected",
                message=f"an object of the store is not given to clients: {why}",
                place=self._reader.place,
                key=asking.key,
                images=self._counts.broken,
            )
