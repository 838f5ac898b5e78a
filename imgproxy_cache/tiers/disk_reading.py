"""Reading the disk tier's files in threads, with an end to waiting."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

from imgproxy_cache.core.kept import TierKey
from imgproxy_cache.errors import KeptFileError
from imgproxy_cache.tiers.disk_folder import OpenFile

READERS = 4
# A disk that takes longer than imgproxy is of no use.
READ_SECONDS = 2.0


class DiskReading:
    """
    Opens and reads files, a few at a time.

    While as many reads hang as there are threads, nothing is waited for.
    """

    def __init__(
        self, open_file: Callable[[TierKey], OpenFile | None], *, read_seconds: float = READ_SECONDS
    ) -> None:
        self._open_file = open_file
        self._read_seconds = read_seconds
        self._threads = ThreadPoolExecutor(READERS, thread_name_prefix="disk-read")
        self._hanging = 0

    async def read(self, key: TierKey) -> OpenFile | None:
        """
        Raises:
            KeptFileError, OSError: as from :meth:`DiskFolder.open`
            TimeoutError: the disk takes too long
        """
        if self._hanging >= READERS:
            raise TimeoutError
        loop = asyncio.get_running_loop()
        reading = loop.run_in_executor(self._threads, self._open_file, key)
        done, _ = await asyncio.wait((reading,), timeout=self._read_seconds)
        if not done:
            self._hanging += 1
            reading.add_done_callback(self._came_back)
            raise TimeoutError
        return reading.result()

    def _came_back(self, reading: asyncio.Future[OpenFile | None]) -> None:
        """One that nobody waits for any more."""
        self._hanging -= 1
        with suppress(OSError, KeptFileError):
            if (file := reading.result()) is not None:
                os.close(file.descriptor)

    def close_file(self, descriptor: int) -> None:
        self._threads.submit(os.close, descriptor)

    def close(self) -> None:
        """What hangs is not waited for."""
        self._threads.shutdown(wait=False)
