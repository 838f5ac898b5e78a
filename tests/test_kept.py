"""What the spool keeps while the store does not take it, and what becomes of that."""

import asyncio
import errno
import json
import os
import time
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from imgproxy_cache.errors import StoreError
from imgproxy_cache.private_folder import store_folder
from imgproxy_cache.uploads.spool import Spool, open_spool
from imgproxy_cache.uploads.spool_folder import (
    ask_for_retry,
    notes,
    quarantined,
    spooled_files,
)
from imgproxy_cache.uploads.spooling import SpoolLimits
from tests.spooled import spooled
from tests.uploading import DOWN, NOW, PLACE, numbered, uploading

MANY = 1_000_000


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "spool"


def files(root: Path) -> int:
    return len(list(spooled_files(store_folder(root, PLACE))))


def leave_behind(root: Path, *numbers: int) -> None:
    """As a process that was killed."""
    spool = open_spool(root, PLACE, sync=False)
    spool.write([spooled(number) for number in numbers])
    spool.close()


async def test_what_the_store_takes_at_once_never_touches_the_disk(root: Path) -> None:
    async with uploading(spool=root) as setup:
        for number in range(1, 11):
            setup.uploads.offer(numbered(number))
            # A stop would write what it finds, and not wait for the store.
            await setup.until(lambda wanted=number: setup.recorded.count("stored") == wanted)  # type: ignore[misc]
        await setup.drain()
    assert setup.recorded.count("spooled") < 10, "at times, where the machine is busy"


async def test_what_the_store_does_not_take_is_in_the_spool_within_a_quarter_of_a_second(
    root: Path,
) -> None:
    seconds = []
    async with uploading(spool=root, is_open=False) as setup:
        for number in range(1, 11):
            began = time.monotonic()
            setup.uploads.offer(numbered(number))
            await setup.until(lambda wanted=number: files(root) == wanted)  # type: ignore[misc]
            seconds.append(time.monotonic() - began)
        setup.store.gate.set()
        await setup.drain()
        await setup.until(lambda: files(root) == 0)
    assert setup.recorded.count("spooled") == 10
    assert min(seconds) < 0.25, "later at times, where the machine is busy, but not each time"


async def test_after_a_restart_everything_is_stored_as_it_came(root: Path) -> None:
    async with uploading(spool=root) as before:
        before.store.failure = DOWN
        for number in range(10):
            before.uploads.offer(numbered(number))
        assert await before.drain() == 0
    assert files(root) == 10
    assert before.recorded.events[-1] == ("left", 10)
    async with uploading(spool=root, now=lambda: NOW + 60) as after:
        await after.until(lambda: len(after.store.images) == 10)
        await after.drain()
    assert after.recorded.events.count(("adopted", pytest.approx(60))) == 10
    assert files(root) == 0
    async with uploading() as other:
        for number in range(10):
            other.uploads.offer(numbered(number))
        await other.drain()
    assert after.store.images == other.store.images


async def test_the_oldest_goes_first(root: Path) -> None:
    leave_behind(root, 5, 3, 9, 1)
    async with uploading(spool=root, concurrency=1, now=lambda: NOW + 100) as setup:
        await setup.until(lambda: len(setup.store.images) == 4)
    assert setup.store.asked == [spooled(number)[0].key for number in (1, 3, 5, 9)]


async def test_a_newer_image_of_a_key_is_not_replaced_by_what_was_left_of_it(root: Path) -> None:
    leave_behind(root, 1)
    async with uploading(spool=root, is_open=False, now=lambda: NOW + 100) as setup:
        setup.uploads.offer(numbered(1, b"newer"))
        await setup.until(lambda: setup.recorded.count("superseded") == 1)
        setup.store.gate.set()
        await setup.drain()
    assert [image.body for image in setup.store.images.values()] == [b"newer"]
    assert files(root) == 0


