"""How long the proxy's event loop keeps others waiting while it stores images."""

import asyncio
import time
from pathlib import Path
from statistics import quantiles

from benchmarks.bucket import bucket
from benchmarks.clients import asking_at_rate
from benchmarks.machine import OTHER_CORE, SERVER_CORE
from benchmarks.passing import targets
from benchmarks.servers import proxy
from benchmarks.storing import STORABLE
from benchmarks.table import Row
from benchmarks.upstream import IMAGE_BYTES, upstream_on_loopback

IMAGES_PER_SECOND = 250
WARM_UP_SECONDS = 2
SECONDS = 8

MOST_MILLISECONDS = 5


async def measure(folder: Path) -> list[Row]:
    file = folder / "ticks"
    with bucket(folder / "s3", cores=OTHER_CORE) as s3:
        async with upstream_on_loopback() as upstream:
            upstream.answer_with(IMAGE_BYTES, cache_control=STORABLE)
            async with (
                proxy(
                    upstream.port,
                    s3.environ | {"BENCHMARK_TICKS": str(file)},
                    cores=SERVER_CORE,
                    command=("-m", "benchmarks.probed"),
                ) as server,
                asking_at_rate(server.port, targets(), per_second=IMAGES_PER_SECOND) as tally,
            ):
                await asyncio.sleep(WARM_UP_SECONDS)
                started = time.monotonic()
                await asyncio.sleep(SECONDS)
                ended = time.monotonic()
                tally.expect_only_images(server.name)
                await s3.holds(tally.images)
    ticks = [line.split() for line in file.read_text().splitlines()]
    late = [float(late) for at, late in ticks if started < float(at) < ended]
    percentiles = quantiles(late, n=1000)
    median, p99, p999 = percentiles[499], percentiles[989], percentiles[998]
    return [
        Row(
            f"event loop late, p99, at {IMAGES_PER_SECOND} stored images/s",
            ours=f"{p99:.1f} ms (p50 {median:.1f}, p99.9 {p999:.1f}, most {max(late):.1f})",
            value=p99,
            at_most=MOST_MILLISECONDS,
            unit=" ms",
        )
    ]
