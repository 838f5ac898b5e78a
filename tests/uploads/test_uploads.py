"""Images on their way to the store: bounds, order, failures, the end (the spool: test_kept.py)."""

import asyncio

import pytest
from structlog.testing import capture_logs

from imgproxy_cache.core.image import Image
from imgproxy_cache.errors import StoreError
from tests.uploading import DOWN, KEY, NOW, PATH, keys, numbered, upload, uploading


async def test_what_is_offered_is_stored_with_its_hashes_and_time() -> None:
    async with uploading() as setup:
        assert setup.uploads.offer(upload())
        assert await setup.drain() == 0
    assert setup.store.images == {
        KEY: Image(
            body=b"hello world",
            content_type="image/jpeg",
            cache_control="max-age=31536000, public",
            content_disposition=None,
            # printf %s PATH | sha256sum; printf 'hello world' | sha256sum
            path_sha256="7518baedde3533881827a7a3aa25d7b8248a8925fb643b0aff4f69c73695dc7b",
            content_sha256="b94d27b9934d3e08a52e52d7da7dabfac484efe37a5380ee9088f7ace2efcde9",
            stored_at="2026-02-03T04:05:06Z",
        )
    }
    assert setup.recorded.events == [("accepted", 11), ("stored", 11)]


async def test_a_stored_image_is_logged_with_path_bucket_and_key() -> None:
    with capture_logs() as lines:
        async with uploading() as setup:
            setup.uploads.offer(upload())
            await setup.drain()
    (line,) = lines
    assert line.pop("seconds") >= 0
    assert line == {
        "age_seconds": 0,
        "event": "upload.stored",
        "log_level": "info",
        "message": "Uploaded to S3",
        "path": PATH.decode(),
        "bucket": "images",
        "key": KEY,
        "bytes": 11,
    }


async def test_an_image_larger_than_a_quarter_of_a_megabyte_arrives_as_whole_as_a_small_one() -> (
    None
):
    chunks = tuple(bytes([n]) * 65_536 for n in range(10))
    async with uploading(max_bytes=1_000_000) as setup:
        setup.uploads.offer(upload(KEY, *chunks))
        await setup.drain()
    assert setup.store.images[KEY].body == b"".join(chunks)


async def test_no_more_than_the_agreed_number_upload_at_once() -> None:
    async with uploading(concurrency=3, is_open=False) as setup:
        for key in keys(9):
            setup.uploads.offer(upload(key))
        await setup.settle()
        assert setup.store.at_once == 3
        setup.store.gate.set()
        await setup.drain()
    assert setup.store.most_at_once == 3
    assert sorted(setup.store.images) == keys(9)


async def test_an_image_offered_at_the_moment_the_last_one_is_stored_is_stored() -> None:
    async with uploading(concurrency=1) as setup:
        for key in keys(20):
            assert setup.uploads.offer(upload(key))
            while setup.uploads.queue_items:
                await asyncio.sleep(0)
        await setup.drain()
    assert list(setup.store.images) == keys(20)


async def test_beyond_the_number_of_items_images_are_dropped_and_counted() -> None:
    async with uploading(max_items=3, is_open=False) as setup:
        taken = [setup.uploads.offer(upload(key)) for key in keys(5)]
        assert taken == [True, True, True, False, False]
        assert setup.uploads.queue_items == 3
        setup.store.gate.set()
        await setup.drain()
    assert setup.recorded.events == (
        [("accepted", 11)] * 3 + [("dropped", 11)] * 2 + [("stored", 11)] * 3
    )


async def test_beyond_the_number_of_bytes_images_are_dropped_and_smaller_ones_taken() -> None:
    async with uploading(max_bytes=25, is_open=False) as setup:
        assert setup.uploads.offer(upload(keys(1)[0]))
        await setup.settle()
        assert setup.uploads.queue_bytes == 11, "what is on its way takes memory too"
        assert setup.uploads.offer(numbered(1, b"0123456789"))
        assert not setup.uploads.offer(numbered(2, b"01234"))
        assert setup.uploads.offer(numbered(3, b"0123"))
        assert setup.uploads.queue_bytes == 25
        setup.store.gate.set()
        await setup.drain()
    assert (setup.uploads.queue_items, setup.uploads.queue_bytes) == (0, 0)


