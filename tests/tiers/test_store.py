"""The store as a tier: misses that are remembered, objects that are broken, stores that fail."""

from __future__ import annotations

import asyncio
import threading
import uuid
import weakref
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, closing, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from imgproxy_cache.core.image import Image, StoredObject, image_from_answer
from imgproxy_cache.core.kept import KeptAnswer
from imgproxy_cache.core.key import Key, StoredName, key_from_target, stored_name_from_target
from imgproxy_cache.core.location import FolderLocation, S3Location, StoreLocation
from imgproxy_cache.errors import StoredTooLargeError, StoreError
from imgproxy_cache.stores import Store, open_store
from imgproxy_cache.stores.reader import MOST_THREADS, Outcome, Reader, Room, ThreadedReader
from imgproxy_cache.stores.s3_reader import ALWAYS_READ_BYTES
from imgproxy_cache.tiers.store import (
    LARGE_BYTES,
    SAY_SECONDS,
    UPLOAD_SECONDS,
    StoreTier,
)
from imgproxy_cache.uploads.dedup import Dedup
from tests.faults.front import Fault, faulty_front
from tests.servers.s3 import S3Server
from tests.stores.reading import buffer
from tests.tiers.answers import STORED_AT, stored_answer
from tests.tiers.tiers import Clock

UNREACHABLE = StoreError(
    operation="get it",
    place="memory://images",
    cause="connection refused",
    hint="start it",
    kind="unreachable",
)
DENIED = StoreError(
    operation="get it", place="memory://images", cause="AccessDenied", hint="", kind="denied"
)
HALF = 0.5
MAX_BYTES = 50_000_000
# Half of 4 seconds: after three failures.
PROBE_SECONDS = 2.0


def target(number: int = 0) -> bytes:
    return stored_answer(number).name


def key(number: int = 0) -> Key:
    return key_from_target(target(number))


def stored_name(number: int = 0) -> StoredName:
    return stored_name_from_target(target(number))


def image(number: int = 0, body: bytes = b"hello world") -> Image:
    """What uploads make of the answer that is :func:`stored_answer`."""
    return image_from_answer(
        path=target(number),
        body=body,
        content_type="image/jpeg",
        cache_control="max-age=3600, public",
        content_disposition=None,
        at=STORED_AT,
    )


@dataclass
class ScriptedStore:
    """Has `images`, waits at the gate, and fails with what it is told."""

    images: dict[Key, Image] = field(default_factory=dict)
    failure: BaseException | None = None
    gate: threading.Event = field(default_factory=threading.Event)
    turns: threading.Semaphore | None = None
    """Each get takes one."""
    place: str = "memory://images"
    asked: list[Key] = field(default_factory=list)
    at_once: int = 0
    most_at_once: int = 0
    _counting: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self.gate.set()

    def get(self, key: Key, max_bytes: int | None = None) -> Image | None:
        with self._counting:
            self.asked.append(key)
            self.at_once += 1
            self.most_at_once = max(self.at_once, self.most_at_once)
        try:
            self.gate.wait()
            if self.turns is not None:
                self.turns.acquire()
            if self.failure is not None:
                raise self.failure
            image = self.images.get(key)
            if image is not None and max_bytes is not None and len(image.body) > max_bytes:
                raise StoredTooLargeError(len(image.body), operation=f"get {key}", place=self.place)
            return image
        finally:
            with self._counting:
                self.at_once -= 1

    async def until_asked(self, times: int = 1) -> None:
        async with asyncio.timeout(20):
            while len(self.asked) < times:
                await asyncio.sleep(0)

    def put(self, key: Key, image: Image) -> None:
        raise NotImplementedError

    def create(self, key: Key, image: Image) -> bool:
        raise NotImplementedError

    def find(self, key: Key) -> StoredObject | None:
        raise NotImplementedError

    async def delete(self, key: Key) -> None:
        raise NotImplementedError

    async def check(self) -> None:
        raise NotImplementedError


@contextmanager
def opened(
    store: ScriptedStore,
    *,
    clock: Callable[[], float] | None = None,
    miss_seconds: float = 30,
    miss_items: int = 1000,
    store_seconds: float = 20,
) -> Iterator[StoreTier]:
    with (
        closing(ThreadedReader(store)) as reader,
        closing(
            tier_of(
                reader,
                clock=clock,
                miss_seconds=miss_seconds,
                miss_items=miss_items,
                store_seconds=store_seconds,
            )
        ) as tier,
    ):
        yield tier


