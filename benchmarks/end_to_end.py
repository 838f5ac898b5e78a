"""Images per second to clients who want new ones, through the proxy and without it."""

import time
from contextlib import AsyncExitStack
from pathlib import Path
from statistics import median

from benchmarks.bucket import bucket
from benchmarks.machine import ALL_CORES, cpu_seconds
from benchmarks.mix import cold_targets
from benchmarks.rendering import ROUNDS, SECONDS, images_per_second
from benchmarks.servers import imgproxy, imgproxy_program, proxy
from benchmarks.table import Row

LEAST_OF_ALONE = 0.97


async def measure(folder: Path) -> list[Row]:
    """
    One imgproxy (else the engine), asked in turns directly and through a proxy that stores all.

    The S3 server shares the two cores here, which it does nowhere else: the goal is for the rest
    of their time.
    """
    targets = cold_targets()
    through, direct, shares = [], [], []
    async with AsyncExitStack() as stack:
        s3 = stack.enter_context(bucket(folder / "s3", cores=ALL_CORES))
        alone = await stack.enter_async_context(imgproxy(imgproxy_program(), cores=ALL_CORES))
        proxied = await stack.enter_async_context(proxy(alone.port, s3.environ, cores=ALL_CORES))
        for _ in range(ROUNDS):
            cpu, started, there = cpu_seconds(s3.pid), time.monotonic(), s3.images
            through.append(await images_per_second(proxied, targets))
            seconds = time.monotonic() - started
            shares.append((cpu_seconds(s3.pid) - cpu) / seconds / len(ALL_CORES))
            await s3.holds(there + int(through[-1] * SECONDS))
            direct.append(await images_per_second(alone, targets))
    ours, theirs, share = median(through), median(direct), median(shares)
    name = "end to end, cold, two cores"
    return [
        Row(
            f"{name}, S3 server included",
            ours=f"{ours:.0f} images/s",
            beside=f"{alone.name} alone {theirs:.0f} images/s",
            ratio=ours / theirs,
        ),
        Row(
            f"{name}, its CPU left out",
            ours=f"{ours:.0f} images/s",
            beside=f"{alone.name} in the other {1 - share:.1%} {theirs * (1 - share):.0f} images/s",
            ratio=ours / (theirs * (1 - share)),
            at_least=LEAST_OF_ALONE,
        ),
    ]
