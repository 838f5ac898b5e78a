"""Threads, turns and the queue for them."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from imgproxy_cache.engine.errors import QueueFull
from imgproxy_cache.engine.work import Workers


async def take_turn(workers: Workers, call: Any, started: asyncio.Event | None = None) -> Any:
    async with workers.turn() as run:
        if started:
            started.set()
        return await run(call)


async def test_what_runs_in_a_thread_is_given_back() -> None:
    async with Workers(1, 0) as workers:
        assert await take_turn(workers, threading.current_thread) is not threading.current_thread()


async def test_queue_holds_as_many_as_it_says() -> None:
    release = threading.Event()
    async with Workers(1, 1) as workers, asyncio.TaskGroup() as tasks:
        for _ in range(2):
            tasks.create_task(take_turn(workers, release.wait))
            await asyncio.sleep(0)
        with pytest.raises(QueueFull):
            await take_turn(workers, release.wait)
        release.set()


async def test_queue_without_a_size_takes_any_number() -> None:
    async with Workers(2, 0) as workers, asyncio.TaskGroup() as tasks:
        turns = [tasks.create_task(take_turn(workers, lambda: 1)) for _ in range(50)]
    assert sum(turn.result() for turn in turns) == 50


async def test_who_stops_waiting_gives_up_the_place_and_is_never_run() -> None:
    release = threading.Event()
    ran: list[int] = []
    async with Workers(1, 1) as workers:
        working = asyncio.create_task(take_turn(workers, release.wait))
        await asyncio.sleep(0)
        waiting = asyncio.create_task(take_turn(workers, lambda: ran.append(1)))
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.wait([waiting])
        next_one = asyncio.create_task(take_turn(workers, lambda: ran.append(2)))
        await asyncio.sleep(0)
        release.set()
        await asyncio.gather(working, next_one)
    assert ran == [2]


async def test_thread_at_work_keeps_its_place_after_its_request_is_gone() -> None:
    release, begun = threading.Event(), threading.Event()

    def work() -> None:
        begun.set()
        release.wait(60)

    async with Workers(1, 1) as workers:
        gone = asyncio.create_task(take_turn(workers, work))
        await asyncio.to_thread(begun.wait, 10)
        gone.cancel()
        await asyncio.wait([gone])
        started = asyncio.Event()
        waiting = asyncio.create_task(take_turn(workers, lambda: "next", started))
        await asyncio.sleep(0)
        with pytest.raises(QueueFull):
            await take_turn(workers, lambda: None)
        assert not started.is_set()
        release.set()
        assert await waiting == "next"


async def test_leaving_waits_for_the_threads() -> None:
    release, begun, done = threading.Event(), threading.Event(), threading.Event()

    def work() -> None:
        begun.set()
        release.wait(60)
        done.set()

    async with Workers(1, 0) as workers:
        gone = asyncio.create_task(take_turn(workers, work))
        await asyncio.to_thread(begun.wait, 10)
        gone.cancel()
        asyncio.get_running_loop().call_later(0.01, release.set)
    assert done.is_set()


async def test_failure_in_a_thread_is_raised_and_frees_it() -> None:
    async with Workers(1, 1) as workers:
        for _ in range(3):
            with pytest.raises(ZeroDivisionError):
                await take_turn(workers, lambda: 1 / 0)