@asynccontextmanager
async def opened_at(
    location: StoreLocation,
    *,
    clock: Callable[[], float] | None = None,
    room: Room | None = None,
) -> AsyncIterator[tuple[Store, StoreTier]]:
    """A real store, and its tier."""
    async with open_store(location) as store, store.reader(room or buffer()) as reader:
        with closing(tier_of(reader, clock=clock)) as tier:
            yield store, tier


def tier_of(
    reader: Reader,
    *,
    clock: Callable[[], float] | None,
    miss_seconds: float = 30,
    miss_items: int = 1000,
    store_seconds: float = 20,
) -> StoreTier:
    return StoreTier(
        reader,
        miss_seconds=miss_seconds,
        miss_items=miss_items,
        max_bytes=MAX_BYTES,
        stale_while_revalidate_seconds=60.5,
        stale_if_error_seconds=86_400,
        clock=clock or Clock(),
        jitter=lambda: HALF,
        store_seconds=store_seconds,
    )


async def got(tier: StoreTier, *numbers: int) -> list[KeptAnswer | None]:
    """One after the other."""
    return [await tier.get(stored_name(number), target(number)) for number in numbers]


async def failing(tier: StoreTier, store: ScriptedStore) -> None:
    """Let the store fail until it is left alone."""
    store.failure = UNREACHABLE
    await got(tier, 0, 0, 0)
    assert tier.problem is not None


@pytest.fixture
def store() -> ScriptedStore:
    return ScriptedStore({key(): image()})


async def test_an_image_is_answered_under_the_name_that_is_asked_for(store: ScriptedStore) -> None:
    with opened(store) as tier:
        assert await tier.get(stored_name(), b"/name") == replace(stored_answer(), name=b"/name")
        assert tier.counts.hits == 1


async def test_an_image_that_is_stale_by_now_is_answered_as_well(store: ScriptedStore) -> None:
    store.images[key()] = image()._replace(
        cache_control="max-age=1", stored_at="1970-01-01T00:00:00Z"
    )
    with opened(store) as tier:
        [found] = await got(tier, 0)
    assert found is not None
    assert (found.lifetimes.fresh_until, found.lifetimes.stale_if_error_until) == (1, 86_401)


@pytest.mark.parametrize(
    "size", [pytest.param(30_000, id="usual"), pytest.param(5_000_000, id="large")]
)
async def test_many_are_asked_for_at_once_and_all_are_answered(size: int) -> None:
    numbers = range(3 * MOST_THREADS)
    store = ScriptedStore({key(n): image(n, bytes([n]) * size) for n in numbers})
    store.gate.clear()
    with opened(store) as tier:
        asking = [asyncio.create_task(tier.get(stored_name(n), target(n))) for n in numbers]
        await store.until_asked(MOST_THREADS)
        store.gate.set()
        found = await asyncio.gather(*asking)
        assert found == [stored_answer(n, bytes([n]) * size) for n in numbers]
    assert store.most_at_once == MOST_THREADS


async def test_a_large_answer_is_there_once_for_all_that_are_given_it() -> None:
    body = bytes(LARGE_BYTES + 1)
    store = ScriptedStore({key(): image(0, body)})
    with opened(store) as tier:
        first = await tier.get(stored_name(), target())
        assert first == stored_answer(0, body)
        assert await tier.get(stored_name(), target()) is first
        assert (tier.counts.hits, len(store.asked)) == (2, 1)
        other_name = await tier.get(stored_name(), b"/name")
        assert other_name == replace(stored_answer(0, body), name=b"/name")
        assert len(store.asked) == 2


async def test_a_large_answer_that_is_to_be_replaced_is_given_to_nobody_else() -> None:
    body = bytes(LARGE_BYTES + 1)
    store = ScriptedStore({key(): image(0, body)})
    with opened(store) as tier:
        first = await tier.get(stored_name(), target())
        store.images[key()] = image(0, b"later")
        tier.expect(key())
        assert first is not None
        assert await tier.get(stored_name(), target()) == stored_answer(0, b"later")


