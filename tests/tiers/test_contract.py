"""What :class:`imgproxy_cache.tiers.Tier` promises, tried on every tier there is."""

import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from imgproxy_cache.core.kept import Kept, KeptAnswer, Signpost, tier_key
from tests.tiers.answers import LIFETIMES, NOW, answer
from tests.tiers.tiers import MIB, InMemory, Settled, disk_folder, disk_tier

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


@pytest.fixture(params=[in_memory, on_disk], ids=["memory", "disk"])
def open_tier(request: pytest.FixtureRequest) -> OpenTier:
    found: OpenTier = request.param
    return found


@pytest.fixture
async def tier(open_tier: OpenTier) -> AsyncIterator[Settled]:
    async with open_tier() as tier:
        yield tier


KEY = tier_key(answer().name)


@pytest.mark.parametrize(
    "kept",
    [
        pytest.param(answer(), id="usual"),
        pytest.param(answer(body=b""), id="empty"),
        pytest.param(answer(body=bytes(range(256)) * 2000), id="large"),
        pytest.param(replace(answer(), etag=None), id="no entity tag"),
        pytest.param(replace(answer(), status=404), id="not found"),
        pytest.param(
            answer(fields=((b"Vary", b"Accept"), (b"vary", b"DPR"), (b"X-Name", b"\xff\xfe\x80"))),
            id="fields as they came",
        ),
        pytest.param(answer(selection=((b"accept", b"image/webp"),)), id="variant"),
        pytest.param(Signpost(b"/name", (b"accept", b"dpr")), id="signpost"),
        pytest.param(
            answer(lifetimes=replace(LIFETIMES, fresh_until=NOW - 1, stale_if_error_until=NOW - 1)),
            id="expired",
        ),
    ],
)
async def test_what_was_put_is_found_as_it_was(tier: Settled, kept: Kept) -> None:
    key = tier_key(kept.name, getattr(kept, "selection", ()))
    tier.put(key, kept)
    assert await tier.get(key) == kept, "at once"
    await tier.settle()
    assert await tier.get(key) == kept, "when it is where it belongs"
    assert await tier.get(key) == kept, "and again"


async def test_what_was_not_put_is_not_found(tier: Settled) -> None:
    tier.put(KEY, answer())
    assert await tier.get(tier_key(answer(1).name)) is None


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


async def test_a_later_put_takes_the_place_of_an_earlier_one(tier: Settled) -> None:
    tier.put(KEY, answer(body=b"earlier"))
    await tier.settle()
    assert await tier.get(KEY) == answer(body=b"earlier")
    tier.put(KEY, answer(body=b"between"))
    tier.put(KEY, answer(body=b"later"))
    assert await tier.get(KEY) == answer(body=b"later")
    await tier.settle()
    assert await tier.get(KEY) == answer(body=b"later")
    assert tier.counts.items == 1


async def test_a_signpost_takes_the_place_of_an_answer(tier: Settled) -> None:
    tier.put(KEY, answer())
    await tier.settle()
    signpost = Signpost(answer().name, (b"accept",))
    tier.put(KEY, signpost)
    await tier.settle()
    assert await tier.get(KEY) == signpost


async def test_what_is_removed_is_gone_at_once(tier: Settled) -> None:
    tier.put(KEY, answer())
    await tier.settle()
    assert await tier.get(KEY) == answer()
    tier.remove(KEY)
    assert await tier.get(KEY) is None
    await tier.settle()
    assert await tier.get(KEY) is None
    assert (tier.counts.items, tier.counts.bytes) == (0, 0)


async def test_what_is_removed_before_it_is_where_it_belongs_is_gone(tier: Settled) -> None:
    tier.put(KEY, answer())
    tier.remove(KEY)
    await tier.settle()
    assert await tier.get(KEY) is None


async def test_what_is_not_there_may_be_removed(tier: Settled) -> None:
    tier.remove(KEY)
    await tier.settle()
    assert await tier.get(KEY) is None


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


async def test_what_happens_is_counted(tier: Settled) -> None:
    tier.put(KEY, answer())
    await tier.get(KEY)
    await tier.settle()
    await tier.get(KEY)
    await tier.get(KEY)
    await tier.get(tier_key(b"/other"))
    counts = tier.counts
    assert (counts.puts, counts.hits, counts.misses) == (1, 3, 1)
    assert (counts.items, counts.refused, counts.broken, counts.errors) == (1, 0, 0, 0)
    assert counts.bytes >= len(answer().body)


def variation(number: int, step: int) -> KeptAnswer:
    body = b"%d" % step * (step + 1) * 100
    return replace(answer(number), body=body, content_sha256=sha256(body).hexdigest())


@settings(max_examples=50, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    steps=st.lists(
        st.tuples(st.sampled_from(["put", "get", "remove", "settle"]), st.integers(0, 6)),
        max_size=60,
    )
)
async def test_what_is_found_is_what_was_put_last(
    open_tier: OpenTier, steps: list[tuple[str, int]]
) -> None:
    async with open_tier(max_bytes=200_000, max_items=5) as tier:
        last: dict[int, KeptAnswer] = {}
        for position, (step, number) in enumerate(steps):
            key = tier_key(answer(number).name)
            if step == "put":
                last[number] = variation(number, position)
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
            found = await tier.get(tier_key(answer(number).name))
            assert found in (None, last.get(number))
        assert tier.counts.items <= 5
        assert tier.counts.bytes <= 200_000
        assert tier.counts.broken == tier.counts.errors == 0
