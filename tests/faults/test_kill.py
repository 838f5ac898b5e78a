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
from tests.faults.history import Given
from tests.faults.setup import staged
from tests.servers.s3 import S3Server

KILLS = short_or_long(10, 100)
# An image is in the spool within a quarter of a second; a test machine gets more.
SPOOLED_SECONDS = short_or_long(1.5, 0.5)
FAULTS = (Fault.NONE, Fault.UNAVAILABLE, Fault.SLOW, Fault.HANG, Fault.LOST)


async def test_what_was_answered_and_spooled_survives_any_number_of_kills(
    s3: S3Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dice = random.Random(5)
    safe: list[Given] = []
    ready_after = []
    async with staged(s3, tmp_path) as stage:
        for _ in range(KILLS):
            stage.front.fail(dice.choice(FAULTS))
            began = time.monotonic()
            async with stage.proxy() as proxy:
                ready_after.append(time.monotonic() - began)
                seen = len(stage.history.given)
                asking = asyncio.create_task(stage.history.keep_asking(proxy.port, pause=0.03))
                await asyncio.sleep(SPOOLED_SECONDS + dice.uniform(0, 0.5))
                os.kill(proxy.pid, signal.SIGKILL)
                killed_at = time.monotonic()
                await proxy.ended()
                asking.cancel()
                with suppress(asyncio.CancelledError):
                    await asking
                new = stage.history.given[seen:]
                safe += [one for one in new if one.at < killed_at - SPOOLED_SECONDS]
        stage.front.heal()
        async with stage.proxy() as proxy:
            await stage.until_drained(proxy)
            assert await proxy.stop() == 0
        assert len(safe) > KILLS, "something was asked for"
        stage.expect_all_stored(safe)
    if IS_LONG:  # make test asks what is lost, never how fast
        with capsys.disabled():
            print(f"\n{KILLS} kills: ready again within {max(ready_after):.1f} s")  # noqa: T201
        assert max(ready_after) < 3
