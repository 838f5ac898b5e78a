"""What is remembered of requests: in so many bytes, whatever clients send."""

import gc
import tracemalloc
from collections.abc import Callable

import pytest

from imgproxy_cache.core.imgproxy_path import read_path
from imgproxy_cache.metrics import Metrics
from imgproxy_cache.read_through import TARGETS_BYTES
from imgproxy_cache.read_through.fast_lane import HEADS_BYTES, FastLane
from imgproxy_cache.read_through.remembered import ENTRY_BYTES, Remembered
from tests.read_through.parts import RULES, fields_for_tiers, read_through

TARGET = b"/_/plain/local:///a.jpg"


def test_what_is_on_top_has_all_be_forgotten() -> None:
    remembered: Remembered[int] = Remembered(3 * (ENTRY_BYTES + 1))
    for number in range(3):
        remembered.remember(b"%d" % number, number, 1)
    remembered.remember(b"0", 10, 1)
    assert remembered == {b"0": 10, b"1": 1, b"2": 2}

    remembered.remember(b"3", 3, 1)

    assert remembered == {b"3": 3}
    for number in range(2):
        remembered.remember(b"%d" % number, number, 1)
    assert remembered == {b"3": 3, b"0": 0, b"1": 1}


def targets(size: int) -> Callable[[int], None]:
    tiers = read_through()

    def see(number: int) -> None:
        target = (b"/_/w:%d/plain/local:///" % number).ljust(size, b"a")
        assert tiers.resource(target, read_path(target, RULES)) is not None

    return see


def heads(fields: int) -> Callable[[int], None]:
    tiers = read_through()
    tiers.resource(TARGET, read_path(TARGET, RULES))
    lane = FastLane(tiers, tiers.memory, Metrics(), now=lambda: 0.0)

    def see(number: int) -> None:
        headers = [(b"host", b"h")] + [(b"x-%d" % n, b"%09d" % number) for n in range(fields)]
        lines = b"".join([b"%b: %b\r\n" % field for field in headers])
        lane.learn(
            b"GET %b HTTP/1.1\r\n%b\r\n" % (TARGET, lines),
            fields_for_tiers(headers),
        )

    return see


@pytest.mark.parametrize(
    ("attack", "number", "expected"),
    [
        pytest.param(lambda: targets(512), 8_000, TARGETS_BYTES, id="long targets"),
        pytest.param(lambda: targets(60), 30_000, TARGETS_BYTES, id="short targets"),
        pytest.param(lambda: heads(8), 5_000, HEADS_BYTES, id="heads"),
        pytest.param(lambda: heads(80), 500, HEADS_BYTES, id="heads of many fields"),
    ],
)
def test_attackers_cannot_have_it_take_more(
    attack: Callable[[], Callable[[int], None]], number: int, expected: int
) -> None:
    see = attack()
    see(0)  # what is made once
    gc.collect()  # what others left in the interpreter's free lists would not be seen
    tracemalloc.start()
    try:
        for which in range(number):
            see(which)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert 0.8 * expected < most < 1.05 * expected
