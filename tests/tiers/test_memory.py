"""The memory tier: answers ready for the wire, and honest about what they take."""

import gc
import tracemalloc
from dataclasses import replace

import pytest

from imgproxy_cache.core.hit import HitHeads
from imgproxy_cache.core.kept import KeptAnswer, Signpost, tier_key
from imgproxy_cache.tiers.memory import LEAST_IN_FILE_BYTES, ONE_WRITE_BYTES, Held, MemoryTier
from tests.tiers.answers import LIFETIMES, NOW, answer
from tests.tiers.tiers import Heads, Written

MIB = 1024 * 1024


def memory(
    max_bytes: int = MIB,
    max_items: int = 1000,
    max_files: int = 10,
    heads: Heads | HitHeads | None = None,
) -> MemoryTier:
    return MemoryTier(
        max_bytes=max_bytes, max_items=max_items, max_files=max_files, heads=heads or Heads()
    )


def held(kept: KeptAnswer, *, heads: Heads | None = None, max_files: int = 10) -> Held:
    tier = memory(heads=heads, max_files=max_files)
    tier.put(tier_key(kept.name), kept)
    found = tier.find(tier_key(kept.name))
    assert isinstance(found, Held)
    return found


def given(found: Held, now: float) -> list[tuple[str, bytes]]:
    """What was written, and how."""
    wire = Written()
    assert found.give(now, wire)
    return wire.written


SMALL = b"x" * (LEAST_IN_FILE_BYTES - 1)
USUAL = b"x" * LEAST_IN_FILE_BYTES
LARGEST_USUAL = b"x" * ONE_WRITE_BYTES
LARGE = b"x" * (ONE_WRITE_BYTES + 1)
ONE_WRITE, FILE, SHARED = ["send"], ["send_file"], ["write", "write"]


@pytest.mark.parametrize(
    ("body", "max_files", "expected"),
    [
        pytest.param(b"", 10, ONE_WRITE, id="empty"),
        pytest.param(b"hello world", 10, ONE_WRITE, id="small"),
        pytest.param(SMALL, 10, ONE_WRITE, id="the largest that is copied"),
        pytest.param(USUAL, 10, FILE, id="one byte more"),
        pytest.param(USUAL, 0, ONE_WRITE, id="no file is left"),
        pytest.param(LARGEST_USUAL, 10, FILE, id="the largest in a file"),
        pytest.param(LARGEST_USUAL, 0, ONE_WRITE, id="the largest in one write"),
        pytest.param(LARGE, 10, SHARED, id="large"),
    ],
)
def test_an_answer_is_ready_for_the_wire(body: bytes, max_files: int, expected: list[str]) -> None:
    found = held(answer(body=body), max_files=max_files)
    head = b"HTTP/1.1 200\r\nContent-Length: %d\r\nAt: 1770091506.00\r\n\r\n" % len(body)
    written = given(found, 1_770_091_506.25)
    assert [how for how, _ in written] == expected
    assert b"".join(what for _, what in written) == head + body
    assert found.kept == answer(body=body)
    assert (found.metadata, found.size) == (replace(answer(body=body), body=b""), len(body))


@pytest.mark.parametrize("body", [b"hello world", USUAL, LARGE], ids=["small", "usual", "large"])
def test_its_head_is_made_once_a_second(body: bytes) -> None:
    heads = Heads()
    found = held(answer(body=body), heads=heads)
    assert heads.made == [0, 0], "a put does not pay for it"
    assert given(found, 1_770_091_506.25) == given(found, 1_770_091_506.99)
    assert heads.made == [1, 1]
    assert b"At: 1770091507.00\r\n" in given(found, 1_770_091_507.0)[0][1]
    assert b"At: 1770091500.00\r\n" in given(found, 1_770_091_500.5)[0][1], "the clock was set back"
    assert heads.made == [1, 3], "only what passes is made anew"
    assert found.kept == answer(body=body)


@pytest.mark.parametrize("body", [b"hello world", USUAL, LARGE], ids=["small", "usual", "large"])
def test_it_is_given_as_long_as_it_is_fresh(body: bytes) -> None:
    found = held(answer(body=body, lifetimes=LIFETIMES._replace(fresh_until=1_770_091_506.5)))
    wire = Written()
    times = (1_770_091_506.25, 1_770_091_506.5, 1_770_091_507.0, 1_770_091_506.25)
    assert [found.give(now, wire) for now in times] == [True, False, False, True]


