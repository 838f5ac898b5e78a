"""Batches on their way into the spool (what becomes of the images: tests/test_kept.py)."""

import asyncio
import threading
from collections.abc import Sequence
from pathlib import Path

from imgproxy_cache.core.spool_file import SpooledImage
from imgproxy_cache.uploads.pending import Pending
from imgproxy_cache.uploads.spool import Spool
from imgproxy_cache.uploads.spool_folder import SpoolFile
from imgproxy_cache.uploads.spooling import Spooling, SpoolLimits
from tests.uploading import KEY, NOW, PATH, SECONDS, upload


class Slow(Spool):
    """On a disk that writes when it is allowed to."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, sync=False)
        self.may_write = threading.Event()
        self.is_writing = threading.Event()

    def write(
        self, images: Sequence[tuple[SpooledImage, bytes]]
    ) -> tuple[list[SpoolFile], OSError | None]:
        self.is_writing.set()
        assert self.may_write.wait(SECONDS)
        return super().write(images)


async def test_what_is_being_written_when_time_is_up_is_known_to_be_there_later(
    tmp_path: Path,
) -> None:
    spool, safe = Slow(tmp_path), list[Pending]()
    image = Pending(KEY, accepted_at=NOW, due_at=0, size=11, upload=upload(), path=PATH)
    spooling = Spooling(
        lambda: spool,
        SpoolLimits(10**9, 10**6, 10**9),
        spooled=safe.append,
        see_what_is_done=lambda: None,
    )
    spooling.add(image)
    await asyncio.sleep(0)  # it is given its grace
    await spooling.flush(0)
    await asyncio.to_thread(spool.is_writing.wait, SECONDS)
    assert safe == []
    spool.may_write.set()
    await spooling.flush(SECONDS)
    assert safe == [image]
    assert (spooling.files, image.file is not None) == (1, True)
    await spooling.close()
