"""
The arithmetic of sizes, scales and places, as imgproxy 4 does it: numbers in, numbers out.

All sizes are in pixels of the image as it is seen, after its EXIF orientation and the asked
rotation, unless a name says otherwise.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from imgproxy_cache.engine.gravity import Size, with_smaller_offsets
from imgproxy_cache.engine.options import Gravity, Options, Padding, ResizingType

# Beyond these no image has a size; within them nothing overflows
MOST_PIXELS = 2.0**31
MOST_TIMES = 2.0**16

# EXIF orientation -> (degrees to turn clockwise, mirror afterwards).  Source: EXIF 2.32, 4.6.4 A
TURNS = {
    2: (0, True),
    3: (180, False),
    4: (180, True),
    5: (90, True),
    6: (90, False),
    7: (270, True),
    8: (270, False),
}


@dataclass(frozen=True, slots=True)
class Geometry:
    """What is to happen to an image; a size with a 0 in it says nothing about that side."""

    source: Size
    angle: int
    """Degrees, clockwise, that the EXIF orientation asks for."""
    flip: bool
    crop: Size
    crop_gravity: Gravity
    width_scale: float
    height_scale: float
    dpr_scale: float
    target: Size
    """What was asked for; also the size to extend to."""
    result_crop: Size
    extend_aspect_ratio: Size


def turn_of(orientation: int, options: Options) -> tuple[int, bool]:
    """Degrees clockwise, and whether to mirror after that, for an EXIF orientation."""
    return TURNS.get(orientation, (0, False)) if options.auto_rotate else (0, False)


def upright_size(width: int, height: int, angle: int, options: Options) -> Size:
    """The size of an image after both its own and the asked turn."""
    return Size(height, width) if (angle + options.rotate) % 180 else Size(width, height)


def geometry_of(
    width: int, height: int, orientation: int, options: Options, *, is_vector: bool = False
) -> Geometry:
    """Plan the way of an image, its size and orientation as stored, through ``options``."""
    angle, flip = turn_of(orientation, options)
    source = upright_size(width, height, angle, options)
    crop = Size(
        _crop_side(source.width, options.crop.width),
        _crop_side(source.height, options.crop.height),
    )
    used = Size(min_non_zero(crop.width, source.width), min_non_zero(crop.height, source.height))
    wide, high, dpr = _scales(used, options, is_vector=is_vector)
    plan = Geometry(
        source=source,
        angle=angle,
        flip=flip,
        crop=crop,
        crop_gravity=options.crop.gravity or options.gravity,
        width_scale=wide,
        height_scale=high,
        dpr_scale=dpr,
        target=source,
        result_crop=source,
        extend_aspect_ratio=source,
    )
    return _limited(_with_sizes(plan, used, options), used, options)


def shrink_on_load(plan: Geometry) -> float:
    """
    How many times smaller the source may be loaded, at most.

    From the rounded sizes, not from the scales: where only one side is asked
    for, the other's scale alone could shrink too far.
    """
    wide, high = plan.source.width, plan.source.height
    return min(wide / scaled(wide, plan.width_scale), high / scaled(high, plan.height_scale))


def jpeg_shrink(shrink: float) -> int:
    """The largest shrink within ``shrink`` that a JPEG decoder does by itself."""
    return next((whole for whole in (8, 4, 2) if shrink >= whole), 1)


def after_loading_smaller(
    plan: Geometry, width: int, height: int, turn: tuple[int, bool], options: Options
) -> Geometry:
    """Go on with a plan although the image was loaded at this smaller size, as stored."""
    angle, flip = turn
    loaded = upright_size(width, height, angle, options)
    wide = plan.source.width / loaded.width
    high = plan.source.height / loaded.height
    width_scale, height_scale = plan.width_scale * wide, plan.height_scale * high
    return replace(
        plan,
        angle=angle,
        flip=flip,
        # A shrink that fits exactly needs no second pass
        width_scale=1.0 if scaled(loaded.width, width_scale) == loaded.width else width_scale,
        height_scale=1.0 if scaled(loaded.height, height_scale) == loaded.height else height_scale,
        crop=Size(
            max(1, rounded(plan.crop.width / wide)) if plan.crop.width else 0,
            max(1, rounded(plan.crop.height / high)) if plan.crop.height else 0,
        ),
        crop_gravity=with_smaller_offsets(plan.crop_gravity, wide, high),
    )


def padding_at(padding: Padding, dpr: float) -> Padding:
    """The padding in pixels of the result."""
    return Padding(
        round(padding.top * dpr),
        round(padding.right * dpr),
        round(padding.bottom * dpr),
        round(padding.left * dpr),
    )


def scaled(side: int, scale: float) -> int:
    """A side times a scale, in whole pixels."""
    return rounded(side * scale)


def rounded(pixels: float) -> int:
    """Whole pixels, halves up; beyond what any image has, a size that libvips refuses."""
    return math.floor(max(0.0, min(MOST_PIXELS, pixels)) + 0.5)


def min_non_zero(first: int, second: int) -> int:
    """The smaller of two sides, of which 0 means any."""
    return min(first, second) if first and second else first or second


def _crop_side(source: int, crop: float) -> int:
    if crop == 0:
        return 0
    return int(crop) if crop >= 1 else max(1, scaled(source, crop))


def _scales(used: Size, options: Options, *, is_vector: bool) -> tuple[float, float, float]:
    """Scales of width and height, and what became of the dpr."""
    wide, high = _shrinks_to_size(used, options)
    wide /= _possible(options.zoom_width)
    high /= _possible(options.zoom_height)
    dpr = _possible(options.dpr)
    if not options.enlarge and not is_vector:
        least = min(wide, high)
        if least < 1:
            wide /= least
            high /= least
            # The asked size cannot be reached, so a dpr below 1 need not take it further away;
            # an extended picture keeps its composition at every dpr instead.
            if not options.extend.enabled:
                dpr /= least
        dpr = min(dpr, wide, high)
    if options.min_width and used.width / options.min_width < wide:
        high /= wide / (used.width / options.min_width)
        wide = used.width / options.min_width
    if options.min_height and used.height / options.min_height < high:
        wide /= high / (used.height / options.min_height)
        high = used.height / options.min_height
    # Nothing gets smaller than one pixel
    return 1 / min(wide / dpr, used.width), 1 / min(high / dpr, used.height), dpr


def _possible(factor: float) -> float:
    return max(1 / MOST_TIMES, min(MOST_TIMES, factor))


def _shrinks_to_size(used: Size, options: Options) -> tuple[float, float]:
    wide = used.width / (options.width or used.width)
    high = used.height / (options.height or used.height)
    if wide == high == 1:
        return wide, high
    kind = _resizing_type(used, options)
    if kind is ResizingType.FORCE:
        return wide, high
    if not options.width:
        return high, high
    if not options.height:
        return wide, wide
    shrink = max(wide, high) if kind is ResizingType.FIT else min(wide, high)
    return shrink, shrink


def _resizing_type(used: Size, options: Options) -> ResizingType:
    if options.resizing_type is not ResizingType.AUTO:
        return options.resizing_type
    width, height = options.width or used.width, options.height or used.height
    is_alike = (used.width >= used.height) == (width >= height)
    return ResizingType.FILL if is_alike else ResizingType.FIT


def _with_sizes(plan: Geometry, used: Size, options: Options) -> Geometry:
    target = Size(
        scaled(options.width, plan.dpr_scale * _possible(options.zoom_width)),
        scaled(options.height, plan.dpr_scale * _possible(options.zoom_height)),
    )
    whole = Size(scaled(used.width, plan.width_scale), scaled(used.height, plan.height_scale))
    result_crop = target
    if options.resizing_type is ResizingType.FILL_DOWN and not options.enlarge:
        result_crop = _filled_down(whole, target)
    return replace(
        plan,
        target=target,
        result_crop=result_crop,
        extend_aspect_ratio=_same_aspect_ratio(_result(whole, result_crop), target)
        if options.extend_aspect_ratio.enabled
        else Size(0, 0),
    )


def _filled_down(whole: Size, target: Size) -> Size:
    """The part of a too small image that has the target's aspect ratio."""
    wide, high = target.width / whole.width, target.height / whole.height
    if wide > high and wide > 1:
        return Size(whole.width, scaled(whole.width, target.height / target.width))
    if high > wide and high > 1:
        return Size(scaled(whole.height, target.width / target.height), whole.height)
    return target


