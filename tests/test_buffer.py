"""The account of memory: what is granted, in which order, and what is given back."""

from __future__ import annotations

import asyncio

from hypothesis import given
from hypothesis import strategies as st

from imgproxy_cache.buffer import Buffer, Claim


class Claimant:
    """Notes what became of its claim."""

    def __init__(self) -> None:
        self.events: list[str] = []

    def claim(self, buffer: Buffer, size: int) -> Claim:
        return buffer.claim(
            size, lambda: self.events.append("granted"), lambda: self.events.append("refused")
        )


def buffer_of(max_bytes: int, *, wait_seconds: float = 20, max_waiting: int = 100) -> Buffer:
    return Buffer(max_bytes, wait_seconds=wait_seconds, max_waiting=max_waiting)


def test_room_is_taken_up_to_the_last_byte() -> None:
    buffer = buffer_of(100)

    assert [buffer.take(60), buffer.take(41), buffer.take(40), buffer.take(1)] == [
        True,
        False,
        True,
        False,
    ]
    assert (buffer.used, buffer.is_full) == (100, True)


async def test_claims_are_granted_in_their_order_as_room_is_given_back() -> None:
    buffer = buffer_of(100)
    buffer.take(100)
    large, small = Claimant(), Claimant()
    large.claim(buffer, 80)
    small.claim(buffer, 10)

    buffer.give_back(50)  # enough for the small one, which is not its turn
    assert (large.events, small.events, buffer.used) == ([], [], 50)
    buffer.give_back(30)
    assert (large.events, small.events, buffer.used) == (["granted"], [], 100)
    buffer.give_back(80)
    assert (small.events, buffer.used, buffer.waiting) == (["granted"], 30, 0)


async def test_nobody_overtakes_a_claim() -> None:
    buffer = buffer_of(100)
    buffer.take(60)
    waiting = Claimant()
    waiting.claim(buffer, 50)

    assert not buffer.take(10)
    assert buffer.is_full


async def test_claim_that_waited_too_long_is_refused_and_the_next_one_served() -> None:
    buffer = buffer_of(100, wait_seconds=0.05)
    buffer.take(60)
    large, small = Claimant(), Claimant()
    large.claim(buffer, 50)
    small.claim(buffer, 40)
    async with asyncio.timeout(20):
        while not small.events:
            await asyncio.sleep(0.01)

    assert (large.events, small.events) == (["refused"], ["granted"])
    assert buffer.used == 100


async def test_claim_that_is_withdrawn_hears_nothing_and_makes_way() -> None:
    buffer = buffer_of(100, wait_seconds=0.05)
    buffer.take(60)
    gone, next_one = Claimant(), Claimant()
    claim = gone.claim(buffer, 50)
    next_one.claim(buffer, 40)
    buffer.withdraw(claim)
    await asyncio.sleep(0.1)  # longer than a claim waits

    assert (gone.events, next_one.events) == ([], ["granted"])


async def test_claim_of_nothing_waits_for_the_buffer_not_to_be_full() -> None:
    buffer = buffer_of(100)
    buffer.take(100)
    claimant = Claimant()
    claimant.claim(buffer, 0)
    assert claimant.events == []
    buffer.give_back(1)

    assert (claimant.events, buffer.used) == (["granted"], 99)


async def test_one_claim_too_many_is_refused() -> None:
    buffer = buffer_of(100, max_waiting=2)
    buffer.take(100)
    claimants = [Claimant() for _ in range(3)]
    for claimant in claimants:
        claimant.claim(buffer, 10)
    await asyncio.sleep(0)

    assert [claimant.events for claimant in claimants] == [[], [], ["refused"]]
    assert buffer.waiting == 2


async def test_what_is_in_memory_already_counts_and_keeps_others_out() -> None:
    buffer = buffer_of(100)
    buffer.overdraw(150)
    claimant = Claimant()
    claimant.claim(buffer, 10)
    buffer.give_back(50)
    assert claimant.events == []
    buffer.give_back(10)

    assert (claimant.events, buffer.used) == (["granted"], 100)


@given(st.lists(st.tuples(st.sampled_from(["take", "back"]), st.integers(0, 60))))
def test_account_is_never_overdrawn_by_those_who_ask(steps: list[tuple[str, int]]) -> None:
    async def run() -> None:
        buffer = buffer_of(100)
        held: list[int] = []
        for step, size in steps:
            if step == "take":
                if buffer.take(size):
                    held.append(size)
                else:
                    buffer.claim(size, lambda size=size: held.append(size), lambda: None)  # type: ignore[misc]
            elif held:
                buffer.give_back(held.pop(0))
            assert buffer.used == sum(held) <= 100
        while held:
            buffer.give_back(held.pop())
        assert (buffer.used, buffer.waiting) == (0, 0)

    asyncio.run(run())
