"""Keys that are remembered for a while, as many as agreed."""

import pytest

from imgproxy_cache.core.key import Key
from imgproxy_cache.tiers.recent_keys import RecentKeys
from tests.tiers.tiers import Clock

A, B, C = Key("a" * 32), Key("b" * 32), Key("c" * 32)


def recent(clock: Clock, *, seconds: float = 30, max_items: int = 100) -> RecentKeys:
    return RecentKeys(seconds=seconds, max_items=max_items, clock=clock)


def test_a_key_is_remembered_for_its_time() -> None:
    clock = Clock()
    keys = recent(clock)
    keys.add(A)
    clock.now += 29.9
    assert A in keys
    assert B not in keys
    clock.now += 0.1
    assert A not in keys


def test_a_key_that_is_added_again_has_its_time_again() -> None:
    clock = Clock()
    keys = recent(clock)
    keys.add(A)
    clock.now += 20
    keys.add(B)
    keys.add(A)
    clock.now += 20
    assert (A in keys, B in keys) == (True, True)
    clock.now += 10
    assert (A in keys, B in keys) == (False, False)


def test_a_key_may_be_forgotten() -> None:
    keys = recent(Clock())
    keys.add(A)
    keys.discard(A)
    keys.discard(B)
    assert A not in keys


def test_the_oldest_leave_where_there_is_no_room() -> None:
    clock = Clock()
    keys = recent(clock, max_items=2)
    for key in (A, B, A, C):
        keys.add(key)
        clock.now += 1
    assert (A in keys, B in keys, C in keys) == (True, False, True)


def test_what_is_over_takes_no_room() -> None:
    clock = Clock()
    keys = recent(clock)
    for number in range(50):
        keys.add(Key(f"{number:032x}"))
    clock.now += 30
    keys.add(A)
    assert len(keys) == 1


@pytest.mark.parametrize(
    ("seconds", "max_items"),
    [pytest.param(0, 100, id="no time"), pytest.param(30, 0, id="no room")],
)
def test_nothing_is_remembered(seconds: float, max_items: int) -> None:
    keys = recent(Clock(), seconds=seconds, max_items=max_items)
    keys.add(A)
    assert A not in keys
    assert len(keys) == 0
