"""Memory under 200 clients that want 20 MB each, some of them slowly."""

import asyncio
import time
from collections import Counter
from pathlib import Path

from benchmarks.bucket import bucket
from benchmarks.machine import OTHER_CORE, SERVER_CORE, peak_megabytes
from benchmarks.servers import proxy
from benchmarks.storing import STORABLE
from benchmarks.table import Row
from benchmarks.upstream import upstream_on_loopback

CLIENTS = 200
SLOW_EVERY = 4  # so that 50 of them are
IMAGE_BYTES = 20_000_000
SLOW_BYTES_PER_SECOND = 500_000
# Longer than CACHE_UPSTREAM_WAIT_SECONDS twice, for a connection and for memory: who found none
# has been refused by then.
SECONDS = 24.0

MOST_MEGABYTES = 512


async def measure(folder: Path) -> list[Row]:
    with bucket(folder / "s3", cores=OTHER_CORE) as s3:
        async with upstream_on_loopback() as upstream:
            upstream.answer_with(IMAGE_BYTES, cache_control=STORABLE)
            async with proxy(upstream.port, s3.environ, cores=SERVER_CORE) as server:
                outcomes = await _read_at_once(server.port)
                megabytes = peak_megabytes(server.pid)
    counted = ", ".join(f"{count} {outcome}" for outcome, count in sorted(outcomes.items()))
    return [
        Row(
            f"most memory, {CLIENTS} clients x 20 MB, a quarter slow",
            ours=f"{megabytes:.0f} MB ({counted})",
            value=megabytes,
            at_most=MOST_MEGABYTES,
            unit=" MB",
        )
    ]


async def _read_at_once(port: int) -> Counter[str]:
    deadline = time.monotonic() + SECONDS
    readers = (
        _read(port, number, deadline, is_slow=number % SLOW_EVERY == 0) for number in range(CLIENTS)
    )
    return Counter(await asyncio.gather(*readers))


async def _read(port: int, number: int, deadline: float, *, is_slow: bool) -> str:
    """What became of one client: `whole`, `cut`, `slow`, or the status that is not 200."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET /_/plain/https://a.example/%d.jpg HTTP/1.1\r\nHost: a\r\n\r\n" % number)
    try:
        async with asyncio.timeout(deadline - time.monotonic()):
            head = await reader.readuntil(b"\r\n\r\n")
            if not head.startswith(b"HTTP/1.1 200 "):
                return head[9:12].decode()
            left = IMAGE_BYTES
            while left:
                part = await reader.read(SLOW_BYTES_PER_SECOND // 10 if is_slow else 1_000_000)
                if not part:
                    return "cut"
                left -= len(part)
                if is_slow:
                    await asyncio.sleep(0.1)
            return "whole"
    except (asyncio.IncompleteReadError, ConnectionError):
        return "broken off"
    except TimeoutError:
        return "still reading" if is_slow else "without an answer"
    finally:
        writer.transport.abort()
