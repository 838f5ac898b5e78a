"""What a stored image costs beyond its answer, beside a bare loop of puts; and idle memory."""

import itertools
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from statistics import median

from benchmarks import bucket as buckets
from benchmarks.bucket import Bucket, bucket
from benchmarks.clients import answered, asking
from benchmarks.machine import OTHER_CORE, SERVER_CORE, cpu_seconds, resident_megabytes
from benchmarks.passing import targets
from benchmarks.servers import Server, figure_of, proxy
from benchmarks.table import Row
from benchmarks.upstream import IMAGE_BYTES, Upstream, upstream_on_loopback

ROUNDS = 5
# Fewer than the upload queue takes, so that none is dropped.
IMAGES = 2000
CONNECTIONS = 32
STORABLE = "max-age=31536000, public"

MOST_TIMES_BARE = 1.2
MOST_IDLE_MEGABYTES = 80


async def measure(folder: Path) -> list[Row]:
    paths = targets()
    async with AsyncExitStack() as stack:
        s3 = stack.enter_context(bucket(folder / "s3", cores=OTHER_CORE))
        upstream = await stack.enter_async_context(upstream_on_loopback())
        server = await stack.enter_async_context(
            proxy(upstream.port, s3.environ, cores=SERVER_CORE)
        )
        upstream.answer_with(IMAGE_BYTES, cache_control=STORABLE)
        await answered(server.port, next(paths))
        await s3.holds(1)
        idle_megabytes = resident_megabytes(server.pid)
        storing, bare = await _costs(server, upstream, s3, paths)
    return [
        Row(
            "storing 30 KB, added to its answer",
            ours=f"{storing:.0f} us",
            beside=f"bare obstore {bare:.0f} us",
            ratio=storing / bare,
            at_most=MOST_TIMES_BARE,
        ),
        Row(
            "memory of an idle worker",
            ours=f"{idle_megabytes:.0f} MB",
            value=idle_megabytes,
            at_most=MOST_IDLE_MEGABYTES,
            unit=" MB",
        ),
    ]


async def _costs(
    server: Server, upstream: Upstream, s3: Bucket, paths: Iterator[bytes]
) -> tuple[float, float]:
    """Microseconds of CPU for storing an image, and for a bare put: medians of alternate runs."""
    storing, bare = [], []
    for _ in range(ROUNDS):
        upstream.answer_with(IMAGE_BYTES, cache_control="no-store")
        passed = await _cost(server, s3, paths, IMAGES, stored=False)
        upstream.answer_with(IMAGE_BYTES, cache_control=STORABLE)
        storing.append(await _cost(server, s3, paths, IMAGES, stored=True) - passed)
        bare.append(await _bare_cost(s3))
    return median(storing), median(bare)


async def _cost(
    server: Server, s3: Bucket, paths: Iterator[bytes], images: int, *, stored: bool
) -> float:
    """Microseconds of CPU for an image, from the first request until the last is stored."""
    there = s3.images
    cpu = cpu_seconds(server.pid)
    some = itertools.islice(paths, images)
    async with asking(server.port, some, connections=CONNECTIONS) as tally:
        await tally.finished.wait()
        tally.expect_only_images(server.name)
    await s3.holds(there + images if stored else there)
    return (cpu_seconds(server.pid) - cpu) / images * 1e6


async def _bare_cost(s3: Bucket) -> float:
    arguments = (s3.endpoint, buckets.NAME, str(IMAGES), str(s3.images))
    return await figure_of(
        "benchmarks.bare_puts", *arguments, cores=SERVER_CORE, environ=s3.environ
    )
