"""From a source image and options to the image that is answered, as imgproxy renders it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from imgproxy_cache.engine.options import Options

FORMAT_QUALITY = MappingProxyType({"webp": 79, "avif": 63})
PREFERRED_FORMATS = ("jpeg", "png", "gif")


@dataclass(frozen=True, slots=True)
class RenderRules:
    """What a server's settings say about rendering; an option in the URL wins over them."""

    preferred_formats: tuple[str, ...] = PREFERRED_FORMATS
    skip_processing_formats: tuple[str, ...] = ()
    quality: int = 80
    format_quality: Mapping[str, int] = field(default_factory=lambda: FORMAT_QUALITY)
    strip_metadata: bool = True
    keep_copyright: bool = True
    strip_color_profile: bool = True
    auto_rotate: bool = True
    sanitize_svg: bool = True
    always_rasterize_svg: bool = False
    use_linear_colorspace: bool = False
    disable_shrink_on_load: bool = False
    max_src_resolution: int = 50_000_000  # pixels
    max_animation_frames: int = 1
    max_animation_frame_resolution: int = 0  # pixels, 0: the limit above, over all frames
    max_result_dimension: int = 0  # pixels, 0: no limit
    jpeg_progressive: bool = False
    png_interlaced: bool = False
    png_quantize: bool = False
    png_quantization_colors: int = 256
    webp_effort: int = 4
    webp_preset: str = "default"
    avif_speed: int = 8


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

    Blocks for the time it takes; safe to call from many threads at once.

    Raises: InvalidSource, BrokenImage, BrokenSvg, UnsupportedFormat.
    """
    raise NotImplementedError