async def test_there_is_room_again_after_an_upload() -> None:
    async with uploading(max_items=1) as setup:
        for key in keys(3):
            assert setup.uploads.offer(upload(key))
            while setup.uploads.queue_items:
                await asyncio.sleep(0)


async def test_a_full_queue_is_said_once_and_not_for_every_image() -> None:
    with capture_logs() as lines:
        async with uploading(max_items=1, is_open=False) as setup:
            for key in keys(5):
                setup.uploads.offer(upload(key))
            setup.store.gate.set()
            await setup.drain()
    assert [line["event"] for line in lines] == ["upload.dropped", "upload.stored"]
    assert lines[0]["reason"] == "the upload queue is full"


async def test_a_drain_stores_what_waits_and_what_is_offered_meanwhile() -> None:
    async with uploading(concurrency=1, is_open=False) as setup:
        for key in keys(3):
            setup.uploads.offer(upload(key))
        draining = asyncio.create_task(setup.drain())
        await setup.settle()
        assert setup.uploads.offer(upload())
        setup.store.gate.set()
        assert await draining == 0
        assert list(setup.store.images) == [*keys(3), KEY]
        assert not setup.uploads.offer(upload())


async def test_a_drain_ends_at_its_deadline_and_says_what_it_left() -> None:
    with capture_logs() as lines:
        async with uploading(concurrency=2, is_open=False) as setup:
            for key in keys(5):
                setup.uploads.offer(upload(key))
            await setup.settle()
            assert await setup.drain(seconds=0.05) == 5
            assert (setup.uploads.queue_items, setup.uploads.queue_bytes) == (0, 0)
    assert lines == [
        {
            "event": "upload.abandoned",
            "log_level": "warning",
            "message": "neither stored nor in the spool when time was up",
            "items": 5,
            "bytes": 55,
        }
    ]
    assert setup.recorded.events == [("accepted", 11)] * 5 + [("abandoned", 5)]


async def test_an_empty_queue_is_drained_at_once_even_with_no_time_left() -> None:
    async with uploading() as setup:
        assert await setup.drain(seconds=-1) == 0
    assert setup.recorded.events == []


async def test_the_same_image_offered_again_while_it_waits_is_stored_once() -> None:
    async with uploading(is_open=False) as setup:
        assert setup.uploads.offer(upload(KEY, b"hello ", b"world"))
        await setup.settle()
        assert setup.uploads.offer(upload(KEY, b"hell", b"o world"))
        setup.store.gate.set()
        await setup.drain()
    assert setup.store.asked == [KEY]
    assert setup.recorded.events == [("accepted", 11), ("unchanged", 11), ("stored", 11)]


@pytest.mark.parametrize("keeps_store_fresh", [False, True])
async def test_the_same_image_is_stored_anew_where_its_time_says_whether_it_is_fresh(
    keeps_store_fresh: bool,
) -> None:
    async with uploading() as before:
        before.uploads.offer(upload())
        await before.drain()
    year = 366 * 86_400
    async with uploading(now=lambda: NOW + year, keeps_store_fresh=keeps_store_fresh) as after:
        after.store.images |= before.store.images
        after.uploads.offer(upload())
        await after.drain()
    # date -u -d @$((1770091506 + 366 * 86400)) +%FT%TZ
    stored_at = "2027-02-04T04:05:06Z" if keeps_store_fresh else "2026-02-03T04:05:06Z"
    assert after.store.images[KEY].stored_at == stored_at
    assert after.recorded.count("unchanged") == (not keeps_store_fresh)


async def test_the_newest_image_of_a_key_takes_the_place_of_the_one_that_waits() -> None:
    clock = iter(range(100, 200)).__next__
    async with uploading(is_open=False, now=clock) as setup:
        setup.uploads.offer(upload(KEY, b"first"))
        await setup.settle()  # on its way: it is not taken back
        setup.uploads.offer(upload(KEY, b"second"))
        setup.uploads.offer(upload(KEY, b"third"))
        await setup.settle()
        assert setup.store.asked == [KEY]
        setup.store.gate.set()
        await setup.drain()
    assert setup.store.images[KEY].body == b"third"
    assert setup.recorded.count("superseded") == 1
    assert setup.recorded.count("stored") == 2


