"""The disk tier: what is open, what waits, and disks that are full, fail or hang."""

import asyncio
import errno
import os
import shutil
import threading
import weakref
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from imgproxy_cache.core.kept import Kept, TierKey, tier_key
from imgproxy_cache.private_folder import store_folder
from imgproxy_cache.tiers.disk import DiskTier, open_disk_tier
from imgproxy_cache.tiers.disk_folder import DiskFolder, OpenFile
from imgproxy_cache.tiers.on_disk import OnDisk
from tests.faults.test_disk import small_disk
from tests.tiers.answers import answer
from tests.tiers.test_disk_folder import KEPT, read, received, spool_file, use_at
from tests.tiers.tiers import MIB, PLACE, Clock, Heads, Written, disk_folder, disk_tier

KEY = tier_key(answer().name)


def key(number: int) -> TierKey:
    return tier_key(answer(number).name)


@asynccontextmanager
async def opened(root: Path, *, max_bytes: int = 64 * MIB) -> AsyncIterator[DiskTier]:
    async with open_disk_tier(
        root,
        PLACE,
        max_bytes=max_bytes,
        heads=Heads(),
        now=Clock(),
        queue_bytes=64 * MIB,
        queue_items=1000,
    ) as tier:
        yield tier


async def put(tier: DiskTier, *numbers: int, body: bytes = b"hello world") -> None:
    for number in numbers:
        tier.put(key(number), answer(number, body))
    await tier.settle()


async def got(tier: DiskTier, *numbers: int) -> list[Kept | None]:
    return [await tier.get(key(number)) for number in numbers]


async def test_answers_outlive_the_process(tmp_path: Path) -> None:
    async with opened(tmp_path) as tier:
        await put(tier, 0, 1)
    async with opened(tmp_path) as tier:
        assert await got(tier, 0, 1, 2) == [answer(0), answer(1), None]


async def test_what_waits_at_the_end_is_written(tmp_path: Path) -> None:
    async with opened(tmp_path) as tier:
        tier.put(KEY, answer())
    async with opened(tmp_path) as tier:
        assert await tier.get(KEY) == answer()


async def test_what_was_read_once_is_found_without_a_thread(tmp_path: Path) -> None:
    clock = Clock()
    async with disk_tier(disk_folder(tmp_path), clock=clock) as tier:
        await put(tier, 0)
        assert tier.find(KEY) is None
        assert await tier.get(KEY) == answer()
        found = tier.find(KEY)
        assert isinstance(found, OnDisk)
        wire = Written()
        assert found.give(clock.now, wire)
        assert wire.written[0][1].endswith(b"\r\n\r\nhello world")
        tier.put(KEY, answer(body=b"later"))
        assert tier.find(KEY) is None
        assert await tier.get(KEY) == answer(body=b"later")


async def test_a_hit_that_has_to_wait_for_the_disk_is_counted_once(tmp_path: Path) -> None:
    clock = Clock()
    async with disk_tier(disk_folder(tmp_path), clock=clock) as tier:
        await put(tier, 0, body=bytes(2 * MIB))
        await tier.get(KEY)
        found = tier.find(KEY)
        assert isinstance(found, OnDisk)
        assert not found.give(clock.now, Written())
        assert await tier.get(KEY) == answer(body=bytes(2 * MIB))
        assert (tier.counts.hits, tier.counts.misses) == (2, 0)


async def test_a_large_answer_is_there_once_for_all_that_are_given_it(tmp_path: Path) -> None:
    async with disk_tier(disk_folder(tmp_path)) as tier:
        await put(tier, 0, body=bytes(2 * MIB))
        first = await tier.get(KEY)
        assert first == answer(body=bytes(2 * MIB))
        assert await tier.get(KEY) is first
        assert tier.counts.hits == 2
        is_there = weakref.ref(first)
        del first
        async with asyncio.timeout(10):  # the loop has it in this turn, and the thread that read it
            while is_there() is not None:
                await asyncio.sleep(0.001)
        assert await tier.get(KEY) == answer(body=bytes(2 * MIB))


async def test_a_large_answer_that_was_replaced_is_given_to_nobody_else(tmp_path: Path) -> None:
    clock = Clock()
    later = bytes(2 * MIB + 1)
    async with (
        disk_tier(disk_folder(tmp_path), clock=clock) as tier,
        disk_tier(disk_folder(tmp_path), clock=clock) as others,
    ):
        await put(tier, 0, body=bytes(2 * MIB))
        first = await tier.get(KEY)
        await put(others, 0, body=later)
        clock.now += 1
        second = await tier.get(KEY)
        await put(tier, 0, body=b"small")
        assert [first, second] == [answer(body=bytes(2 * MIB)), answer(body=later)]
        assert await tier.get(KEY) == answer(body=b"small")


