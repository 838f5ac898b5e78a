"""What clients were given, held against what the store and the spool have."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from hashlib import md5, sha256
from pathlib import Path

from imgproxy_cache.core.spool_file import read_spool_file
from imgproxy_cache.uploads.spool_folder import SpoolFile, spooled_files
from tests.servers.s3 import S3Server
from tests.wire import ask


@dataclass(frozen=True, slots=True)
class Given:
    """An image that a client got whole, with the promise that it is stored; `at` is monotonic."""

    path: bytes
    content_sha256: str
    at: float


@dataclass
class History:
    """Asks, and remembers every answer."""

    given: list[Given] = field(default_factory=list)
    failed: list[tuple[bytes, str]] = field(default_factory=list)
    """What went wrong for clients; a server that is killed breaks their answers off."""
    seconds: list[float] = field(default_factory=list)
    """How long each answer took."""
    asked: set[bytes] = field(default_factory=set)
    """Every path, those included whose clients did not wait for the answer."""
    _numbers: Iterator[int] = field(default_factory=itertools.count)

    async def ask(self, port: int, path: bytes) -> None:
        began = time.monotonic()
        self.asked.add(path)
        try:
            answer = await ask(port, path)
        except (OSError, asyncio.IncompleteReadError, TimeoutError) as exc:
            self.failed.append((path, f"{type(exc).__name__}: {exc}"))
            return
        if answer.status != 200 or not answer.is_whole:
            self.failed.append((path, f"{answer.status}, {len(answer.body)} bytes"))
            return
        assert answer[b"Cache-Status"] == b"imgproxy-cache; fwd=uri-miss; stored"
        now = time.monotonic()
        self.seconds.append(now - began)
        self.given.append(Given(path, sha256(answer.body).hexdigest(), now))

    async def ask_many(self, port: int, count: int, *, at_once: int = 20) -> None:
        """So many images that nobody has asked for before."""
        paths = iter([self.new_path() for _ in range(count)])

        async def ask_some() -> None:
            for path in paths:
                await self.ask(port, path)

        await asyncio.gather(*(ask_some() for _ in range(at_once)))

    async def keep_asking(self, port: int, *, at_once: int = 4, pause: float = 0.005) -> None:
        """Until cancelled."""

        async def ask_on() -> None:
            while True:
                await self.ask(port, self.new_path())
                await asyncio.sleep(pause)

        await asyncio.gather(*(ask_on() for _ in range(at_once)))

    def new_path(self) -> bytes:
        return b"/_/rs:fit:%d:0/plain/local:///image.jpg" % next(self._numbers)


def stored(s3: S3Server, bucket: str) -> dict[str, str]:
    """
    The hash of every object's bytes by its name; read by an independent client.

    Fails if one is not what its own metadata says: then it is corrupt.
    """
    client = s3.client()
    found = {}
    for page in client.get_paginator("list_objects_v2").paginate(Bucket=bucket):
        for entry in page.get("Contents", []):
            thing = client.get_object(Bucket=bucket, Key=entry["Key"])
            body = thing["Body"].read()
            found[entry["Key"]] = sha256(body).hexdigest()
            assert thing["Metadata"]["content-sha256"] == found[entry["Key"]], entry["Key"]
    return found


def spooled(root: Path) -> dict[str, str]:
    """The hash of every image in the spool by its key; fails if one is damaged."""
    found = {}
    for file in spool_files(root):
        with suppress(FileNotFoundError):  # stored meanwhile
            image, _ = read_spool_file(file.path.read_bytes())
            found[str(image.key)] = image.content_sha256
    return found


def spool_files(root: Path) -> list[SpoolFile]:
    return [file for store in root.iterdir() for file in spooled_files(store)]


def set_aside(root: Path) -> list[str]:
    return [path.read_text() for path in root.glob("*/quarantine/*.reason")]


def missing(given: list[Given], *places: dict[str, str]) -> list[Given]:
    """What was given and is nowhere with the same bytes."""
    return [
        one
        for one in given
        if all(place.get(name(one.path)) != one.content_sha256 for place in places)
    ]


def foreign(asked: set[bytes], place: dict[str, str]) -> set[str]:
    """What nobody has asked for."""
    return set(place) - {name(path) for path in asked}


def name(path: bytes) -> str:
    return md5(path, usedforsecurity=False).hexdigest()