async def test_what_is_missing_is_not_asked_for_again_for_a_while() -> None:
    store, clock = ScriptedStore(), Clock()
    with opened(store, clock=clock) as tier:
        assert tier.may_have(key())
        assert await got(tier, 0, 0) == [None, None]
        assert not tier.may_have(key())
        assert tier.may_have(key(1))
        clock.now += 29.9
        assert await got(tier, 0) == [None]
        assert store.asked == [key()]
        clock.now += 0.1
        assert tier.may_have(key())
        assert await got(tier, 0) == [None]
        assert store.asked == [key(), key()]
        assert (tier.counts.hits, tier.counts.misses) == (0, 2)


@pytest.mark.parametrize(
    ("miss_seconds", "miss_items", "asked"),
    [
        pytest.param(0, 1000, [0, 1, 0, 1], id="for no time"),
        pytest.param(30, 0, [0, 1, 0, 1], id="none of them"),
        pytest.param(30, 1, [0, 1, 0, 1], id="the last one"),
        pytest.param(30, 2, [0, 1], id="both"),
    ],
)
async def test_as_many_misses_are_remembered_as_agreed(
    miss_seconds: float, miss_items: int, asked: list[int]
) -> None:
    store = ScriptedStore()
    with opened(store, miss_seconds=miss_seconds, miss_items=miss_items) as tier:
        await got(tier, 0, 1, 0, 1)
    assert store.asked == [key(number) for number in asked]


async def test_what_was_handed_to_the_uploads_is_asked_for_until_it_is_there() -> None:
    store, clock = ScriptedStore(), Clock()
    with opened(store, clock=clock) as tier:
        assert await got(tier, 0) == [None]
        tier.expect(key())
        assert tier.may_have(key())
        assert await got(tier, 0, 0) == [None, None], "not there yet"
        assert len(store.asked) == 3
        store.images[key()] = image()
        assert await got(tier, 0) == [stored_answer()]
        del store.images[key()]
        clock.now += UPLOAD_SECONDS
        assert await got(tier, 0, 0) == [None, None], "nobody expects it any more"
        assert len(store.asked) == 5


async def test_what_does_not_say_how_long_it_is_fresh_is_a_miss(store: ScriptedStore) -> None:
    store.images[key()] = image()._replace(cache_control=None)
    with opened(store) as tier, capture_logs() as logs:
        assert await got(tier, 0, 0) == [None, None]
        assert (tier.counts.misses, tier.counts.broken, len(store.asked)) == (1, 0, 1)
    assert logs == []


async def test_what_was_not_put_there_is_a_miss_and_said_once_a_minute() -> None:
    store, clock = ScriptedStore({key(n): image(n, b"x") for n in range(4)}), Clock()
    store.images = {key: image._replace(body=b"y") for key, image in store.images.items()}
    with opened(store, clock=clock) as tier, capture_logs() as logs:
        assert await got(tier, 0, 0, 1, 2) == [None] * 4
        assert (tier.counts.broken, tier.counts.misses, tier.counts.hits) == (3, 0, 0)
        assert len(store.asked) == 3, "it is remembered like any other"
        clock.now += SAY_SECONDS
        await got(tier, 3)
        assert tier.problem is None
    assert logs == [
        {
            "event": "image.rejected",
            "log_level": "warning",
            "message": "an object of the store is not given to clients:"
            " its 1 bytes are not those that were stored",
            "place": "memory://images",
            "key": key(number),
            "images": images,
        }
        for number, images in ((0, 1), (3, 4))
    ]


@dataclass(frozen=True)
class Bucket:
    """A bucket of a real S3 server, for this test alone."""

    server: S3Server
    location: S3Location

    def write(self, body: bytes, content_type: str, metadata: dict[str, str]) -> None:
        """By another client."""
        self.server.client().put_object(
            Bucket=self.location.bucket,
            Key=f"processed/{key()}",
            Body=body,
            ContentType=content_type,
            CacheControl="max-age=3600, public",
            Metadata=metadata,
        )


@pytest.fixture
def bucket(s3: S3Server, no_cloud: pytest.MonkeyPatch) -> Bucket:
    for name, value in s3.environ.items():
        no_cloud.setenv(name, value)
    name = s3.make_bucket(f"images-{uuid.uuid4().hex}")
    return Bucket(s3, S3Location(name, "processed", s3.endpoint, "auto"))


PROOFS = {
    "path-sha256": image().path_sha256,
    "content-sha256": image().content_sha256,
    "stored-at": image().stored_at,
}


