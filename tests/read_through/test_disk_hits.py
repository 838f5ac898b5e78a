"""Hits of the fast lane whose files go from the disk's cache to the client."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import uvloop

from tests.servers.upstreams import fake_imgproxy, image
from tests.servers.wired import WiredProxy, wired_proxy
from tests.wire import Wire, connected, request

TARGET = b"/_/rs:fit:300/plain/local:///a.jpg"
KNOWN_SECONDS = 20.0


def run(test: Coroutine[None, None, None]) -> None:
    """As in production: asyncio's own transports and sockets are others."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(test)


@asynccontextmanager
async def reading(folder: Path, body: bytes) -> AsyncIterator[WiredProxy]:
    """Read-through from disk alone, its one image known to the fast lane."""
    environ = {"CACHE_READ_THROUGH": "true", "CACHE_MEMORY_BYTES": "0"}
    async with (
        fake_imgproxy() as upstream,
        wired_proxy(upstream.port, **environ, CACHE_DISK_DIR=str(folder)) as proxy,
    ):
        upstream.script(TARGET, image(body))
        async with connected(proxy.port) as wire, asyncio.timeout(KNOWN_SECONDS):
            wire.send(request(TARGET))
            assert (await wire.answer()).body == body
            await proxy.until_on_disk()
            while not proxy.hits_at_once:
                wire.send(request(TARGET))
                assert (await wire.answer()).body == body
        yield proxy


async def _answer(wire: Wire) -> bytes:
    """The next one, byte by byte."""
    head = await wire.head_bytes()
    _, _, length = head.lower().partition(b"\r\ncontent-length: ")
    return head + await wire.some(int(length.partition(b"\r\n")[0]))


def _wait_for_their_client(proxy: WiredProxy) -> bool:
    return any(one.transport.get_write_buffer_size() for one in proxy.state.connections)


def _cut_off(folder: Path) -> None:
    (file,) = folder.rglob("*.kept")
    os.truncate(file, file.stat().st_size - 1)


@pytest.mark.parametrize("size", [1, 5000, 1_000_000], ids=["a byte", "small", "large"])
def test_file_is_sent_as_it_is_read(tmp_path: Path, size: int) -> None:
    body = os.urandom(size)

    async def test() -> None:
        async with reading(tmp_path, body) as proxy, connected(proxy.port) as wire:
            answers = []
            hits = proxy.hits_at_once
            # Read anew after a second, and then sent.
            for seconds in (0, 0.5, 1, 0, 0.25):
                proxy.clock.now += seconds
                wire.send(request(TARGET))
                answers.append(await _answer(wire))
            # The kernel may have to be waited for, or the client's end of the answer before.
            async with asyncio.timeout(KNOWN_SECONDS):
                while proxy.hits_at_once == hits:
                    wire.send(request(TARGET))
                    answers.append(await _answer(wire))
        bodies = [answer.partition(b"\r\n\r\n")[2] for answer in answers]
        assert set(bodies) == {body}
        heads = [answer.partition(b"\r\n\r\n")[0] for answer in answers]
        assert all(b"; detail=disk" in head for head in heads)
        assert heads[2] == heads[3] == heads[4], "that of one second, read or sent"

    run(test())


def test_what_a_client_does_not_take_at_once_follows_in_its_order(tmp_path: Path) -> None:
    body = os.urandom(1_000_000)

    async def test() -> None:
        async with (
            reading(tmp_path, body) as proxy,
            connected(proxy.port, receive_buffer_bytes=4096) as wire,
        ):
            served, asked = proxy.state.total_requests, 0
            while not _wait_for_their_client(proxy):
                wire.send(request(TARGET))
                await wire.flush()
                asked += 1
                async with asyncio.timeout(KNOWN_SECONDS):
                    while proxy.state.total_requests < served + asked:
                        if _wait_for_their_client(proxy):
                            break
                        await asyncio.sleep(0)
            for _ in range(asked):
                assert (await _answer(wire)).endswith(b"\r\n\r\n" + body)

    run(test())


def test_file_that_was_cut_off_is_no_whole_answer(tmp_path: Path) -> None:
    body = os.urandom(5000)

    async def test() -> None:
        async with reading(tmp_path, body) as proxy, connected(proxy.port) as wire:
            _cut_off(tmp_path)
            wire.send(request(TARGET))
            answer = await wire.answer()
            assert (answer.status, answer.is_whole) == (200, False)

    run(test())
