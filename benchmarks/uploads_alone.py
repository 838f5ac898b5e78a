"""
Uploads without a proxy before them, beside a bare loop of `obstore.put_async`.

A program of its own, for its CPU time to be its own: takes the bucket and how many images, and
prints microseconds of CPU and uploads a second, of the bare loop and of ours, each the median of
alternate rounds.
"""

import asyncio
import itertools
import os
import sys
import tempfile
import time
from collections.abc import Awaitable
from hashlib import md5
from pathlib import Path
from statistics import median

import uvloop

from benchmarks.bare_puts import CONCURRENCY, bare_store, put_all
from benchmarks.upstream import IMAGE_BYTES
from imgproxy_cache import log
from imgproxy_cache.core.key import Key
from imgproxy_cache.core.location import S3Location
from imgproxy_cache.metrics import Metrics
from imgproxy_cache.stores import open_store
from imgproxy_cache.uploads import Uploads
from imgproxy_cache.uploads.pending import Upload
from imgproxy_cache.uploads.spool import open_spool
from imgproxy_cache.uploads.spooling import SpoolLimits

ROUNDS = 3
# As in a server that is busy, but whose store keeps up: what comes in 50 ms.
WAITING = 256


async def main(bucket: str, images: int) -> None:
    info_log = log.configure("info", "json")
    # Lines are made and written, as in a server, but not read.
    sys.stdout = open(os.devnull, "w")  # noqa: SIM115, PTH123, ASYNC230
    location = S3Location(bucket, "", os.environ["S3_ENDPOINT"], os.environ["AWS_REGION"])
    bare = bare_store(bucket)
    names = (f"bare-{number}" for number in itertools.count())
    spool = Path(tempfile.mkdtemp())
    async with (
        open_store(location) as store,
        Uploads(
            store,
            Metrics(),
            concurrency=CONCURRENCY,
            max_items=10_000,
            max_bytes=10**9,
            open_spool=lambda: open_spool(spool, "bench", sync=True),
            spool_limits=SpoolLimits(10**9, 10_000, 3600),
            info_log=info_log,
        ) as uploads,
    ):
        theirs, ours = [], []
        for number in range(ROUNDS + 1):
            theirs.append(await _measured(images, put_all(bare, itertools.islice(names, images))))
            ours.append(await _measured(images, _upload(uploads, number, images)))
        # The first round opens connections.
        figures = [
            median(column) for runs in (theirs, ours) for column in zip(*runs[1:], strict=True)
        ]
    print(*figures, file=sys.__stdout__)


async def _measured(images: int, work: Awaitable[None]) -> tuple[float, float]:
    cpu, began = time.process_time(), time.perf_counter()
    await work
    return (
        (time.process_time() - cpu) / images * 1e6,
        images / (time.perf_counter() - began),
    )


async def _upload(uploads: Uploads, round_number: int, images: int) -> None:
    body = bytes(IMAGE_BYTES)
    for number in range(images):
        path = b"/_/rs:fit:%d:%d/plain/local:///image.jpg" % (round_number, number)
        upload = Upload(
            key=Key(md5(path).hexdigest()),
            path=path,
            chunks=(body,),
            size=len(body),
            content_type="image/jpeg",
            cache_control="max-age=31536000, public",
            content_disposition='inline; filename="image.jpg"',
        )
        uploads.offer(upload)
        while uploads.queue_items >= WAITING:
            await asyncio.sleep(0.002)
    while uploads.queue_items:
        await asyncio.sleep(0.002)


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1], int(sys.argv[2])))
