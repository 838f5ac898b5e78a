"""Killed at any system call on the way from the spool into the disk tier: nothing is lost."""

import itertools
import signal
from pathlib import Path

import pytest

from imgproxy_cache.core.kept import tier_key
from imgproxy_cache.private_folder import store_folder
from imgproxy_cache.uploads.spool_folder import quarantined, spooled_files
from tests.faults.handing_over import LEFT, leave_behind, store_what_was_left
from tests.faults.test_system_calls import failed_at
from tests.spooled import spooled
from tests.tiers.tiers import PLACE, disk_folder, disk_tier

PROGRAM = """
import asyncio, pathlib, sys
from tests.faults.handing_over import store_what_was_left

asyncio.run(store_what_was_left(pathlib.Path(sys.argv[1])))
"""
KEYS = [spooled(number)[0].key for number in (1, 2)]


async def expect_all_handed_over(root: Path) -> None:
    """In the store and in the tier, each whole, and nowhere else."""
    assert [(root / "store" / key).read_bytes() for key in KEYS] == [kept.body for kept in LEFT]
    folder = disk_folder(root / "disk")
    async with disk_tier(folder) as tier:
        assert [await tier.get(tier_key(kept.name)) for kept in LEFT] == LEFT
    for _ in folder.count():
        pass
    assert folder.room.items == len(LEFT)
    spool = store_folder(root / "spool", PLACE)
    assert (list(spooled_files(spool)), list(quarantined(spool))) == ([], [])


@pytest.mark.parametrize("syscall", ["rename", "unlink", "flock"])
async def test_killed_on_the_way_into_the_disk_tier_the_next_process_completes_it(
    tmp_path: Path, syscall: str
) -> None:
    for number in itertools.count(1):
        root = tmp_path / str(number)
        leave_behind(root, LEFT)
        done = failed_at(root, syscall, "KILL", number, PROGRAM)
        if done.returncode == 0:
            break
        assert done.returncode == -signal.SIGKILL, done.stderr
        await store_what_was_left(root)
        await expect_all_handed_over(root)
    assert number > 1, "this call is made"
    await expect_all_handed_over(root)
