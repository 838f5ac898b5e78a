"""Metadata: what of it an answered image keeps."""

from __future__ import annotations

import pyvips

from imgproxy_cache.engine.options import Options

COPYRIGHT = {"exif-ifd0-Copyright", "exif-ifd0-Artist"}
SCREEN_DOTS_PER_MILLIMETRE = 72 / 25.4
# They describe the colours of the source, which are gone with its profile
EXIF_COLORS = (
    "exif-ifd0-WhitePoint",
    "exif-ifd0-PrimaryChromaticities",
    "exif-ifd2-ColorSpace",
)


def stripped(
    image: pyvips.Image, options: Options, *, keep_profile: bool
) -> tuple[pyvips.Image, str]:
    """The image without what is not to be kept, and what to keep of it in libvips' words."""
    has_exif = bool(image.get_typeof("exif-data"))
    if not options.strip_metadata:
        if has_exif and not keep_profile:
            image = image.copy()
            for name in EXIF_COLORS:
                image.remove(name)
        return image, "all"
    image = image.copy(xres=SCREEN_DOTS_PER_MILLIMETRE, yres=SCREEN_DOTS_PER_MILLIMETRE)
    kept = ["icc"] if keep_profile else []
    if has_exif and options.keep_copyright:
        kept += _only_copyright(image)
    return image, ":".join(kept) or "none"


def _only_copyright(image: pyvips.Image) -> list[str]:
    """Remove every other EXIF field; what remains of the block to keep, if anything."""
    fields = {name for name in image.get_fields() if name.startswith("exif-ifd")}
    for name in fields - COPYRIGHT:
        image.remove(name)
    return ["exif"] if fields & COPYRIGHT else []
