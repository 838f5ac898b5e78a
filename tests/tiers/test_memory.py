"""The memory tier: answers ready for the wire, and honest about what they take."""

import tracemalloc
from dataclasses import replace

import pytest

from imgproxy_cache.core.kept import KeptAnswer, Signpost, tier_key
from imgproxy_cache.tiers.memory import ONE_WRITE_BYTES, Held, MemoryTier
from tests.tiers.answers import LIFETIMES, NOW, answer

MIB = 1024 * 1024


class Heads:
    """Heads that say when they were made, and of what."""

    def __init__(self) -> None:
        self.made = 0

    def __call__(self, metadata: KeptAnswer, size: int, now: float) -> bytes:
        self.made += 1
        return b"HTTP/1.1 %d\r\nContent-Length: %d\r\nAt: %.2f\r\n\r\n" % (
            metadata.status,
            size,
            now,
        )


def memory(max_bytes: int = MIB, max_items: int = 1000, heads: Heads | None = None) -> MemoryTier:
    return MemoryTier(max_bytes=max_bytes, max_items=max_items, head_at=heads or Heads())


def held(kept: KeptAnswer, heads: Heads | None = None) -> Held:
    tier = memory(heads=heads)
    tier.put(tier_key(kept.name), kept)
    found = tier.find(tier_key(kept.name))
    assert isinstance(found, Held)
    return found


SMALL, LARGE = b"x" * ONE_WRITE_BYTES, b"x" * (ONE_WRITE_BYTES + 1)


@pytest.mark.parametrize(
    ("body", "in_one"),
    [
        pytest.param(b"", True, id="empty"),
        pytest.param(b"hello world", True, id="small"),
        pytest.param(SMALL, True, id="the largest that is written at once"),
        pytest.param(LARGE, False, id="one byte more"),
    ],
)
def test_an_answer_is_ready_for_the_wire(body: bytes, in_one: bool) -> None:
    found = held(answer(body=body))
    head = b"HTTP/1.1 200\r\nContent-Length: %d\r\nAt: 1770091506.00\r\n\r\n" % len(body)
    assert found.wire_at(1_770_091_506.25) == head + (body if in_one else b"")
    assert found.rest == (b"" if in_one else body)
    assert found.head_at(1_770_091_506.25) == head
    assert found.kept == answer(body=body)
    assert (found.metadata, found.size) == (replace(answer(body=body), body=b""), len(body))


@pytest.mark.parametrize("body", [b"hello world", LARGE], ids=["small", "large"])
def test_its_head_is_made_once_a_second(body: bytes) -> None:
    heads = Heads()
    found = held(answer(body=body), heads)
    assert heads.made == 0, "a put does not pay for it"
    assert found.wire_at(1_770_091_506.25) is found.wire_at(1_770_091_506.99)
    assert heads.made == 1
    assert b"At: 1770091507.00\r\n" in found.wire_at(1_770_091_507.0)
    assert b"At: 1770091500.00\r\n" in found.wire_at(1_770_091_500.5), "the clock was set back"
    assert heads.made == 3
    assert found.kept == answer(body=body)


def test_clients_that_read_slowly_share_one_large_body() -> None:
    found = held(answer(body=LARGE))
    found.wire_at(NOW)
    before = found.rest
    found.wire_at(NOW + 1)
    assert found.rest is before


def test_a_signpost_is_found_as_it_is() -> None:
    tier = memory()
    signpost = Signpost(b"/name", (b"accept",))
    tier.put(tier_key(b"/name"), signpost)
    assert tier.find(tier_key(b"/name")) is signpost
    assert tier.get(tier_key(b"/name")) is signpost


def test_an_answer_larger_than_an_eighth_is_left_and_takes_the_earlier_along() -> None:
    tier = memory(max_bytes=80_000)
    key = tier_key(answer().name)
    tier.put(key, answer(body=b"x" * 5000))
    tier.put(key, answer(body=b"x" * 10_000))
    assert tier.get(key) is None
    assert (tier.counts.puts, tier.counts.refused, tier.counts.items, tier.counts.bytes) == (
        (1, 1, 0, 0)
    )


@pytest.mark.parametrize("max_bytes", [0, 1])
def test_no_bytes_hold_nothing(max_bytes: int) -> None:
    tier = memory(max_bytes=max_bytes)
    key = tier_key(answer().name)
    tier.put(key, answer())
    tier.put(tier_key(b"/name"), Signpost(b"/name", ()))
    assert (tier.get(key), tier.counts.items, tier.counts.bytes) == (None, 0, 0)


def test_what_happens_is_counted() -> None:
    tier = memory(max_items=2)
    for number in range(5):
        tier.put(tier_key(answer(number).name), answer(number))
    found = [tier.get(tier_key(answer(number).name)) is not None for number in range(5)]
    assert found == [False, False, False, True, True]
    counts = tier.counts
    assert (counts.hits, counts.misses, counts.puts, counts.evictions, counts.items) == (
        (2, 3, 5, 3, 2)
    )


@pytest.mark.parametrize(
    ("fields", "size"),
    [
        pytest.param(0, 100, id="small"),
        pytest.param(12, 1000, id="many fields"),
        pytest.param(6, 30_000, id="usual"),
        pytest.param(6, ONE_WRITE_BYTES + 1, id="large"),
    ],
)
def test_it_counts_what_the_interpreter_gives_it(fields: int, size: int) -> None:
    def fresh(number: int) -> KeptAnswer:
        """All of its objects its own, as when they came off the wire."""
        at = NOW + number
        return replace(
            answer(number, b"%06d" % number * (size // 6)),
            fields=tuple((b"X-%d-%d" % (n, number), b"value %d" % n) for n in range(fields)),
            lifetimes=replace(
                LIFETIMES,
                received_at=at,
                age=number * 0.1,
                fresh_until=at + 1,
                stale_while_revalidate_until=at + 2,
                stale_if_error_until=at + 3,
            ),
        )

    def head(kept: KeptAnswer, size: int, now: float) -> bytes:
        """As long as a real one: status, age, length, entity tag, cache status."""
        return b"x" * 240 + b"".join(b"%b: %b\r\n" % field for field in kept.fields)

    def fill() -> MemoryTier:
        tier = MemoryTier(max_bytes=1024 * MIB, max_items=10_000, head_at=head)
        for number in range(500):
            kept = fresh(number)
            key = tier_key(kept.name)
            tier.put(key, kept)
            found = tier.find(key)
            assert isinstance(found, Held)
            found.wire_at(NOW)
        return tier

    fill()  # what is made once
    tracemalloc.start()
    try:
        tier = fill()
        taken, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert tier.counts.items == 500
    assert tier.counts.bytes == pytest.approx(taken, rel=0.1)
