"""imgproxy-cache with a spool, before a store that fails as it is told."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.faults.front import FaultyFront, faulty_front
from tests.faults.history import (
    Given,
    History,
    foreign,
    missing,
    set_aside,
    spooled,
    stored,
)
from tests.servers.proxy import RunningProxy, running_proxy
from tests.servers.s3 import S3Server
from tests.servers.upstreams import FakeImgproxy, fake_imgproxy

WAIT_SECONDS = 60.0


@dataclass
class Stage:
    """All parts of an experiment."""

    s3: S3Server
    bucket: str
    front: FaultyFront
    imgproxy: FakeImgproxy
    spool: Path
    scheme: str = "http"
    environ: dict[str, str] = field(default_factory=dict)
    history: History = field(default_factory=History)

    @asynccontextmanager
    async def proxy(self, **environ: str) -> AsyncIterator[RunningProxy]:
        """A server over the spool of those before it."""
        given = {
            **self.s3.environ,
            "S3_BUCKET": self.bucket,
            "S3_ENDPOINT": f"{self.scheme}://127.0.0.1:{self.front.port}",
            "CACHE_SPOOL_DIR": str(self.spool),
            **self.environ,
            **environ,
        }
        async with running_proxy(self.imgproxy.port, **given) as proxy:
            yield proxy

    async def until_drained(self, proxy: RunningProxy) -> None:
        """Until nothing waits, in memory or in the spool."""

        async def is_drained() -> bool:
            metrics = await proxy.metrics()
            return metrics["upload_waiting"] == metrics["spool_items"] == 0

        await until(is_drained)
        await until_true(lambda: not spooled(self.spool))

    def expect_all_stored(self, given: list[Given] | None = None) -> None:
        """Nothing lost, nothing corrupt, nothing foreign, nothing set aside."""
        there = stored(self.s3, self.bucket)
        lost = missing(self.history.given if given is None else given, there)
        assert lost == [], f"{len(lost)} of {len(self.history.given)} were lost"
        assert foreign(self.history.asked, there) == set()
        assert set_aside(self.spool) == []

    def expect_all_kept(self) -> None:
        """Everything is in the store or in the spool."""
        lost = missing(self.history.given, stored(self.s3, self.bucket), spooled(self.spool))
        assert lost == [], f"{len(lost)} of {len(self.history.given)} were lost"


@asynccontextmanager
async def staged(
    s3: S3Server, folder: Path, *, tls: Path | None = None, bucket: str = ""
) -> AsyncIterator[Stage]:
    bucket = bucket or s3.make_bucket(f"faults-{uuid.uuid4().hex}")
    async with faulty_front(s3, tls=tls) as front, fake_imgproxy() as imgproxy:
        yield Stage(s3, bucket, front, imgproxy, folder / "spool", "https" if tls else "http")


async def until(is_so: Callable[[], object]) -> None:
    """Until an asynchronous condition holds."""
    async with asyncio.timeout(WAIT_SECONDS):
        while not await is_so():  # type: ignore[misc]
            await asyncio.sleep(0.02)


async def until_true(is_so: Callable[[], bool]) -> None:
    async with asyncio.timeout(WAIT_SECONDS):
        while not is_so():
            await asyncio.sleep(0.02)
