"""What the spool costs while nothing goes wrong, how fast it drains, how fast a server starts."""

import asyncio
import subprocess
import time
from contextlib import ExitStack
from hashlib import md5, sha256
from pathlib import Path
from statistics import median, quantiles

from benchmarks import bucket as buckets
from benchmarks.bucket import Bucket, bucket
from benchmarks.clients import UnexpectedAnswerError, asking_at_rate
from benchmarks.machine import OTHER_CORE, SERVER_CORE, cpu_seconds, pinned
from benchmarks.passing import targets
from benchmarks.servers import PYTHON, proxy
from benchmarks.storing import STORABLE
from benchmarks.table import Row
from benchmarks.upstream import IMAGE_BYTES, upstream_on_loopback
from imgproxy_cache.core.key import Key
from imgproxy_cache.core.location import S3Location, whereabouts
from imgproxy_cache.core.spool_file import SpooledImage
from imgproxy_cache.uploads.spool import open_spool

IMAGES_PER_SECOND = 250
ROUNDS = 3
ROUND_SECONDS = 2
UPLOADS = 2000
SPOOLED = 10_000
DRAIN_SECONDS = 60.0

LEAST_OF_BARE = 0.8
MOST_START_SECONDS = 3.0


async def measure(folder: Path) -> list[Row]:
    rows = []
    with bucket(folder / "s3", cores=OTHER_CORE) as s3:
        rows += await _healthy(s3)
        rows += await _alone(s3)
        rows += await _drain(s3, folder / "spool")
    return rows


async def _healthy(s3: Bucket) -> list[Row]:
    """With and without a spool, in turn."""
    figures: dict[str, list[tuple[float, float]]] = {"100000": [], "0": []}
    async with upstream_on_loopback() as upstream:
        upstream.answer_with(IMAGE_BYTES, cache_control=STORABLE)
        paths = targets()
        for _ in range(ROUNDS):
            for items, found in figures.items():
                settings = {"CACHE_SPOOL_ITEMS": items}
                async with (
                    proxy(
                        upstream.port, s3.environ, cores=SERVER_CORE, settings=settings
                    ) as server,
                    asking_at_rate(server.port, paths, per_second=IMAGES_PER_SECOND) as tally,
                ):
                    await asyncio.sleep(1)  # what the first images bring with them
                    cpu, images = cpu_seconds(server.pid), tally.images
                    tally.seconds.clear()
                    await asyncio.sleep(ROUND_SECONDS)
                    used = cpu_seconds(server.pid) - cpu
                    p99 = quantiles(tally.seconds, n=100)[98]
                    tally.expect_only_images(server.name)
                    found.append((used / (tally.images - images) * 1e6, p99 * 1000))
    with_cpu, with_p99 = (median(column) for column in zip(*figures["100000"], strict=True))
    without_cpu, without_p99 = (median(column) for column in zip(*figures["0"], strict=True))
    return [
        Row(
            f"spool, store healthy, CPU of a stored image at {IMAGES_PER_SECOND}/s",
            ours=f"{with_cpu:.0f} us",
            beside=f"without spool {without_cpu:.0f} us",
            ratio=with_cpu / without_cpu,
            at_most=1.1,
        ),
        Row(
            "the same, p99 of answers",
            ours=f"{with_p99:.2f} ms",
            beside=f"without spool {without_p99:.2f} ms",
            ratio=with_p99 / without_p99,
        ),
    ]


async def _alone(s3: Bucket) -> list[Row]:
    with pinned(SERVER_CORE):
        process = await asyncio.create_subprocess_exec(
            *(PYTHON, "-m", "benchmarks.uploads_alone", buckets.NAME, str(UPLOADS)),
            env=s3.environ,
            stdout=subprocess.PIPE,
        )
    said, _ = await process.communicate()
    bare_cpu, bare_rate, cpu, rate = map(float, said.split())
    return [
        Row(
            "uploads/s",
            ours=f"{rate:.0f}",
            beside=f"bare obstore {bare_rate:.0f}",
            ratio=rate / bare_rate,
            at_least=LEAST_OF_BARE,
        ),
        Row(
            "CPU of an upload, the bare loop's share in ours",
            ours=f"{cpu:.0f} us",
            beside=f"bare obstore {bare_cpu:.0f} us",
            ratio=bare_cpu / cpu,
            at_least=LEAST_OF_BARE,
        ),
    ]


async def _drain(s3: Bucket, folder: Path) -> list[Row]:
    await asyncio.to_thread(_fill, folder, s3)
    there = s3.images
    settings = {"CACHE_SPOOL_DIR": str(folder)}
    async with upstream_on_loopback() as upstream:
        began = time.monotonic()
        async with proxy(upstream.port, s3.environ, cores=SERVER_CORE, settings=settings):
            started = time.monotonic()
            while (stored := s3.images - there) < SPOOLED:
                if time.monotonic() - started > DRAIN_SECONDS:
                    raise UnexpectedAnswerError(f"{stored} of {SPOOLED} spooled images were stored")
                await asyncio.sleep(0.25)
            drained = time.monotonic()
    return [
        Row(
            f"start with {SPOOLED} images in the spool",
            ours=f"{started - began:.1f} s",
            value=started - began,
            at_most=MOST_START_SECONDS,
            unit=" s",
        ),
        Row(
            f"draining {SPOOLED} images of {IMAGE_BYTES // 1000} KB",
            ours=f"{SPOOLED / (drained - began):.0f}/s",
        ),
    ]


def _fill(folder: Path, s3: Bucket) -> None:
    """As a server that was killed in the middle of an outage."""
    place = whereabouts(S3Location(buckets.NAME, "", s3.endpoint, s3.environ["AWS_REGION"]))
    body = bytes(IMAGE_BYTES)
    content_sha256 = sha256(body).hexdigest()
    with ExitStack() as stack:
        spool = open_spool(folder, place, sync=False)
        stack.callback(spool.close)
        for number in range(SPOOLED):
            path = f"/_/rs:fit:{number}:1/plain/local:///spooled.jpg"
            image = SpooledImage(
                key=Key(md5(path.encode()).hexdigest()),
                path=path,
                content_type="image/jpeg",
                cache_control=STORABLE,
                content_disposition=None,
                size=len(body),
                content_sha256=content_sha256,
                accepted_at=time.time(),
            )
            spool.write([(image, body)])
