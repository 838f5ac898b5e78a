"""Calls that block, off the event loop and for next to nothing."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

T = TypeVar("T")
R = TypeVar("R")


class Threads(Generic[T, R]):
    """
    Up to `most` threads that do `work` (which must not raise) with what they are given, in order.

    Made for the fewest changes between threads, each of which costs 5 us where they share a core,
    and more where they wait for the interpreter: one thread is woken for all that is given at
    once, and wakes the next if there is more to do than it can; and nobody is woken when a call
    has ended: who gives asks for that now and then, or has `tell_ended` called after each, in its
    thread (it must not raise either).

    They keep no process alive: a store that hangs would hold up a stop.
    """

    def __init__(
        self,
        work: Callable[[T], R],
        most: int,
        *,
        name: str,
        tell_ended: Callable[[], None] | None = None,
    ) -> None:
        self._work = work
        self._most = most
        self._name = name
        self._tell_ended = tell_ended
        self._threads = 0
        self._starting = threading.Lock()
        self._given: deque[T] = deque()
        self._ended: deque[R] = deque()
        # The locks that idle threads wait for.  This list and the deques are changed by single
        # operations, which the interpreter does not interrupt.
        self._idle: list[threading.Lock] = []
        self._is_closed = False
        self._tell_dry: Callable[[], None] | None = None

    def give(self, item: T) -> None:
        """Have work done with it, after the next :meth:`wake`."""
        self._given.append(item)

    def wake(self) -> None:
        """Begin with what was given, if anything was."""
        if self._given:
            self._wake_one()

    def call_when_dry(self, tell: Callable[[], None]) -> None:
        """Call this, in a thread and once or twice, when all that was given is begun."""
        self._tell_dry = tell

    def ended(self) -> Iterator[R]:
        """What has come of it since this was asked; nothing after the end."""
        while self._ended and not self._is_closed:
            yield self._ended.popleft()

    def close(self) -> None:
        """Begin and tell nothing more; the threads end, each after its call."""
        self._is_closed = True
        self._tell_dry = None
        self._given.clear()
        while self._idle:
            self._wake_one()

    def _wake_one(self) -> None:
        try:
            self._idle.pop().release()
        except IndexError:
            if self._threads < self._most:
                self._start_one()

    def _start_one(self) -> None:
        with self._starting:
            if self._threads == self._most:
                return
            self._threads += 1
        threading.Thread(target=self._live, name=self._name, daemon=True).start()

    def _live(self) -> None:
        bell = threading.Lock()
        bell.acquire()
        while not self._is_closed:
            try:
                item = self._given.popleft()
            except IndexError:
                tell, self._tell_dry = self._tell_dry, None
                if tell is not None:
                    tell()
                self._rest(bell)
                continue
            if self._given:
                self._wake_one()
            self._ended.append(self._work(item))
            del item  # an image must not stay in memory until the next one comes
            if self._tell_ended is not None:
                self._tell_ended()

    def _rest(self, bell: threading.Lock) -> None:
        self._idle.append(bell)
        # Whoever gives adds the item first and looks for an idle thread then; here it is the
        # other way round: one of the two sees the other.
        if self._given or self._is_closed:
            try:
                self._idle.remove(bell)
            except ValueError:
                pass  # somebody was faster, and rings
            else:
                return
        bell.acquire()
