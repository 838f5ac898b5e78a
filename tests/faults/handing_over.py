"""A process that stores what others have left in the spool, and hands it over to the disk tier."""

from dataclasses import replace
from pathlib import Path

from imgproxy_cache.core.kept import KeptAnswer
from imgproxy_cache.core.location import FolderLocation
from imgproxy_cache.stores import open_store
from imgproxy_cache.uploads import Uploads
from imgproxy_cache.uploads.spool import open_spool
from imgproxy_cache.uploads.spooling import SpoolLimits
from tests.spooled import spooled
from tests.tiers.answers import answer
from tests.tiers.tiers import PLACE, disk_folder, disk_tier
from tests.uploading import Recorded

LEFT = [answer(number, bytes([number]) * 20_000) for number in (1, 2)]


def leave_behind(root: Path, left: list[KeptAnswer]) -> None:
    """As a process that was killed before the store had anything."""
    spool = open_spool(root / "spool", PLACE, sync=False)
    for number, kept in enumerate(left, start=1):
        spool.write([spooled(number, kept.body, kept=replace(kept, body=b""))])
    spool.close()


async def store_what_was_left(root: Path) -> None:
    async with (
        open_store(FolderLocation(str(root / "store"))) as store,
        disk_tier(disk_folder(root / "disk")) as tier,
        Uploads(
            store,
            Recorded(),
            concurrency=2,
            max_items=10,
            max_bytes=10**6,
            open_spool=lambda: open_spool(root / "spool", PLACE, sync=True),
            spool_limits=SpoolLimits(10**9, 10**6, float("inf")),
            spool_is_lasting=True,
            disk=tier,
        ) as uploads,
    ):
        await uploads.adopt()
        await uploads.drain(float("inf"))
