"""
A bare loop of `obstore.get_async`, which a hit from the store is held against.

A program of its own, for its CPU time to be its own: takes the bucket, and for each number on its
stdin gets so many of the bucket's objects and prints the CPU time of one in microseconds.
"""

import asyncio
import itertools
import sys
import time
from collections.abc import Iterator

import obstore
import uvloop
from obstore.store import S3Store

from benchmarks.bare_puts import bare_store

# As many at once as clients ask the proxy.
CONCURRENCY = 32


async def main(bucket: str) -> None:
    store = bare_store(bucket)
    listed = [found async for page in obstore.list(store) for found in page]
    names = itertools.cycle([found["path"] for found in listed])
    await _get_all(store, itertools.islice(names, 64))  # opens the connections
    while line := await asyncio.to_thread(sys.stdin.readline):
        count = int(line)
        before = time.process_time()
        await _get_all(store, itertools.islice(names, count))
        print((time.process_time() - before) / count * 1e6, flush=True)


async def _get_all(store: S3Store, names: Iterator[str]) -> None:
    await asyncio.gather(*(_get_some(store, names) for _ in range(CONCURRENCY)))


async def _get_some(store: S3Store, names: Iterator[str]) -> None:
    for name in names:
        await (await obstore.get_async(store, name)).bytes_async()


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1]))
