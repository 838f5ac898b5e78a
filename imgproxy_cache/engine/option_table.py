"""
What every option of a URL changes, by its long name.

``preset``, ``expires`` and ``watermark``, which need more than their arguments,
are in :mod:`imgproxy_cache.engine.url_options`.

Source: https://docs.imgproxy.net/usage/processing
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from imgproxy_cache.engine import arguments as arg
from imgproxy_cache.engine.errors import InvalidUrl
from imgproxy_cache.engine.options import Color, Extend, Gravity, Options, ResizingType, Trim

With = Callable[[Options, Sequence[str]], Options]
"""Changes options by the arguments of one option; there is at least one argument."""


def _with_size(options: Options, arguments: Sequence[str]) -> Options:
    arg.at_most(7, "size", arguments)
    for name, value in zip(("width", "height", "enlarge"), arguments, strict=False):
        if value:
            options = OPTIONS[name](options, [value])
    if len(arguments) > 3 and arguments[3]:
        options = OPTIONS["extend"](options, arguments[3:])
    return options


def _with_resize(options: Options, arguments: Sequence[str]) -> Options:
    arg.at_most(8, "resize", arguments)
    if arguments[0]:
        options = _with_resizing_type(options, arguments[:1])
    return _with_size(options, arguments[1:])


def _with_resizing_type(options: Options, arguments: Sequence[str]) -> Options:
    name = arg.single("resizing_type", arguments)
    if name not in set(ResizingType):
        raise InvalidUrl(f"{name!r} is no resizing type")
    return replace(options, resizing_type=ResizingType(name))


def _with_zoom(options: Options, arguments: Sequence[str]) -> Options:
    arg.at_most(2, "zoom", arguments)
    zooms = [arg.positive("zoom", argument) for argument in arguments]
    return replace(options, zoom_width=zooms[0], zoom_height=zooms[-1])


def _extended(name: str, before: Extend, arguments: Sequence[str]) -> Extend:
    arg.at_most(4, name, arguments)
    gravity = before.gravity
    if len(arguments) > 1:
        gravity = arg.gravity(name, arguments[1:], gravity, smart_is_allowed=False)
    return Extend(arg.boolean(arguments[0]), gravity)


def _with_extend(options: Options, arguments: Sequence[str]) -> Options:
    return replace(options, extend=_extended("extend", options.extend, arguments))


def _with_extend_aspect_ratio(options: Options, arguments: Sequence[str]) -> Options:
    before = options.extend_aspect_ratio
    return replace(options, extend_aspect_ratio=_extended("extend_aspect_ratio", before, arguments))


def _with_gravity(options: Options, arguments: Sequence[str]) -> Options:
    return replace(options, gravity=arg.gravity("gravity", arguments, options.gravity))


def _with_crop(options: Options, arguments: Sequence[str]) -> Options:
    crop = replace(options.crop, width=arg.number("crop", arguments[0], least=0))
    if len(arguments) > 1:
        crop = replace(crop, height=arg.number("crop", arguments[1], least=0))
    if len(arguments) > 2:
        before = crop.gravity or Gravity()
        crop = replace(crop, gravity=arg.gravity("crop", arguments[2:], before))
    return replace(options, crop=crop)


def _with_trim(options: Options, arguments: Sequence[str]) -> Options:
    arg.at_most(4, "trim", arguments)
    threshold, color, horizontal, vertical, *_ = (*arguments, "", "", "")
    if not threshold:
        return replace(options, trim=None)
    before = options.trim or Trim(0)
    trim = Trim(
        threshold=arg.number("trim", threshold),
        color=arg.hex_color("trim", color) if color else None,
        equal_horizontal=arg.boolean(horizontal) if horizontal else before.equal_horizontal,
        equal_vertical=arg.boolean(vertical) if vertical else before.equal_vertical,
    )
    return replace(options, trim=trim)


def _with_padding(options: Options, arguments: Sequence[str]) -> Options:
    arg.at_most(4, "padding", arguments)
    given = [arg.integer("padding", text, least=0) if text else None for text in arguments]
    top, right, bottom, left, *_ = (*given, None, None, None)
    top = options.padding.top if top is None else top
    right = top if right is None else right
    bottom = top if bottom is None else bottom
    left = right if left is None else left
    return replace(
        options, padding=replace(options.padding, top=top, right=right, bottom=bottom, left=left)
    )


def _with_rotate(options: Options, arguments: Sequence[str]) -> Options:
    angle = arg.integer("rotate", arg.single("rotate", arguments))
    if angle % 90:
        raise InvalidUrl(f"rotate is {angle}, which is no multiple of 90")
    return replace(options, rotate=angle)


def _with_flip(options: Options, arguments: Sequence[str]) -> Options:
    arg.at_most(2, "flip", arguments)
    horizontal, vertical, *_ = (*arguments, "")
    return replace(
        options,
        flip_horizontal=arg.boolean(horizontal) if horizontal else options.flip_horizontal,
        flip_vertical=arg.boolean(vertical) if vertical else options.flip_vertical,
    )


def _with_background(options: Options, arguments: Sequence[str]) -> Options:
    if len(arguments) == 3:
        red, green, blue = (arg.integer("background", text, 0, 255) for text in arguments)
        return replace(options, background=Color(red, green, blue))
    text = arg.single("background", arguments)
    return replace(options, background=arg.hex_color("background", text) if text else None)


def _with_format_quality(options: Options, arguments: Sequence[str]) -> Options:
    if len(arguments) % 2:
        raise InvalidUrl("format_quality needs a quality for every format")
    given = {
        arg.format_name(name): arg.integer("format_quality", quality, 0, 100)
        for name, quality in zip(arguments[::2], arguments[1::2], strict=True)
    }
    return replace(options, format_quality={**options.format_quality, **given})


def _with_format(options: Options, arguments: Sequence[str]) -> Options:
    return replace(options, format=arg.format_name(arg.single("format", arguments)))


def _with_skip_processing(options: Options, arguments: Sequence[str]) -> Options:
    given = {arg.format_name(name) for name in arguments}
    return replace(options, skip_processing=options.skip_processing | given)


def _with_cachebuster(options: Options, arguments: Sequence[str]) -> Options:
    arg.single("cachebuster", arguments)
    return options


def _with_filename(options: Options, arguments: Sequence[str]) -> Options:
    arg.at_most(2, "filename", arguments)
    name, encoded, *_ = (*arguments, "")
    return replace(
        options, filename=arg.base64_text("filename", name) if arg.boolean(encoded) else name
    )


def _with_field(field_name: str, value_of: Callable[[str, str], object]) -> With:
    """Set a field of the options from an option's only argument."""

    def with_field(options: Options, arguments: Sequence[str]) -> Options:
        value: Any = value_of(field_name, arg.single(field_name, arguments))
        return replace(options, **{field_name: value})

    return with_field


