"""
The mix by libvips alone, which the engine is held against: no server, no URLs, no options.

A program of its own; takes for how many seconds to resize on all its cores, and prints how many
images a second that were.
"""

import itertools
import os
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pyvips

from benchmarks.mix import MIX, Resize
from benchmarks.servers import PHOTOGRAPHS

# As imgproxy saves by default.
SAVE: dict[str, Callable[[pyvips.Image], bytes]] = {
    "jpeg": lambda image: image.jpegsave_buffer(Q=80, optimize_coding=True, keep="none"),
    "webp": lambda image: image.webpsave_buffer(Q=79, effort=4, keep="none"),
    "png": lambda image: image.pngsave_buffer(filter="all", keep="none"),
}


def main(seconds: float) -> None:
    pyvips.cache_set_max(0)
    pyvips.concurrency_set(1)
    threads = len(os.sched_getaffinity(0))
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(resized, MIX))
        started = time.perf_counter()
        images = sum(pool.map(resize_until, [started + seconds] * threads))
        print(images / (time.perf_counter() - started))


def resize_until(end: float) -> int:
    for number, resize in enumerate(itertools.cycle(MIX)):
        if time.perf_counter() > end:
            return number
        resized(resize)
    raise AssertionError


def resized(resize: Resize) -> bytes:
    image = pyvips.Image.thumbnail_buffer(
        (PHOTOGRAPHS / resize.name).read_bytes(),
        resize.width,
        height=resize.height,
        crop="centre" if resize.kind == "fill" else "none",
        size="down",
    )
    return SAVE[resize.format](image)


if __name__ == "__main__":
    main(float(sys.argv[1]))
