"""The disk under the spool is full, or fails: clients do not notice, and it heals by itself."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.faults.front import Fault
from tests.faults.history import spool_files
from tests.faults.setup import staged, until_true
from tests.servers.s3 import S3Server
from tests.servers.upstreams import image

DISK_BYTES = 256 * 1024


@contextmanager
def small_disk(folder: Path) -> Iterator[Path]:
    """A disk of its own; skipped where nobody may mount one, but not in CI."""
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES},mode=700", "tmpfs", str(folder)],
        capture_output=True,
        text=True,
        check=False,
    )
    if mounted.returncode != 0:
        if os.environ.get("CI") and os.geteuid() == 0:
            raise AssertionError(mounted.stderr)
        pytest.skip("only root can mount a small disk")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


async def test_a_full_disk_costs_no_client_an_answer_and_nothing_that_fits_into_memory(
    s3: S3Server, tmp_path: Path
) -> None:
    with small_disk(tmp_path / "disk") as disk:
        async with staged(s3, disk) as stage, stage.proxy() as proxy:
            stage.imgproxy.default = lambda request: (image(request.target * 500),)
            stage.front.fail(Fault.UNAVAILABLE)
            await stage.history.ask_many(proxy.port, 60)
            failure = await proxy.wait_for("spool.failed")
            assert "No space left on device" in failure["message"]
            assert (await proxy.metrics())["spool_is_failing"] == 1
            await stage.history.ask_many(proxy.port, 20)
            assert stage.history.failed == []
            stage.front.heal()
            await stage.until_drained(proxy)
            stage.expect_all_stored()
            assert proxy.events("upload.dropped") == []
            # And the spool works as before, and is said to, though nothing is written.
            await proxy.wait_for("spool.recovered")
            assert (await proxy.metrics())["spool_is_failing"] == 0
            stage.front.fail(Fault.UNAVAILABLE)
            await stage.history.ask_many(proxy.port, 5)
            await until_true(lambda: len(spool_files(stage.spool)) == 5)
            stage.expect_all_kept()


async def test_beyond_disk_and_memory_images_are_dropped_and_counted_and_answered_all_the_same(
    s3: S3Server, tmp_path: Path
) -> None:
    limits = {"CACHE_SPOOL_ITEMS": "10", "CACHE_UPLOAD_QUEUE_ITEMS": "10"}
    async with staged(s3, tmp_path) as stage, stage.proxy(**limits) as proxy:
        stage.front.fail(Fault.UNAVAILABLE)
        for _ in range(5):
            await stage.history.ask_many(proxy.port, 10)
        assert stage.history.failed == []
        metrics = await proxy.metrics()
        dropped = metrics['uploads{result="dropped"}']
        assert dropped + metrics['uploads{result="accepted"}'] == 50
        assert dropped > 0
        stage.front.heal()
        await stage.until_drained(proxy)
        given = len(stage.history.given)
        await stage.history.ask_many(proxy.port, 10)
        await stage.until_drained(proxy)
        stage.expect_all_stored(stage.history.given[given:])


async def test_a_disk_with_errors_costs_nothing_and_heals_by_itself(
    s3: S3Server, tmp_path: Path
) -> None:
    switch = tmp_path / "failing"
    broken = {
        "PYTHONPATH": str(Path(__file__).with_name("failing_disk")),
        "FAILING_DISK": str(switch),
    }
    async with staged(s3, tmp_path) as stage, stage.proxy(**broken) as proxy:
        stage.front.fail(Fault.UNAVAILABLE)
        await stage.history.ask_many(proxy.port, 5)
        await until_true(lambda: len(spool_files(stage.spool)) == 5)
        switch.touch()
        await stage.history.ask_many(proxy.port, 20)
        failure = await proxy.wait_for("spool.failed")
        assert "Input/output error" in failure["message"]
        switch.unlink()
        await proxy.wait_for("spool.recovered")
        await until_true(lambda: len(spool_files(stage.spool)) == 25)
        assert stage.history.failed == []
        stage.expect_all_kept()
        stage.front.heal()
        await stage.until_drained(proxy)
        stage.expect_all_stored()
