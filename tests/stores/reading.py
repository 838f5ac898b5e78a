"""What a reader tells, waited for."""

import asyncio

from imgproxy_cache.buffer import Buffer
from imgproxy_cache.core.image import Image
from imgproxy_cache.core.key import Key
from imgproxy_cache.errors import StoreError
from imgproxy_cache.stores.reader import Outcome, Reader, Unread
from tests.stores.images import KEY

MOST_BYTES = 50_000_000
SECONDS = 20.0


async def got(reader: Reader, key: Key = KEY, max_bytes: int = MOST_BYTES) -> Image | None:
    """
    The image, or None.

    Raises:
        StoreError: as it was told
    """
    outcome: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
    reader.get(key, max_bytes, outcome.set_result)
    async with asyncio.timeout(SECONDS):
        found = await outcome
    if isinstance(found, StoreError):
        raise found
    assert not isinstance(found, Unread)
    return found


def buffer(max_bytes: int = MOST_BYTES) -> Buffer:
    """Memory, for whose bytes nobody waits."""
    return Buffer(max_bytes, wait_seconds=0, max_waiting=0)