def _same_aspect_ratio(result: Size, target: Size) -> Size:
    """The smallest size around ``result`` that has the target's aspect ratio."""
    if not target.width or not target.height:
        return Size(0, 0)
    wide, high = target.width / result.width, target.height / result.height
    if high > wide:
        return Size(result.width, scaled(result.width, target.height / target.width))
    if wide > high:
        return Size(scaled(result.height, target.width / target.height), result.height)
    return Size(0, 0)


def _limited(plan: Geometry, used: Size, options: Options) -> Geometry:
    """Scale everything down where the result would be larger than allowed."""
    limit = options.limits.result_dimension
    if limit <= 0:
        return plan
    whole = Size(scaled(used.width, plan.width_scale), scaled(used.height, plan.height_scale))
    result = _result(whole, plan.result_crop)
    around = Size(0, 0)
    if options.extend.enabled:
        around = plan.target
    elif options.extend_aspect_ratio.enabled:
        around = plan.extend_aspect_ratio
    padding = padding_at(options.padding, plan.dpr_scale)
    largest = max(
        max(result.width, around.width) + padding.left + padding.right,
        max(result.height, around.height) + padding.top + padding.bottom,
    )
    if largest <= limit:
        return plan
    down = limit / largest
    smaller = replace(
        plan,
        width_scale=max(plan.width_scale * down, 1 / used.width),
        height_scale=max(plan.height_scale * down, 1 / used.height),
        dpr_scale=plan.dpr_scale * down,
    )
    return _with_sizes(smaller, used, options)


def _result(whole: Size, crop: Size) -> Size:
    return Size(min_non_zero(whole.width, crop.width), min_non_zero(whole.height, crop.height))
