"""As many jobs at once as there are threads, and a bounded number that waits."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any, Self, TypeVar

from imgproxy_cache.engine.errors import QueueFull

Result = TypeVar("Result")
Run = Callable[[Callable[[], Result]], Awaitable[Result]]


class Workers:
    """
    Threads, each of which is given to one request from its download to its image.

    A request that is cancelled gives up its place in the queue at once; one
    whose thread is at work keeps it until that is done, for nothing can stop
    libvips in the middle, and memory must stay bounded.  Leaving the context
    waits for the threads.
    """

    def __init__(self, threads: int, queue_size: int) -> None:
        """``queue_size`` 0 lets any number wait."""
        self._pool = ThreadPoolExecutor(threads, "render")
        self._free = asyncio.Semaphore(threads)
        self._most = threads + queue_size if queue_size else None
        self._count = 0

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await asyncio.to_thread(self._pool.shutdown, wait=True, cancel_futures=True)

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[Run[Any]]:
        """
        Wait for a thread; call what is given to run something in it.

        Raises: QueueFull.
        """
        if self._most is not None and self._count >= self._most:
            raise QueueFull("every worker is busy and the queue is full")
        self._count += 1
        try:
            await self._free.acquire()
        except BaseException:
            self._count -= 1
            raise
        jobs: list[Future[Any]] = []

        async def run(call: Callable[[], Result]) -> Result:
            job = self._pool.submit(call)
            jobs.append(job)
            return await asyncio.wrap_future(job)

        try:
            yield run
        finally:
            running = [job for job in jobs if not job.done()]
            if running:
                loop = asyncio.get_running_loop()
                running[-1].add_done_callback(lambda _: loop.call_soon_threadsafe(self._give_back))
            else:
                self._give_back()

    def _give_back(self) -> None:
        self._count -= 1
        self._free.release()
