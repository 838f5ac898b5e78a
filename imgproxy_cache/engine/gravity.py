"""Where a part lies in a whole: compass points, offsets and focus points, as imgproxy 4 does it."""

from __future__ import annotations

from dataclasses import dataclass, replace

from imgproxy_cache.engine.options import Gravity, GravityType, Options

# A compass point is a column and a row, -1 to 1: turning a picture is then turning a vector.
COMPASS = {
    GravityType.CENTER: (0, 0),
    GravityType.NORTH: (0, -1),
    GravityType.EAST: (1, 0),
    GravityType.SOUTH: (0, 1),
    GravityType.WEST: (-1, 0),
    GravityType.NORTH_WEST: (-1, -1),
    GravityType.NORTH_EAST: (1, -1),
    GravityType.SOUTH_WEST: (-1, 1),
    GravityType.SOUTH_EAST: (1, 1),
}
COMPASS_POINTS = {place: point for point, place in COMPASS.items()}


@dataclass(frozen=True, slots=True)
class Size:
    width: int
    height: int


def gravity_before_turns(gravity: Gravity, options: Options, angle: int, *, flip: bool) -> Gravity:
    """
    The gravity that cuts, before any turning, what ``gravity`` would cut afterwards.

    An image is turned as its EXIF says, then as asked; cutting first leaves
    fewer pixels to turn.
    """
    asked = _turned_back(
        gravity, options.rotate, flip_x=options.flip_horizontal, flip_y=options.flip_vertical
    )
    return _turned_back(asked, angle, flip_x=flip, flip_y=False)


def position(outer: Size, inner: Size, gravity: Gravity, dpr: float) -> tuple[int, int]:
    """Left and top of ``inner`` in ``outer``; never outside it."""
    if gravity.type is GravityType.FOCUS_POINT:
        left = round(outer.width * gravity.x) - inner.width // 2
        top = round(outer.height * gravity.y) - inner.height // 2
    else:
        column, row = COMPASS.get(gravity.type, (0, 0))
        left = _place(outer.width - inner.width, column, _offset(gravity.x, outer.width, dpr))
        top = _place(outer.height - inner.height, row, _offset(gravity.y, outer.height, dpr))
    return (
        max(0, min(left, outer.width - inner.width)),
        max(0, min(top, outer.height - inner.height)),
    )


def with_smaller_offsets(gravity: Gravity, wide: float, high: float) -> Gravity:
    """The gravity for an image that was loaded this many times less wide and high."""
    if gravity.type is GravityType.FOCUS_POINT:
        return gravity
    return replace(gravity, x=_shrunk_offset(gravity.x, wide), y=_shrunk_offset(gravity.y, high))


def _turned_back(gravity: Gravity, angle: int, *, flip_x: bool, flip_y: bool) -> Gravity:
    if flip_x:
        gravity = _mirrored(gravity)
    if flip_y:  # is mirrored after half a turn
        gravity = _mirrored(_quarter_turned_back(_quarter_turned_back(gravity)))
    for _ in range(angle % 360 // 90):
        gravity = _quarter_turned_back(gravity)
    return gravity


def _mirrored(gravity: Gravity) -> Gravity:
    if gravity.type is GravityType.FOCUS_POINT:
        return replace(gravity, x=1 - gravity.x)
    if gravity.type not in COMPASS:
        return gravity
    column, row = COMPASS[gravity.type]
    # At an edge an offset counts inwards and stays; from the middle it has a direction
    return Gravity(COMPASS_POINTS[-column, row], gravity.x if column else -gravity.x, gravity.y)


def _quarter_turned_back(gravity: Gravity) -> Gravity:
    if gravity.type is GravityType.FOCUS_POINT:
        return replace(gravity, x=gravity.y, y=1 - gravity.x)
    if gravity.type not in COMPASS:
        return gravity
    column, row = COMPASS[gravity.type]
    return Gravity(COMPASS_POINTS[row, -column], gravity.y, gravity.x if column else -gravity.x)


def _offset(offset: float, side: int, dpr: float) -> int:
    return round(offset * dpr) if abs(offset) >= 1 else round(side * offset)


def _place(free: int, edge: int, offset: int) -> int:
    if edge < 0:
        return offset
    return free - offset if edge > 0 else round((free + 1) / 2) + offset


def _shrunk_offset(offset: float, shrink: float) -> float:
    # Rounded, so that an offset in pixels stays one: 1 is, 0.5 would be half of the image
    return float(round(offset / shrink)) if abs(offset) >= 1 else offset
