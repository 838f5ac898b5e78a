"""
What :class:`imgproxy_cache.tiers.Tier` promises, tried on every tier there is.

A store is one for images alone: what it keeps of an answer, it gives back; it has no bounds.
"""

import tempfile
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, closing
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from imgproxy_cache.core.kept import Kept, KeptAnswer, Signpost, tier_key
from imgproxy_cache.core.location import FolderLocation, S3Location, StoreLocation
from imgproxy_cache.stores import open_store
from tests.servers.s3 import S3Server
from tests.stores.reading import buffer
from tests.tiers.answers import LIFETIMES, NOW, answer, stored_answer
from tests.tiers.tiers import MIB, InMemory, InStore, Settled, disk_folder, disk_tier

OpenTier = Callable[..., AbstractAsyncContextManager[Settled]]


@asynccontextmanager
async def in_memory(*, max_bytes: int = 8 * MIB, max_items: int = 100) -> AsyncIterator[Settled]:
    yield InMemory(max_bytes=max_bytes, max_items=max_items)


@asynccontextmanager
async def on_disk(*, max_bytes: int = 8 * MIB, max_items: int = 100) -> AsyncIterator[Settled]:
    with tempfile.TemporaryDirectory() as root:
        folder = disk_folder(Path(root), max_bytes=max_bytes, max_items=max_items)
        async with disk_tier(folder) as tier:
            yield tier


@asynccontextmanager
async def in_store(location: StoreLocation) -> AsyncIterator[Settled]:
    async with open_store(location) as store, store.reader(buffer()) as reader:
        with closing(InStore(store, reader)) as tier:
            yield tier


LOCAL: dict[str, OpenTier] = {"memory": in_memory, "disk": on_disk}


@pytest.fixture(params=LOCAL)
def open_tier(request: pytest.FixtureRequest) -> OpenTier:
    return LOCAL[request.param]


@pytest.fixture
async def tier(open_tier: OpenTier) -> AsyncIterator[Settled]:
    async with open_tier() as tier:
        yield tier


@dataclass(frozen=True)
class Kind:
    """A kind of tier, and answers that it gives back as they were put."""

    open: OpenTier
    answer: Callable[..., KeptAnswer]


@pytest.fixture(params=[*LOCAL, "folder", "s3"])
def kind(request: pytest.FixtureRequest) -> Kind:
    if request.param in LOCAL:
        return Kind(LOCAL[request.param], answer)
    location: Callable[[], StoreLocation] = request.getfixturevalue(f"in_{request.param}")
    return Kind(lambda **_bounds: in_store(location()), stored_answer)


@pytest.fixture
def in_folder(tmp_path: Path) -> Callable[[], StoreLocation]:
    return lambda: FolderLocation(str(tmp_path / uuid.uuid4().hex))


@pytest.fixture
def in_s3(s3: S3Server, no_cloud: pytest.MonkeyPatch) -> Callable[[], StoreLocation]:
    for name, value in s3.environ.items():
        no_cloud.setenv(name, value)
    bucket = s3.make_bucket(f"images-{uuid.uuid4().hex}")
    return lambda: S3Location(bucket, uuid.uuid4().hex, s3.endpoint, "auto")


@pytest.fixture
async def each_tier(kind: Kind) -> AsyncIterator[Settled]:
    async with kind.open() as tier:
        yield tier


KEY = tier_key(answer().name)


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"hello world", id="usual"),
        pytest.param(b"", id="empty"),
        pytest.param(bytes(range(256)) * 2000, id="large"),
    ],
)
async def test_what_was_put_is_found_as_it_was(each_tier: Settled, kind: Kind, body: bytes) -> None:
    kept = kind.answer(body=body)
    each_tier.put(KEY, kept)
    assert await each_tier.get(KEY) == kept, "at once"
    await each_tier.settle()
    assert await each_tier.get(KEY) == kept, "when it is where it belongs"
    assert await each_tier.get(KEY) == kept, "and again"


