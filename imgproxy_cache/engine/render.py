"""
From a source image and options to the image that is answered, as imgproxy 4 renders it.

The order of the steps is imgproxy's, and it matters: what is cut before it is
scaled or turned afterwards differs in single pixels.
"""

from __future__ import annotations

import functools
import logging
import re
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from threading import Lock

import pyvips

from imgproxy_cache.engine.animation import animation, still
from imgproxy_cache.engine.colors import picture_to_save
from imgproxy_cache.engine.errors import BrokenImage, EngineError, InvalidSource, UnsupportedFormat
from imgproxy_cache.engine.formats import SAVED, format_of
from imgproxy_cache.engine.load import Original, is_animated, orientation_of
from imgproxy_cache.engine.metadata import stripped
from imgproxy_cache.engine.options import Options, Padding
from imgproxy_cache.engine.save import EncoderRules, saved, saved_within
from imgproxy_cache.engine.svg import sanitized
from imgproxy_cache.engine.transform import Work, transformed

PREFERRED_FORMATS = ("jpeg", "png", "gif")
AVIF_LEAST_SIDE = 16
# The libxml2 within pyvips-binary is built without threads: two that parse documents with errors at
# once write into each other's memory, until the process dies.  Drawings within a drawing are parsed
# while it is drawn, which is while it is encoded.
ONE_DRAWING_AT_A_TIME = Lock()
# Of libvips' many messages those that are the source's fault; the rest is ours
BROKEN_SOURCE = re.compile(r"^(\S+load\S*|\S+2vips|VipsJpeg): |XML parse error: ", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class RenderRules:
    """What a server's settings say about rendering beyond what the options already hold."""

    preferred_formats: tuple[str, ...] = PREFERRED_FORMATS
    sanitize_svg: bool = True
    always_rasterize_svg: bool = False
    encoders: EncoderRules = field(default_factory=EncoderRules)


@dataclass(frozen=True, slots=True)
class Rendered:
    """An image ready to be answered; ``format`` is a name like ``jpeg``, sizes are in pixels."""

    body: bytes
    format: str
    width: int
    height: int
    source_width: int
    source_height: int


def render(source: bytes, options: Options, rules: RenderRules) -> Rendered:
    """
    Render ``source`` as ``options`` say.

    Blocks for the time it takes; safe to call from many threads at once, of which one has its turn
    to render an SVG.

    Raises: InvalidSource, BrokenImage, BrokenSvg, UnsupportedFormat; EngineError for what should
    not happen.
    """
    _set_up_libvips()
    original = Original(source, format_of(source))
    try:
        with _turn(original):
            return _rendered(original, options, rules)
    except pyvips.Error as exc:
        detail = exc.detail.strip()
        # All threads share one list of messages: another may have taken what ours was told, or be
        # in the middle of writing, which leaves "VipsJpeg: " alone
        if not detail or BROKEN_SOURCE.search(exc.detail):
            raise BrokenImage(detail or "libvips does not say why") from exc
        raise EngineError(detail) from exc


def why_not_saved(format_name: str | None) -> str | None:
    """Why an image cannot be answered in this format, known before any source is fetched."""
    if format_name is None or format_name in SAVED or format_name == "svg":
        return None
    return f"cannot save {format_name}: the real imgproxy can"


@functools.cache
def _set_up_libvips() -> None:
    # Every request is another image: a cache of operations would only hold memory.  The engine has
    # its own threads, one image each.
    pyvips.cache_set_max(0)
    pyvips.concurrency_set(1)
    # libvips warns of every source that is not quite as it should be
    logging.getLogger("pyvips").setLevel(logging.ERROR)


def _turn(original: Original) -> AbstractContextManager[object]:
    return ONE_DRAWING_AT_A_TIME if original.is_vector else nullcontext()


def _rendered(original: Original, options: Options, rules: RenderRules) -> Rendered:
    image = original.open()
    if _is_passed_on(original.format, options, rules):
        return _passed_on(original, image, options, rules)
    frames = options.limits.animation_frames
    animated = frames > 1 and is_animated(image)
    work = Work(options, _target(original.format, image, options, rules, animated=animated))
    animated = animated and SAVED[work.target].animation
    if animated:
        image = original.open(pages=min(image.get("n-pages"), frames))
    elif original.has_thumbnail and options.enforce_thumbnail:
        image = original.open(thumbnail=True)
    source_size = _checked_size(original, image, options)
    picture = animation(image, work) if animated else transformed(still(image), original, work)
    keep_profile = not options.strip_color_profile and SAVED[work.target].color_profile
    image = picture_to_save(picture, keep_profile=keep_profile).image
    body, format_name = _saved(image, work, rules, keep_profile=keep_profile)
    return Rendered(body, format_name, *_seen_size(image), *source_size)


def _is_passed_on(format_name: str, options: Options, rules: RenderRules) -> bool:
    """Whether the source itself is the answer."""
    skipped = format_name in options.skip_processing
    if format_name != "svg":
        return skipped and options.format in {None, format_name}
    if options.format is None:
        return skipped or not rules.always_rasterize_svg
    return options.format == "svg"


def _passed_on(
    original: Original, image: pyvips.Image, options: Options, rules: RenderRules
) -> Rendered:
    # Whoever gets it has to decode it: an image bomb is no answer either
    size = _checked_size(original, image, options)
    body = original.body
    if original.is_vector and rules.sanitize_svg:
        body = sanitized(body)
    return Rendered(body, original.format, *size, *size)


def _target(
    source: str, image: pyvips.Image, options: Options, rules: RenderRules, *, animated: bool
) -> str:
    """
    Choose the format to save in: what the client takes, else what fits the picture best.

    Raises: UnsupportedFormat.
    """
    wished = options.prefer_formats if options.format is None else options.enforce_formats
    chosen = next(
        (name for name in ("jxl", "avif", "webp") if name in wished and _can(name, animated)),
        options.format,
    )
    if chosen is None:
        preferred = rules.preferred_formats
        alpha = not options.background and (image.hasalpha() or _adds_alpha(options))
        chosen = (
            source
            if source in preferred
            else next(
                (
                    name
                    for name in preferred
                    if _can(name, animated) and (SAVED[name].alpha or not alpha)
                ),
                preferred[0],
            )
        )
    if chosen not in SAVED:
        raise UnsupportedFormat(f"cannot save {chosen}: the real imgproxy can")
    return chosen


def _can(name: str, animated: bool) -> bool:
    return name in SAVED and (SAVED[name].animation or not animated)


def _adds_alpha(options: Options) -> bool:
    return options.extend.enabled or options.padding != Padding()


def _checked_size(original: Original, image: pyvips.Image, options: Options) -> tuple[int, int]:
    """
    Width and height of the source (of a frame of it).

    Raises: InvalidSource when they are more than allowed.
    """
    width, height = _seen_size(image)
    frames = image.height // image.get_page_height()
    limits = options.limits
    if not original.is_vector:
        if frames > 1 and limits.animation_frame_resolution > 0:
            if width * height > limits.animation_frame_resolution:
                raise InvalidSource(f"a frame of {width} x {height} is more than allowed")
        elif width * height * frames > limits.src_resolution:
            raise InvalidSource(f"{width} x {height} x {frames} pixels are more than allowed")
    return width, height


def _seen_size(image: pyvips.Image) -> tuple[int, int]:
    """Width and height of a frame, turned as its orientation says."""
    width, height = image.width, image.get_page_height()
    return (height, width) if orientation_of(image) >= 5 else (width, height)


def _saved(
    image: pyvips.Image, work: Work, rules: RenderRules, *, keep_profile: bool
) -> tuple[bytes, str]:
    options, target = work.options, work.target
    if target == "avif" and min(image.width, image.height) < AVIF_LEAST_SIDE:
        target = "png" if image.hasalpha() else "jpeg"
    quality = options.quality_of(target)
    image, keep = stripped(image, options, keep_profile=keep_profile)
    if options.max_bytes > 0 and SAVED[target].quality:
        body = saved_within(
            image, target, quality, keep, rules.encoders, max_bytes=options.max_bytes
        )
    else:
        body = saved(image, target, quality, keep, rules.encoders)
    return body, target