def _with_limit(field_name: str, value_of: Callable[[str, str], int]) -> With:
    def with_limit(options: Options, arguments: Sequence[str]) -> Options:
        value: Any = value_of(field_name, arg.single(field_name, arguments))
        return replace(options, limits=replace(options.limits, **{field_name: value}))

    return with_limit


def _size(name: str, text: str) -> int:
    return arg.integer(name, text, least=0)


def _count(name: str, text: str) -> int:
    return arg.integer(name, text, least=1)


def _percent(name: str, text: str) -> int:
    return arg.integer(name, text, 0, 100)


def _amount(name: str, text: str) -> float:
    return arg.number(name, text, least=0)


def _pixels(name: str, text: str) -> int:
    return int(_amount(name, text) * 1_000_000)


def _flag(_name: str, text: str) -> bool:
    return arg.boolean(text)


LIMITS: Mapping[str, With] = MappingProxyType(
    {
        "max_src_resolution": _with_limit("src_resolution", _pixels),
        "max_src_file_size": _with_limit("src_file_size", arg.integer),
        "max_animation_frames": _with_limit("animation_frames", _count),
        "max_animation_frame_resolution": _with_limit("animation_frame_resolution", _pixels),
        "max_result_dimension": _with_limit("result_dimension", arg.integer),
    }
)
"""The options that only ``IMGPROXY_ALLOW_SECURITY_OPTIONS`` lets a URL use."""

OPTIONS: Mapping[str, With] = MappingProxyType(
    {
        "resize": _with_resize,
        "size": _with_size,
        "resizing_type": _with_resizing_type,
        "width": _with_field("width", _size),
        "height": _with_field("height", _size),
        "min-width": _with_field("min_width", _size),
        "min-height": _with_field("min_height", _size),
        "zoom": _with_zoom,
        "dpr": _with_field("dpr", arg.positive),
        "enlarge": _with_field("enlarge", _flag),
        "extend": _with_extend,
        "extend_aspect_ratio": _with_extend_aspect_ratio,
        "gravity": _with_gravity,
        "crop": _with_crop,
        "trim": _with_trim,
        "padding": _with_padding,
        "auto_rotate": _with_field("auto_rotate", _flag),
        "rotate": _with_rotate,
        "flip": _with_flip,
        "background": _with_background,
        "blur": _with_field("blur", _amount),
        "sharpen": _with_field("sharpen", _amount),
        "pixelate": _with_field("pixelate", _size),
        "strip_metadata": _with_field("strip_metadata", _flag),
        "keep_copyright": _with_field("keep_copyright", _flag),
        "strip_color_profile": _with_field("strip_color_profile", _flag),
        "preserve_hdr": _with_field("preserve_hdr", _flag),
        "enforce_thumbnail": _with_field("enforce_thumbnail", _flag),
        "quality": _with_field("quality", _percent),
        "format_quality": _with_format_quality,
        "max_bytes": _with_field("max_bytes", _size),
        "format": _with_format,
        "skip_processing": _with_skip_processing,
        "raw": _with_field("raw", _flag),
        "cachebuster": _with_cachebuster,
        "filename": _with_filename,
        "return_attachment": _with_field("return_attachment", _flag),
        **LIMITS,
    }
)