@pytest.mark.parametrize(
    "kept",
    [
        pytest.param(answer(), id="usual"),
        pytest.param(replace(answer(), etag=None), id="no entity tag"),
        pytest.param(replace(answer(), status=404), id="not found"),
        pytest.param(
            answer(fields=((b"Vary", b"Accept"), (b"vary", b"DPR"), (b"X-Name", b"\xff\xfe\x80"))),
            id="fields as they came",
        ),
        pytest.param(answer(selection=((b"accept", b"image/webp"),)), id="variant"),
        pytest.param(Signpost(b"/name", (b"accept", b"dpr")), id="signpost"),
        pytest.param(
            answer(lifetimes=LIFETIMES._replace(fresh_until=NOW - 1, stale_if_error_until=NOW - 1)),
            id="expired",
        ),
    ],
)
async def test_all_of_an_answer_is_found_as_it_was(tier: Settled, kept: Kept) -> None:
    key = tier_key(kept.name, getattr(kept, "selection", ()))
    tier.put(key, kept)
    assert await tier.get(key) == kept, "at once"
    await tier.settle()
    assert await tier.get(key) == kept, "when it is where it belongs"
    assert await tier.get(key) == kept, "and again"


async def test_what_was_not_put_is_not_found(each_tier: Settled, kind: Kind) -> None:
    each_tier.put(KEY, kind.answer())
    assert await each_tier.get(tier_key(kind.answer(1).name)) is None


async def test_variants_and_their_signpost_are_kept_apart(tier: Settled) -> None:
    kept: list[Kept] = [
        Signpost(answer().name, (b"accept",)),
        answer(body=b"webp", selection=((b"accept", b"image/webp"),)),
        answer(body=b"avif", selection=((b"accept", b"image/avif"),)),
    ]
    keys = [tier_key(one.name, getattr(one, "selection", ())) for one in kept]
    for key, one in zip(keys, kept, strict=True):
        tier.put(key, one)
    await tier.settle()
    assert [await tier.get(key) for key in keys] == kept


async def test_a_later_put_takes_the_place_of_an_earlier_one(
    each_tier: Settled, kind: Kind
) -> None:
    each_tier.put(KEY, kind.answer(body=b"earlier"))
    await each_tier.settle()
    assert await each_tier.get(KEY) == kind.answer(body=b"earlier")
    each_tier.put(KEY, kind.answer(body=b"between"))
    each_tier.put(KEY, kind.answer(body=b"later"))
    assert await each_tier.get(KEY) == kind.answer(body=b"later")
    await each_tier.settle()
    assert await each_tier.get(KEY) == kind.answer(body=b"later")


async def test_a_signpost_takes_the_place_of_an_answer(tier: Settled) -> None:
    tier.put(KEY, answer())
    await tier.settle()
    signpost = Signpost(answer().name, (b"accept",))
    tier.put(KEY, signpost)
    await tier.settle()
    assert await tier.get(KEY) == signpost


async def test_what_is_removed_is_gone_at_once(each_tier: Settled, kind: Kind) -> None:
    each_tier.put(KEY, kind.answer())
    await each_tier.settle()
    assert await each_tier.get(KEY) == kind.answer()
    each_tier.remove(KEY)
    assert await each_tier.get(KEY) is None
    await each_tier.settle()
    assert await each_tier.get(KEY) is None
    assert (each_tier.counts.items, each_tier.counts.bytes) == (0, 0)


async def test_what_is_removed_before_it_is_where_it_belongs_is_gone(
    each_tier: Settled, kind: Kind
) -> None:
    each_tier.put(KEY, kind.answer())
    each_tier.remove(KEY)
    await each_tier.settle()
    assert await each_tier.get(KEY) is None


async def test_what_is_not_there_may_be_removed(each_tier: Settled) -> None:
    each_tier.remove(KEY)
    await each_tier.settle()
    assert await each_tier.get(KEY) is None