async def test_workers_see_what_the_others_do(tmp_path: Path) -> None:
    clock = Clock()
    async with (
        disk_tier(disk_folder(tmp_path), clock=clock) as tier,
        disk_tier(disk_folder(tmp_path), clock=clock) as other,
    ):
        await put(tier, 0, 1)
        assert await got(other, 0, 1) == [answer(0), answer(1)]
        await put(tier, 0, body=b"later")
        tier.remove(key(1))
        await tier.settle()
        clock.now += 1
        assert await got(other, 0, 1) == [answer(0, b"later"), None]
        await other.tell()
        assert other.counts.items == 1


async def test_what_is_used_in_one_worker_stays(tmp_path: Path) -> None:
    folder = disk_folder(tmp_path, max_items=4)
    async with (
        disk_tier(folder) as tier,
        disk_tier(disk_folder(tmp_path, max_items=4)) as other,
    ):
        await put(tier, 0, 1, 2, 3)
        await got(other, 0, 1, 2, 3)
        for number in range(4):
            use_at(folder, number, 1000 + number)
        assert other.find(key(0)) is not None, "open: no file is touched"
        await other.tell()
        await put(tier, 4)
        assert await got(tier, 0, 1, 2, 3, 4) == [
            answer(0),
            None,
            answer(2),
            answer(3),
            answer(4),
        ]


async def test_a_damaged_file_is_a_miss_and_said_once(tmp_path: Path) -> None:
    async with disk_tier(disk_folder(tmp_path)) as tier:
        await put(tier, 0, 1)
        for path in files_below(tmp_path, ".kept"):
            os.truncate(path, 100)
        with capture_logs() as logs:
            assert await got(tier, 0, 1, 0) == [None, None, None]
        assert (tier.counts.broken, tier.counts.misses, tier.counts.items) == (2, 3, 0)
        assert [log["event"] for log in logs] == ["disk.damaged"]
        await put(tier, 0)
        assert await tier.get(KEY) == answer()


async def test_what_comes_on_top_of_the_queue_is_not_taken(tmp_path: Path) -> None:
    async with disk_tier(disk_folder(tmp_path), queue_items=3, queue_bytes=100) as tier:
        tier.put(key(0), answer(0, bytes(50)))
        tier.put(key(1), answer(1, bytes(51)))
        tier.put(key(2), answer(2, bytes(50)))
        tier.put(key(3), answer(3, b""))
        tier.put(key(4), answer(4, b""))
        tier.put(key(0), answer(0, bytes(49)))
        tier.remove(key(5))
        assert [one is not None for one in await got(tier, *range(6))] == [
            True,
            False,
            True,
            True,
            False,
            False,
        ]
        assert (tier.counts.puts, tier.counts.refused) == (4, 2)
        await tier.settle()
        await put(tier, 1, 4)
        assert None not in await got(tier, *range(5))


async def test_many_that_ask_for_one_file_read_it_once(tmp_path: Path) -> None:
    folder = Slow(tmp_path)
    async with disk_tier(folder) as tier:
        await put(tier, 0)
        asking = [asyncio.create_task(tier.get(KEY)) for _ in range(20)]
        folder.may_read.set()
        assert [await one for one in asking] == [answer()] * 20
        assert folder.reads == 1


async def test_one_that_no_longer_asks_takes_nobodys_answer_away(tmp_path: Path) -> None:
    folder = Slow(tmp_path)
    async with disk_tier(folder) as tier:
        await put(tier, 0)
        first, second = (asyncio.create_task(tier.get(KEY)) for _ in range(2))
        await asyncio.sleep(0)
        first.cancel()
        folder.may_read.set()
        assert await second == answer()


async def test_what_was_replaced_while_it_was_read_is_not_found_again(tmp_path: Path) -> None:
    folder = Slow(tmp_path)
    async with disk_tier(folder) as tier:
        await put(tier, 0)
        reading = asyncio.create_task(tier.get(KEY))
        await asyncio.to_thread(folder.is_reading.wait, 10)
        await put(tier, 0, body=b"later")
        folder.may_read.set()
        assert await reading in (answer(), answer(body=b"later"))
        assert await tier.get(KEY) == answer(body=b"later")


async def test_a_disk_that_hangs_is_a_miss_until_it_answers(tmp_path: Path) -> None:
    folder = Slow(tmp_path)
    async with disk_tier(folder, read_seconds=0.01) as tier:
        await put(tier, *range(10))
        assert await got(tier, *range(10)) == [None] * 10
        assert (tier.counts.errors, tier.counts.misses) == (10, 10)
        folder.may_read.set()
        await asyncio.to_thread(folder.wait_for_reads, 4)
        assert folder.reads == 4, "no thread is left that could wait for it"
        while await tier.get(KEY) is None:
            await asyncio.sleep(0)
        assert await tier.get(KEY) == answer()


