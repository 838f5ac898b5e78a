"""What a stored image costs beyond its answer, beside a bare loop of puts; and idle memory."""

import asyncio
import itertools
from collections.abc import Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from benchmarks.bucket import Bucket, bare_loop, bucket
from benchmarks.clients import answered, asking, asking_at_rate
from benchmarks.machine import (
    OTHER_CORE,
    SERVER_CORE,
    cpu_seconds,
    resident_megabytes,
)
from benchmarks.passing import targets
from benchmarks.servers import Server, proxy
from benchmarks.table import Row
from benchmarks.upstream import IMAGE_BYTES, Upstream, upstream_on_loopback

# What imgproxy makes on four cores: a resize is 7 ms of CPU and more.
IMAGES_PER_SECOND = 500
# Short rounds and many of them: other programs of the machine come and go in between.
PACED_ROUNDS = 10
PACED_IMAGES = 250
# Fewer than the upload queue takes, so that none is dropped.  No imgproxy makes as many as fast:
# they outrun the S3 server, and those that wait for long go through the spool as well.
BURST_ROUNDS = 3
BURST_IMAGES = 2000
AS_FAST_AS_ANSWERED = 0
CONNECTIONS = 32
STORABLE = "max-age=31536000, public"

MOST_TIMES_BARE = 1.2
MOST_IDLE_MEGABYTES = 80


@dataclass(frozen=True, slots=True)
class Peers:
    """Who takes turns."""

    server: Server
    upstream: Upstream
    s3: Bucket
    bare: asyncio.subprocess.Process
    paths: Iterator[bytes]


async def measure(folder: Path) -> list[Row]:
    async with AsyncExitStack() as stack:
        s3 = stack.enter_context(bucket(folder / "s3", cores=OTHER_CORE))
        upstream = await stack.enter_async_context(upstream_on_loopback())
        server = await stack.enter_async_context(
            proxy(upstream.port, s3.environ, cores=SERVER_CORE)
        )
        bare = await stack.enter_async_context(bare_loop("benchmarks.bare_puts", s3))
        peers = Peers(server, upstream, s3, bare, targets())
        upstream.answer_with(IMAGE_BYTES, cache_control=STORABLE)
        await answered(server.port, next(peers.paths))
        await s3.holds(1)
        idle_megabytes = resident_megabytes(server.pid)
        paced = await _costs(peers, PACED_ROUNDS, PACED_IMAGES, IMAGES_PER_SECOND)
        burst = await _costs(peers, BURST_ROUNDS, BURST_IMAGES, AS_FAST_AS_ANSWERED)
    return [
        _beside_bare(
            f"storing 30 KB at {IMAGES_PER_SECOND}/s, added to its answer", paced, MOST_TIMES_BARE
        ),
        _beside_bare(f"the same, {BURST_IMAGES} as fast as they are answered", burst, None),
        Row(
            "memory of an idle worker",
            ours=f"{idle_megabytes:.0f} MB",
            value=idle_megabytes,
            at_most=MOST_IDLE_MEGABYTES,
            unit=" MB",
        ),
    ]


def _beside_bare(name: str, costs: tuple[float, float], at_most: float | None) -> Row:
    storing, bare = costs
    return Row(
        name,
        ours=f"{storing:.0f} us",
        beside=f"bare obstore {bare:.0f} us",
        ratio=storing / bare,
        at_most=at_most,
    )


async def _costs(peers: Peers, rounds: int, images: int, per_second: int) -> tuple[float, float]:
    """Microseconds of CPU for storing an image, and for a bare put: medians of alternate runs."""
    storing, bare = [], []
    for _ in range(rounds):
        passed = await _cost(peers, images, per_second, cache_control="no-store")
        stored = await _cost(peers, images, per_second, cache_control=STORABLE)
        storing.append(stored - passed)
        bare.append(await _bare_cost(peers.bare, images, per_second))
    return median(storing), median(bare)


async def _cost(peers: Peers, images: int, per_second: int, *, cache_control: str) -> float:
    """Of an image, from the first request until the last is stored."""
    server, s3 = peers.server, peers.s3
    there = s3.images
    peers.upstream.answer_with(IMAGE_BYTES, cache_control=cache_control)
    some = itertools.islice(peers.paths, images)
    asked = (
        asking_at_rate(server.port, some, per_second=per_second)
        if per_second != AS_FAST_AS_ANSWERED
        else asking(server.port, some, connections=CONNECTIONS)
    )
    cpu = cpu_seconds(server.pid)
    async with asked as tally:
        await tally.finished.wait()
        tally.expect_only_images(server.name)
    await s3.holds(there + images if cache_control == STORABLE else there)
    return (cpu_seconds(server.pid) - cpu) / images * 1e6


async def _bare_cost(bare: asyncio.subprocess.Process, images: int, per_second: int) -> float:
    assert bare.stdin is not None
    assert bare.stdout is not None
    bare.stdin.write(b"%d %d\n" % (images, per_second))
    return float(await bare.stdout.readline())
