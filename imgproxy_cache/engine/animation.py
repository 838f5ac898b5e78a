"""Animations: libvips holds their frames in one image, one below the other."""

from __future__ import annotations

from dataclasses import replace

import pyvips

from imgproxy_cache.engine.colors import Picture
from imgproxy_cache.engine.transform import Work, transformed

DEFAULT_FRAME_MILLISECONDS = 40
TIMING = ("delay", "loop", "page-height", "n-pages")


def animation(image: pyvips.Image, work: Work) -> Picture:
    """Transform every frame, and put them together again; trimming is left out."""
    if work.options.trim:
        work = replace(work, options=replace(work.options, trim=None))
    height = image.get_page_height()
    count = image.height // height
    frames = [_frame(image, number * height, height, work) for number in range(count)]
    joined = pyvips.Image.arrayjoin([frame.image for frame in frames], across=1).copy()
    delays = image.get("delay") or [DEFAULT_FRAME_MILLISECONDS] * count
    for name, value_type, value in (
        ("delay", pyvips.GValue.array_int_type, delays[:count]),
        ("loop", pyvips.GValue.gint_type, image.get("loop")),
        ("page-height", pyvips.GValue.gint_type, frames[0].image.height),
        ("n-pages", pyvips.GValue.gint_type, count),
    ):
        joined.set_type(value_type, name, value)
    return frames[0].with_image(joined)


def still(image: pyvips.Image) -> pyvips.Image:
    """One frame of what may have been an animation, that says nothing of the others."""
    if image.get_typeof("n-pages"):
        image = image.copy()
        for name in TIMING:
            image.remove(name)
    return image


def _frame(image: pyvips.Image, top: int, height: int, work: Work) -> Picture:
    # The frames come from one decoder, in order: each is finished before the next is begun
    frame = transformed(still(image.crop(0, top, image.width, height)), None, work)
    return frame.with_image(frame.image.copy_memory())