def test_clients_that_read_slowly_share_one_large_body() -> None:
    kept = answer(body=LARGE)
    found = held(kept)
    assert given(found, NOW)[1][1] is given(found, NOW + 1)[1][1] is kept.body


def test_files_are_closed_with_their_answers() -> None:
    tier = memory(max_files=2)
    for number in range(3):
        tier.put(tier_key(answer(number).name), answer(number, USUAL))
    held = [tier.find(tier_key(answer(number).name)) for number in range(3)]
    assert [_way(one) for one in held] == [FILE, FILE, ONE_WRITE], "each from its first hit on"
    tier.remove(tier_key(answer(0).name))
    tier.put(tier_key(answer(3).name), answer(3, USUAL))
    assert _way(held[0]) == FILE, "somebody still has it"
    assert _way(tier.find(tier_key(answer(3).name))) == ONE_WRITE
    held.clear()
    tier.put(tier_key(answer(4).name), answer(4, USUAL))
    assert _way(tier.find(tier_key(answer(4).name))) == FILE


def _way(found: Held | Signpost | None) -> list[str]:
    assert isinstance(found, Held)
    return [how for how, _ in given(found, NOW)]


def test_a_signpost_is_found_as_it_is() -> None:
    tier = memory()
    signpost = Signpost(b"/name", (b"accept",))
    tier.put(tier_key(b"/name"), signpost)
    assert tier.find(tier_key(b"/name")) is signpost


def test_an_answer_larger_than_an_eighth_is_left_and_takes_the_earlier_along() -> None:
    tier = memory(max_bytes=80_000)
    key = tier_key(answer().name)
    tier.put(key, answer(body=b"x" * 5000))
    tier.put(key, answer(body=b"x" * 10_000))
    assert tier.find(key) is None
    assert (tier.counts.puts, tier.counts.refused, tier.counts.items, tier.counts.bytes) == (
        (1, 1, 0, 0)
    )


@pytest.mark.parametrize("max_bytes", [0, 1])
def test_no_bytes_hold_nothing(max_bytes: int) -> None:
    tier = memory(max_bytes=max_bytes)
    key = tier_key(answer().name)
    tier.put(key, answer())
    tier.put(tier_key(b"/name"), Signpost(b"/name", ()))
    assert (tier.find(key), tier.counts.items, tier.counts.bytes) == (None, 0, 0)


def test_what_happens_is_counted() -> None:
    tier = memory(max_items=2)
    for number in range(5):
        tier.put(tier_key(answer(number).name), answer(number))
    found = [tier.find(tier_key(answer(number).name)) is not None for number in range(5)]
    assert found == [False, False, False, True, True]
    counts = tier.counts
    assert (counts.hits, counts.puts, counts.evictions, counts.items) == (2, 5, 3, 2)


@pytest.mark.parametrize(
    ("fields", "size", "max_files"),
    [
        pytest.param(0, 100, 500, id="small"),
        pytest.param(12, 1000, 500, id="many fields"),
        pytest.param(6, 30_000, 0, id="usual"),
        pytest.param(6, 30_000, 500, id="in files"),
        pytest.param(6, ONE_WRITE_BYTES + 1, 500, id="large"),
    ],
)
def test_it_counts_what_interpreter_and_kernel_give_it(
    fields: int, size: int, max_files: int
) -> None:
    def fresh(number: int) -> KeptAnswer:
        """All of its objects its own, as when they came off the wire."""
        at = NOW + number
        return replace(
            answer(number, b"%06d" % number * (size // 6)),
            fields=tuple((b"X-%d-%d" % (n, number), b"value %d" % n) for n in range(fields)),
            lifetimes=LIFETIMES._replace(
                received_at=at,
                age=number * 0.1,
                fresh_until=at + 1,
                stale_while_revalidate_until=at + 2,
                stale_if_error_until=at + 3,
            ),
        )

    def fill(wire: Written) -> MemoryTier:
        tier = memory(1024 * MIB, 10_000, max_files, HitHeads(b"memory"))
        for number in range(500):
            kept = fresh(number)
            key = tier_key(kept.name)
            tier.put(key, kept)
            found = tier.find(key)
            assert isinstance(found, Held)
            found.give(NOW, wire)
        return tier

    fill(Written())  # what is made once
    gc.collect()  # what it left in the interpreter's free lists would not be seen when taken again
    wire = Written()
    tracemalloc.start()
    try:
        tier = fill(wire)
        wire.written.clear()
        taken, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert tier.counts.items == 500
    assert tier.counts.bytes == pytest.approx(taken + wire.file_bytes, rel=0.1)