@pytest.mark.parametrize(
    ("body", "content_type", "metadata"),
    [
        pytest.param(b"hello", "image/jpeg", PROOFS, id="truncated"),
        pytest.param(b"<html>", "text/html", PROOFS, id="of a foreign type"),
        pytest.param(
            b"hello world",
            "image/jpeg",
            PROOFS | {"path-sha256": image(1).path_sha256},
            id="of another path",
        ),
        pytest.param(b"hello world", "image/jpeg", {}, id="of another program"),
    ],
)
async def test_a_broken_object_is_healed_by_the_next_fill(
    bucket: Bucket, body: bytes, content_type: str, metadata: dict[str, str]
) -> None:
    bucket.write(body, content_type, metadata)
    async with opened_at(bucket.location) as (store, tier):
        assert await got(tier, 0) == [None]
        assert tier.counts.broken == 1
        assert await asyncio.to_thread(Dedup(store).put, key(), image(), STORED_AT)
        tier.expect(key())
        assert await got(tier, 0) == [stored_answer()]
        assert (tier.counts.hits, tier.counts.broken) == (1, 1)


@pytest.mark.parametrize(
    "lost", [pytest.param("", id="the picture"), pytest.param(".meta", id="what belongs to it")]
)
async def test_half_of_an_image_in_a_folder_is_a_miss_and_healed(tmp_path: Path, lost: str) -> None:
    async with opened_at(FolderLocation(str(tmp_path))) as (store, tier):
        await asyncio.to_thread(store.put, key(), image())
        (tmp_path / lost / key()).write_bytes(b"{")
        assert await got(tier, 0) == [None]
        assert await asyncio.to_thread(Dedup(store).put, key(), image(), STORED_AT)
        tier.expect(key())
        assert await got(tier, 0) == [stored_answer()]


async def test_the_path_is_the_one_that_the_key_is_made_of(bucket: Bucket) -> None:
    asked = target() + b"?v=1"
    async with opened_at(bucket.location) as (store, tier):
        await asyncio.to_thread(store.put, key(), image())
        found = await tier.get(stored_name_from_target(asked), target())
    assert found == stored_answer()


@pytest.mark.usefixtures("no_collector")
async def test_what_was_read_goes_with_the_last_who_has_it(bucket: Bucket) -> None:
    """And not when the collector finds it: that would be many megabytes later."""
    async with opened_at(bucket.location) as (store, tier):
        await asyncio.to_thread(store.put, key(), image())
        await got(tier, 0)  # opens the connection, in a task that refers to it
        [found] = await got(tier, 0)
        assert found is not None
        kept = weakref.ref(found)
        del found
        await asyncio.sleep(0)
        assert kept() is None


async def test_what_there_is_no_memory_for_now_is_asked_for_again(bucket: Bucket) -> None:
    body = bytes(ALWAYS_READ_BYTES + 1)
    room = buffer(len(body))
    async with opened_at(bucket.location, room=room) as (store, tier):
        await asyncio.to_thread(store.put, key(), image(body=body))
        assert room.take(1)
        assert await got(tier, 0, 0, 0, 0) == [None] * 4
        assert (tier.counts.misses, tier.counts.errors, tier.problem) == (0, 0, None)
        room.give_back(1)
        assert await got(tier, 0) == [stored_answer(body=body)]


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        pytest.param(Fault.UNAVAILABLE, "busy", id="busy"),
        pytest.param(Fault.RESET, "unreachable", id="reset"),
        pytest.param(Fault.HALF_ANSWER, "unreachable", id="cut off in the middle of an image"),
    ],
)
async def test_a_store_that_fails_is_left_alone_until_a_probe_says_that_it_is_back(
    bucket: Bucket, fault: Fault, kind: str
) -> None:
    clock = Clock()
    async with faulty_front(bucket.server) as front:
        location = replace(bucket.location, endpoint=f"http://127.0.0.1:{front.port}")
        async with opened_at(location, clock=clock) as (store, tier):
            await asyncio.to_thread(store.put, key(), image(body=bytes(100_000)))
            with capture_logs() as logs:
                front.fail(fault)
                assert await got(tier, 0, 0, 0, 0, 0) == [None] * 5
                assert (tier.counts.errors, front.count("GET", 0, 200, 503)) == (3, 3)
                assert not tier.may_have(key())
                front.heal()
                clock.now += PROBE_SECONDS
                assert tier.may_have(key())
                assert await got(tier, 0) == [stored_answer(body=bytes(100_000))]
                assert tier.problem is None
    assert [(log["event"], log.get("kind")) for log in logs] == [
        ("store.read_failed", kind),
        ("store.read_recovered", None),
    ]


