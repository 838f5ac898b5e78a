"""The steps of one picture from its source to its final size and look, in imgproxy 4's order."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pyvips

from imgproxy_cache.engine.colors import Picture, flattened, picture_to_work_on
from imgproxy_cache.engine.formats import SAVED
from imgproxy_cache.engine.geometry import (
    Geometry,
    after_loading_smaller,
    geometry_of,
    jpeg_shrink,
    min_non_zero,
    padding_at,
    shrink_on_load,
    turn_of,
    upright_size,
)
from imgproxy_cache.engine.gravity import Size, gravity_before_turns, position
from imgproxy_cache.engine.load import Original, orientation_of
from imgproxy_cache.engine.options import WHITE, Color, Gravity, GravityType, Options, Trim

# What is transparent counts, for trimming, as this colour, which pictures seldom have
TRANSPARENT = Color(255, 0, 255)
# The most pixels that a format can hold a side.  Source: libwebp encode.h, AV1 levels, GIF89a
MOST_PIXELS_A_SIDE = {"webp": 16383, "avif": 16384, "gif": 65535}
MOST_PIXELS = {"gif": (2**31 - 1) // 4}


@dataclass(frozen=True, slots=True)
class Work:
    """What is to be done with a picture."""

    options: Options
    target: str
    """The format that the picture will be saved in."""

    @property
    def deep(self) -> bool:
        """Whether to work with 16 bits a channel where the source has them."""
        return self.options.preserve_hdr and SAVED[self.target].deep_color


def transformed(image: pyvips.Image, original: Original | None, work: Work) -> Picture:
    """
    Take an image through all steps up to, not including, the colours it is saved in.

    ``original`` is where ``image`` comes from, to load it again at a better
    size; None where that must not be done.
    """
    options = work.options
    is_vector = original is not None and original.is_vector
    base_shrink = 1.0
    if original and is_vector:
        image, base_shrink = _vector_within_limit(image, original, options)
    plan = _plan(image, options, is_vector=is_vector)
    if options.trim:
        picture = picture_to_work_on(image, deep=work.deep)
        picture = picture.with_image(_trimmed(picture.image, options.trim))
        plan = _plan(picture.image, options)
    else:
        if original:
            image, plan = _loaded_smaller(image, plan, original, base_shrink, options)
        picture = picture_to_work_on(image, deep=work.deep)
    return picture.with_image(_through_steps(picture.image, plan, work))


def _through_steps(image: pyvips.Image, plan: Geometry, work: Work) -> pyvips.Image:
    options = work.options
    image = _cropped(image, plan, options)
    image = _scaled(image, plan, options)
    image = _turned(image, plan, options)
    image = _cut(image, plan.result_crop, options.gravity, plan.dpr_scale)
    image = _filtered(image, options)
    image = _surrounded(image, plan, options)
    image = _within_format(image, work.target)
    if options.background or not SAVED[work.target].alpha:
        image = flattened(image, options.background or WHITE)
    return image


def _plan(image: pyvips.Image, options: Options, *, is_vector: bool = False) -> Geometry:
    return geometry_of(
        image.width, image.height, orientation_of(image), options, is_vector=is_vector
    )


def _vector_within_limit(
    image: pyvips.Image, original: Original, options: Options
) -> tuple[pyvips.Image, float]:
    """A drawing can have any size, so one that claims to be too large is just drawn smaller."""
    excess = image.width * image.height / options.limits.src_resolution
    if excess <= 1:
        return image, 1.0
    shrink = math.sqrt(excess)
    return original.open(shrink=shrink), shrink


def _trimmed(image: pyvips.Image, trim: Trim) -> pyvips.Image:
    image = image.copy_memory()
    opaque = image if image.interpretation == "srgb" else image.colourspace("srgb")
    opaque = flattened(opaque, TRANSPARENT)
    background = [trim.color.red, trim.color.green, trim.color.blue] if trim.color else opaque(0, 0)
    left, top, width, height = opaque.find_trim(threshold=trim.threshold, background=background)
    if trim.equal_horizontal:
        left, width = _evened(left, width, image.width)
    if trim.equal_vertical:
        top, height = _evened(top, height, image.height)
    return image.extract_area(left, top, width, height) if width and height else image


def _evened(start: int, length: int, whole: int) -> tuple[int, int]:
    """Cut off on both sides only what is cut off on the one with less."""
    least = min(start, whole - start - length)
    return least, whole - 2 * least


def _loaded_smaller(
    image: pyvips.Image,
    plan: Geometry,
    original: Original,
    base_shrink: float,
    options: Options,
) -> tuple[pyvips.Image, Geometry]:
    """Load the image again, as small as its decoder can make it without losing what is needed."""
    shrink = shrink_on_load(plan) * base_shrink
    if original.format == "jpeg":
        shrink = jpeg_shrink(shrink)
    can_shrink = original.format in {"jpeg", "webp"} or original.has_thumbnail
    if shrink == 1 or not (original.is_vector or (can_shrink and shrink > 1)):
        return image, plan
    smaller = original.open(shrink=shrink, thumbnail=original.has_thumbnail)
    turn = turn_of(orientation_of(smaller), options)
    if original.has_thumbnail:
        size = upright_size(smaller.width, smaller.height, turn[0], options)
        wide, high = plan.source.width / size.width, plan.source.height / size.height
        if min(wide, high) <= 1 or max(wide, high) > shrink:
            return image, plan
    return smaller, after_loading_smaller(plan, smaller.width, smaller.height, turn, options)


def _cropped(image: pyvips.Image, plan: Geometry, options: Options) -> pyvips.Image:
    gravity = gravity_before_turns(plan.crop_gravity, options, plan.angle, flip=plan.flip)
    size = upright_size(plan.crop.width, plan.crop.height, plan.angle, options)
    return _cut(image, size, gravity, dpr=1.0)


def _cut(image: pyvips.Image, size: Size, gravity: Gravity, dpr: float) -> pyvips.Image:
    """Cut out a part of this size; a side of 0, or more than there is, is the whole side."""
    whole = Size(image.width, image.height)
    part = Size(min_non_zero(size.width, whole.width), min_non_zero(size.height, whole.height))
    if part == whole:
        return image
    if gravity.type is GravityType.SMART:
        return image.copy_memory().smartcrop(part.width, part.height)
    left, top = position(whole, part, gravity, dpr)
    return image.extract_area(left, top, part.width, part.height)


def _scaled(image: pyvips.Image, plan: Geometry, options: Options) -> pyvips.Image:
    if plan.width_scale == plan.height_scale == 1:
        return image
    if (plan.angle + options.rotate) % 180:
        return _resized(image, plan.height_scale, plan.width_scale)
    return _resized(image, plan.width_scale, plan.height_scale)


def _resized(image: pyvips.Image, wide: float, high: float) -> pyvips.Image:
    if not image.hasalpha():
        return image.resize(wide, vscale=high)
    # Else the colours of what is transparent would shine through at edges
    premultiplied = image.premultiply().cast(image.format)
    return premultiplied.resize(wide, vscale=high).unpremultiply().cast(image.format)


def _turned(image: pyvips.Image, plan: Geometry, options: Options) -> pyvips.Image:
    angles = [plan.angle % 360, options.rotate % 360]
    flips = [plan.flip, options.flip_horizontal, options.flip_vertical]
    if not any(angles) and not any(flips):
        return image
    image = image.copy_memory()
    image = image.rot(f"d{angles[0]}")
    if plan.flip:
        image = image.fliphor()
    image = image.rot(f"d{angles[1]}")
    if options.flip_horizontal:
        image = image.fliphor()
    if options.flip_vertical:
        image = image.flipver()
    for name in ("orientation", "exif-ifd0-Orientation"):
        image.remove(name)
    return image


def _filtered(image: pyvips.Image, options: Options) -> pyvips.Image:
    is_blurred_or_sharpened = options.blur > 0 or options.sharpen > 0
    if not is_blurred_or_sharpened and options.pixelate <= 1:
        return image
    image = image.copy_memory()
    if image.interpretation != "srgb":
        image = image.colourspace("srgb")
    pixel_format = image.format
    is_premultiplied = is_blurred_or_sharpened and image.hasalpha()
    if is_premultiplied:
        image = image.premultiply().cast(pixel_format)
    if options.blur > 0:
        image = image.gaussblur(options.blur)
    if options.sharpen > 0:
        image = image.sharpen(sigma=options.sharpen)
    image = _pixelated(image, min(options.pixelate, max(image.width, image.height)))
    if is_premultiplied:
        image = image.unpremultiply()
    return image.colourspace("srgb").cast(pixel_format)


def _pixelated(image: pyvips.Image, pixels: int) -> pyvips.Image:
    if pixels <= 1:
        return image
    wide, high = (math.ceil(side / pixels) * pixels for side in (image.width, image.height))
    whole = image.embed(0, 0, wide, high, extend="mirror")
    coarse = whole.shrink(pixels, pixels).zoom(pixels, pixels)
    return coarse.extract_area(0, 0, image.width, image.height)


def _surrounded(image: pyvips.Image, plan: Geometry, options: Options) -> pyvips.Image:
    if options.extend.enabled:
        image = _extended(image, plan.target, options.extend.gravity, plan.dpr_scale)
    if options.extend_aspect_ratio.enabled and plan.extend_aspect_ratio.width:
        gravity = options.extend_aspect_ratio.gravity
        image = _extended(image, plan.extend_aspect_ratio, gravity, plan.dpr_scale)
    padding = options.padding
    if padding.top or padding.right or padding.bottom or padding.left:
        padding = padding_at(padding, plan.dpr_scale)
        size = Size(
            image.width + padding.left + padding.right, image.height + padding.top + padding.bottom
        )
        image = _placed(image, padding.left, padding.top, size)
    return image


def _extended(image: pyvips.Image, size: Size, gravity: Gravity, dpr: float) -> pyvips.Image:
    if size.width <= image.width and size.height <= image.height:
        return image
    size = Size(size.width or image.width, size.height or image.height)
    left, top = position(size, Size(image.width, image.height), gravity, dpr)
    return _placed(image, left, top, size)


def _placed(image: pyvips.Image, left: int, top: int, size: Size) -> pyvips.Image:
    """Put an image on a transparent ground."""
    if not image.hasalpha():
        image = image.addalpha()
    return image.embed(left, top, size.width, size.height)


def _within_format(image: pyvips.Image, target: str) -> pyvips.Image:
    """Scale down what the format cannot hold."""
    excess = 0.0
    if target in MOST_PIXELS_A_SIDE:
        excess = max(image.width, image.height) / MOST_PIXELS_A_SIDE[target]
    if target in MOST_PIXELS:
        excess = math.sqrt(max(excess, image.width * image.height / MOST_PIXELS[target]))
    return _resized(image, 1 / excess, 1 / excess) if excess > 1 else image