async def test_a_damaged_file_is_set_aside_and_the_others_are_stored(root: Path) -> None:
    leave_behind(root, 1, 2, 3)
    damaged = next(spooled_files(store_folder(root, PLACE)))
    content = bytearray(damaged.path.read_bytes())
    content[-1] ^= 1
    damaged.path.write_bytes(content)
    async with uploading(spool=root) as setup:
        await setup.until(lambda: len(setup.store.images) == 2)
        await setup.until(lambda: setup.uploads.waiting == 0)
    ((file, reason),) = quarantined(store_folder(root, PLACE))
    assert (file.key, reason) == (damaged.key, "the image is damaged")
    assert setup.recorded.count("quarantined") == 1
    assert files(root) == 0


async def test_a_file_that_an_operator_removed_is_forgotten(root: Path) -> None:
    async with uploading(spool=root, max_bytes=1) as setup:
        setup.store.failure = DOWN
        setup.uploads.offer(numbered(1, b"x"))
        await setup.until(lambda: setup.uploads.queue_items == 0)
        next(spooled_files(store_folder(root, PLACE))).path.unlink()
        setup.store.failure = None
        await setup.until(lambda: setup.uploads.waiting == 0)
    assert setup.store.images == {}


async def test_an_image_that_the_store_will_not_have_is_set_aside_with_its_reason(
    root: Path,
) -> None:
    refusal = StoreError(
        operation="put x", place=PLACE, cause="EntityTooLarge", hint="", kind="too-large"
    )
    poison = numbered(1)
    rolls = iter([0.99, 0.99])  # for the breaker, which does not mind, and for the image
    async with uploading(spool=root, jitter=lambda: next(rolls, 0.0)) as setup:
        setup.store.poisoned[poison.key] = refusal
        setup.uploads.offer(poison)
        await setup.until(lambda: setup.uploads.waiting == 0)
    ((file, reason),) = quarantined(store_folder(root, PLACE))
    assert (file.key, reason) == (poison.key, str(refusal))


async def test_memory_is_given_up_when_the_store_is_down_and_the_image_safe(root: Path) -> None:
    async with uploading(spool=root, max_items=MANY, max_bytes=MANY) as setup:
        setup.store.failure = DOWN
        for number in range(100):
            setup.uploads.offer(numbered(number, bytes(1000)))
        await setup.until(lambda: setup.uploads.queue_bytes == 0)
        assert (setup.uploads.waiting, files(root)) == (100, 100)
        assert setup.uploads.offer(numbered(0, bytes(1000)))
        assert setup.recorded.events[-1] == ("unchanged", 1000)
        setup.store.failure = None
        await setup.drain()
    assert len(setup.store.images) == 100


async def test_memory_is_given_up_when_it_is_half_full(root: Path) -> None:
    async with uploading(spool=root, is_open=False, max_items=MANY, max_bytes=10_000) as setup:
        for number in range(100):
            assert setup.uploads.offer(numbered(number, bytes(1000)))
            await setup.until(lambda: setup.uploads.queue_bytes <= 8000)
        assert setup.recorded.count("dropped") == 0
        setup.store.gate.set()
        assert await setup.drain() == 0
    assert len(setup.store.images) == 100


async def test_what_is_read_from_the_spool_takes_no_more_than_half_of_the_memory(
    root: Path,
) -> None:
    spool = open_spool(root, PLACE, sync=False)
    spool.write([spooled(number, bytes([number]) * 400) for number in range(20)])
    spool.close()
    async with uploading(spool=root, concurrency=8, max_bytes=1600, is_open=False) as setup:
        await setup.until(lambda: setup.uploads.waiting == 20)
        await setup.until(lambda: setup.store.at_once > 0)
        setup.store.gate.set()
        most = 0
        while len(setup.store.images) < 20:
            most = max(most, setup.uploads.queue_bytes)
            await asyncio.sleep(0)
    assert 400 < most <= 1600 // 2 + 300, "400 bytes and their description"