async def test_what_failed_is_said_with_what_to_do(store: ScriptedStore) -> None:
    with opened(store) as tier, capture_logs() as logs:
        await failing(tier, store)
        assert tier.problem == "memory://images: get it: connection refused: start it"
    assert logs == [
        {
            "event": "store.read_failed",
            "log_level": "warning",
            "message": f"{UNREACHABLE}; images come from imgproxy until it is back",
            "place": "memory://images",
            "operation": "get it",
            "cause": "connection refused",
            "hint": "start it",
            "kind": "unreachable",
        }
    ]


async def test_a_failure_is_no_miss(store: ScriptedStore) -> None:
    with opened(store) as tier:
        store.failure = UNREACHABLE
        assert await got(tier, 0) == [None]
        store.failure = None
        assert await got(tier, 0) == [stored_answer()]
        assert (tier.counts.errors, tier.counts.misses, tier.counts.hits) == (1, 0, 1)


async def test_what_is_larger_than_any_of_ours_is_not_asked_for_again_for_a_while() -> None:
    store = ScriptedStore({key(): image(0, bytes(MAX_BYTES + 1))})
    with opened(store) as tier, capture_logs() as logs:
        assert await got(tier, 0, 0, 0, 0) == [None] * 4
        assert (len(store.asked), tier.problem) == (1, None)
    [said] = logs
    assert (said["event"], "it has 50000001 bytes" in said["message"]) == ("image.rejected", True)


@pytest.mark.parametrize(
    "there",
    [pytest.param(None, id="missing"), pytest.param(image()._replace(body=b""), id="broken")],
)
async def test_an_image_that_is_missing_or_broken_proves_that_its_store_is_not(
    store: ScriptedStore, there: Image | None
) -> None:
    clock = Clock()
    store.images = {} if there is None else {key(): there}
    with opened(store, clock=clock) as tier:
        await failing(tier, store)
        store.failure = None
        clock.now += PROBE_SECONDS
        assert await got(tier, 0) == [None]
        assert tier.problem is None


async def test_one_asks_whether_it_is_back_and_nobody_waits_for_that(store: ScriptedStore) -> None:
    clock = Clock()
    with opened(store, clock=clock) as tier:
        await failing(tier, store)
        clock.now += PROBE_SECONDS
        store.failure = None
        store.gate.clear()
        probe = asyncio.create_task(got(tier, 0))
        await store.until_asked(4)
        assert not tier.may_have(key())
        assert await got(tier, 0) == [None]
        store.gate.set()
        assert await probe == [stored_answer()]
        assert await got(tier, 0) == [stored_answer()]


async def test_who_waits_for_a_thread_when_the_store_goes_down_does_not_ask_it() -> None:
    turns = threading.Semaphore(0)
    store = ScriptedStore(turns=turns, failure=DENIED)
    with opened(store) as tier:
        asking = [asyncio.create_task(got(tier, 0)) for _ in range(MOST_THREADS + 5)]
        await store.until_asked(MOST_THREADS)
        turns.release()
        await store.until_asked(MOST_THREADS + 1)
        await asyncio.wait(asking, return_when=asyncio.FIRST_COMPLETED)
        assert tier.problem == str(DENIED)
        turns.release(MOST_THREADS)
        assert await asyncio.gather(*asking) == [[None]] * (MOST_THREADS + 5)
        assert len(store.asked) == tier.counts.errors == MOST_THREADS + 1


async def test_a_store_that_hangs_is_not_waited_for(store: ScriptedStore) -> None:
    store.gate.clear()
    with opened(store, store_seconds=0) as tier, capture_logs() as logs:
        assert await got(tier, 0, 0, 0, 0) == [None] * 4
        assert (tier.counts.errors, tier.counts.misses) == (3, 0)
        assert not tier.may_have(key())
        store.gate.set()
    [line] = logs
    assert line["message"] == (
        f"memory://images: get {key()}: no answer in 0 s: look at the network;"
        " images come from imgproxy until it is back"
    )


@dataclass
class SilentReader:
    """Never tells anything: of its gets, those of these numbers have not begun."""

    not_begun: frozenset[int]
    place: str = "memory://images"
    gets: list[SilentGet] = field(default_factory=list)

    def get(self, key: Key, max_bytes: int, tell: Callable[[Outcome], None]) -> SilentGet:
        self.gets.append(SilentGet(has_begun=len(self.gets) not in self.not_begun))
        return self.gets[-1]


