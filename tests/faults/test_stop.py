"""SIGTERM in the middle of it all: in time, and nothing lost."""

import time
from pathlib import Path

from tests.faults.front import Fault
from tests.faults.history import spooled
from tests.faults.setup import staged, until_true
from tests.servers.s3 import S3Server


async def test_two_hundred_that_wait_for_a_store_that_hangs_are_stored_after_the_restart(
    s3: S3Server, tmp_path: Path
) -> None:
    async with staged(s3, tmp_path) as stage:
        stage.front.fail(Fault.HANG)
        async with stage.proxy() as proxy:
            await stage.history.ask_many(proxy.port, 200)
            began = time.monotonic()
            assert await proxy.stop() == 0
            # CACHE_DRAIN_SECONDS, and what a busy machine takes.
            assert time.monotonic() - began < 4 + 2
            assert proxy.events("upload.abandoned") == []
            assert proxy.events("upload.left")[0]["items"] == 200
        assert stage.history.failed == []
        assert len(spooled(stage.spool)) == 200
        stage.front.heal()
        async with stage.proxy() as proxy:
            await stage.until_drained(proxy)
        stage.expect_all_stored()


async def test_without_a_lasting_folder_the_time_is_used_and_what_is_left_is_said(
    s3: S3Server, tmp_path: Path
) -> None:
    async with staged(s3, tmp_path) as stage:
        stage.front.fail(Fault.UNAVAILABLE)
        async with stage.proxy(CACHE_SPOOL_DIR="", CACHE_DRAIN_SECONDS="1.5") as proxy:
            await stage.history.ask_many(proxy.port, 20)
            await proxy.wait_for("store.failed")
            began = time.monotonic()
            assert await proxy.stop() == 0
            assert time.monotonic() - began > 1.3
            (line,) = proxy.events("upload.left")
            assert line["items"] == 20
            assert "temporary folder" in line["message"]


async def test_a_healthy_store_has_everything_after_a_stop(s3: S3Server, tmp_path: Path) -> None:
    async with staged(s3, tmp_path) as stage:
        stage.front.fail(Fault.SLOW)
        async with stage.proxy() as proxy:
            await stage.history.ask_many(proxy.port, 50)
            assert await proxy.stop() == 0
        stage.expect_all_stored()
        await until_true(lambda: spooled(stage.spool) == {})
