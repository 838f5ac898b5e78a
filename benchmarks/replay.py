"""A cold start: real images, asked for as people do, until most of them are hits."""

import asyncio
from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from random import Random

from benchmarks.browsers import HEADS
from benchmarks.bucket import bucket
from benchmarks.clients import asking
from benchmarks.hits import CONNECTIONS, READ_THROUGH
from benchmarks.machine import ALL_CORES, cpu_seconds_of_all
from benchmarks.mix import MIX, cold_targets
from benchmarks.rendering import images_per_second
from benchmarks.servers import (
    Server,
    caching_nginx,
    imgproxy,
    imgproxy_program,
    nginx_program,
    proxy,
)
from benchmarks.table import Row

IMAGES = 1000
REQUESTS = 20_000
REPLAY_SECONDS = 60.0
# What is stored and written behind the last answer is paid for as well.
AFTER_SECONDS = 0.5

MOST_OF_NGINX = 1.0


@dataclass(frozen=True, slots=True)
class _Took:
    seconds: float
    cpu_seconds: float
    """Of the renderer as well."""


async def measure(folder: Path) -> list[Row]:
    """
    Rows for the time and the CPU time of a replay, that of imgproxy (or the engine) included.

    Ours stores all images in a bucket besides, which nginx does not; the S3 server takes its part
    of the two cores.
    """
    program = nginx_program()
    if program is None:
        return [Row("cold start", ours="not measured: nginx is not installed")]
    async with AsyncExitStack() as stack:
        s3 = stack.enter_context(bucket(folder / "s3", cores=ALL_CORES))
        renderer = await stack.enter_async_context(imgproxy(imgproxy_program(), cores=ALL_CORES))
        # Who comes first is not to pay for its start.
        await images_per_second(renderer, cold_targets())
        ours = await _replay(
            renderer, proxy(renderer.port, s3.environ, cores=ALL_CORES, settings=READ_THROUGH)
        )
        theirs = await _replay(
            renderer, caching_nginx(program, folder, renderer.port, cores=ALL_CORES)
        )
    name = f"cold start, {REQUESTS} requests for {IMAGES} images, Zipf(1.0), two cores"
    return [
        _row(f"{name}, storing: time", ours.seconds, theirs.seconds),
        _row(f"the same, CPU time, {renderer.name} included", ours.cpu_seconds, theirs.cpu_seconds),
    ]


async def _replay(renderer: Server, starting: AbstractAsyncContextManager[Server]) -> _Took:
    async with starting as server:
        cpu = cpu_seconds_of_all(renderer.pid) + cpu_seconds_of_all(server.pid)
        loop = asyncio.get_running_loop()
        started = loop.time()
        async with (
            asking(server.port, _requests(), connections=CONNECTIONS, heads=HEADS) as tally,
            asyncio.timeout(REPLAY_SECONDS),
        ):
            await tally.finished.wait()
            tally.expect_only_images(server.name)
        seconds = loop.time() - started
        await asyncio.sleep(AFTER_SECONDS)
        used = cpu_seconds_of_all(renderer.pid) + cpu_seconds_of_all(server.pid) - cpu
    return _Took(seconds, used)


def _requests() -> Iterator[bytes]:
    """The same each time."""
    random = Random(IMAGES)
    weights = [1 / rank for rank in range(1, IMAGES + 1)]
    return iter(random.choices(_targets(random), weights, k=REQUESTS))


def _targets(random: Random) -> list[bytes]:
    """All images differ: each of the mix in many sizes."""
    sizes = IMAGES // len(MIX)
    steps = range(-(sizes // 2), sizes - sizes // 2)
    targets = [
        f"/_/rs:{one.kind}:{one.width + step}:{one.height + step}/plain/local:///{one.name}"
        f"@{one.format}".encode()
        for one in MIX
        for step in steps
    ]
    random.shuffle(targets)
    return targets


def _row(name: str, ours: float, theirs: float) -> Row:
    return Row(
        name,
        ours=f"{ours:.1f} s",
        beside=f"nginx {theirs:.1f} s",
        ratio=ours / theirs,
        at_most=MOST_OF_NGINX,
    )
