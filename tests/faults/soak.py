"""
The long form only (`make soak`): times and memory while things go wrong.

``FAULTS=long python -m pytest tests/faults/soak.py``; MINUTES says how long the last one takes.
"""

import asyncio
import os
import time
from contextlib import suppress
from pathlib import Path
from statistics import quantiles

from tests.faults.front import Fault
from tests.faults.setup import Stage, staged
from tests.servers.proxy import RunningProxy
from tests.servers.s3 import S3Server

MINUTES = float(os.environ.get("MINUTES", "30"))
OUTAGE_SECONDS = min(120.0, MINUTES * 60)
CALM_SECONDS = 20.0
MOST_MEGABYTES_MORE = 32
MOST_DESCRIPTORS_MORE = 10  # connections come and go
SAMPLES = 20
EVERYTHING = (
    Fault.UNAVAILABLE,
    Fault.FORBIDDEN,
    Fault.HANG,
    Fault.RESET,
    Fault.SLOW,
    Fault.CUT,
    Fault.LOST,
)


async def test_answers_stay_fast_and_memory_bounded_while_the_store_is_down(
    s3: S3Server, tmp_path: Path
) -> None:
    async with staged(s3, tmp_path) as stage, stage.proxy() as proxy:
        await p99_of(stage, proxy, 2)
        calm = await p99_of(stage, proxy, CALM_SECONDS)
        before = proxy.memory_bytes()
        for fault in (Fault.UNAVAILABLE, Fault.HANG, Fault.RESET, Fault.FORBIDDEN):
            stage.front.fail(fault)
            down = await p99_of(stage, proxy, OUTAGE_SECONDS)
            stage.front.heal()
            began = time.monotonic()
            await stage.until_drained(proxy)
            print(
                f"{fault.name}: p99 {down * 1000:.1f} ms, calm {calm * 1000:.1f} ms;"
                f" drained in {time.monotonic() - began:.1f} s;"
                f" {proxy.memory_bytes() / 1e6:.0f} MB"
            )
            assert down <= 2 * calm + 0.002, "and what the clock of a busy machine is worth"
        assert proxy.memory_bytes() - before < 2 * MOST_MEGABYTES_MORE * 1024 * 1024
        assert stage.history.failed == []
        stage.expect_all_stored()


async def test_memory_and_descriptors_stay_flat_while_one_request_in_a_hundred_fails(
    s3: S3Server, tmp_path: Path
) -> None:
    async with staged(s3, tmp_path) as stage, stage.proxy() as proxy:
        stage.front.fail(*EVERYTHING, share=0.01)
        figures = []
        for _ in range(SAMPLES):
            await p99_of(stage, proxy, MINUTES * 60 / SAMPLES)
            figures.append((proxy.memory_bytes() / 2**20, proxy.open_files()))
            print(f"{figures[-1][0]:.1f} MB, {figures[-1][1]} descriptors", flush=True)
        stage.front.heal()
        await stage.until_drained(proxy)
        warm = figures[SAMPLES // 4]
        assert figures[-1][0] - warm[0] <= MOST_MEGABYTES_MORE
        assert figures[-1][1] - warm[1] <= MOST_DESCRIPTORS_MORE
        assert stage.history.failed == []
        stage.expect_all_stored()
        assert proxy.events("server.logged") == []
        assert [line for line in proxy.output if "Traceback" in line] == []


async def p99_of(stage: Stage, proxy: RunningProxy, seconds: float) -> float:
    """Of answers under a steady load of new images."""
    stage.history.seconds.clear()
    asking = asyncio.create_task(stage.history.keep_asking(proxy.port, pause=0.04))
    await asyncio.sleep(seconds)
    asking.cancel()
    with suppress(asyncio.CancelledError):
        await asking
    return quantiles(stage.history.seconds, n=100)[98]
