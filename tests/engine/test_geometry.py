"""The arithmetic of sizes and places."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imgproxy_cache.engine.geometry import (
    after_loading_smaller,
    geometry_of,
    jpeg_shrink,
    shrink_on_load,
)
from imgproxy_cache.engine.gravity import Size, gravity_before_turns, position
from imgproxy_cache.engine.options import Crop, Extend, Gravity, GravityType, Limits, Options
from imgproxy_cache.engine.options import ResizingType as Type


@pytest.mark.parametrize(
    ("shrink", "decoded"),
    [(0.5, 1), (1.99, 1), (2, 2), (3.99, 2), (4, 4), (7.9, 4), (8, 8), (99, 8)],
)
def test_jpeg_is_decoded_as_small_as_its_decoder_can_without_going_below(
    shrink: float, decoded: int
) -> None:
    assert jpeg_shrink(shrink) == decoded


@pytest.mark.parametrize(
    ("gravity", "place"),
    [
        pytest.param(Gravity(), (36, 20), id="centre"),
        pytest.param(Gravity(x=10, y=-5), (46, 15), id="off centre"),
        pytest.param(Gravity(x=0.1, y=-0.1), (46, 14), id="off centre by a fraction"),
        pytest.param(Gravity(GravityType.NORTH), (36, 0), id="north"),
        pytest.param(Gravity(GravityType.SOUTH, y=5), (36, 35), id="south counts upwards"),
        pytest.param(Gravity(GravityType.EAST, x=5), (65, 20), id="east counts leftwards"),
        pytest.param(Gravity(GravityType.WEST, x=5), (5, 20), id="west"),
        pytest.param(Gravity(GravityType.NORTH_WEST, 3, 4), (3, 4), id="north-west"),
        pytest.param(Gravity(GravityType.SOUTH_EAST, 3, 4), (67, 36), id="south-east"),
        pytest.param(Gravity(GravityType.WEST, x=500), (70, 20), id="never outside"),
        pytest.param(Gravity(GravityType.EAST, x=500), (0, 20), id="never outside on the left"),
        pytest.param(
            Gravity(GravityType.FOCUS_POINT, 0.5, 0.5), (35, 20), id="focus in the middle"
        ),
        pytest.param(Gravity(GravityType.FOCUS_POINT, 1, 0), (70, 0), id="focus in a corner"),
    ],
)
def test_place_of_30_by_20_in_100_by_60(gravity: Gravity, place: tuple[int, int]) -> None:
    assert position(Size(100, 60), Size(30, 20), gravity, dpr=1) == place


def test_offset_in_pixels_grows_with_the_dpr_and_a_fraction_does_not() -> None:
    whole, part = Size(100, 100), Size(10, 10)
    assert position(whole, part, Gravity(GravityType.NORTH_WEST, 5, 0.2), dpr=2) == (10, 20)


def test_odd_rest_goes_where_imgproxy_puts_it() -> None:
    # round half to even of (free + 1) / 2: 1 -> 1, 3 -> 2, 5 -> 3
    assert [position(Size(n, 9), Size(9, 9), Gravity(), 1)[0] for n in (10, 12, 14)] == [1, 2, 3]


@pytest.mark.parametrize("kind", [*GravityType])
def test_four_quarter_turns_leave_a_gravity_as_it_was(kind: GravityType) -> None:
    gravity = turned = Gravity(kind, 0.2, 0.3)
    for _ in range(4):
        turned = gravity_before_turns(turned, Options(rotate=90), 0, flip=False)
    assert turned.type is kind
    assert [turned.x, turned.y] == pytest.approx([gravity.x, gravity.y])


@pytest.mark.parametrize("kind", [*GravityType])
def test_two_flips_are_half_a_turn(kind: GravityType) -> None:
    gravity = Gravity(kind, 0.2, 0.3)
    flips = Options(flip_horizontal=True, flip_vertical=True)
    turned = gravity_before_turns(gravity, Options(rotate=180), 0, flip=False)
    assert gravity_before_turns(gravity, flips, 0, flip=False) == turned


def test_source_loaded_smaller_ends_at_the_same_size() -> None:
    plan = geometry_of(4000, 3000, 1, Options(width=640, crop=Crop(2000, 1000, Gravity(x=100))))
    assert shrink_on_load(plan) == pytest.approx(3.125)
    smaller = after_loading_smaller(plan, 2000, 1500, (0, False), Options())
    assert smaller.crop == Size(1000, 500)
    assert smaller.crop_gravity == Gravity(x=50)
    assert smaller.width_scale * 1000 == pytest.approx(640)


SIDES = st.integers(1, 20_000)
ASKED = st.integers(0, 20_000)
FACTORS = st.floats(0, 1e9, exclude_min=True, allow_nan=False)
OFFSETS = st.floats(-1e9, 1e9, allow_nan=False)
OPTIONS = st.builds(
    Options,
    resizing_type=st.sampled_from(Type),
    width=ASKED,
    height=ASKED,
    min_width=ASKED,
    min_height=ASKED,
    zoom_width=FACTORS,
    zoom_height=FACTORS,
    dpr=FACTORS,
    enlarge=st.booleans(),
    extend=st.builds(Extend, st.booleans()),
    extend_aspect_ratio=st.builds(Extend, st.booleans()),
    crop=st.builds(Crop, st.floats(0, 20_000), st.floats(0, 20_000)),
    gravity=st.builds(Gravity, st.sampled_from(GravityType), OFFSETS, OFFSETS),
    rotate=st.sampled_from([0, 90, 180, 270]),
    limits=st.builds(Limits, result_dimension=st.sampled_from([0, 1, 1000])),
)


@given(SIDES, SIDES, st.integers(1, 8), OPTIONS)
def test_every_plan_can_be_carried_out(
    width: int, height: int, orientation: int, options: Options
) -> None:
    plan = geometry_of(width, height, orientation, options)
    assert 0 < plan.width_scale < math.inf
    assert 0 < plan.height_scale < math.inf
    assert shrink_on_load(plan) > 0
    assert min(plan.result_crop.width, plan.result_crop.height) >= 0
    left, top = position(plan.source, Size(1, 1), options.gravity, plan.dpr_scale)
    assert 0 <= left < plan.source.width
    assert 0 <= top < plan.source.height
