"""
What a URL asks of the engine, as values.

Every field says what imgproxy 4 would do after reading the settings, the
presets and the path: a setting that a URL may override (quality, limits,
metadata...) is the default here, so that the renderer looks nowhere else.

Formats are named as imgproxy names them: ``jpeg png webp avif gif jxl ico svg
heic bmp tiff``.

Source: https://docs.imgproxy.net/usage/processing
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType


class ResizingType(StrEnum):
    FIT = "fit"
    FILL = "fill"
    FILL_DOWN = "fill-down"
    FORCE = "force"
    AUTO = "auto"


class GravityType(StrEnum):
    CENTER = "ce"
    NORTH = "no"
    EAST = "ea"
    SOUTH = "so"
    WEST = "we"
    NORTH_WEST = "nowe"
    NORTH_EAST = "noea"
    SOUTH_WEST = "sowe"
    SOUTH_EAST = "soea"
    SMART = "sm"
    FOCUS_POINT = "fp"


@dataclass(frozen=True, slots=True)
class Color:
    """Red, green and blue, 0 to 255."""

    red: int
    green: int
    blue: int


WHITE = Color(255, 255, 255)


@dataclass(frozen=True, slots=True)
class Gravity:
    """
    Where to cut or to place.

    The offsets are pixels, or fractions of the image where below 1; for a focus
    point they are its place, 0 to 1.
    """

    type: GravityType = GravityType.CENTER
    x: float = 0.0
    y: float = 0.0


@dataclass(frozen=True, slots=True)
class Extend:
    enabled: bool = False
    gravity: Gravity = Gravity()


@dataclass(frozen=True, slots=True)
class Crop:
    """
    The part of the source that is used at all.

    A side of 0 is the whole side, below 1 a fraction of it, else pixels.
    Without a gravity of its own the crop uses that of the options.
    """

    width: float = 0.0
    height: float = 0.0
    gravity: Gravity | None = None


@dataclass(frozen=True, slots=True)
class Padding:
    """Pixels around the image; ``dpr`` multiplies them."""

    top: int = 0
    right: int = 0
    bottom: int = 0
    left: int = 0


@dataclass(frozen=True, slots=True)
class Trim:
    """Cut off what is like the background; without a colour, like the corner pixel's."""

    threshold: float
    color: Color | None = None
    equal_horizontal: bool = False
    equal_vertical: bool = False


@dataclass(frozen=True, slots=True)
class Limits:
    """
    What a source may cost: checked before it is decoded.

    Resolutions are in pixels, the file size in bytes; 0 is no limit but for
    ``src_resolution`` and ``animation_frames``.  ``result_dimension`` scales the
    result down.
    """

    src_resolution: int = 50_000_000
    src_file_size: int = 0
    animation_frames: int = 1
    animation_frame_resolution: int = 0
    result_dimension: int = 0


NO_QUALITIES: Mapping[str, int] = MappingProxyType({})
DEFAULT_FORMAT_QUALITY: Mapping[str, int] = MappingProxyType({"webp": 79, "avif": 63, "jxl": 77})


@dataclass(frozen=True, slots=True)
class Options:
    # Geometry
    resizing_type: ResizingType = ResizingType.FIT
    width: int = 0
    height: int = 0
    min_width: int = 0
    min_height: int = 0
    zoom_width: float = 1.0
    zoom_height: float = 1.0
    dpr: float = 1.0
    enlarge: bool = False
    extend: Extend = Extend()
    extend_aspect_ratio: Extend = Extend()
    gravity: Gravity = Gravity()
    crop: Crop = Crop()
    trim: Trim | None = None
    padding: Padding = Padding()
    auto_rotate: bool = True
    rotate: int = 0
    flip_horizontal: bool = False
    flip_vertical: bool = False

    # Pixels
    background: Color | None = None
    blur: float = 0.0
    sharpen: float = 0.0
    pixelate: int = 0

    # Metadata
    strip_metadata: bool = True
    keep_copyright: bool = True
    strip_color_profile: bool = True
    preserve_hdr: bool = False
    enforce_thumbnail: bool = False

    # Saving
    format: str | None = None
    """The format that the URL asks for; None leaves it to the source and the client."""
    prefer_formats: frozenset[str] = frozenset()
    """Those of webp, avif and jxl that the client takes and the settings allow (``AUTO_``)."""
    enforce_formats: frozenset[str] = frozenset()
    """Those that the client takes and that win over ``format`` (``ENFORCE_``)."""
    quality: int = 0
    """The URL's, 0 when it says none: ask :meth:`quality_of`."""
    format_quality: Mapping[str, int] = field(default_factory=lambda: NO_QUALITIES)
    default_quality: int = 80
    default_format_quality: Mapping[str, int] = field(
        default_factory=lambda: DEFAULT_FORMAT_QUALITY
    )
    max_bytes: int = 0
    skip_processing: frozenset[str] = frozenset()
    """Source formats that are passed on as they are."""

    # The answer
    raw: bool = False
    filename: str | None = None
    return_attachment: bool = False
    expires: int = 0
    """Unix time at which the URL ends; 0: never."""

    limits: Limits = Limits()

    def quality_of(self, format_name: str) -> int:
        """The quality, 1 to 100, with which to save in a format."""
        return (
            self.quality
            or self.format_quality.get(format_name, 0)
            or self.default_format_quality.get(format_name, 0)
            or self.default_quality
        )