@pytest.mark.parametrize(
    "limits",
    [
        pytest.param(SpoolLimits(10**9, 3, 10**9), id="files"),
        pytest.param(SpoolLimits(1800, 10**6, 10**9), id="bytes"),
    ],
)
async def test_a_full_spool_takes_nothing_and_memory_does(root: Path, limits: SpoolLimits) -> None:
    with capture_logs() as lines:
        async with uploading(spool=root, limits=limits, max_items=8) as setup:
            setup.store.failure = DOWN
            for number in range(20):
                setup.uploads.offer(numbered(number))
                await asyncio.sleep(0.01)
            await setup.until(lambda: setup.uploads.spool_problem is not None)
            assert setup.uploads.spool_problem == "the spool is full"
            assert 0 < files(root) <= 5
            kept = setup.recorded.count("accepted")
            assert kept + setup.recorded.count("dropped") == 20
            setup.store.failure = None
            assert await setup.drain() == 0
            assert setup.uploads.spool_problem is None or setup.spool_files == 0
    assert len(setup.store.images) == kept
    assert [line["event"] for line in lines].count("spool.failed") == 1


async def test_what_waited_for_too_long_is_given_up_and_counted(root: Path) -> None:
    leave_behind(root, 1, 2, 3000)
    limits = SpoolLimits(10**9, 10**6, max_age_seconds=3600)
    async with uploading(
        spool=root, limits=limits, is_open=False, concurrency=1, now=lambda: NOW + 3700
    ) as setup:
        await setup.until(lambda: setup.recorded.count("expired") >= 1)
        setup.store.gate.set()
        await setup.until(lambda: setup.uploads.waiting == 0)
    assert spooled(3000)[0].key in setup.store.images
    assert files(root) == 0


async def test_a_disk_that_fails_keeps_nobody_from_storing_and_heals_by_itself(root: Path) -> None:
    class Failing(Spool):
        is_broken = True

        def write(self, images: object) -> object:  # type: ignore[override]
            if Failing.is_broken:
                return [], OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return super().write(images)  # type: ignore[arg-type]

    def opened() -> Spool:
        open_spool(root, PLACE, sync=False).close()
        return Failing(store_folder(root, PLACE), sync=False)

    with capture_logs() as lines:
        async with uploading(spool=opened) as setup:
            setup.store.failure = DOWN
            for number in range(5):
                assert setup.uploads.offer(numbered(number))
            await setup.until(lambda: setup.uploads.spool_problem is not None)
            problem = "No space left on device: look at CACHE_SPOOL_DIR"
            assert setup.uploads.spool_problem == problem
            assert setup.uploads.queue_items == 5
            Failing.is_broken = False
            await setup.until(lambda: setup.uploads.spool_problem is None)
            assert files(root) == 5
            setup.store.failure = None
            await setup.drain()
    assert len(setup.store.images) == 5
    told = [line["event"] for line in lines if line["event"].startswith("spool.")]
    assert told == ["spool.failed", "spool.recovered"]


async def test_a_spool_that_is_mended_is_known_to_be_though_no_image_needs_it(root: Path) -> None:
    root.write_text("in the way")  # noqa: ASYNC240 - a test may block
    async with uploading(spool=root, jitter=lambda: 0) as setup:
        setup.store.failure = DOWN
        setup.uploads.offer(numbered(1))
        await setup.until(lambda: setup.uploads.spool_problem is not None)
        setup.store.failure = None
        await setup.until(lambda: setup.uploads.waiting == 0)
        assert setup.uploads.spool_problem is not None
        root.unlink()  # noqa: ASYNC240
        await setup.until(lambda: setup.uploads.spool_problem is None)
    assert files(root) == 0


async def test_a_spool_that_was_full_is_not_when_the_store_has_taken_all(root: Path) -> None:
    limits = SpoolLimits(10**9, 2, 10**9)
    async with uploading(spool=root, limits=limits, jitter=lambda: 0) as setup:
        setup.store.failure = DOWN
        for number in range(5):
            setup.uploads.offer(numbered(number))
        await setup.until(lambda: setup.uploads.spool_problem == "the spool is full")
        setup.store.failure = None
        await setup.until(lambda: setup.uploads.waiting == 0)
        await setup.until(lambda: setup.uploads.spool_problem is None)


async def test_a_spool_that_cannot_be_opened_is_opened_when_that_is_mended(root: Path) -> None:
    root.write_text("in the way")  # noqa: ASYNC240 - a test may block
    async with uploading(spool=root) as setup:
        setup.store.failure = DOWN
        setup.uploads.offer(numbered(1))
        await setup.until(lambda: setup.uploads.spool_problem is not None)
        root.unlink()  # noqa: ASYNC240
        await setup.until(lambda: files(root) == 1)
        setup.store.failure = None
        await setup.drain()
    assert len(setup.store.images) == 1