async def test_a_store_that_is_down_is_asked_by_one_probe_and_gets_everything_when_it_is_back() -> (
    None
):
    with capture_logs() as lines:
        async with uploading(concurrency=8, max_items=100) as setup:
            setup.store.failure = DOWN
            for number in range(50):
                setup.uploads.offer(numbered(number))
            await setup.until(lambda: setup.uploads.store_problem is not None)
            assert setup.uploads.store_problem == str(DOWN)
            await setup.until(lambda: not setup.store.at_once)
            assert len(setup.store.asked) <= 9, "those on their way when it opened, and a probe"
            assert setup.uploads.queue_items == 50
            setup.store.failure = None
            await setup.drain()
    assert len(setup.store.images) == 50
    assert setup.recorded.count("stored") == 50
    assert setup.recorded.count("failed") == 0
    told = [line["event"] for line in lines if line["log_level"] in ("warning", "error")]
    assert told.count("store.failed") == 1
    assert len(told) <= 2, told
    assert [line["event"] for line in lines].count("store.recovered") == 1


async def test_one_image_that_fails_keeps_no_other_from_being_stored() -> None:
    poison = numbered(0)
    other = StoreError(operation="put", place="s3://images", cause="Odd", hint="", kind="other")
    async with uploading(concurrency=1, max_items=100) as setup:
        setup.store.poisoned[poison.key] = other
        setup.uploads.offer(poison)
        for number in range(1, 20):
            setup.uploads.offer(numbered(number))
        await setup.until(lambda: setup.uploads.waiting == 1)
        assert len(setup.store.images) == 19
        del setup.store.poisoned[poison.key]
        await setup.drain()
    assert setup.recorded.count("stored") == 20


async def test_one_image_that_fails_is_not_the_probe_for_ever() -> None:
    poison = numbered(0)
    async with uploading(concurrency=2, max_items=100) as setup:
        setup.store.failure = setup.store.poisoned[poison.key] = DOWN
        for number in range(5):
            setup.uploads.offer(numbered(number))
        await setup.until(lambda: setup.uploads.store_problem is not None)
        setup.store.failure = None
        await setup.until(lambda: len(setup.store.images) == 4)


async def test_an_image_that_the_store_will_not_have_is_given_up_and_logged_once() -> None:
    refusal = StoreError(
        operation=f"put processed/{KEY}",
        place="s3://images/processed",
        cause="EntityTooLarge",
        hint="lower CACHE_MAX_OBJECT_BYTES to what the store takes",
        kind="too-large",
    )
    with capture_logs() as lines:
        async with uploading(jitter=lambda: 0) as setup:
            setup.store.poisoned[KEY] = refusal
            setup.uploads.offer(upload())
            await setup.until(lambda: setup.uploads.waiting == 0)
    failed = [line for line in lines if line["event"] == "upload.failed"]
    assert failed == [
        {
            "event": "upload.failed",
            "log_level": "error",
            "message": str(refusal),
            "path": PATH.decode(),
            "key": KEY,
            "place": "s3://images/processed",
            "operation": f"put processed/{KEY}",
            "cause": "EntityTooLarge",
            "hint": "lower CACHE_MAX_OBJECT_BYTES to what the store takes",
            "kind": "too-large",
            "bytes": 11,
        }
    ]
    assert setup.recorded.events[-1] == ("failed", "too-large")
    assert setup.uploads.store_problem is None


async def test_a_bug_of_ours_is_named_as_one_and_stops_nothing() -> None:
    async with uploading(concurrency=1) as setup:
        setup.store.poisoned[KEY] = ZeroDivisionError("oh")
        setup.uploads.offer(upload())
        setup.uploads.offer(numbered(1))
        await setup.until(lambda: setup.uploads.waiting == 1)
        assert len(setup.store.images) == 1
        assert ("retried", "bug") in setup.recorded.events
        assert setup.uploads.store_problem is None
        setup.store.poisoned.clear()
        await setup.drain()
    assert setup.recorded.count("stored") == 2
