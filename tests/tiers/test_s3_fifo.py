"""S3-FIFO: what stays, what goes, and that nothing outgrows its bounds."""

from collections.abc import Callable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imgproxy_cache.tiers.s3_fifo import GHOST_BYTES, S3Fifo

# Ten of them fit, with their ghosts.
SIZE = 10 * GHOST_BYTES


def queue(room_for: int, *, max_items: int = 1000) -> S3Fifo[int]:
    return S3Fifo(max_bytes=room_for * SIZE + room_for * GHOST_BYTES, max_items=max_items)


def put(entries: S3Fifo[int], numbers: Sequence[int]) -> None:
    for number in numbers:
        entries.put(b"%d" % number, number, SIZE)


def there(entries: S3Fifo[int], numbers: Sequence[int]) -> list[int]:
    return [number for number in numbers if entries.find(b"%d" % number) is not None]


def leave_main(entries: S3Fifo[int]) -> None:
    there(entries, (1,))
    for number in range(100, 200):
        put(entries, (number,))
        there(entries, (number,))


def test_what_was_asked_for_again_outlives_what_was_not() -> None:
    entries = queue(10)
    put(entries, range(10))
    there(entries, (2, 5))
    put(entries, range(10, 30))
    assert there(entries, range(20)) == [2, 5]


def test_a_scan_pushes_nothing_out_of_the_main_queue() -> None:
    entries = queue(10)
    put(entries, range(10))
    there(entries, range(8))
    put(entries, range(1000, 2000))
    assert there(entries, range(10)) == list(range(8))


def test_what_comes_back_soon_after_it_left_is_kept_longer() -> None:
    entries = queue(10)
    put(entries, range(14))
    assert there(entries, (0, 1)) == []
    put(entries, (0,))
    put(entries, range(100, 200))
    assert there(entries, (0, 1)) == [0]


def test_what_is_no_longer_asked_for_leaves_in_the_end() -> None:
    entries = queue(10)
    put(entries, range(10))
    there(entries, range(10))
    for number in range(100, 200):
        put(entries, (number,))
        there(entries, (number,))
    assert there(entries, range(10)) == []


def test_a_later_value_takes_the_place_of_the_earlier() -> None:
    entries = queue(10)
    entries.put(b"1", 1, SIZE)
    entries.put(b"1", 2, SIZE // 2)
    assert (entries.find(b"1"), len(entries), entries.size) == (2, 1, SIZE // 2)


def test_a_later_value_without_room_takes_the_earlier_along() -> None:
    entries = queue(10)
    entries.put(b"1", 1, SIZE)
    assert not entries.put(b"1", 2, 100 * SIZE)
    assert (entries.find(b"1"), len(entries), entries.size) == (None, 0, 0)


@pytest.mark.parametrize(
    "leave",
    [
        pytest.param(lambda entries: entries.remove(b"1"), id="removed"),
        pytest.param(lambda entries: entries.put(b"1", 2, SIZE), id="replaced"),
        pytest.param(
            lambda entries: put(entries, range(10, 30)), id="evicted from the small queue"
        ),
        pytest.param(leave_main, id="evicted from the main queue"),
    ],
)
def test_an_entry_has_its_value_until_it_is_gone(leave: Callable[[S3Fifo[int]], object]) -> None:
    entries = queue(10)
    put(entries, (1,))
    entry = entries.entry(b"1")
    assert entry is not None
    assert entry.value == 1
    leave(entries)
    assert entry.value is None


def test_visits_of_an_entry_count_like_those_of_find() -> None:
    entries = queue(10)
    put(entries, range(10))
    for number in (2, 5):
        entry = entries.entry(b"%d" % number)
        assert entry is not None
        entry.visits += 1
    put(entries, range(10, 30))
    assert there(entries, range(20)) == [2, 5]


def test_the_number_of_items_is_bounded_as_well() -> None:
    entries = queue(10, max_items=3)
    put(entries, range(10))
    assert there(entries, range(10)) == [7, 8, 9]
    assert entries.evictions == 7


def test_no_room_holds_nothing() -> None:
    entries = queue(0)
    put(entries, range(10))
    assert (there(entries, range(10)), len(entries), entries.size) == ([], 0, 0)


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["put", "find", "remove"]),
            st.integers(0, 20),
            st.integers(0, 30 * GHOST_BYTES),
        ),
        max_size=200,
    )
)
def test_bounds_hold_and_values_are_those_that_were_put_last(
    steps: list[tuple[str, int, int]],
) -> None:
    entries: S3Fifo[int] = S3Fifo(max_bytes=100 * GHOST_BYTES, max_items=8)
    last: dict[int, int] = {}
    sizes: dict[int, int] = {}
    for position, (step, number, size) in enumerate(steps):
        key = b"%d" % number
        if step == "put":
            assert entries.put(key, position, size)
            last[number], sizes[number] = position, size
        elif step == "remove":
            entries.remove(key)
            last.pop(number, None)
        else:
            assert entries.find(key) in (last.get(number), None)
        found = there(entries, range(21))
        assert len(entries) == len(found) <= 8
        assert set(found) <= set(last)
        taken = sum(sizes[number] for number in found)
        assert taken <= entries.size <= 100 * GHOST_BYTES
        assert (entries.size - taken) % GHOST_BYTES == 0
