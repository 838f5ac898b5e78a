"""How long hits take while every other request waits for a slow imgproxy."""

import asyncio
import itertools
from pathlib import Path
from statistics import quantiles

from benchmarks.browsers import HEADS
from benchmarks.bucket import bucket
from benchmarks.clients import asking_at_rate
from benchmarks.hits import READ_THROUGH, known_targets, warm_up
from benchmarks.machine import OTHER_CORE, SERVER_CORE
from benchmarks.passing import targets
from benchmarks.servers import proxy
from benchmarks.storing import IMAGES_PER_SECOND, STORABLE
from benchmarks.table import Row
from benchmarks.upstream import IMAGE_BYTES, upstream_on_loopback

RENDER_SECONDS = 0.3
# More than are at imgproxy at a time.
FILLS = 300
WARM_UP_SECONDS = 2.0
SECONDS = 8.0

MOST_MILLISECONDS = 5


async def measure(folder: Path) -> list[Row]:
    settings = READ_THROUGH | {"CACHE_FILL_CONCURRENCY": str(FILLS)}
    with bucket(folder / "s3", cores=OTHER_CORE) as s3:
        async with upstream_on_loopback() as upstream:
            upstream.answer_with(IMAGE_BYTES, cache_control=STORABLE)
            async with proxy(
                upstream.port, s3.environ, cores=SERVER_CORE, settings=settings
            ) as server:
                known = known_targets(IMAGE_BYTES // 1000)
                await warm_up(server, upstream, known)
                upstream.delay_seconds = RENDER_SECONDS
                rate, head = IMAGES_PER_SECOND, HEADS[0]
                async with (
                    asking_at_rate(
                        server.port, itertools.cycle(known), per_second=rate, head=head
                    ) as hits,
                    asking_at_rate(server.port, targets(), per_second=rate, head=head) as misses,
                ):
                    await asyncio.sleep(WARM_UP_SECONDS)
                    hits.seconds.clear()
                    await asyncio.sleep(SECONDS)
                    for tally in (hits, misses):
                        tally.expect_only_images(server.name)
    percentiles = quantiles(hits.seconds, n=1000)
    p50, p99, p999 = (1000 * percentiles[index] for index in (499, 989, 998))
    return [
        Row(
            f"hits from memory beside misses, {rate}/s each, p99",
            ours=f"{p99:.1f} ms (p50 {p50:.1f}, p99.9 {p999:.1f})",
            value=p99,
            at_most=MOST_MILLISECONDS,
            unit=" ms",
        )
    ]
