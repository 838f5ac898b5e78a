"""Reading from a store while clients wait: the port, and what serves any store."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from enum import Enum, auto
from typing import Protocol

from imgproxy_cache.core.image import Image
from imgproxy_cache.core.key import Key
from imgproxy_cache.errors import StoreBugError, StoreError
from imgproxy_cache.threads import Threads

# What asks at once.  A store that answers within 30 ms is asked 500 times a second by so many; on
# one core, with a store beside it, 8 of them cost 78 us a get, 16 of them 82 and 32 of them 96.
MOST_THREADS = 16


class Unread(Enum):
    """An image that is there, and was not read."""

    NO_ROOM = auto()


Outcome = Image | StoreError | Unread | None
"""Of a get: the image, why there is no telling, why it was not read, or that there is none."""


class Room(Protocol):
    """Memory for images that are being read: :class:`~imgproxy_cache.buffer.Buffer`."""

    def take(self, size: int) -> bool:
        """Whether there were so many bytes, which are taken now."""

    def give_back(self, size: int) -> None: ...


class Get(Protocol):
    """One get under way."""

    @property
    def has_begun(self) -> bool:
        """Whether the store was asked, or soon will be whatever happens."""

    def abandon(self) -> None:
        """Stop it, as far as that goes: nothing is told."""


class Reader(Protocol):
    """
    Gets images for the event loop, which it never stalls.

    At most so many at once, which each reader has its reason for; further ones wait.  Where a store
    tells the size before the bytes, there is `room` for them, or they are not read.
    """

    @property
    def place(self) -> str:
        """Of its store."""

    def get(self, key: Key, max_bytes: int, tell: Callable[[Outcome], None]) -> Get:
        """
        As :meth:`~imgproxy_cache.stores.Store.get`: the outcome is told, and nothing raised.

        Not before this has returned.
        """


class BlockingGet(Protocol):
    """What :class:`ThreadedReader` needs of a store."""

    @property
    def place(self) -> str: ...

    def get(self, key: Key, max_bytes: int | None = None) -> Image | None: ...


class _ThreadedGet:
    __slots__ = ("has_begun", "is_abandoned", "key", "max_bytes", "tell")

    def __init__(self, key: Key, max_bytes: int, tell: Callable[[Outcome], None]) -> None:
        self.key = key
        self.max_bytes = max_bytes
        self.tell = tell
        self.has_begun = False
        self.is_abandoned = False

    def abandon(self) -> None:
        self.is_abandoned = True


class ThreadedReader:
    """
    A :class:`Reader` of any store, whose blocking `get` it calls in threads.

    Of those the event loop is woken once for all that have ended before it looks.
    """

    def __init__(self, store: BlockingGet) -> None:
        self._store = store
        self._loop = asyncio.get_running_loop()
        self._threads: Threads[_ThreadedGet, tuple[_ThreadedGet, Outcome]] = Threads(
            self._ask, MOST_THREADS, name="store", tell_ended=self._ring
        )
        self._is_waking = False
        self._has_rung = False

    @property
    def place(self) -> str:
        return self._store.place

    def get(self, key: Key, max_bytes: int, tell: Callable[[Outcome], None]) -> Get:
        get = _ThreadedGet(key, max_bytes, tell)
        self._threads.give(get)
        if not self._is_waking:
            self._is_waking = True
            self._loop.call_soon(self._wake)
        return get

    def close(self) -> None:
        """
        Ask and tell nothing more.

        The threads keep no process alive, and end when the store has answered them.
        """
        self._threads.close()

    def _wake(self) -> None:
        """Once for all that were asked for in one turn of the event loop."""
        self._is_waking = False
        self._threads.wake()

    def _ask(self, get: _ThreadedGet) -> tuple[_ThreadedGet, Outcome]:
        """In a thread."""
        get.has_begun = True
        if get.is_abandoned:
            return get, None
        try:
            return get, self._store.get(get.key, get.max_bytes)
        except StoreError as exc:
            return get, exc
        except BaseException as exc:  # obstore's own bugs are no Exceptions
            place = self._store.place
            return get, StoreBugError(exc, operation=f"get {get.key}", place=place)

    def _ring(self) -> None:
        """In a thread: once for all that ended before the event loop looks."""
        if not self._has_rung:
            self._has_rung = True
            with suppress(RuntimeError):  # the loop is closed
                self._loop.call_soon_threadsafe(self._see_what_ended)

    def _see_what_ended(self) -> None:
        # Before the look: who ends after it rings again.
        self._has_rung = False
        for get, outcome in self._threads.ended():
            if not get.is_abandoned:
                get.tell(outcome)


@asynccontextmanager
async def threaded_reader(store: BlockingGet) -> AsyncIterator[Reader]:
    reader = ThreadedReader(store)
    try:
        yield reader
    finally:
        reader.close()
