"""The queue in front of the store: its bounds, its end, and that nothing stops it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone

import pytest
from structlog.testing import capture_logs

from imgproxy_cache.core.image import Image
from imgproxy_cache.core.key import Key
from imgproxy_cache.errors import StoreError
from imgproxy_cache.uploads import Upload, Uploads

NOW = datetime(2026, 2, 3, 5, 5, 6, tzinfo=timezone(timedelta(hours=1)))
PATH = b"/resize:fill:300:300/plain/https://example.com/image.jpg"
KEY = Key("c9009a400f110797b2710ce2a5bd60a4")


@dataclass
class GatedStore:
    """Keeps images in a dictionary; a put waits at the gate, and fails with what it is told."""

    place: str = "s3://images/processed"
    images: dict[Key, Image] = field(default_factory=dict)
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    failure: Exception | None = None
    at_once: int = 0
    most_at_once: int = 0

    async def put(self, key: Key, image: Image) -> None:
        self.at_once += 1
        self.most_at_once = max(self.at_once, self.most_at_once)
        try:
            await self.gate.wait()
            if self.failure is not None:
                raise self.failure
            self.images[key] = image
        finally:
            self.at_once -= 1

    async def get(self, key: Key) -> Image | None:
        return self.images.get(key)

    async def delete(self, key: Key) -> None:
        self.images.pop(key, None)

    async def check(self) -> None:
        """It is always there."""


@dataclass
class Recorded:
    """Every event, in order."""

    events: list[tuple[str, object]] = field(default_factory=list)

    def stored(self, size: int, seconds: float) -> None:
        assert 0 <= seconds < 5
        self.events.append(("stored", size))

    def failed(self, kind: str) -> None:
        self.events.append(("failed", kind))

    def dropped(self, size: int) -> None:
        self.events.append(("dropped", size))

    def abandoned(self, items: int) -> None:
        self.events.append(("abandoned", items))


@dataclass
class Setup:
    store: GatedStore
    recorded: Recorded
    uploads: Uploads

    async def settle(self) -> None:
        """Until the uploads that can run wait at the gate."""
        for _ in range(20):
            await asyncio.sleep(0)

    async def drain(self, seconds: float = 5) -> int:
        return await self.uploads.drain(asyncio.get_running_loop().time() + seconds)


@asynccontextmanager
async def uploading(
    *, concurrency: int = 2, max_items: int = 10, max_bytes: int = 1000, is_open: bool = True
) -> AsyncIterator[Setup]:
    store, recorded = GatedStore(), Recorded()
    if is_open:
        store.gate.set()
    async with Uploads(
        store,
        recorded,
        concurrency=concurrency,
        max_items=max_items,
        max_bytes=max_bytes,
        now=lambda: NOW,
    ) as uploads:
        yield Setup(store, recorded, uploads)


def upload(key: Key = KEY, *chunks: bytes) -> Upload:
    chunks = chunks or (b"hello ", b"world")
    return Upload(
        key=key,
        path=PATH,
        chunks=chunks,
        size=sum(map(len, chunks)),
        content_type="image/jpeg",
        cache_control="max-age=31536000, public",
        content_disposition=None,
    )


def keys(number: int) -> list[Key]:
    return [Key(f"{n:032x}") for n in range(number)]


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
    assert setup.recorded.events == [("stored", 11)]


async def test_a_stored_image_is_logged_with_path_bucket_and_key() -> None:
    with capture_logs() as lines:
        async with uploading() as setup:
            setup.uploads.offer(upload())
            await setup.drain()
    (line,) = lines
    assert line.pop("seconds") >= 0
    assert line == {
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


async def test_an_image_offered_at_the_moment_a_task_ends_is_stored() -> None:
    async with uploading(concurrency=1) as setup:
        for key in keys(50):
            assert setup.uploads.offer(upload(key))
            while setup.uploads.queue_items:
                await asyncio.sleep(0)
        await setup.drain()
    assert list(setup.store.images) == keys(50)


async def test_beyond_the_number_of_items_images_are_dropped_and_counted() -> None:
    async with uploading(max_items=3, is_open=False) as setup:
        taken = [setup.uploads.offer(upload(key)) for key in keys(5)]
        assert taken == [True, True, True, False, False]
        assert setup.uploads.queue_items == 3
        setup.store.gate.set()
        await setup.drain()
    assert setup.recorded.events == [("dropped", 11)] * 2 + [("stored", 11)] * 3


async def test_beyond_the_number_of_bytes_images_are_dropped_and_smaller_ones_taken() -> None:
    async with uploading(max_bytes=25, is_open=False) as setup:
        assert setup.uploads.offer(upload(keys(1)[0]))
        await setup.settle()
        assert setup.uploads.queue_bytes == 11, "what is on its way takes memory too"
        assert setup.uploads.offer(upload(KEY, b"0123456789"))
        assert not setup.uploads.offer(upload(KEY, b"01234"))
        assert setup.uploads.offer(upload(KEY, b"0123"))
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


@pytest.mark.parametrize(
    ("failure", "expected"),
    [
        pytest.param(
            StoreError(
                operation=f"put processed/{KEY}",
                place="s3://images/processed",
                cause="NoSuchBucket",
                hint="create it or fix S3_BUCKET",
                kind="bucket",
            ),
            {
                "place": "s3://images/processed",
                "operation": f"put processed/{KEY}",
                "cause": "NoSuchBucket",
                "hint": "create it or fix S3_BUCKET",
                "kind": "bucket",
            },
            id="the store's own",
        ),
        pytest.param(
            ZeroDivisionError("oh"),
            {
                "place": "s3://images/processed",
                "operation": f"put {KEY}",
                "cause": "ZeroDivisionError: oh",
                "hint": "this is a bug in imgproxy-cache: please report it",
                "kind": "bug",
            },
            id="unexpected",
        ),
    ],
)
async def test_a_failed_upload_is_logged_once_and_the_next_one_goes_on(
    failure: Exception, expected: dict[str, str]
) -> None:
    with capture_logs() as lines:
        async with uploading(concurrency=1) as setup:
            setup.store.failure = failure
            setup.uploads.offer(upload())
            while setup.uploads.queue_items:
                await asyncio.sleep(0)
            setup.store.failure = None
            setup.uploads.offer(upload(keys(1)[0]))
            await setup.drain()
    assert [line["event"] for line in lines] == ["upload.failed", "upload.stored"]
    assert lines[0] == {
        "event": "upload.failed",
        "log_level": "error",
        "message": ": ".join(expected[name] for name in ("place", "operation", "cause", "hint")),
        "path": PATH.decode(),
        "key": KEY,
        "bytes": 11,
        **expected,
    }
    assert setup.recorded.events == [("failed", expected["kind"]), ("stored", 11)]
    assert list(setup.store.images) == keys(1)


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
    assert setup.store.at_once == 0
    assert lines == [{"event": "upload.abandoned", "log_level": "warning", "items": 5, "bytes": 55}]
    assert setup.recorded.events == [("abandoned", 5)]


async def test_an_empty_queue_is_drained_at_once_even_with_no_time_left() -> None:
    async with uploading() as setup:
        assert await setup.drain(seconds=-1) == 0
    assert setup.recorded.events == []