class Slow(DiskFolder):
    """A disk that reads when it is allowed to."""

    def __init__(self, root: Path) -> None:
        super().__init__(root, PLACE, max_bytes=64 * MIB, max_items=1000)
        self.may_read = threading.Event()
        self.is_reading = threading.Event()
        self.reads = 0
        self._ended = threading.Semaphore(0)

    def open(self, key: TierKey) -> OpenFile | None:
        self.reads += 1
        self.is_reading.set()
        assert self.may_read.wait(20)
        try:
            return super().open(key)
        finally:
            self._ended.release()

    def wait_for_reads(self, number: int) -> None:
        for _ in range(number):
            assert self._ended.acquire(timeout=20)


class Failing(DiskFolder):
    """A disk that takes nothing while there is an `error`."""

    def __init__(self, root: Path) -> None:
        super().__init__(root, PLACE, max_bytes=64 * MIB, max_items=1000)
        self.error = 0
        self.tries = 0

    def write(self, key: TierKey, kept: Kept) -> bool:
        self._fail()
        return super().write(key, kept)

    def remove(self, key: TierKey) -> None:
        self._fail()
        super().remove(key)

    def _fail(self) -> None:
        self.tries += 1
        if self.error:
            raise OSError(self.error, os.strerror(self.error))


def files_below(folder: Path, ending: str) -> list[Path]:
    return list(folder.rglob(f"*{ending}"))


def open_files(folder: Path) -> list[Path]:
    """Of this process."""
    found = []
    for link in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):  # that of the listing itself
            found.append(link.readlink())
    return [path for path in found if path.is_relative_to(folder)]


async def until_taken(tier: DiskTier, number: int) -> None:
    """Answers come until one is taken again."""
    async with asyncio.timeout(20):
        while tier.problem is not None:
            await put(tier, number)
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("error", [errno.EIO, errno.ENOSPC, errno.EROFS, errno.EDQUOT])
async def test_a_disk_that_fails_takes_nothing_and_goes_on_giving(
    tmp_path: Path, error: int
) -> None:
    folder = Failing(tmp_path)
    async with disk_tier(folder) as tier:
        await put(tier, 0)
        folder.error = error
        with capture_logs() as logs:
            await put(tier, 1, 2)
            assert os.strerror(error) in (tier.problem or "")
            tries = folder.tries
            await put(tier, 3, 4, 5)
            assert folder.tries == tries, "it is left in peace for a while"
            assert await got(tier, *range(6)) == [answer(0), *[None] * 5]
            folder.error = 0
            await until_taken(tier, 6)
        assert [log["event"] for log in logs] == ["disk.failed", "disk.recovered"]
        assert await got(tier, 0, 6) == [answer(0), answer(6)]
        assert tier.counts.errors >= 1


async def test_a_removal_is_not_given_up(tmp_path: Path) -> None:
    folder = Failing(tmp_path)
    async with disk_tier(folder) as tier:
        await put(tier, 0)
        folder.error = errno.EIO
        tier.remove(KEY)
        async with asyncio.timeout(20):
            while folder.tries < 3:
                assert await tier.get(KEY) is None
                await asyncio.sleep(0.01)
        folder.error = 0
        await tier.settle()
        assert await tier.get(KEY) is None
    async with disk_tier(disk_folder(tmp_path)) as tier:
        assert await tier.get(KEY) is None