@dataclass
class SilentGet:
    has_begun: bool

    def abandon(self) -> None:
        pass


async def test_nobody_waits_for_ever_though_the_store_is_found_down_meanwhile() -> None:
    """The third failure says so, and those that have not begun are left, out of their turn."""
    reader = SilentReader(not_begun=frozenset({3, 4}))
    with closing(tier_of(reader, clock=None, store_seconds=0.1)) as tier:
        asking = [asyncio.create_task(got(tier, number)) for number in range(5)]
        await asyncio.sleep(0.01)
        asking += [asyncio.create_task(got(tier, number)) for number in range(5, 8)]
        async with asyncio.timeout(20):
            assert await asyncio.gather(*asking) == [[None]] * 8
    assert len(reader.gets) == 8


async def test_a_late_answer_changes_nothing(store: ScriptedStore) -> None:
    store.gate.clear()
    with opened(store, store_seconds=0) as tier:
        await got(tier, 0, 0, 0)
        store.gate.set()
        async with asyncio.timeout(20):
            while store.at_once:
                await asyncio.sleep(0)
        assert tier.problem is not None
        assert (tier.counts.errors, tier.counts.hits) == (3, 0)


async def test_who_waits_when_it_is_closed_gets_a_miss(store: ScriptedStore) -> None:
    store.gate.clear()
    with opened(store) as tier:
        asking = asyncio.create_task(got(tier, 0))
        await store.until_asked()
    assert await asking == [None]
    assert (tier.counts.errors, tier.counts.misses, tier.problem) == (0, 0, None)
    store.gate.set()


async def test_what_comes_of_it_counts_though_who_asked_was_cancelled(store: ScriptedStore) -> None:
    clock = Clock()
    with opened(store, clock=clock) as tier:
        await failing(tier, store)
        clock.now += PROBE_SECONDS
        store.failure = None
        store.gate.clear()
        probe = asyncio.create_task(got(tier, 0))
        await store.until_asked(4)
        probe.cancel()
        with pytest.raises(asyncio.CancelledError):
            await probe
        assert tier.problem is not None
        store.gate.set()
        async with asyncio.timeout(20):
            while tier.problem is not None:
                await asyncio.sleep(0)
        assert tier.counts.hits == 1


class Panic(BaseException):
    """As obstore's, which is no Exception."""


async def test_a_bug_is_a_miss_of_this_image_alone(store: ScriptedStore) -> None:
    store.failure = Panic("at the disco")
    with opened(store) as tier, capture_logs() as logs:
        assert await got(tier, 0, 1, 2, 3, 3) == [None] * 5
        assert (tier.counts.errors, tier.problem) == (4, None)
    assert [(line["event"], line["message"]) for line in logs] == [
        (
            "image.rejected",
            f"an object of the store is not given to clients: memory://images: get {key()}:"
            " Panic: at the disco: this is a bug in imgproxy-cache: please report it",
        )
    ]


async def cancelled(tier: StoreTier, store: ScriptedStore) -> None:
    store.gate.clear()
    before = len(store.asked)
    asking = asyncio.create_task(got(tier, 0))
    while not asking.done() and len(store.asked) == before:
        await asyncio.sleep(0)
    asking.cancel()
    store.gate.set()
    await asyncio.wait([asking])


OUTCOMES: dict[str, BaseException | None] = {
    "works": None,
    "fails": UNREACHABLE,
    "is closed to us": DENIED,
    "crashes": Panic(),
}


@settings(max_examples=100)
@given(
    steps=st.lists(
        st.sampled_from([*OUTCOMES, "time passes", "cancelled"]),
        max_size=30,
    )
)
async def test_whatever_happened_a_store_that_works_again_is_asked_again(steps: list[str]) -> None:
    store, clock = ScriptedStore({key(): image()}), Clock()
    with opened(store, clock=clock, miss_seconds=0) as tier:
        for step in steps:
            if step == "time passes":
                clock.now += 3
            elif step == "cancelled":
                await cancelled(tier, store)
            else:
                store.failure = OUTCOMES[step]
                assert await got(tier, 0) in ([None], [stored_answer()])
        store.failure = None
        async with asyncio.timeout(20):
            while await got(tier, 0) == [None]:
                clock.now += 60
                await asyncio.sleep(0)
        assert tier.problem is None
