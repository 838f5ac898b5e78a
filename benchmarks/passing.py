"""What a request costs that passes through and is not stored, beside nginx doing the same."""

import asyncio
import itertools
import time
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from benchmarks.clients import asking
from benchmarks.machine import SERVER_CORE, cpu_seconds
from benchmarks.servers import Server, nginx, nginx_program, proxy
from benchmarks.table import Row
from benchmarks.upstream import IMAGE_BYTES, upstream_on_loopback

ROUNDS = 3
WARM_UP_SECONDS = 0.3
SECONDS = 0.7
CONNECTIONS = (1, 32, 256)

MOST_TIMES_NGINX = 4.2
MOST_TIMES_AT_256 = 1.5


@dataclass(frozen=True, slots=True)
class Cost:
    """What a server took for an answer, and how many it gave."""

    cpu_microseconds: float
    per_second: float

    def __str__(self) -> str:
        return f"{self.cpu_microseconds:.0f} us, {self.per_second / 1000:.1f} k/s"


def typical(costs: Sequence[Cost]) -> Cost:
    """The median of each figure."""
    return Cost(
        median(cost.cpu_microseconds for cost in costs),
        median(cost.per_second for cost in costs),
    )


async def measure(folder: Path) -> list[Row]:
    """Rows for 1, 32 and 256 connections; the servers take turns, medians count."""
    async with upstream_on_loopback() as upstream:
        upstream.answer_with(IMAGE_BYTES, cache_control="no-store")
        async with AsyncExitStack() as stack:
            store = {"CACHE_STORE_URL": (folder / "store").as_uri()}
            (folder / "store").mkdir()
            servers = [
                await stack.enter_async_context(proxy(upstream.port, store, cores=SERVER_CORE))
            ]
            program = nginx_program()
            if program:
                servers.append(
                    await stack.enter_async_context(
                        nginx(program, folder, upstream.port, cores=SERVER_CORE)
                    )
                )
            costs = {connections: await _costs(servers, connections) for connections in CONNECTIONS}
    rows = [_beside_nginx(connections, costs[connections]) for connections in CONNECTIONS]
    at_256, at_32 = costs[256][0], costs[32][0]
    beside_32 = Row(
        "the same, 256 connections beside 32",
        ours=str(at_256),
        beside=str(at_32),
        ratio=at_256.cpu_microseconds / at_32.cpu_microseconds,
        at_most=MOST_TIMES_AT_256,
    )
    return [*rows, beside_32]


def targets() -> Iterator[bytes]:
    """Paths that imgproxy-cache never saw before."""
    for number in itertools.count():
        yield b"/_/rs:fit:300:300/plain/https://example.com/image%d.jpg" % number


async def _costs(servers: list[Server], connections: int) -> list[Cost]:
    rounds = [[await _cost(server, connections) for server in servers] for _ in range(ROUNDS)]
    return [typical(of_server) for of_server in zip(*rounds, strict=True)]


async def _cost(server: Server, connections: int) -> Cost:
    async with asking(server.port, targets(), connections=connections) as tally:
        await asyncio.sleep(WARM_UP_SECONDS)
        images, cpu, started = tally.images, cpu_seconds(server.pid), time.perf_counter()
        await asyncio.sleep(SECONDS)
        images, cpu = tally.images - images, cpu_seconds(server.pid) - cpu
        seconds = time.perf_counter() - started
        tally.expect_only_images(server.name)
    return Cost(cpu / images * 1e6, images / seconds)


def _beside_nginx(connections: int, costs: list[Cost]) -> Row:
    ours, *peers = costs
    name = f"passing 30 KB through, {connections} connection{'s' if connections > 1 else ''}"
    if not peers:
        return Row(name, ours=str(ours), beside="nginx is not installed")
    return Row(
        name,
        ours=str(ours),
        beside=f"nginx {peers[0]}",
        ratio=ours.cpu_microseconds / peers[0].cpu_microseconds,
        at_most=MOST_TIMES_NGINX if connections == 32 else None,
    )
