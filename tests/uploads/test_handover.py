"""What the store has confirmed goes on to the disk tier, and what becomes of that there."""

import errno
import os
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from itertools import count
from pathlib import Path

import pytest

from imgproxy_cache.core.image import time_in_words
from imgproxy_cache.core.kept import Kept, KeptAnswer, Selection, Signpost, TierKey, tier_key
from imgproxy_cache.private_folder import store_folder
from imgproxy_cache.tiers.disk import DiskTier
from imgproxy_cache.uploads.pending import Upload
from imgproxy_cache.uploads.spool import open_spool
from imgproxy_cache.uploads.spool_folder import SpoolFile, quarantined, spooled_files
from imgproxy_cache.uploads.spooling import SpoolLimits
from tests.faults.test_disk import small_disk
from tests.spooled import spooled
from tests.tiers.answers import LIFETIMES, answer
from tests.tiers.tiers import disk_folder, disk_tier
from tests.uploading import DOWN, NOW, PLACE, numbered, uploading

WEBP: Selection = ((b"accept", b"4"),)
# For no image, however long a busy machine takes to store it; what was left there is adopted.
NO_ROOM = SpoolLimits(max_bytes=1, max_files=10**6, max_age_seconds=10**9)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "spool"


class Watched:
    """A tier that tells what it was given, and has a gate before what it takes over."""

    def __init__(self, tier: DiskTier) -> None:
        self.puts: list[Kept] = []
        self.taken: list[bytes] = []
        self.gate = threading.Event()
        self.gate.set()
        self.failure: OSError | None = None
        self._tier = tier

    def put(self, key: TierKey, kept: Kept) -> None:
        self.puts.append(kept)
        self._tier.put(key, kept)

    def take_over(self, path: Path, key: TierKey) -> None:
        self.gate.wait()
        failure, self.failure = self.failure, None
        if failure is not None:
            raise failure
        self.taken.append(path.read_bytes().splitlines()[-1])
        self._tier.take_over(path, key)


@asynccontextmanager
async def tiered(root: Path) -> AsyncIterator[tuple[DiskTier, Watched]]:
    async with disk_tier(disk_folder(root.with_name("disk"))) as tier:
        watched = Watched(tier)
        try:
            yield tier, watched
        finally:
            watched.gate.set()


def kept_as(
    number: int, body: bytes = b"hello world", *, later: float = 0, selection: Selection = ()
) -> KeptAnswer:
    """What the tier is to have, received so many seconds after NOW."""
    lifetimes = LIFETIMES._replace(received_at=NOW + later, fresh_until=NOW + later + 3600)
    return answer(number, body, lifetimes=lifetimes, selection=selection)


def offered(kept: KeptAnswer, number: int = 1) -> Upload:
    """As a fill offers it: what is kept has no body yet."""
    return numbered(number, kept.body[:3], kept.body[3:], kept=replace(kept, body=b""))


def files(root: Path) -> list[SpoolFile]:
    return list(spooled_files(store_folder(root, PLACE)))


def leave_behind(root: Path, *left: KeptAnswer | None) -> None:
    """As a process that was killed; None is a file of a process without read-through."""
    spool = open_spool(root, PLACE, sync=False)
    for number, kept in enumerate(left, start=1):
        body = b"hello world" if kept is None else kept.body
        spool.write([spooled(number, body, kept=kept and replace(kept, body=b""))])
    spool.close()


def inodes(folder: Path, pattern: str) -> list[int]:
    return sorted(path.stat().st_ino for path in folder.rglob(pattern))


async def got(tier: DiskTier, *numbers: int) -> list[Kept | None]:
    await tier.settle()
    return [await tier.get(tier_key(answer(number).name)) for number in numbers]


async def test_what_never_was_in_the_spool_is_put_with_its_body(root: Path) -> None:
    async with tiered(root) as (tier, disk):
        async with uploading(spool=root, limits=NO_ROOM, disk=disk) as setup:
            for number in (1, 2):
                setup.uploads.offer(offered(kept_as(number), number))
            await setup.until(lambda: setup.recorded.count("stored") == 2)
        assert disk.taken == []
        assert await got(tier, 1, 2) == [kept_as(1), kept_as(2)]


async def test_without_a_spool_everything_is_put(tmp_path: Path) -> None:
    async with tiered(tmp_path) as (tier, disk):
        async with uploading(disk=disk) as setup:
            setup.uploads.offer(offered(kept_as(1)))
            await setup.drain()
        assert await got(tier, 1) == [kept_as(1)]


async def test_what_is_put_has_the_hash_of_its_body_whatever_it_came_with(tmp_path: Path) -> None:
    kept = kept_as(1)
    async with tiered(tmp_path) as (tier, disk):
        async with uploading(disk=disk) as setup:
            setup.uploads.offer(offered(replace(kept, content_sha256="")))
            await setup.drain()
        assert await got(tier, 1) == [kept]


