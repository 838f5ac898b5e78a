"""Colour management: which colours an image is worked on in, and which it is saved in."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, replace

import pyvips

from imgproxy_cache.engine.options import Color

PROFILE = "icc-profile-data"
DEEP = {"rgb16", "grey16", "scrgb"}
# Work is done in these as they are; a profile, if any, is applied to the few pixels of the result
WORKABLE = {"rgb", "srgb", "rgb16", "scrgb", "grey16", "b-w"}
# Where an ICC header says who made it for what.  Source: ICC.1:2022 section 7.2
SRGB_HEADER = {8: b"\x02\x10\x00\x00", 16: b"RGB ", 48: b"IEC sRGB", 80: b"HP  "}
SRGB_DATE = b"\x07\xce\x00\x02\x00\x09"
ICC_HEADER_BYTES = 128


@dataclass(frozen=True, slots=True)
class Picture:
    """An image on its way, with the profile it came with: libvips loses that in conversions."""

    image: pyvips.Image
    profile: bytes | None = None
    is_imported: bool = False
    """Whether the profile has been applied, so that the colours are standard ones."""

    def with_image(self, image: pyvips.Image) -> Picture:
        return replace(self, image=image)


def picture_to_work_on(image: pyvips.Image, *, deep: bool) -> Picture:
    """Convert to 8-bit sRGB or grey (16-bit where ``deep``), importing profiles where needed."""
    colors = image.interpretation
    picture = Picture(image)
    if colors == "scrgb":
        # Linear colours are standard ones: a profile would be applied to the wrong values
        if image.get_typeof(PROFILE):
            picture = Picture(without_profile(image))
    elif image.get_typeof(PROFILE):
        profile = image.get(PROFILE)
        picture = Picture(image, profile=profile if len(profile) >= ICC_HEADER_BYTES else None)
        if colors not in WORKABLE:
            picture = _imported(picture)
    return picture.with_image(_converted(picture.image, _working_colors(colors, deep=deep)))


def picture_to_save(picture: Picture, *, keep_profile: bool) -> Picture:
    """Convert to the colours of the profile that is kept, or to standard ones without a profile."""
    image, profile = picture.image, picture.profile
    if profile is None:
        return picture
    if not image.get_typeof(PROFILE):
        image = image.copy()
        image.set_type(pyvips.GValue.blob_type, PROFILE, profile)
    if keep_profile is picture.is_imported and not _is_srgb(image, profile):
        # A broken profile is no reason to show no image
        with suppress(pyvips.Error):
            image = (_exported if keep_profile else _standardized)(image, profile)
    return picture.with_image(image if keep_profile else without_profile(image))


def flattened(image: pyvips.Image, background: Color) -> pyvips.Image:
    """Put an image with an alpha channel on a background."""
    if not image.hasalpha():
        return image
    levels = [background.red, background.green, background.blue]
    is_grey = image.interpretation in {"b-w", "grey16"}
    if is_grey and len(set(levels)) > 1:
        image = image.colourspace("srgb" if image.interpretation == "b-w" else "rgb16")
    elif is_grey:
        levels = levels[:1]
    if _depth(image) == 16:
        levels = [level * 257 for level in levels]
    return image.flatten(background=levels)


def without_profile(image: pyvips.Image) -> pyvips.Image:
    image = image.copy()
    image.remove(PROFILE)
    return image


def _working_colors(colors: str, *, deep: bool) -> str:
    match colors:
        case "rgb" | "srgb" | "b-w":
            return colors
        case "grey16":
            return colors if deep else "b-w"
        case "cmyk":
            return "srgb"
        case _:
            return "rgb16" if deep else "srgb"


def _converted(image: pyvips.Image, colors: str) -> pyvips.Image:
    return image if image.interpretation == colors else image.colourspace(colors)


def _imported(picture: Picture) -> Picture:
    image, profile = picture.image, picture.profile
    if profile is None or image.format not in {"uchar", "ushort"}:
        return picture
    with suppress(pyvips.Error):
        image = image.icc_import(embedded=True, pcs=_connection_space(profile))
        return Picture(image, profile=profile, is_imported=True)
    return picture


def _exported(image: pyvips.Image, profile: bytes) -> pyvips.Image:
    return image.icc_export(pcs=_connection_space(profile), depth=_depth(image))


def _standardized(image: pyvips.Image, profile: bytes) -> pyvips.Image:
    standard = "sGrey" if image.interpretation in {"b-w", "grey16"} else "sRGB"
    return image.icc_transform(
        standard, embedded=True, pcs=_connection_space(profile), depth=_depth(image)
    )


def _connection_space(profile: bytes) -> str:
    return "xyz" if profile[20:24] == b"XYZ " else "lab"


def _depth(image: pyvips.Image) -> int:
    return 16 if image.interpretation in DEEP else 8


def _is_srgb(image: pyvips.Image, profile: bytes) -> bool:
    """Whether a profile is the common sRGB one, which need not be applied: it changes nothing."""
    return (
        image.interpretation == "srgb"
        and profile[24:30] == SRGB_DATE
        and all(profile[at : at + len(text)] == text for at, text in SRGB_HEADER.items())
    )
