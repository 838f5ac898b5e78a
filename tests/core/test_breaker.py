"""When a store that fails is asked: tables, with the clock and the dice in hand."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imgproxy_cache.core.breaker import Breaker, Change, Permission, delay_seconds

HALF = 0.5


def opened(kind: str = "unreachable", now: float = 100.0) -> Breaker:
    breaker = Breaker()
    changes = [breaker.failed(kind, now, HALF, was_probe=False) for _ in range(3)]
    assert changes.count(Change.OPENED) == 1
    return breaker


@pytest.mark.parametrize(
    ("kinds", "expected"),
    [
        pytest.param(["busy"], False, id="one may be the image's own"),
        pytest.param(["busy", "timeout"], False, id="two in a row"),
        pytest.param(["busy", "timeout", "unreachable"], True, id="three in a row"),
        pytest.param(["credentials"], True, id="wrong keys do not heal by themselves"),
        pytest.param(["bucket"], True, id="no bucket"),
        pytest.param(["denied"], True, id="no right"),
        pytest.param(["too-large"] * 9, False, id="images that are too large"),
        pytest.param(["fields"] * 9, False, id="images whose header fields do not fit"),
        pytest.param(["bug"] * 9, False, id="our own bug"),
    ],
)
def test_what_opens_it(kinds: list[str], expected: bool) -> None:
    breaker = Breaker()
    for kind in kinds:
        breaker.failed(kind, 0.0, HALF, was_probe=False)
    assert breaker.is_open is expected


def test_failures_that_a_success_interrupts_do_not_add_up() -> None:
    breaker = Breaker()
    for _ in range(10):
        breaker.failed("busy", 0.0, HALF, was_probe=False)
        breaker.failed("busy", 0.0, HALF, was_probe=False)
        assert breaker.succeeded() is Change.NONE
    assert not breaker.is_open


def test_closed_it_lets_everybody_ask() -> None:
    assert [Breaker().permission(0.0) for _ in range(3)] == [Permission.FREELY] * 3


def test_open_it_lets_one_ask_when_the_delay_is_over_and_nobody_until_that_one_has_told() -> None:
    breaker = opened(now=100.0)
    assert breaker.probe_at == 102.0, "half of 4 seconds after the third failure"
    assert breaker.permission(101.9) is Permission.NO
    assert breaker.permission(102.0) is Permission.AS_PROBE
    assert breaker.permission(500.0) is Permission.NO
    assert breaker.failed("busy", 103.0, HALF, was_probe=True) is Change.NONE
    assert breaker.probe_at == 107.0, "half of 8 seconds"
    assert breaker.permission(107.0) is Permission.AS_PROBE
    assert breaker.succeeded() is Change.CLOSED
    assert breaker.permission(107.0) is Permission.FREELY


def test_uploads_that_began_before_it_opened_neither_delay_nor_double_the_probe() -> None:
    breaker = opened(now=100.0)
    assert breaker.permission(102.0) is Permission.AS_PROBE
    for _ in range(8):
        assert breaker.failed("timeout", 102.5, HALF, was_probe=False) is Change.NONE
    assert (breaker.probe_at, breaker.failures) == (102.0, 3)
    assert breaker.permission(102.5) is Permission.NO


def test_an_upload_that_began_before_it_opened_and_succeeds_closes_it() -> None:
    breaker = opened()
    assert breaker.succeeded() is Change.CLOSED


def test_a_probe_that_takes_too_long_is_followed_by_another() -> None:
    breaker = Breaker(probe_seconds=2.0)
    for _ in range(3):
        breaker.failed("unreachable", 100.0, HALF, was_probe=False)
    moments = [102.0, 103.9, 104.0, 105.9, 106.0]
    assert [breaker.permission(now) for now in moments] == [
        Permission.AS_PROBE,
        Permission.NO,
        Permission.AS_PROBE,
        Permission.NO,
        Permission.AS_PROBE,
    ]


def test_a_probe_that_told_nothing_is_made_again_at_once() -> None:
    breaker = opened(now=100.0)
    assert breaker.permission(102.0) is Permission.AS_PROBE
    breaker.told_nothing(was_probe=True)
    assert breaker.permission(102.0) is Permission.AS_PROBE
    breaker.failed("too-large", 102.0, HALF, was_probe=True)
    assert breaker.permission(102.0) is Permission.AS_PROBE


def test_an_operator_has_it_ask_at_once_and_soon_again() -> None:
    breaker = opened("credentials", now=100.0)
    for _ in range(20):
        breaker.permission(1e6)
        breaker.failed("credentials", 1e6, HALF, was_probe=True)
    breaker.ask_now()
    assert breaker.permission(0.0) is Permission.AS_PROBE
    breaker.failed("credentials", 0.0, HALF, was_probe=True)
    assert breaker.probe_at == 4.0, "half of 8 seconds"


@pytest.mark.parametrize(
    ("failures", "kind", "expected"),
    [
        pytest.param(1, "busy", 0.5, id="half of 1"),
        pytest.param(2, "busy", 1.0, id="half of 2"),
        pytest.param(4, "busy", 4.0, id="half of 8"),
        pytest.param(5, "busy", 5.0, id="half of the most"),
        pytest.param(10**6, "busy", 5.0, id="no overflow"),
        pytest.param(10**6, "credentials", 30.0, id="operators take longer"),
    ],
)
def test_delays_grow_to_a_limit(failures: int, kind: str, expected: float) -> None:
    assert delay_seconds(failures, kind, HALF) == expected


@given(failures=st.integers(0, 100), dice=st.floats(0, 1, exclude_max=True))
def test_the_jitter_is_full(failures: int, dice: float) -> None:
    assert 0 <= delay_seconds(failures, "busy", dice) <= 10 * dice
