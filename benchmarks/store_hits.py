"""What a hit costs that comes from the bucket, beside a bare loop of gets."""

import asyncio
import itertools
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from statistics import median

from benchmarks.browsers import HEADS
from benchmarks.bucket import bare_loop, bucket
from benchmarks.clients import UnexpectedAnswerError, asking
from benchmarks.hits import CONNECTIONS, KEYS, READ_THROUGH, known_targets
from benchmarks.machine import OTHER_CORE, SERVER_CORE, cpu_seconds_of_all
from benchmarks.servers import Server, proxy
from benchmarks.storing import STORABLE
from benchmarks.table import Row
from benchmarks.upstream import IMAGE_BYTES, upstream_on_loopback

ROUNDS = 5
HITS = 5000  # of each connection 150: what these take to open is next to nothing then
RUN_SECONDS = 20.0

MOST_TIMES_BARE = 1.3


async def measure(folder: Path) -> list[Row]:
    """A row: all that the server takes for the answer, beside what getting the object takes."""
    settings = READ_THROUGH | {"CACHE_MEMORY_BYTES": "0"}
    async with AsyncExitStack() as stack:
        s3 = stack.enter_context(bucket(folder / "s3", cores=OTHER_CORE))
        upstream = await stack.enter_async_context(upstream_on_loopback())
        upstream.answer_with(IMAGE_BYTES, cache_control=STORABLE)
        server = await stack.enter_async_context(
            proxy(upstream.port, s3.environ, cores=SERVER_CORE, settings=settings)
        )
        known = known_targets(IMAGE_BYTES // 1000)
        await _cost(server, iter(known), KEYS)
        await s3.holds(KEYS)
        bare = await stack.enter_async_context(bare_loop("benchmarks.bare_gets", s3))
        await _cost(server, iter(known), KEYS)  # opens the connections
        asked, targets = upstream.asked, itertools.cycle(known)
        hits, gets = [], []
        for _ in range(ROUNDS):
            hits.append(await _cost(server, itertools.islice(targets, HITS), HITS))
            gets.append(await _bare_cost(bare))
        if upstream.asked > asked:
            raise UnexpectedAnswerError(f"{upstream.asked - asked} hits were none")
    ours, theirs = median(hits), median(gets)
    return [
        Row(
            f"hit from the S3 server of {IMAGE_BYTES // 1000} KB, with its answer",
            ours=f"{ours:.0f} us",
            beside=f"bare obstore get {theirs:.0f} us",
            ratio=ours / theirs,
            at_most=MOST_TIMES_BARE,
        )
    ]


async def _cost(server: Server, targets: Iterator[bytes], count: int) -> float:
    """Microseconds of CPU for an answer."""
    cpu = cpu_seconds_of_all(server.pid)
    async with (
        asyncio.timeout(RUN_SECONDS),
        asking(server.port, targets, connections=CONNECTIONS, heads=HEADS) as tally,
    ):
        await tally.finished.wait()
        tally.expect_only_images(server.name)
    return (cpu_seconds_of_all(server.pid) - cpu) / count * 1e6


async def _bare_cost(bare: asyncio.subprocess.Process) -> float:
    assert bare.stdin is not None
    assert bare.stdout is not None
    bare.stdin.write(b"%d\n" % HITS)
    async with asyncio.timeout(RUN_SECONDS):
        return float(await bare.stdout.readline())
