"""Encoders, with the parameters that imgproxy gives them."""

from __future__ import annotations

from dataclasses import dataclass

import pyvips

from imgproxy_cache.engine.geometry import scaled

PALETTE_COLORS = 256
LEAST_QUALITY_TRIED = 10


@dataclass(frozen=True, slots=True)
class EncoderRules:
    """What a server's settings say about encoders."""

    jpeg_progressive: bool = False
    png_interlaced: bool = False
    png_quantize: bool = False
    png_quantization_colors: int = PALETTE_COLORS
    webp_effort: int = 4
    webp_preset: str = "default"
    avif_speed: int = 8


def saved(
    image: pyvips.Image, format_name: str, quality: int, keep: str, rules: EncoderRules
) -> bytes:
    """Encode an image; ``keep`` names the metadata to keep as libvips does: ``exif:icc``."""
    body: bytes
    match format_name:
        case "jpeg":
            body = image.jpegsave_buffer(
                Q=quality, optimize_coding=True, interlace=rules.jpeg_progressive, keep=keep
            )
        case "png":
            body = _png(image, keep, rules)
        case "webp":
            body = image.webpsave_buffer(
                Q=quality, effort=rules.webp_effort, preset=rules.webp_preset, keep=keep
            )
        case "avif":
            # The tuning of imgproxy's libvips; the newer default is for larger stills, and slower
            body = image.heifsave_buffer(
                Q=quality,
                compression="av1",
                effort=9 - rules.avif_speed,
                tune="ssim",
                keep=keep,
            )
        case "gif":
            body = image.gifsave_buffer(bitdepth=_palette_bits(image) or 8, keep=keep)
        case "tiff":
            body = image.tiffsave_buffer(Q=quality, keep=keep)
        case _:
            raise ValueError(format_name)
    return body


def saved_within(
    image: pyvips.Image,
    format_name: str,
    quality: int,
    keep: str,
    rules: EncoderRules,
    *,
    max_bytes: int,
) -> bytes:
    """Encode with less and less quality until the body is small enough, or the quality hopeless."""
    image = image.copy_memory()
    while True:
        body = saved(image, format_name, quality, keep, rules)
        if len(body) <= max_bytes or quality <= LEAST_QUALITY_TRIED:
            return body
        excess = len(body) / max_bytes
        factor = 0.25 if excess > 3 else 0.5 if excess > 1.5 else 0.75
        quality = max(1, min(quality - 1, scaled(quality, factor)))


def _png(image: pyvips.Image, keep: str, rules: EncoderRules) -> bytes:
    bits = _bits_for(rules.png_quantization_colors) if rules.png_quantize else _palette_bits(image)
    body: bytes = (
        image.pngsave_buffer(
            filter="none", interlace=rules.png_interlaced, palette=True, bitdepth=bits, keep=keep
        )
        if bits
        else image.pngsave_buffer(filter="all", interlace=rules.png_interlaced, keep=keep)
    )
    return body


def _palette_bits(image: pyvips.Image) -> int:
    """Bits a pixel of a source that had a palette (a picture of few colours), else 0."""
    if not image.get_typeof("palette"):
        return 0
    bits = image.get("bits-per-sample") if image.get_typeof("bits-per-sample") else 8
    return 8 if bits > 4 else 4 if bits > 2 else bits


def _bits_for(colors: int) -> int:
    return 8 if colors > 16 else 4 if colors > 4 else 2 if colors > 2 else 1
