"""
A client that speaks bytes: what it sends is what the test says, what it reads is what came.

No HTTP library in between: they repair targets, fold fields and hide how a body ended.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

ANSWER_SECONDS = 20.0

Fields = list[tuple[bytes, bytes]]


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer as it came; `is_whole` if its framing says that nothing is missing."""

    status: int
    fields: Fields
    body: bytes
    is_whole: bool

    def all(self, name: bytes) -> list[bytes]:
        """The values of the fields of this name, in order."""
        return [value for field, value in self.fields if field.lower() == name.lower()]

    def __getitem__(self, name: bytes) -> bytes:
        (value,) = self.all(name)
        return value


class Wire:
    """One connection of a client."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    def send(self, data: bytes) -> None:
        self._writer.write(data)

    async def flush(self) -> None:
        await self._writer.drain()

    async def pour(self, piece: bytes, times: int) -> None:
        """Send the same again and again. Raises: ConnectionError once the server has had enough."""
        for _ in range(times):
            self.send(piece)
            await self.flush()
            await asyncio.sleep(0)

    async def answer(self, *, method: bytes = b"GET") -> Answer:
        """The next answer, interim ones left out."""
        async with asyncio.timeout(ANSWER_SECONDS):
            status, fields = await self.head()
            while 100 <= status < 200:
                status, fields = await self.head()
            body, is_whole = await self._body(status, fields, method)
        return Answer(status, fields, body, is_whole)

    async def head(self) -> tuple[int, Fields]:
        """The next status and its header fields, of an interim answer too."""
        status_line, *lines = (await self.head_bytes())[:-4].split(b"\r\n")
        fields = [(name, value) for name, _, value in (line.partition(b": ") for line in lines)]
        return int(status_line.split(b" ")[1]), fields

    async def head_bytes(self) -> bytes:
        """The next head as it came, its empty line too."""
        async with asyncio.timeout(ANSWER_SECONDS):
            return await self._reader.readuntil(b"\r\n\r\n")

    async def some(self, size: int) -> bytes:
        """The next `size` bytes."""
        async with asyncio.timeout(ANSWER_SECONDS):
            return await self._reader.readexactly(size)

    async def rest(self) -> bytes:
        """Everything up to the end of the connection, however it ends."""
        received = b""
        async with asyncio.timeout(ANSWER_SECONDS):
            try:
                while part := await self._reader.read(1 << 16):
                    received += part
            except ConnectionError:
                pass
        return received

    async def _body(self, status: int, fields: Fields, method: bytes) -> tuple[bytes, bool]:
        lower = {name.lower(): value for name, value in fields}
        if method == b"HEAD" or status in (204, 304):
            return b"", True
        try:
            if lower.get(b"transfer-encoding") == b"chunked":
                return await self._chunked_body()
            if b"content-length" in lower:
                return await self._reader.readexactly(int(lower[b"content-length"])), True
        except asyncio.IncompleteReadError as error:
            return error.partial, False
        except ConnectionError:
            return b"", False
        return await self.rest(), True

    async def _chunked_body(self) -> tuple[bytes, bool]:
        body = b""
        try:
            while size := int(await self._reader.readuntil(b"\r\n"), 16):
                body += await self._reader.readexactly(size)
                await self._reader.readexactly(2)
            await self._reader.readuntil(b"\r\n")
        except asyncio.IncompleteReadError as error:
            return body + error.partial, False
        except ConnectionError:
            return body, False
        return body, True

    def hang_up(self) -> None:
        """Reset the connection at once."""
        sock: socket.socket = self._writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._writer.transport.abort()

    def close(self) -> None:
        self._writer.close()

    def send_eof(self) -> None:
        self._writer.write_eof()


@asynccontextmanager
async def connected(
    port: int, *, host: str = "127.0.0.1", receive_buffer_bytes: int | None = None
) -> AsyncIterator[Wire]:
    """A connection; a small receive buffer makes a client that does not read felt soon."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.setblocking(False)
    if receive_buffer_bytes is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer_bytes)
    try:
        await asyncio.get_running_loop().sock_connect(sock, (host, port))
        reader, writer = await asyncio.open_connection(sock=sock, limit=1 << 16)
    except BaseException:
        sock.close()
        raise
    try:
        yield Wire(reader, writer)
    finally:
        writer.transport.abort()


def request(
    target: bytes, *lines: bytes, method: bytes = b"GET", host: bytes = b"img.example"
) -> bytes:
    """A request with these further field lines; the target's bytes as they are."""
    head = [method + b" " + target + b" HTTP/1.1", b"Host: " + host, *lines]
    return b"\r\n".join([*head, b"", b""])


async def ask(
    port: int,
    target: bytes,
    *lines: bytes,
    method: bytes = b"GET",
    body: bytes = b"",
    host: bytes = b"img.example",
) -> Answer:
    """One request on a connection of its own."""
    async with connected(port) as wire:
        wire.send(request(target, *lines, b"Connection: close", method=method, host=host) + body)
        return await wire.answer(method=method)
