"""Requests that search for the same in the store at once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import closing

import pytest

from imgproxy_cache.core.image import image_from_answer
from imgproxy_cache.core.key import Key
from imgproxy_cache.core.policy import StorageRules
from imgproxy_cache.core.request import UNREAD, Request
from imgproxy_cache.read_through import Found, ReadThrough, found_in
from imgproxy_cache.stores.reader import Get, Outcome
from imgproxy_cache.tiers.store import StoreTier
from tests.read_through.parts import fields_for_tiers, read_through
from tests.tiers.answers import answer

TARGET = b"/_/w:1/plain/local:///a.jpg"
IMAGE = image_from_answer(
    path=TARGET,
    body=b"image",
    content_type="image/jpeg",
    cache_control="max-age=3600",
    content_disposition=None,
    at=1_770_000_000.0,
)


class Asked:
    """A reader that answers when it is told to; and each of its gets."""

    place = "memory://images"
    has_begun = True

    def __init__(self) -> None:
        self.told: list[Callable[[Outcome], None]] = []

    def get(self, key: Key, max_bytes: int, tell: Callable[[Outcome], None]) -> Get:
        self.told.append(tell)
        return self

    def abandon(self) -> None:
        pass


@pytest.fixture
def store() -> Asked:
    return Asked()


@pytest.fixture
async def tiers(store: Asked) -> AsyncIterator[ReadThrough]:
    with closing(
        StoreTier(
            store,
            miss_seconds=60,
            miss_items=10,
            max_bytes=1000,
            stale_while_revalidate_seconds=0,
            stale_if_error_seconds=0,
        )
    ) as tier:
        yield read_through(tier)


def searches(
    tiers: ReadThrough, number: int, stale: Found | None = None
) -> list[asyncio.Task[Found | None]]:
    fields = fields_for_tiers([(b"host", b"h")])
    path = Request("GET", TARGET, fields, None, UNREAD, StorageRules()).path
    resource = tiers.resource(TARGET, path)
    assert resource is not None
    asked = Request("GET", TARGET, fields, resource, path, StorageRules())
    return [asyncio.create_task(tiers.search(asked, resource, stale)) for _ in range(number)]


async def test_the_store_is_asked_once_for_all_of_them(tiers: ReadThrough, store: Asked) -> None:
    for number in (1, 3, 2):
        waiting = searches(tiers, number)
        await asyncio.sleep(0)  # each has begun
        [tell] = store.told
        tell(IMAGE)
        found = await asyncio.gather(*waiting)
        assert [one.kept.body for one in found if one is not None] == [b"image"] * number
        store.told.clear()


async def test_one_who_waits_and_goes_takes_nothing_from_the_others(
    tiers: ReadThrough, store: Asked
) -> None:
    first, second, third = searches(tiers, 3)
    await asyncio.sleep(0)
    second.cancel()
    await asyncio.wait([second])
    store.told[0](IMAGE)
    found = await asyncio.gather(first, third)

    assert second.cancelled()
    assert [one.kept.body for one in found if one is not None] == [b"image"] * 2
    assert len(store.told) == 1


async def test_with_the_one_who_asked_the_others_get_a_miss(
    tiers: ReadThrough, store: Asked
) -> None:
    first, second = searches(tiers, 2)
    await asyncio.sleep(0)
    first.cancel()

    assert await second is None
    [later] = searches(tiers, 1)
    await asyncio.sleep(0)
    store.told[1](IMAGE)
    assert await later is not None


async def test_who_has_something_stale_keeps_it_where_another_finds_nothing(
    tiers: ReadThrough, store: Asked
) -> None:
    stale = found_in(b"memory", answer())
    [first] = searches(tiers, 1)
    [second] = searches(tiers, 1, stale)
    await asyncio.sleep(0)
    store.told[0](None)

    assert (await first, await second) == (None, stale)