async def test_an_image_in_the_spool_is_not_written_again(root: Path) -> None:
    async with tiered(root) as (tier, disk):
        async with uploading(spool=root, is_open=False, disk=disk) as setup:
            for number in (1, 2):
                setup.uploads.offer(offered(kept_as(number), number))
            await setup.until(lambda: setup.recorded.count("spooled") == 2)
            written = inodes(root, "*.image")
            assert setup.spool_files == 2
            assert await got(tier, 1, 2) == [None, None], "the store does not have it yet"
            setup.store.gate.set()
            await setup.until(lambda: setup.uploads.waiting == 0)
            await setup.until(lambda: files(root) == [])
            assert setup.uploads.spool is not None
            assert (setup.spool_files, setup.uploads.spool.bytes) == (0, 0)
        assert disk.puts == []
        assert await got(tier, 1, 2) == [kept_as(1), kept_as(2)]
        assert inodes(root.with_name("disk"), "*.kept") == written


async def test_an_image_whose_memory_was_given_up_is_handed_over_too(root: Path) -> None:
    async with tiered(root) as (tier, disk):
        async with uploading(spool=root, disk=disk) as setup:
            setup.store.failure = DOWN
            setup.uploads.offer(offered(kept_as(1)))
            await setup.until(lambda: setup.uploads.queue_items == 0)
            setup.store.failure = None
            await setup.drain()
        assert await got(tier, 1) == [kept_as(1)]
    assert files(root) == []


async def test_what_an_earlier_run_has_left_is_handed_over_where_it_says_how_to_keep_it(
    root: Path,
) -> None:
    leave_behind(root, kept_as(1), None, kept_as(3))
    async with tiered(root) as (tier, disk):
        async with uploading(spool=root, disk=disk, now=lambda: NOW + 60) as setup:
            await setup.until(lambda: setup.recorded.count("stored") == 3)
            await setup.drain()
        assert (files(root), setup.spool_files) == ([], 0)
        assert disk.puts == []
        assert await got(tier, 1, 2, 3) == [kept_as(1), None, kept_as(3)]


async def test_the_age_with_which_an_image_came_counts_in_the_store_after_a_kill(
    root: Path,
) -> None:
    old = kept_as(1)
    leave_behind(root, replace(old, lifetimes=old.lifetimes._replace(age=3600)), None)
    async with uploading(spool=root) as setup:
        await setup.until(lambda: setup.recorded.count("stored") == 2)
        stored_at = sorted(image.stored_at for image in setup.store.images.values())

    # spooled a second and two after NOW
    assert stored_at == [time_in_words(int(NOW) + 1 - 3600), time_in_words(int(NOW) + 2)]


async def test_what_was_stored_before_a_kill_is_handed_over_after_it(root: Path) -> None:
    async with uploading() as before:
        before.uploads.offer(offered(kept_as(1)))
        await before.drain()
    leave_behind(root, kept_as(1))
    async with tiered(root) as (tier, disk):
        async with uploading(spool=root, disk=disk, now=lambda: NOW + 60) as after:
            after.store.images |= before.store.images
            await after.until(lambda: after.recorded.count("unchanged") == 1)
        assert files(root) == []
        assert await got(tier, 1) == [kept_as(1)]


async def test_an_image_that_the_store_had_is_kept_with_its_new_lifetime(root: Path) -> None:
    async with tiered(root) as (tier, disk):
        async with uploading(spool=root, disk=disk) as setup:
            for later in (0, 100):
                setup.uploads.offer(offered(kept_as(1, later=later)))
                await setup.until(lambda: setup.uploads.waiting == 0)
        became = [event for event, _ in setup.recorded.events]
        assert [event for event in became if event in {"stored", "unchanged"}] == [
            "stored",
            "unchanged",
        ]
        assert await got(tier, 1) == [kept_as(1, later=100)]


async def test_without_read_through_no_tier_is_asked(root: Path) -> None:
    async with tiered(root) as (_, disk):
        async with uploading(spool=root, is_open=False, disk=disk) as setup:
            setup.uploads.offer(numbered(1))
            await setup.until(lambda: setup.recorded.count("spooled") == 1)
            setup.uploads.offer(numbered(2))
            setup.store.gate.set()
            await setup.drain()
        assert (disk.puts, disk.taken, files(root)) == ([], [], [])


async def test_without_a_tier_files_that_say_how_to_keep_them_are_removed(root: Path) -> None:
    leave_behind(root, kept_as(1))
    async with uploading(spool=root, now=lambda: NOW + 60) as setup:
        setup.uploads.offer(offered(kept_as(2), 2))
        await setup.until(lambda: setup.recorded.count("stored") == 2)
        await setup.drain()
    assert files(root) == []


