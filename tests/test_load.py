"""Crowds: clients that hang up, and clients that want more than there is memory for."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import cast

import pytest

from tests.servers.proxy import RunningProxy, running_proxy
from tests.servers.upstreams import FakeImgproxy, Received, Script, chunked, fake_imgproxy, image
from tests.wire import ask, request

HANG_UPS = 10_000
AT_ONCE = 250
CLIENTS = 200
LARGE_BYTES = 20_000_000
MEMORY_BYTES = 512 * 1024 * 1024
SMALL = bytes(30_000)


@pytest.fixture
async def imgproxy() -> AsyncIterator[FakeImgproxy]:
    async with fake_imgproxy() as fake:
        yield fake


# Clients that hang up


class Leaver(asyncio.Protocol):
    """Asks, and resets its connection after so many bytes, or so many seconds."""

    def __init__(self, asked: bytes, after_bytes: int, after_seconds: float) -> None:
        self.gone: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._asked = asked
        self._bytes_left = after_bytes
        self._after_seconds = after_seconds

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.write(self._asked)
        asyncio.get_running_loop().call_later(self._after_seconds, self._transport.abort)

    def data_received(self, data: bytes) -> None:
        self._bytes_left -= len(data)
        if self._bytes_left <= 0:
            self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.gone.done():
            self.gone.set_result(None)


async def hang_up_again_and_again(port: int, times: int, chance: random.Random) -> None:
    loop = asyncio.get_running_loop()
    for _ in range(times):
        # Few enough paths that many share a fetch, enough that many do not.
        asked = request(b"/_/w:%d/plain/local:///a.jpg" % chance.randrange(2000))
        after = chance.choice((1, 200, 10_000, 30_000)), chance.choice((0, 0.001, 0.01, 0.05))
        _, leaver = await loop.create_connection(
            lambda asked=asked, after=after: Leaver(asked, *after),  # type: ignore[misc]
            "127.0.0.1",
            port,
        )
        await leaver.gone


def small_image(received: Received) -> Script:
    return (image(SMALL),) if len(received.target) % 2 else (chunked(SMALL[:10_000], SMALL),)


async def test_after_ten_thousand_clients_that_hung_up_nothing_is_missing(
    imgproxy: FakeImgproxy,
) -> None:
    imgproxy.default = small_image
    async with running_proxy(imgproxy.port) as proxy:
        before = await _own_files(proxy)
        chance = random.Random(20_000)
        each = HANG_UPS // AT_ONCE
        crowd = [hang_up_again_and_again(proxy.port, each, chance) for _ in range(AT_ONCE)]
        await asyncio.gather(*crowd)
        answers = [await ask(proxy.port, b"/_/w:%d/plain/x" % number) for number in range(100)]
        assert [(answer.status, answer.is_whole) for answer in answers] == [(200, True)] * 100
        await _until_idle(proxy)
        # A few are opened when they are first needed (threads, the spool).
        assert await _own_files(proxy) <= before + 10
        metrics = await proxy.metrics()

    assert metrics["buffer_bytes"] == metrics["buffer_waiting"] == metrics["upstream_waiting"] == 0
    assert metrics["upstream_connections"] <= 100
    assert metrics['requests{outcome="client-gone"}'] > 100
    assert proxy.events("server.logged") == []


async def _own_files(proxy: RunningProxy) -> int:
    """Its open files but for the connections to imgproxy that it knows of."""
    metrics = await proxy.metrics()
    return proxy.open_files() - int(metrics["upstream_connections"])


async def _until_idle(proxy: RunningProxy) -> None:
    async with asyncio.timeout(30):
        while True:
            metrics = await proxy.metrics()
            if metrics["upstream_in_use"] == metrics["upload_queue_items"] == 0:
                return
            await asyncio.sleep(0.05)


# Large images for many


@dataclass
class Reader(asyncio.BufferedProtocol):
    """Asks, and reads what comes without keeping it; a slow one pauses after each read."""

    asked: bytes
    pause_seconds: float
    received: int = 0
    start: bytes = b""
    ended: asyncio.Future[None] = field(init=False)

    def __post_init__(self) -> None:
        self.ended = asyncio.get_running_loop().create_future()
        self._buffer = bytearray(256 * 1024 if not self.pause_seconds else 16 * 1024)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.transport.write(self.asked)

    def get_buffer(self, sizehint: int) -> bytearray:
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        if not self.received:
            self.start = bytes(self._buffer[: min(nbytes, 1000)])
        self.received += nbytes
        if self.pause_seconds:
            self.transport.pause_reading()
            asyncio.get_running_loop().call_later(self.pause_seconds, self._go_on)

    def _go_on(self) -> None:
        if not self.transport.is_closing():
            self.transport.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.ended.done():
            self.ended.set_result(None)

    @property
    def outcome(self) -> str:
        status = self.start[9:12].decode()
        head = self.start.find(b"\r\n\r\n") + 4
        if status == "200" and self.received - head != LARGE_BYTES:
            return "cut"
        return status


async def visit(port: int, number: int, pause_seconds: float) -> Reader:
    asked = request(b"/_/w:%d/plain/local:///large.jpg" % number, b"Connection: close")
    loop = asyncio.get_running_loop()
    _, reader = await loop.create_connection(
        lambda: Reader(asked, pause_seconds), "127.0.0.1", port
    )
    return reader


async def test_two_hundred_clients_of_large_images_are_served_or_refused_within_the_memory(
    imgproxy: FakeImgproxy,
) -> None:
    whole = image(bytes(LARGE_BYTES))
    imgproxy.default = lambda received: (whole,)
    async with running_proxy(imgproxy.port, CACHE_UPSTREAM_WAIT_SECONDS="3") as proxy:
        # Every tenth takes 160 KB a second: it holds its image for the whole of the test.
        readers = [
            await visit(proxy.port, number, 0.1 if number % 10 == 0 else 0)
            for number in range(CLIENTS)
        ]
        fast = [reader for number, reader in enumerate(readers) if number % 10]
        async with asyncio.timeout(90):
            await asyncio.gather(*(reader.ended for reader in fast))
        outcomes = Counter(reader.outcome for reader in fast)
        highest = proxy.memory_bytes("VmHWM")
        for reader in readers:
            reader.transport.abort()

    assert set(outcomes) <= {"200", "503"}
    assert outcomes["200"] >= 10
    assert highest < MEMORY_BYTES
