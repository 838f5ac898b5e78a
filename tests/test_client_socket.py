"""What is written past a transport: whole and in order, whatever the client takes at once."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import uvloop

from imgproxy_cache.client_socket import ClientSocket

HEAD = b"HTTP/1.1 200 OK\r\n\r\n"
BODY = bytes(range(256)) * 20
LARGE = BODY * 600
AT = 7  # the body's place in its file
SECONDS = 20.0


@pytest.fixture
def descriptor(tmp_path: Path) -> Iterator[int]:
    path = tmp_path / "file"
    path.write_bytes(b"x" * AT + LARGE)
    descriptor = os.open(path, os.O_RDONLY)
    yield descriptor
    os.close(descriptor)


@pytest.mark.parametrize("takes_nothing", [False, True], ids=["takes some", "takes nothing"])
@pytest.mark.parametrize("body", [b"", BODY, LARGE], ids=["empty", "small", "large"])
@pytest.mark.parametrize("in_file", [False, True], ids=["copied", "from a file"])
def test_all_of_it_comes_in_order(
    descriptor: int, in_file: bool, body: bytes, takes_nothing: bool
) -> None:
    def write(wire: ClientSocket) -> None:
        if in_file:
            wire.send_file(HEAD, descriptor, AT, len(body))
        else:
            wire.send(HEAD + body)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        came, before = runner.run(_what_comes(write, takes_nothing=takes_nothing))
    assert came == before + HEAD + body


async def _what_comes(
    write: Callable[[ClientSocket], None], *, takes_nothing: bool
) -> tuple[bytes, bytes]:
    """What reaches a client that reads only afterwards, and what of it stood there before."""
    ours, theirs = socket.socketpair()
    with theirs:
        for one in (ours, theirs):
            one.setblocking(False)
        before = _fill(ours) if takes_nothing else b""
        transport, _ = await asyncio.get_running_loop().create_connection(
            asyncio.Protocol, sock=ours
        )
        wire = ClientSocket(transport)
        write(wire)
        wire.detach()
        transport.close()  # when all is written
        return await _all(theirs), before


def _fill(end: socket.socket) -> bytes:
    filled = bytearray()
    with suppress(BlockingIOError):
        while True:
            filled += b"-" * end.send(b"-" * 1024)
    return bytes(filled)


async def _all(end: socket.socket) -> bytes:
    came = bytearray()
    async with asyncio.timeout(SECONDS):
        while piece := await asyncio.get_running_loop().sock_recv(end, 65_536):
            came += piece
    return bytes(came)
