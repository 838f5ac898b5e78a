"""
A bare loop of `obstore.put_async`, which the proxy's storing is held against.

A program of its own, for its CPU time to be its own: takes the bucket, and for each line on its
stdin (`<how many> <how many a second, or 0 for as fast as it goes>`) puts so many images and
prints the CPU time of one in microseconds, without that of keeping the pace.
"""

import asyncio
import itertools
import os
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Iterator

import obstore
import uvloop
from obstore.store import S3Store

from benchmarks.upstream import IMAGE_BYTES

# As many at once as the proxy's CACHE_UPLOAD_CONCURRENCY.
CONCURRENCY = 8
# As many as the proxy's objects have: each is signed, and costs 4 us.
ATTRIBUTES = {
    "Content-Type": "image/jpeg",
    "Cache-Control": "max-age=31536000, public",
    "Content-Disposition": 'inline; filename="image.jpg"',
    "path-sha256": "0" * 64,
    "content-sha256": "0" * 64,
    "stored-at": "2028-01-01T00:00:00Z",
}


def bare_store(bucket: str) -> S3Store:
    """As short as it may be written, for the bucket that the environment leads to."""
    return S3Store(
        bucket,
        endpoint=os.environ["S3_ENDPOINT"],
        region=os.environ["AWS_REGION"],
        access_key_id=os.environ["AWS_ACCESS_KEY_ID"],
        secret_access_key=os.environ["AWS_SECRET_ACCESS_KEY"],
        virtual_hosted_style_request=False,
        client_options={"allow_http": True},
        retry_config={"max_retries": 0},
    )


async def put_all(store: S3Store, names: Iterator[str], *, tasks: int = CONCURRENCY) -> None:
    """Put an image under each name, so many at once."""
    body = bytes(IMAGE_BYTES)
    await asyncio.gather(*(_put_some(store, names, body) for _ in range(tasks)))


async def put_at_rate(store: S3Store, names: Iterator[str], *, per_second: float) -> None:
    """Put an image under each name, at even intervals, however long that takes."""
    body = bytes(IMAGE_BYTES)
    async with asyncio.TaskGroup() as tasks:
        async for name in _at_rate(names, per_second=per_second):
            tasks.create_task(_put_some(store, iter([name]), body))


async def _at_rate(names: Iterator[str], *, per_second: float) -> AsyncIterator[str]:
    started = time.monotonic()
    for number, name in enumerate(names):
        await asyncio.sleep(started + number / per_second - time.monotonic())
        yield name


async def _do_nothing(times: int, *, per_second: float) -> None:
    async for _ in _at_rate(iter([""] * times), per_second=per_second):
        pass


async def _put_some(store: S3Store, names: Iterator[str], body: bytes) -> None:
    for name in names:
        await obstore.put_async(store, name, body, attributes=ATTRIBUTES, use_multipart=False)


async def main(bucket: str) -> None:
    store = bare_store(bucket)
    # Not 32 digits, as the proxy's objects have: those are counted.
    names = (f"bare-{number}" for number in itertools.count())
    # The first puts open the connections.
    await put_all(store, itertools.islice(names, 64), tasks=64)
    while line := await asyncio.to_thread(sys.stdin.readline):
        count, per_second = map(int, line.split())
        some = itertools.islice(names, count)
        if per_second:
            cost = await _cpu_seconds(put_at_rate(store, some, per_second=per_second))
            cost -= await _cpu_seconds(_do_nothing(count, per_second=per_second))
        else:
            cost = await _cpu_seconds(put_all(store, some))
        print(cost / count * 1e6, flush=True)


async def _cpu_seconds(work: Awaitable[object]) -> float:
    before = time.process_time()
    await work
    return time.process_time() - before


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1]))
