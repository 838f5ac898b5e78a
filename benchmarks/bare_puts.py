"""
A bare loop of `obstore.put_async`, which the proxy's storing is held against.

A program of its own, for its CPU time to be its own: takes the endpoint, the bucket, how many
images and the first one's number, and prints the CPU time of one put in microseconds.
"""

import asyncio
import os
import sys
import time
from collections.abc import Iterator

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


async def main(endpoint: str, bucket: str, count: int, first: int) -> None:
    store = S3Store(
        bucket,
        endpoint=endpoint,
        region=os.environ["AWS_REGION"],
        access_key_id=os.environ["AWS_ACCESS_KEY_ID"],
        secret_access_key=os.environ["AWS_SECRET_ACCESS_KEY"],
        virtual_hosted_style_request=False,
        client_options={"allow_http": True},
        retry_config={"max_retries": 0},
    )
    body = bytes(IMAGE_BYTES)
    # The first puts open the connections.
    await asyncio.gather(*(put_all(store, body, iter([f"warm-up-{n}"])) for n in range(64)))
    started = time.process_time()
    names = (f"{number:032x}" for number in range(first, first + count))
    await asyncio.gather(*(put_all(store, body, names) for _ in range(CONCURRENCY)))
    print((time.process_time() - started) / count * 1e6)


async def put_all(store: S3Store, body: bytes, names: Iterator[str]) -> None:
    for name in names:
        await obstore.put_async(
            store,
            name,
            body,
            attributes=ATTRIBUTES,
            use_multipart=False,
        )


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])))
