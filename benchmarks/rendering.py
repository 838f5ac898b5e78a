"""Images per second of the embedded engine, beside libvips alone and the real imgproxy."""

import asyncio
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from statistics import median

from benchmarks.clients import asking
from benchmarks.machine import ALL_CORES
from benchmarks.mix import cold_targets
from benchmarks.servers import Server, figure_of, imgproxy, imgproxy_program
from benchmarks.table import Row

# The machine's pace changes within seconds: short rounds.
ROUNDS = 3
WARM_UP_SECONDS = 0.5
SECONDS = 1.5
CONNECTIONS = 8

LEAST_OF_BARE = 0.85


async def measure(folder: Path) -> list[Row]:
    async with AsyncExitStack() as stack:
        engine = await stack.enter_async_context(imgproxy(None, cores=ALL_CORES))
        servers = [engine]
        program = imgproxy_program()
        if program is not None:
            servers.append(await stack.enter_async_context(imgproxy(program, cores=ALL_CORES)))
        rounds = [
            [await images_per_second(server, cold_targets()) for server in servers]
            + [await figure_of("benchmarks.bare_resizes", str(SECONDS), cores=ALL_CORES)]
            for _ in range(ROUNDS)
        ]
    ours, *peers, bare = (median(figures) for figures in zip(*rounds, strict=True))
    name = "engine, a mix of resizes, two cores"
    rows = [_row(name, ours, "libvips alone", bare, at_least=LEAST_OF_BARE)]
    if peers:
        rows.append(_row(name, ours, "imgproxy", peers[0]))
    else:
        rows.append(Row(name, ours=f"{ours:.0f} images/s", beside="imgproxy is not installed"))
    return rows


async def images_per_second(server: Server, targets: Iterator[bytes]) -> float:
    async with asking(server.port, targets, connections=CONNECTIONS) as tally:
        await asyncio.sleep(WARM_UP_SECONDS)
        loop = asyncio.get_running_loop()
        images, started = tally.images, loop.time()
        await asyncio.sleep(SECONDS)
        per_second = (tally.images - images) / (loop.time() - started)
        tally.expect_only_images(server.name)
    return per_second


def _row(name: str, ours: float, peer: str, theirs: float, *, at_least: float | None = None) -> Row:
    return Row(
        name,
        ours=f"{ours:.0f} images/s",
        beside=f"{peer} {theirs:.0f} images/s",
        ratio=ours / theirs,
        at_least=at_least,
    )