async def test_a_folder_that_somebody_removed_is_made_again(root: Path) -> None:
    async with uploading(spool=root) as setup:
        setup.store.failure = DOWN
        setup.uploads.offer(numbered(1))
        await setup.until(lambda: setup.recorded.count("spooled") == 1)  # its folder synced too
        root.rename(root.with_name("gone"))  # noqa: ASYNC240
        setup.uploads.offer(numbered(2))
        await setup.until(lambda: files(root) == 1)
        setup.store.failure = None
        await setup.drain()


async def test_a_stop_does_not_wait_for_a_store_that_is_down_when_the_spool_lasts(
    root: Path,
) -> None:
    async with uploading(spool=root, concurrency=3) as setup:
        setup.store.failure = DOWN
        for number in range(10):
            setup.uploads.offer(numbered(number))
        await setup.until(lambda: setup.uploads.store_problem is not None)
        began = asyncio.get_running_loop().time()
        assert await setup.drain(30) == 0
        assert asyncio.get_running_loop().time() - began < 5
    assert files(root) == 10


async def test_a_stop_uses_its_time_when_the_spool_may_not_last_and_says_what_is_left(
    root: Path,
) -> None:
    with capture_logs() as lines:
        async with uploading(spool=root, is_lasting=False) as setup:
            setup.store.failure = DOWN
            for number in range(3):
                setup.uploads.offer(numbered(number))
            await setup.until(lambda: setup.uploads.store_problem is not None)
            began = asyncio.get_running_loop().time()
            assert await setup.drain(0.6) == 0
            assert asyncio.get_running_loop().time() - began >= 0.59
    (line,) = [line for line in lines if line["event"] == "upload.left"]
    assert line["items"] == 3
    assert line["message"].endswith("if this machine's temporary folder is still there")


async def test_a_stop_in_the_middle_of_hanging_uploads_leaves_all_of_them_in_the_spool(
    root: Path,
) -> None:
    async with uploading(spool=root, is_open=False, max_items=300, max_bytes=MANY) as setup:
        for number in range(200):
            setup.uploads.offer(numbered(number))
        assert await setup.drain(1) == 0
    assert files(root) == 200


async def test_what_fails_after_the_end_stays_in_the_spool(root: Path) -> None:
    async with uploading(spool=root, is_open=False) as setup:
        setup.uploads.offer(numbered(1))
        await setup.settle()
        assert await setup.drain(0.1) == 0
        setup.store.failure = DOWN
        setup.store.gate.set()
        await setup.until(lambda: not setup.store.at_once)
    assert files(root) == 1


async def test_an_operators_retry_is_made_at_once(root: Path) -> None:
    refused = StoreError(
        operation="put x", place=PLACE, cause="AccessDenied", hint="allow it", kind="denied"
    )
    async with uploading(spool=root, jitter=lambda: 0.99) as setup:
        setup.store.failure = refused
        setup.uploads.offer(numbered(1))
        await setup.until(lambda: setup.recorded.count("retried") == 3)  # the next after 4 s
        setup.store.failure = None
        await setup.until(lambda: files(root) == 1)
        began = asyncio.get_running_loop().time()
        assert ask_for_retry(store_folder(root, PLACE))
        await setup.until(lambda: setup.uploads.waiting == 0)
        assert asyncio.get_running_loop().time() - began < 2.5


async def test_word_is_left_of_why_uploads_fail(root: Path) -> None:
    async with uploading(spool=root) as setup:
        setup.store.failure = DOWN
        setup.uploads.offer(numbered(1))
        await setup.until(lambda: setup.uploads.store_problem is not None)
        folder = store_folder(root, PLACE)
        await setup.until(lambda: any('"store_problem": "s3' in note for note in notes(folder)))
        (note,) = notes(folder)
        assert json.loads(note)["store_problem"] == str(DOWN)
        (reason,) = json.loads(note)["reasons"]
        assert reason["text"] == f"{PLACE}: connection refused: start it"
        assert reason["count"] >= 3
        assert ask_for_retry(folder)
        setup.store.failure = None
        await setup.drain()