async def test_a_full_disk_heals_when_there_is_room(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk") as disk:
        stone = disk / "stone"
        async with disk_tier(disk_folder(disk / "tier")) as tier:
            await put(tier, 0)
            stone.write_bytes(bytes(180 * 1024))
            await put(tier, 1, body=bytes(100 * 1024))
            assert "No space left on device" in (tier.problem or "")
            assert await got(tier, 0, 1) == [answer(0), None]
            stone.unlink()
            await until_taken(tier, 2)
            assert await got(tier, 0, 2) == [answer(0), answer(2)]
            assert files_below(disk, ".part") == []


async def test_a_folder_that_somebody_removed_is_made_again(tmp_path: Path) -> None:
    async with disk_tier(disk_folder(tmp_path)) as tier:
        await put(tier, 0, 1)
        shutil.rmtree(store_folder(tmp_path, PLACE))
        await put(tier, 2)
        assert tier.problem is None
        assert await got(tier, 0, 1, 2) == [None, None, answer(2)]


async def test_a_folder_that_is_not_ours_keeps_nobody_from_serving(tmp_path: Path) -> None:
    root = tmp_path / "disk"
    root.symlink_to(tmp_path)
    async with disk_tier(disk_folder(root)) as tier:
        with capture_logs() as logs:
            await put(tier, 0)
        assert [log["event"] for log in logs] == ["disk.failed"]
        assert "set CACHE_DISK_DIR to a folder" in (tier.problem or "")
        assert await tier.get(KEY) is None
        root.unlink()
        await until_taken(tier, 0)
        assert await tier.get(KEY) == answer()


@pytest.fixture
def many(tmp_path: Path) -> Path:
    folder = disk_folder(tmp_path)
    folder.prepare()
    for number in range(300):
        folder.write(key(number), answer(number))
    (folder.path / "totals").unlink()
    (folder.path / "new" / "dead.part").write_text("half an image")
    return tmp_path


async def test_what_is_there_is_given_before_it_is_counted(many: Path) -> None:
    async with opened(many) as tier:
        assert await got(tier, 7) == [answer(7)]
        async with asyncio.timeout(20):
            while tier.counts.items < 300 or files_below(many, ".part"):
                await asyncio.sleep(0.01)
        assert await got(tier, 299) == [answer(299)]


async def test_what_is_too_much_after_a_start_goes_without_a_put(many: Path) -> None:
    async with opened(many, max_bytes=100 * 4096) as tier, asyncio.timeout(20):
        while tier.counts.evictions < 200:
            await asyncio.sleep(0.01)
        assert 0 < len(files_below(many, ".kept")) <= 100


@pytest.mark.parametrize("may_be_kept", [True, False])
async def test_a_file_of_the_spool_is_gone_from_there(tmp_path: Path, may_be_kept: bool) -> None:
    path = spool_file(tmp_path, KEPT if may_be_kept else None)
    async with disk_tier(disk_folder(tmp_path / "disk")) as tier:
        await asyncio.to_thread(tier.take_over, path, KEY)
        assert not path.exists()
        assert await tier.get(KEY) == (answer() if may_be_kept else None)


class SlowToWrite(DiskFolder):
    """A disk that writes when it is allowed to."""

    def __init__(self, root: Path) -> None:
        super().__init__(root, PLACE, max_bytes=64 * MIB, max_items=1000)
        self.may_write = threading.Event()
        self.is_writing = threading.Event()

    def write(self, key: TierKey, kept: Kept) -> bool:
        self.is_writing.set()
        assert self.may_write.wait(20)
        return super().write(key, kept)


@pytest.mark.parametrize("is_newer", [True, False])
@pytest.mark.parametrize("is_begun", [True, False])
async def test_a_file_of_the_spool_and_what_waits_for_the_disk_end_in_the_order_they_came_in(
    tmp_path: Path, is_newer: bool, is_begun: bool
) -> None:
    path = spool_file(tmp_path, KEPT)
    put = received(answer(0, b"another"), -1 if is_newer else 1)
    folder = SlowToWrite(tmp_path / "disk")
    async with disk_tier(folder) as tier:
        if not is_begun:
            tier.put(key(1), answer(1))
            await asyncio.to_thread(folder.is_writing.wait, 20)
        tier.put(KEY, put)
        await asyncio.to_thread(folder.is_writing.wait, 20)
        await asyncio.to_thread(tier.take_over, path, KEY)
        assert not path.exists()
        folder.may_write.set()
        await tier.settle()
        assert await tier.get(KEY) == (answer() if is_newer else put)
    assert read(folder) == (answer() if is_newer else put)


async def test_a_damaged_file_of_the_spool_is_not_put_behind_what_waits(tmp_path: Path) -> None:
    path = spool_file(tmp_path, KEPT)
    path.write_bytes(path.read_bytes()[:-1])
    put = received(answer(0, b"another"), -1)
    folder = SlowToWrite(tmp_path / "disk")
    async with disk_tier(folder) as tier:
        tier.put(KEY, put)
        await asyncio.to_thread(tier.take_over, path, KEY)
        assert not path.exists()
        folder.may_write.set()
        await tier.settle()
        assert await tier.get(KEY) == put


async def test_nothing_stays_open(tmp_path: Path) -> None:
    async with opened(tmp_path) as tier:
        await put(tier, *range(200))
        assert None not in await got(tier, *range(200))
        assert sum(path.suffix == ".kept" for path in open_files(tmp_path)) == 200
        await put(tier, *range(200))
    async with asyncio.timeout(10):  # threads close what was replaced
        while open_files(tmp_path):
            await asyncio.sleep(0.01)