@pytest.mark.parametrize("is_spooled", [True, False])
async def test_a_variant_is_found_by_its_signpost(root: Path, is_spooled: bool) -> None:
    kept = kept_as(1, selection=WEBP)
    async with tiered(root) as (tier, disk):
        limits = SpoolLimits(10**9, 10**6, 10**9) if is_spooled else NO_ROOM
        async with uploading(spool=root, limits=limits, is_open=not is_spooled, disk=disk) as setup:
            setup.uploads.offer(offered(kept))
            if is_spooled:
                await setup.until(lambda: setup.recorded.count("spooled") == 1)
            setup.store.gate.set()
            await setup.until(lambda: setup.recorded.count("stored") == 1)
        assert len(disk.taken) == is_spooled
        assert await got(tier, 1) == [Signpost(kept.name, (b"accept",))]
        assert await tier.get(tier_key(kept.name, WEBP)) == kept


async def test_what_a_newer_image_of_its_key_waits_behind_is_not_handed_over(root: Path) -> None:
    first, second = kept_as(1, b"first"), kept_as(1, b"second", later=1)
    clock = count(NOW).__next__
    async with tiered(root) as (tier, disk):
        async with uploading(spool=root, is_open=False, disk=disk, now=clock) as setup:
            setup.uploads.offer(offered(first))
            await setup.settle()  # on its way: it is not taken back
            setup.uploads.offer(offered(second))
            await setup.until(lambda: setup.recorded.count("spooled") == 2)
            setup.store.gate.set()
            await setup.drain()
        assert setup.recorded.count("stored") == 2
        assert disk.taken == [b"second"]
        assert files(root) == []
        assert await got(tier, 1) == [second]


async def test_a_file_that_is_moved_late_leaves_a_newer_image_alone(root: Path) -> None:
    first, second = kept_as(1, b"first"), kept_as(1, b"second", later=1)
    clock = count(NOW).__next__
    async with tiered(root) as (tier, disk):
        disk.gate.clear()
        async with uploading(spool=root, is_open=False, disk=disk, now=clock) as setup:
            setup.uploads.offer(offered(first))
            await setup.until(lambda: setup.recorded.count("spooled") == 1)
            setup.store.gate.set()
            await setup.until(lambda: setup.recorded.count("stored") == 1)
            setup.uploads.offer(offered(second))  # which the spool cannot write: its thread waits
            await setup.until(lambda: setup.recorded.count("stored") == 2)
            assert await got(tier, 1) == [second]
            disk.gate.set()
        assert disk.taken == [b"first"]
        assert files(root) == []
        assert await got(tier, 1) == [second]


async def test_what_an_earlier_run_has_left_leaves_a_newer_image_alone(root: Path) -> None:
    leave_behind(root, kept_as(1, b"old"))
    newer = kept_as(1, b"newer", later=10)
    async with tiered(root) as (tier, disk):
        tier.put(tier_key(newer.name), newer)
        await tier.settle()
        async with uploading(spool=root, disk=disk, now=lambda: NOW + 60) as setup:
            await setup.until(lambda: setup.recorded.count("stored") == 1)
        assert disk.taken == [b"old"]
        assert files(root) == []
        assert await got(tier, 1) == [newer]


async def test_what_came_before_that_which_the_store_has_is_not_handed_over(root: Path) -> None:
    leave_behind(root, kept_as(1, b"old"))
    async with uploading() as other:
        other.uploads.offer(numbered(1, b"newer"))
        await other.drain()
    async with tiered(root) as (_, disk):
        async with uploading(spool=root, disk=disk, now=lambda: NOW + 3600) as setup:
            setup.store.images = {
                key: image._replace(stored_at=time_in_words(int(NOW) + 1800))
                for key, image in other.store.images.items()
            }
            await setup.until(lambda: setup.recorded.count("unchanged") == 1)
        assert (disk.puts, disk.taken, files(root)) == ([], [], [])


async def test_what_waited_for_too_long_is_not_handed_over(root: Path) -> None:
    leave_behind(root, kept_as(1))
    limits = SpoolLimits(10**9, 10**6, max_age_seconds=3600)
    async with tiered(root) as (_, disk):
        async with uploading(
            spool=root, limits=limits, is_open=False, disk=disk, now=lambda: NOW + 3700
        ) as setup:
            setup.store.failure = DOWN
            setup.store.gate.set()
            await setup.until(lambda: setup.recorded.count("expired") == 1)
        assert (disk.puts, disk.taken, files(root)) == ([], [], [])


