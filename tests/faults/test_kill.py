"""The server is killed in the middle of its work, again and again."""

import asyncio
import os
import random
import signal
import time
from contextlib import suppress
from pathlib import Path

import pytest

from tests.faults.form import IS_LONG, short_or_long
from tests.faults.front import Fault
from tests.faults.history import name, spool_files
from tests.faults.setup import Stage, staged, until_true
from tests.servers.proxy import RunningProxy
from tests.servers.s3 import S3Server

KILLS = short_or_long(10, 100)
SPOOLED_SECONDS = 0.5
"""An image is in the spool within a quarter of a second; the long form asks for that."""
FAULTS = (Fault.NONE, Fault.UNAVAILABLE, Fault.SLOW, Fault.HANG, Fault.LOST)


async def test_what_was_answered_and_spooled_survives_any_number_of_kills(
    s3: S3Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dice = random.Random(5)
    safe: set[str] = set()
    ready_after = []
    async with staged(s3, tmp_path) as stage:
        for _ in range(KILLS):
            stage.front.fail(dice.choice(FAULTS))
            began = time.monotonic()
            async with stage.proxy() as proxy:
                ready_after.append(time.monotonic() - began)
                safe |= await safe_when_killed(stage, proxy, dice)
        stage.front.heal()
        async with stage.proxy() as proxy:
            await stage.until_drained(proxy)
            assert await proxy.stop() == 0
        promised = [one for one in stage.history.given if name(one.path) in safe]
        assert len(promised) > KILLS, "something was asked for"
        stage.expect_all_stored(promised)
    if IS_LONG:  # make test asks what is lost, never how fast
        with capsys.disabled():
            print(f"\n{KILLS} kills: ready again within {max(ready_after):.1f} s")  # noqa: T201
        assert max(ready_after) < 3


async def safe_when_killed(stage: Stage, proxy: RunningProxy, dice: random.Random) -> set[str]:
    """
    The names of what must not be lost by the end of a server that is killed at work.

    What was seen in the spool or was said to be stored; in the long form also what was answered
    long enough ago, seen or not.
    """
    given = stage.history.given
    seen = len(given)
    asking = asyncio.create_task(stage.history.keep_asking(proxy.port, pause=0.03))
    await until_true(lambda: len(given) > seen + 10)
    await asyncio.sleep(dice.uniform(0, 0.5))
    safe: set[str] = {file.key for file in spool_files(stage.spool)}
    await asyncio.sleep(dice.uniform(0, 0.5))
    os.kill(proxy.pid, signal.SIGKILL)
    killed_at = time.monotonic()
    await proxy.ended()
    asking.cancel()
    with suppress(asyncio.CancelledError):
        await asking
    safe |= {entry["key"] for entry in proxy.events("upload.stored")}
    if IS_LONG:
        safe |= {name(one.path) for one in given[seen:] if one.at < killed_at - SPOOLED_SECONDS}
    return safe