async def test_more_than_an_eighth_is_not_taken_and_what_was_there_is_gone(
    tier: Settled,
) -> None:
    tier.put(KEY, answer())
    await tier.settle()
    tier.put(KEY, answer(body=bytes(MIB + 1)))
    await tier.settle()
    assert await tier.get(KEY) is None
    assert (tier.counts.refused, tier.counts.items, tier.counts.bytes) == (1, 0, 0)


async def test_no_room_holds_nothing(open_tier: OpenTier) -> None:
    async with open_tier(max_bytes=0) as tier:
        tier.put(KEY, answer())
        await tier.settle()
        assert await tier.get(KEY) is None
        assert (tier.counts.items, tier.counts.bytes) == (0, 0)


@pytest.mark.parametrize(
    ("max_bytes", "max_items", "size"),
    [
        pytest.param(2 * MIB, 1000, 100_000, id="bytes"),
        pytest.param(64 * MIB, 10, 100, id="items"),
    ],
)
async def test_it_takes_no_more_than_its_bounds_allow(
    open_tier: OpenTier, max_bytes: int, max_items: int, size: int
) -> None:
    async with open_tier(max_bytes=max_bytes, max_items=max_items) as tier:
        for number in range(100):
            tier.put(tier_key(answer(number).name), answer(number, bytes(size)))
            await tier.settle()
            assert tier.counts.bytes <= max_bytes
            assert tier.counts.items <= max_items
        found = [await tier.get(tier_key(answer(number).name)) for number in range(100)]
        kept = {number for number, one in enumerate(found) if one is not None}
        assert 5 <= len(kept) <= 20
        assert 99 in kept
        assert all(found[number] == answer(number, bytes(size)) for number in kept)
        assert tier.counts.items == len(kept)
        assert tier.counts.evictions == 100 - len(kept)


async def test_what_happens_is_counted(each_tier: Settled, kind: Kind) -> None:
    each_tier.put(KEY, kind.answer())
    await each_tier.get(KEY)
    await each_tier.settle()
    await each_tier.get(KEY)
    await each_tier.get(KEY)
    await each_tier.get(tier_key(b"/other"))
    counts = each_tier.counts
    assert (counts.hits, counts.misses) == (3, 1)
    assert (counts.refused, counts.broken, counts.errors) == (0, 0, 0)


async def test_what_is_put_is_counted(tier: Settled) -> None:
    tier.put(KEY, answer(body=b"earlier"))
    await tier.settle()
    tier.put(KEY, answer())
    await tier.settle()
    counts = tier.counts
    assert (counts.puts, counts.items, counts.refused) == (2, 1, 0)
    assert counts.bytes >= len(answer().body)


@settings(max_examples=50, suppress_health_check=list(HealthCheck))
@given(
    steps=st.lists(
        st.tuples(st.sampled_from(["put", "get", "remove", "settle"]), st.integers(0, 6)),
        max_size=60,
    )
)
async def test_what_is_found_is_what_was_put_last(kind: Kind, steps: list[tuple[str, int]]) -> None:
    async with kind.open(max_bytes=200_000, max_items=5) as tier:
        last: dict[int, KeptAnswer] = {}
        for position, (step, number) in enumerate(steps):
            key = tier_key(kind.answer(number).name)
            if step == "put":
                last[number] = kind.answer(number, b"%d" % position * (position + 1) * 100)
                tier.put(key, last[number])
            elif step == "remove":
                last.pop(number, None)
                tier.remove(key)
            elif step == "settle":
                await tier.settle()
            else:
                assert await tier.get(key) in (None, last.get(number))
        await tier.settle()
        for number in range(7):
            found = await tier.get(tier_key(kind.answer(number).name))
            assert found in (None, last.get(number))
        assert tier.counts.items <= 5
        assert tier.counts.bytes <= 200_000
        assert tier.counts.broken == tier.counts.errors == 0
