"""Decoders: opening an original, whole or already smaller, and what its header says."""

from __future__ import annotations

from dataclasses import dataclass

import pyvips

from imgproxy_cache.engine.errors import UnsupportedFormat

# libvips measures SVGs at 72 dots an inch, CSS at 96
SVG_DPI = 96.0
SVG_SCALE = 72.0 / SVG_DPI


@dataclass(frozen=True, slots=True)
class Original:
    """A source and its format; opening it decodes the header, the pixels come when needed."""

    body: bytes
    format: str

    @property
    def is_vector(self) -> bool:
        return self.format == "svg"

    @property
    def has_thumbnail(self) -> bool:
        return self.format in {"heic", "avif"}

    def open(self, *, shrink: float = 1.0, pages: int = 1, thumbnail: bool = False) -> pyvips.Image:
        """
        Open the image ``shrink`` times smaller (a JPEG: 1, 2, 4 or 8; and WebP and SVG: any).

        ``pages`` are those of an animation, one below the other.

        Raises: UnsupportedFormat, pyvips.Error.
        """
        match self.format:
            case "jpeg":
                image = pyvips.Image.jpegload_buffer(
                    self.body, access="sequential", shrink=int(shrink)
                )
            case "png":
                image = pyvips.Image.pngload_buffer(self.body, access="sequential")
            case "webp":
                image = pyvips.Image.webpload_buffer(
                    self.body, access="sequential", scale=1 / shrink, n=pages
                )
            case "gif":
                image = pyvips.Image.gifload_buffer(self.body, access="sequential", n=pages)
            case "svg":
                image = pyvips.Image.svgload_buffer(
                    self.body, access="sequential", scale=SVG_SCALE / shrink, dpi=SVG_DPI
                )
            case "heic" | "avif":
                image = pyvips.Image.heifload_buffer(
                    self.body, access="sequential", thumbnail=thumbnail
                )
            case "tiff":
                image = pyvips.Image.tiffload_buffer(self.body, access="sequential", n=pages)
            case _:
                raise UnsupportedFormat(f"cannot load {self.format}: the real imgproxy can")
        return image


def orientation_of(image: pyvips.Image) -> int:
    """The EXIF orientation, 1 to 8."""
    return int(image.get("orientation")) if image.get_typeof("orientation") else 1


def is_animated(image: pyvips.Image) -> bool:
    """Whether the file has frames that follow each other in time; pages are none."""
    return (
        all(image.get_typeof(name) for name in ("n-pages", "delay", "loop"))
        and image.get("n-pages") > 1
    )
