"""A cold start: real images, asked for as people do, until most of them are hits."""

import asyncio
from contextlib import AsyncExitStack
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
# The machine's pace changes within seconds, by more than is to be seen here: the two take turns.
TURNS = 10
TURN_SECONDS = 30.0
# What is stored and written behind the last answer of a turn is paid for in it.
AFTER_SECONDS = 0.2

MOST_OF_NGINX = 1.0


@dataclass(slots=True)
class _Took:
    seconds: float = 0.0
    cpu_seconds: float = 0.0
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
    ours, theirs = _Took(), _Took()
    async with AsyncExitStack() as stack:
        s3 = stack.enter_context(bucket(folder / "s3", cores=ALL_CORES))
        renderer = await stack.enter_async_context(imgproxy(imgproxy_program(), cores=ALL_CORES))
        # Who comes first is not to pay for its start.
        await images_per_second(renderer, cold_targets())
        proxied = await stack.enter_async_context(
            proxy(renderer.port, s3.environ, cores=ALL_CORES, settings=READ_THROUGH)
        )
        nginx = await stack.enter_async_context(
            caching_nginx(program, folder, renderer.port, cores=ALL_CORES)
        )
        pair = [(proxied, ours), (nginx, theirs)]
        for requests in _turns():
            for server, took in pair:
                await _replay(renderer, server, requests, took)
            pair.reverse()
    name = f"cold start, {REQUESTS} requests for {IMAGES} images, Zipf(1.0), two cores"
    return [
        _row(f"{name}, storing: time", ours.seconds, theirs.seconds),
        _row(f"the same, CPU time, {renderer.name} included", ours.cpu_seconds, theirs.cpu_seconds),
    ]


async def _replay(renderer: Server, server: Server, requests: list[bytes], took: _Took) -> None:
    cpu = cpu_seconds_of_all(renderer.pid) + cpu_seconds_of_all(server.pid)
    loop = asyncio.get_running_loop()
    started = loop.time()
    async with (
        asking(server.port, iter(requests), connections=CONNECTIONS, heads=HEADS) as tally,
        asyncio.timeout(TURN_SECONDS),
    ):
        # The last of a turn wait while nobody else asks, which happens in no replay of one piece:
        # and those of nginx longest, whose requests for what is under way look twice a second.
        await tally.all_asked.wait()
        took.seconds += loop.time() - started
        await tally.finished.wait()
        tally.expect_only_images(server.name)
    await asyncio.sleep(AFTER_SECONDS)
    took.cpu_seconds += cpu_seconds_of_all(renderer.pid) + cpu_seconds_of_all(server.pid) - cpu


def _turns() -> list[list[bytes]]:
    """What is asked for; the same each time."""
    random = Random(IMAGES)
    weights = [1 / rank for rank in range(1, IMAGES + 1)]
    requests = random.choices(_targets(random), weights, k=REQUESTS)
    size = REQUESTS // TURNS
    return [requests[at : at + size] for at in range(0, REQUESTS, size)]


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