async def test_what_is_set_aside_is_not_handed_over(root: Path) -> None:
    leave_behind(root, kept_as(1))
    (file,) = files(root)
    file.path.write_bytes(file.path.read_bytes()[:-1])
    async with tiered(root) as (_, disk):
        async with uploading(spool=root, disk=disk) as setup:
            await setup.until(lambda: setup.recorded.count("quarantined") == 1)
        assert (disk.puts, disk.taken) == ([], [])
    assert len(list(quarantined(store_folder(root, PLACE)))) == 1


async def test_what_is_dropped_is_not_handed_over(root: Path) -> None:
    async with tiered(root) as (tier, disk):
        async with uploading(max_items=1, is_open=False, disk=disk) as setup:
            assert [setup.uploads.offer(offered(kept_as(number), number)) for number in (1, 2)] == [
                True,
                False,
            ]
            setup.store.gate.set()
            await setup.drain()
        assert await got(tier, 1, 2) == [kept_as(1), None]


async def test_a_tier_that_is_not_ours_costs_nothing_but_what_it_would_keep(root: Path) -> None:
    elsewhere = root.with_name("elsewhere")
    elsewhere.mkdir()
    root.with_name("disk").symlink_to(elsewhere)
    leave_behind(root, kept_as(1))
    async with tiered(root) as (_, disk):
        async with uploading(spool=root, limits=NO_ROOM, disk=disk, now=lambda: NOW + 60) as setup:
            setup.uploads.offer(offered(kept_as(2), 2))
            await setup.until(lambda: setup.recorded.count("stored") == 2)
            assert await setup.drain() == 0
        assert len(disk.taken) == len(disk.puts) == 1
    assert len(setup.store.images) == 2
    assert files(root) == []
    assert list(elsewhere.iterdir()) == []


async def test_a_tier_without_room_for_an_image_does_not_keep_it_in_the_spool(root: Path) -> None:
    leave_behind(root, kept_as(1))
    folder = disk_folder(root.with_name("disk"), max_bytes=4096)
    async with disk_tier(folder) as tier:
        async with uploading(spool=root, disk=tier, now=lambda: NOW + 60) as setup:
            await setup.until(lambda: setup.recorded.count("stored") == 1)
        assert files(root) == []
        assert await got(tier, 1) == [None]


async def test_a_file_for_which_the_tiers_disk_is_full_goes_all_the_same(root: Path) -> None:
    leave_behind(root, kept_as(1, bytes(100 * 1024)))
    with small_disk(root.with_name("small")) as full:
        (full / "stone").write_bytes(bytes(180 * 1024))
        async with disk_tier(disk_folder(full)) as tier:
            async with uploading(spool=root, disk=tier, now=lambda: NOW + 60) as setup:
                await setup.until(lambda: setup.recorded.count("stored") == 1)
            assert files(root) == []
            assert list(full.rglob("*.part")) == []
            assert await got(tier, 1) == [None]


async def test_a_file_that_the_tier_can_neither_move_nor_remove_is_in_nobodys_way(
    root: Path,
) -> None:
    leave_behind(root, kept_as(1), kept_as(2), kept_as(3))
    async with tiered(root) as (tier, disk):
        disk.failure = OSError(errno.EROFS, os.strerror(errno.EROFS))
        async with uploading(
            spool=root,
            concurrency=3,
            max_bytes=10**6,
            is_open=False,
            disk=disk,
            now=lambda: NOW + 60,
        ) as setup:
            await setup.until(lambda: setup.store.at_once == 3)
            setup.store.gate.set()  # all are handed over at once
            await setup.until(lambda: setup.recorded.count("stored") == 3)
        assert len(files(root)) == 1, "the next start finds it stored"
        there = await got(tier, 1, 2, 3)
        assert there.count(None) == 1, "whichever was the first to be handed over"
        assert [kept or kept_as(number) for number, kept in enumerate(there, start=1)] == [
            kept_as(1),
            kept_as(2),
            kept_as(3),
        ]


async def test_the_spool_holds_no_more_bytes_than_agreed_of_files_with_long_descriptions(
    root: Path,
) -> None:
    limits = SpoolLimits(20_000, 10**6, 10**9)
    fields = tuple((b"X-Field-%d" % number, b"value") for number in range(100))
    async with uploading(spool=root, limits=limits, max_items=20) as setup:
        setup.store.failure = DOWN
        for number in range(10):
            kept = replace(kept_as(number), fields=fields)
            setup.uploads.offer(offered(kept, number))
        await setup.until(lambda: setup.uploads.spool_problem is not None and setup.spool_files > 0)
        assert setup.uploads.spool_problem == "the spool is full"
        assert setup.uploads.spool is not None
        size = sum(file.size for file in files(root))
        assert size == setup.uploads.spool.bytes
        assert 10_000 < size <= 20_000
        setup.store.failure = None
        await setup.drain()
