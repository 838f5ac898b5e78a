"""A bucket of a real S3 server that checks signatures, and how many images it has."""

import asyncio
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from pathlib import Path

from benchmarks.clients import UnexpectedAnswerError
from benchmarks.machine import SERVER_CORE, pinned
from benchmarks.servers import PYTHON
from tests.servers.s3 import S3Server, s3_server

NAME = "images"
STORED_SECONDS = 30.0


class Bucket:
    """Looked into through the server's files, which costs nothing that is measured."""

    def __init__(self, server: S3Server, folder: Path) -> None:
        self.pid = server.pid
        self.endpoint = server.endpoint
        self.environ = {**server.environ, "S3_BUCKET": NAME, "S3_ENDPOINT": server.endpoint}
        """What lets the proxy keep images here."""
        self._folder = folder

    @property
    def images(self) -> int:
        # Objects of the proxy are named by 32 digits; what the server itself makes is not.
        return sum(len(file.name) == 32 for file in self._folder.iterdir())

    async def holds(self, images: int) -> None:
        """
        Waits until so many are there.

        Raises: UnexpectedAnswerError if that is not in time.
        """
        deadline = time.monotonic() + STORED_SECONDS
        while (stored := self.images) < images:
            if time.monotonic() > deadline:
                raise UnexpectedAnswerError(f"{stored} of {images} images were stored")
            await asyncio.sleep(0.02)


@contextmanager
def bucket(folder: Path, *, cores: frozenset[int]) -> Iterator[Bucket]:
    with ExitStack() as stack:
        with pinned(cores):
            server = stack.enter_context(s3_server(folder))
        server.make_bucket(NAME)
        yield Bucket(server, folder / "objects" / NAME)


@asynccontextmanager
async def bare_loop(module: str, s3: Bucket) -> AsyncIterator[asyncio.subprocess.Process]:
    """A program of ours that does with the bucket, and nothing else, what its stdin asks for."""
    with pinned(SERVER_CORE):
        process = await asyncio.create_subprocess_exec(
            *(PYTHON, "-m", module, NAME),
            env=s3.environ,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
