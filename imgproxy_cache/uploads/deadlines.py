"""Ending what takes too long."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable
from typing import TypeVar

T = TypeVar("T")


class Deadlines:
    """
    As :func:`asyncio.timeout`, to the second of whoever calls :meth:`end_overdue`.

    A timer for each upload, made and cancelled, would cost 8 us.
    """

    def __init__(self) -> None:
        self._ends: dict[asyncio.Task[object], float] = {}
        self._overdue: set[asyncio.Task[object]] = set()

    async def within(self, seconds: float, work: Awaitable[T]) -> T:
        """
        What comes of the work.

        Raises:
            TimeoutError: nothing, in so many seconds
        """
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("deadlines are for tasks")
        self._ends[task] = time.monotonic() + seconds
        try:
            return await work
        except asyncio.CancelledError:
            if task not in self._overdue or task.uncancel() > 0:
                raise  # somebody else's wish
            raise TimeoutError from None
        finally:
            del self._ends[task]
            self._overdue.discard(task)

    def end_overdue(self) -> None:
        """Cancel what is late."""
        now = time.monotonic()
        for task, end in self._ends.items():
            if end <= now and task not in self._overdue:
                self._overdue.add(task)
                task.cancel()
