"""What a hit costs, from memory and from disk, beside nginx's `proxy_cache`."""

import asyncio
import itertools
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random
from statistics import median

from benchmarks.browsers import HEADS
from benchmarks.clients import UnexpectedAnswerError, asking
from benchmarks.machine import cpu_seconds_of_all
from benchmarks.passing import Cost, typical
from benchmarks.servers import Server, caching_nginx, nginx_program, proxy
from benchmarks.storing import STORABLE
from benchmarks.table import Row
from benchmarks.upstream import Upstream, upstream_on_loopback

READ_THROUGH = {"CACHE_READ_THROUGH": "true", "CACHE_UNSIGNED": "true"}
KEYS = 1000
CONNECTIONS = 32
WARM_UP_SECONDS = 20.0
RUN_UP_SECONDS = 0.1
SECONDS = 0.5
# Each gives some worker an image that it has not had: so many leave none out.
PASSES_FOR_WORKERS = 10
# Of the answers: else it is not hits that were measured.
MOST_MISSES = 0.001

# How much more nginx takes, as Debian ships it and with open_file_cache.
LEAST_TIMES_OURS = {
    ("memory", 5): (1.6, 1.4),
    ("memory", 30): (1.15, 1.05),
    ("disk", 5): (1.1, 1.0),
    ("disk", 30): (1.1, 1.0),
}


@dataclass(frozen=True, slots=True)
class _Peers:
    memory: Server
    disk: Server
    nginxes: tuple[Server, ...]

    @property
    def all(self) -> tuple[Server, ...]:
        return (self.memory, self.disk, *self.nginxes)


async def measure(
    folder: Path, *, cores: frozenset[int], workers: int, rounds: int, name: str
) -> list[Row]:
    """
    Rows for images of 5 and 30 KB; the servers take turns, medians count.

    The machine's pace changes within seconds: each round is held against itself.
    """
    rows = []
    async with (
        upstream_on_loopback() as upstream,
        _peers(folder, upstream, cores, workers) as peers,
    ):
        for kilobytes in (5, 30):
            upstream.answer_with(kilobytes * 1000, cache_control=STORABLE)
            targets = known_targets(kilobytes)
            for server in peers.all:
                await warm_up(server, upstream, targets, workers)
            costs = [
                [await _cost(server, upstream, targets) for server in peers.all]
                for _ in range(rounds)
            ]
            rows += _rows(f"{{}} of {kilobytes} KB{name}", kilobytes, costs)
    return rows


@asynccontextmanager
async def caching_proxy(
    folder: Path,
    upstream_port: int,
    *,
    cores: frozenset[int],
    settings: dict[str, str],
) -> AsyncIterator[Server]:
    """imgproxy-cache with read-through, over a store that is a folder."""
    (folder / "store").mkdir(parents=True)
    store = {"CACHE_STORE_URL": (folder / "store").as_uri()}
    async with proxy(upstream_port, store, cores=cores, settings=READ_THROUGH | settings) as server:
        yield server


@asynccontextmanager
async def _peers(
    folder: Path, upstream: Upstream, cores: frozenset[int], workers: int
) -> AsyncIterator[_Peers]:
    concurrency = {"WEB_CONCURRENCY": str(workers)}
    disk = {"CACHE_MEMORY_BYTES": "0", "CACHE_DISK_DIR": str(folder / "disk-tier")}
    program = nginx_program()
    async with AsyncExitStack() as stack:
        yield _Peers(
            await stack.enter_async_context(
                caching_proxy(folder / "memory", upstream.port, cores=cores, settings=concurrency)
            ),
            await stack.enter_async_context(
                caching_proxy(
                    folder / "disk", upstream.port, cores=cores, settings=concurrency | disk
                )
            ),
            tuple(
                [
                    await stack.enter_async_context(
                        caching_nginx(
                            program,
                            folder,
                            upstream.port,
                            cores=cores,
                            workers=workers,
                            opens_files_once=opens_files_once,
                        )
                    )
                    for opens_files_once in (False, True)
                    if program
                ]
            ),
        )


def known_targets(kilobytes: int) -> list[bytes]:
    """In the order in which they are asked for, which is none."""
    targets = [
        b"/_/rs:fit:300:300/plain/https://shop.example/%d/image%d.jpg" % (kilobytes, number)
        for number in range(KEYS)
    ]
    Random(KEYS).shuffle(targets)
    return targets


async def warm_up(
    server: Server, upstream: Upstream, targets: list[bytes], workers: int = 1
) -> None:
    """
    Until nothing is asked of imgproxy any more, and then for what a hit opens, in each worker:
    which of them is asked is decided anew with each connection.
    """
    asked = -1
    async with asyncio.timeout(WARM_UP_SECONDS):
        while asked != upstream.asked:
            asked = upstream.asked
            await _ask(server, targets * 2)
        for _ in range(PASSES_FOR_WORKERS if workers > 1 else 0):
            await _ask(server, targets * 2)


async def _ask(server: Server, targets: list[bytes]) -> None:
    async with asking(server.port, iter(targets), connections=CONNECTIONS, heads=HEADS) as tally:
        await tally.finished.wait()
        tally.expect_only_images(server.name)


async def _cost(server: Server, upstream: Upstream, targets: list[bytes]) -> Cost:
    async with asking(
        server.port, itertools.cycle(targets), connections=CONNECTIONS, heads=HEADS
    ) as tally:
        await asyncio.sleep(RUN_UP_SECONDS)
        images, asked, started = tally.images, upstream.asked, time.perf_counter()
        cpu = cpu_seconds_of_all(server.pid)
        await asyncio.sleep(SECONDS)
        images, cpu = tally.images - images, cpu_seconds_of_all(server.pid) - cpu
        seconds = time.perf_counter() - started
        tally.expect_only_images(server.name)
        if upstream.asked - asked > images * MOST_MISSES:
            raise UnexpectedAnswerError(
                f"{server.name} asked for {upstream.asked - asked} of {images} images"
            )
    return Cost(cpu / images * 1e6, images / seconds)


def _rows(name: str, kilobytes: int, rounds: list[list[Cost]]) -> list[Row]:
    memory, disk, *nginxes = zip(*rounds, strict=True)
    rows = []
    for tier, ours in (("memory", memory), ("disk", disk)):
        what = name.format(f"hit from {tier}")
        if not nginxes:
            rows.append(Row(what, ours=str(typical(ours)), beside="nginx is not installed"))
        goals = LEAST_TIMES_OURS[tier, kilobytes]
        names = ("nginx", "with open_file_cache")
        for peer, theirs, at_least in zip(names, nginxes, goals, strict=False):
            rows.append(
                Row(
                    what,
                    ours=str(typical(ours)),
                    beside=f"{peer} {typical(theirs)}",
                    ratio=median(
                        cost.cpu_microseconds / our_cost.cpu_microseconds
                        for cost, our_cost in zip(theirs, ours, strict=True)
                    ),
                    at_least=at_least,
                )
            )
    return rows
