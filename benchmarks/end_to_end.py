"""Images per second to clients who want new ones, through the proxy and without it."""

import time
from collections.abc import Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from benchmarks.bucket import Bucket, bucket
from benchmarks.machine import ALL_CORES, cpu_seconds
from benchmarks.mix import cold_targets
from benchmarks.rendering import SECONDS, images_per_second
from benchmarks.servers import Server, imgproxy, imgproxy_program, proxy
from benchmarks.table import Row

# What one render takes changes by a tenth from one second to the next, and a proxy costs less.
ROUNDS = 6
LEAST_OF_ALONE = 0.97


@dataclass(frozen=True, slots=True)
class _Round:
    through: float
    """Images a second."""
    s3_share: float
    """Of the time of all cores, meanwhile."""
    direct: float

    @property
    def ratio(self) -> float:
        return self.through / self.direct

    @property
    def ratio_without_s3(self) -> float:
        return self.through / (self.direct * (1 - self.s3_share))


async def measure(folder: Path) -> list[Row]:
    """
    One imgproxy (else the engine), asked in turns directly and through a proxy that stores all.

    The S3 server shares the two cores here, which it does nowhere else: the goal is for the rest
    of their time.  Each round is held against itself, and every other one begins with the other
    way: what the machine does meanwhile is the same for both.
    """
    targets = cold_targets()
    rounds = []
    async with AsyncExitStack() as stack:
        s3 = stack.enter_context(bucket(folder / "s3", cores=ALL_CORES))
        alone = await stack.enter_async_context(imgproxy(imgproxy_program(), cores=ALL_CORES))
        proxied = await stack.enter_async_context(proxy(alone.port, s3.environ, cores=ALL_CORES))
        for number in range(ROUNDS):
            if number % 2:
                direct = await images_per_second(alone, targets)
                through, share = await _storing(proxied, targets, s3)
            else:
                through, share = await _storing(proxied, targets, s3)
                direct = await images_per_second(alone, targets)
            rounds.append(_Round(through, share, direct))
    ours = median(one.through for one in rounds)
    share = median(one.s3_share for one in rounds)
    theirs = median(one.direct for one in rounds)
    name = "end to end, cold, two cores"
    return [
        Row(
            f"{name}, S3 server included",
            ours=f"{ours:.0f} images/s",
            beside=f"{alone.name} alone {theirs:.0f} images/s",
            ratio=median(one.ratio for one in rounds),
        ),
        Row(
            f"{name}, its CPU left out",
            ours=f"{ours:.0f} images/s",
            beside=f"{alone.name} in the other {1 - share:.1%} {theirs * (1 - share):.0f} images/s",
            ratio=median(one.ratio_without_s3 for one in rounds),
            at_least=LEAST_OF_ALONE,
        ),
    ]


async def _storing(proxied: Server, targets: Iterator[bytes], s3: Bucket) -> tuple[float, float]:
    """Images a second, and the part of all cores that the S3 server had; all are stored then."""
    cpu, started, there = cpu_seconds(s3.pid), time.monotonic(), s3.images
    per_second = await images_per_second(proxied, targets)
    share = (cpu_seconds(s3.pid) - cpu) / (time.monotonic() - started) / len(ALL_CORES)
    await s3.holds(there + int(per_second * SECONDS))
    return per_second, share
