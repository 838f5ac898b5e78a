"""
From the options of a path, and the presets, to :class:`Options`.

Source: https://docs.imgproxy.net/usage/processing
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from imgproxy_cache.core.imgproxy_path import LONG_NAMES, ImgproxyPath, Option
from imgproxy_cache.engine import arguments as arg
from imgproxy_cache.engine.errors import Forbidden, InvalidUrl
from imgproxy_cache.engine.option_table import LIMITS, OPTIONS
from imgproxy_cache.engine.options import Gravity, Options, ResizingType

Presets = Mapping[str, tuple[Option, ...]]
NO_PRESETS: Presets = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class OptionRules:
    """What a server's settings say about options."""

    defaults: Options = field(default_factory=Options)
    presets: Presets = field(default_factory=lambda: NO_PRESETS)
    allowed: frozenset[str] = frozenset()
    """``IMGPROXY_ALLOWED_PROCESSING_OPTIONS``, as written there; empty: all."""
    security_options_are_allowed: bool = False
    has_watermark: bool = False
    """A watermark is configured, which this engine cannot draw."""


class NotInTheEngine(InvalidUrl):
    """An option that imgproxy or imgproxy Pro has and this engine does not."""


def options_from_path(
    path: ImgproxyPath,
    rules: OptionRules,
    *,
    now: float,
    only_presets: bool = False,
    prefer_formats: frozenset[str] = frozenset(),
    enforce_formats: frozenset[str] = frozenset(),
) -> Options:
    """
    Say what a path asks for; ``now`` is Unix time.

    Raises: InvalidUrl, Forbidden.
    """
    if not only_presets and path.repaired.partition("/")[0] in set(ResizingType):
        raise InvalidUrl("it looks like imgproxy's old basic URL format")
    reading = _Reading(rules, now)
    options = replace(
        rules.defaults, prefer_formats=prefer_formats, enforce_formats=enforce_formats
    )
    if "default" in rules.presets:
        options = reading.with_presets(options, ["default"], ())
    options = reading.with_options(options, path.options, trusted=only_presets)
    if path.extension and not options.raw:
        options = replace(options, format=arg.format_name(path.extension))
    return options


def presets_from_lines(
    lines: Iterable[str], separator: str, *, security_options_are_allowed: bool = False
) -> tuple[Presets, list[str]]:
    """Read ``name=option/option`` lines; the second value names what is wrong with them."""
    presets: dict[str, tuple[Option, ...]] = {}
    problems = []
    for line in lines:
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        name, equals, value = (part.strip() for part in text.partition("="))
        options = tuple(tuple(part.split(separator)) for part in value.split("/"))
        if not (name and equals and value) or "=" in value or any(len(o) < 2 for o in options):
            problems.append(f"{text!r}: expected name=option{separator}argument/option...")
            continue
        presets[name] = options
    rules = OptionRules(presets=presets, security_options_are_allowed=security_options_are_allowed)
    for name in presets:
        try:
            _Reading(rules, 0).with_presets(Options(), [name], ())
        except (InvalidUrl, Forbidden) as exc:
            problems.append(f"preset {name!r}: {exc}")
    return presets, problems


@dataclass(frozen=True, slots=True)
class _Reading:
    rules: OptionRules
    now: float

    def with_options(
        self,
        options: Options,
        written: Iterable[Option],
        *,
        trusted: bool,
        used: Sequence[str] = (),
    ) -> Options:
        allowed = self.rules.allowed
        for name, *arguments in written:
            if allowed and not trusted and name not in allowed:
                raise InvalidUrl(f"option {name!r} is not in IMGPROXY_ALLOWED_PROCESSING_OPTIONS")
            options = self._with_option(options, name, arguments, used)
        return options

    def with_presets(self, options: Options, names: Iterable[str], used: Sequence[str]) -> Options:
        for name in names:
            if name not in self.rules.presets:
                raise InvalidUrl(f"unknown preset {name!r}")
            if name not in used:  # a preset that names itself is passed over, as in imgproxy
                written = self.rules.presets[name]
                options = self.with_options(options, written, trusted=True, used=[*used, name])
        return options

    def _with_option(
        self, options: Options, name: str, arguments: list[str], used: Sequence[str]
    ) -> Options:
        long_name = LONG_NAMES.get(name)
        if long_name is None:
            if name in PRO_OPTIONS:
                raise NotInTheEngine(f"option {name!r}: imgproxy Pro has it")
            raise InvalidUrl(f"unknown option {name!r}")
        if long_name == "preset":
            return self.with_presets(options, arguments, used)
        if long_name == "expires":
            return _with_expires(options, arguments, self.now)
        if long_name == "watermark":
            return _with_watermark(options, arguments, has_watermark=self.rules.has_watermark)
        if long_name in LIMITS and not self.rules.security_options_are_allowed:
            raise SecurityOptionsOff(f"option {name!r} needs IMGPROXY_ALLOW_SECURITY_OPTIONS")
        return OPTIONS[long_name](options, arguments)


class SecurityOptionsOff(Forbidden):
    """A limit is asked for that the settings do not let a URL change."""

    public = "Invalid URL"


def _with_expires(options: Options, arguments: Sequence[str], now: float) -> Options:
    expires = arg.integer("expires", arg.single("expires", arguments))
    if 0 < expires < int(now):
        raise InvalidUrl("the URL has expired")
    return replace(options, expires=expires)


def _with_watermark(options: Options, arguments: Sequence[str], *, has_watermark: bool) -> Options:
    """Without a configured image a watermark is checked and drawn nowhere, as in imgproxy."""
    arg.at_most(7, "watermark", arguments)
    opacity, place, x, y, scale, *_ = (*arguments, "", "", "", "")
    shown = arg.number("watermark", opacity, 0, 1) > 0
    if place and place != "re":
        arg.gravity("watermark", [place], Gravity(), smart_is_allowed=False)
    for offset in filter(None, (x, y)):
        arg.number("watermark", offset)
    if scale:
        arg.positive("watermark", scale)
    if shown and has_watermark:
        raise NotInTheEngine("option 'watermark': the real imgproxy draws it")
    return options


PRO_OPTIONS = frozenset(
    """
    resizing_algorithm ra objects_position op obj_pos crop_aspect_ratio crop_ar car
    monochrome mc duotone dt unsharp_masking ush blur_detections bd draw_detections dd
    crop_objects co colorize col gradient gr background_alpha bga adjust a brightness br
    contrast co saturation sa watermark_url wmu watermark_text wmt watermark_size wms
    watermark_rotate wm_rot wmr watermark_shadow wmsh style st color_profile cp icc dpi
    autoquality aq jpeg_options jpgo png_options pngo webp_options webpo avif_options avifo
    page pg pages pgs disable_animation da video_thumbnail_second vts
    video_thumbnail_keyframes vtk video_thumbnail_tile vtt video_thumbnail_animation vta
    fallback_image_url fiu hashsum hs blur_areas ba
    """.split()  # noqa: SIM905 - a list of eighty literals is harder to read
)
