"""
`make soak`: does memory stay flat?  The engine over 100,000 renders, the proxy over half an hour.

`python -m benchmarks.soak --renders 0 --minutes 5` leaves the engine out; the other way round too.
"""

import argparse
import asyncio
import itertools
import os
import random
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import uvloop

from benchmarks.bucket import bucket
from benchmarks.clients import asking, asking_at_rate
from benchmarks.machine import (
    ALL_CORES,
    OTHER_CORE,
    SERVER_CORE,
    open_descriptors,
    resident_megabytes,
)
from benchmarks.servers import Server, imgproxy, proxy
from benchmarks.storing import STORABLE
from benchmarks.upstream import IMAGE_BYTES, upstream_on_loopback

RENDERS = 100_000
RENDERS_A_LINE = 5_000
MINUTES = 30.0
LINES = 20
# Threads and allocators take a while to reach their size; after that nothing may be added.
WARM_UP_LINES = 3
MOST_ENGINE_GROWTH_MEGABYTES = 24
MOST_PROXY_GROWTH_MEGABYTES = 12

IMAGES_PER_SECOND = 200
HANG_UPS_PER_SECOND = 20
# Images are stored over and over, or the disk would fill.
DIFFERENT_IMAGES = 2_000
# Longer than any connection is kept idle, to imgproxy or to the store.
IDLE_SECONDS = 12
MOST_DESCRIPTORS_MORE = 2

RENDERED = tuple(
    f"/_/{options}/plain/local:///{source}".encode()
    for options, source in itertools.product(
        ("rs:fill:64:64", "rs:fit:120:120/bl:1", "rs:fit:40:40/q:60"),
        ("chelsea.jpg", "cat.png@webp", "coffee.webp", "rocket.jpg@png", "logo.svg@png"),
    )
)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak", description=__doc__)
    parser.add_argument("--renders", type=int, default=RENDERS, help="by the engine")
    parser.add_argument("--minutes", type=float, default=MINUTES, help="of load on the proxy")
    asked = parser.parse_args()
    os.sched_setaffinity(0, OTHER_CORE)
    is_flat = True
    if asked.renders:
        is_flat &= uvloop.run(engine_is_flat(asked.renders))
    if asked.minutes:
        with tempfile.TemporaryDirectory(prefix="imgproxy-cache-soak-") as folder:
            is_flat &= uvloop.run(proxy_is_flat(Path(folder), asked.minutes))
    return 0 if is_flat else 1


async def engine_is_flat(renders: int) -> bool:
    targets = itertools.cycle(RENDERED)
    sizes = []
    async with imgproxy(None, cores=ALL_CORES) as engine:
        for done in range(0, renders, RENDERS_A_LINE):
            count = min(RENDERS_A_LINE, renders - done)
            async with asking(
                engine.port, itertools.islice(targets, count), connections=8
            ) as tally:
                await tally.finished.wait()
                tally.expect_only_images(engine.name)
            sizes.append(resident_megabytes(engine.pid))
            print(f"engine {done + count:>7} renders  {sizes[-1]:6.1f} MB", flush=True)
    return _is_flat("engine", sizes, MOST_ENGINE_GROWTH_MEGABYTES)


async def proxy_is_flat(folder: Path, minutes: float) -> bool:
    """Images stored, clients that hang up: nothing of them may be left, in memory or open."""
    with bucket(folder / "s3", cores=OTHER_CORE) as s3:
        async with upstream_on_loopback() as upstream:
            upstream.answer_with(IMAGE_BYTES, cache_control=STORABLE)
            async with proxy(upstream.port, s3.environ, cores=SERVER_CORE) as server:
                # What the first image brings with it stays: the resolver's, the store's threads.
                async with asking(server.port, iter([next(_repeated())]), connections=1) as tally:
                    await tally.finished.wait()
                descriptors = await _idle_descriptors(server)
                sizes = await _sizes_under_load(server, minutes * 60)
                left = await _idle_descriptors(server) - descriptors
    is_flat = _is_flat("proxy", sizes, MOST_PROXY_GROWTH_MEGABYTES)
    print(f"proxy: {left:+} descriptors, at most {MOST_DESCRIPTORS_MORE:+} allowed")
    return is_flat and left <= MOST_DESCRIPTORS_MORE


async def _sizes_under_load(server: Server, seconds: float) -> list[float]:
    sizes = []
    hanging_up = asyncio.create_task(_hang_up_again_and_again(server.port))
    try:
        async with asking_at_rate(server.port, _repeated(), per_second=IMAGES_PER_SECOND) as tally:
            started = time.monotonic()
            for _ in range(LINES):
                await asyncio.sleep(seconds / LINES)
                tally.expect_only_images(server.name)
                sizes.append(resident_megabytes(server.pid))
                print(
                    f"proxy {time.monotonic() - started:5.0f} s  {tally.images:>7} images "
                    f" {sizes[-1]:6.1f} MB  {open_descriptors(server.pid)} descriptors",
                    flush=True,
                )
    finally:
        hanging_up.cancel()
    with suppress(asyncio.CancelledError):
        await hanging_up
    return sizes


async def _hang_up_again_and_again(port: int) -> None:
    for target in _repeated():
        await asyncio.sleep(1 / HANG_UPS_PER_SECOND)
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET %b?hang-up HTTP/1.1\r\nHost: img.example\r\n\r\n" % target)
        await asyncio.sleep(random.uniform(0, 0.003))
        writer.transport.abort()


async def _idle_descriptors(server: Server) -> int:
    await asyncio.sleep(IDLE_SECONDS)
    return open_descriptors(server.pid)


def _repeated() -> Iterator[bytes]:
    for number in itertools.cycle(range(DIFFERENT_IMAGES)):
        yield b"/_/rs:fit:300:300/plain/https://example.com/image%d.jpg" % number


def _is_flat(name: str, sizes: list[float], most: float) -> bool:
    first = sizes[min(WARM_UP_LINES, len(sizes)) - 1]
    grown = sizes[-1] - first
    print(f"{name}: {grown:+.1f} MB after the warm-up, at most {most:+} allowed")
    return grown <= most


if __name__ == "__main__":
    sys.exit(main())
