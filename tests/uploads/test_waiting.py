"""Which image is next: oldest first, the newest of each key, one at a time."""

import pytest

from imgproxy_cache.core.key import Key
from imgproxy_cache.uploads.pending import Pending, Upload
from imgproxy_cache.uploads.waiting import Waiting

A, B = Key("a" * 32), Key("b" * 32)


def pending(key: Key, at: float, size: int = 10, *, in_memory: bool = True) -> Pending:
    upload = Upload(key, b"/", (bytes(size),), size, "image/jpeg", None, None)
    return Pending(key, at, 0, size, upload if in_memory else None)


def taken(waiting: Waiting) -> Pending | None:
    found = waiting.next()
    if found is not None:
        waiting.take(found)
    return found


def test_the_oldest_is_next() -> None:
    waiting = Waiting()
    older, newer = pending(A, 1), pending(B, 2)
    assert waiting.add(newer) is None
    assert waiting.add(older) is None
    assert waiting.oldest is older
    assert [taken(waiting), taken(waiting), taken(waiting)] == [older, newer, None]


def test_a_newer_image_of_a_key_takes_the_place_of_one_that_waits() -> None:
    waiting = Waiting()
    older, newer = pending(A, 1), pending(A, 2)
    waiting.add(older)
    assert waiting.add(newer) is older
    waiting.finish(older)
    assert (len(waiting), taken(waiting), taken(waiting)) == (1, newer, None)


def test_an_older_image_of_a_key_does_not() -> None:
    waiting = Waiting()
    older, newer = pending(A, 1, in_memory=False), pending(A, 2)
    waiting.add(newer)
    assert waiting.add(older) is older
    waiting.finish(older)
    assert (len(waiting), taken(waiting)) == (1, newer)


def test_of_a_key_one_is_on_its_way_and_the_newer_one_follows() -> None:
    waiting = Waiting()
    first, second, third = pending(A, 1), pending(A, 2), pending(A, 3)
    waiting.add(first)
    assert taken(waiting) is first
    assert waiting.add(second) is None, "what is on its way is not taken back"
    assert waiting.is_superseded(first)
    assert waiting.next() is None
    assert waiting.add(third) is second
    waiting.finish(second)
    waiting.finish(first)
    waiting.arrived(first)
    assert taken(waiting) is third


def test_what_failed_comes_back_in_the_order_that_it_is_given() -> None:
    waiting = Waiting()
    first, second = pending(A, 1), pending(B, 2)
    waiting.add(first)
    waiting.add(second)
    assert taken(waiting) is first
    waiting.put_back(first, 9)
    waiting.arrived(first)
    assert [taken(waiting), taken(waiting)] == [second, first]
    assert waiting.oldest is first


def test_memory_is_what_is_held_and_what_is_read() -> None:
    waiting = Waiting()
    in_memory, in_spool = pending(A, 1, 100), pending(B, 2, 20, in_memory=False)
    waiting.add(in_memory)
    waiting.add(in_spool)
    assert (waiting.items, waiting.bytes) == (1, 100)
    waiting.release(in_memory)
    waiting.release(in_memory)
    assert (waiting.items, waiting.bytes) == (0, 0)
    assert taken(waiting) is in_memory
    assert taken(waiting) is in_spool
    assert (waiting.items, waiting.bytes) == (0, 120)
    for one in (in_memory, in_spool):
        waiting.finish(one)
        waiting.arrived(one)
    assert (len(waiting), waiting.items, waiting.bytes) == (0, 0, 0)


@pytest.mark.parametrize("behind", ["poisoned", "superseded"])
def test_what_is_done_takes_no_memory_for_ever(behind: str) -> None:
    waiting = Waiting()
    stays = pending(B, 0)
    waiting.add(stays)
    for number in range(1, 20_000):
        key = A if behind == "superseded" else Key(f"{number:032x}")
        done = pending(key, number)
        older = waiting.add(done)
        if behind == "poisoned":
            waiting.finish(done)
        elif older is not None:
            waiting.finish(older)
    assert len(waiting) <= 2
    assert len(waiting._ready) < 2000
    assert len(waiting._by_age) < 2000
    assert waiting.oldest is stays
