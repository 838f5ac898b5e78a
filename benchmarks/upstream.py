"""A stand-in for imgproxy that costs next to nothing: every path is the same image."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import cast

_HEALTH = (
    b"HTTP/1.1 200 OK\r\nServer: imgproxy\r\nContent-Type: text/plain\r\n"
    b"Content-Length: 2\r\n\r\nok"
)

IMAGE_BYTES = 30_000


class Upstream:
    """What is answered; may be changed between measurements."""

    def __init__(self) -> None:
        self.port = 0
        self.asked = 0
        """How often, the asking after its health left out."""
        self.delay_seconds = 0.0
        self.answer = b""
        self.answer_with(IMAGE_BYTES, cache_control="no-store")

    def answer_with(self, size: int, *, cache_control: str) -> None:
        """A JPEG of `size` bytes (that nobody decodes), with the fields that imgproxy sends."""
        head = (
            "HTTP/1.1 200 OK\r\nServer: imgproxy\r\nDate: Sat, 01 Jan 2028 00:00:00 GMT\r\n"
            f"Content-Type: image/jpeg\r\nContent-Length: {size}\r\n"
            f"Cache-Control: {cache_control}\r\n"
            'Content-Disposition: inline; filename="image.jpg"\r\n'
            "X-Request-Id: 0123456789abcdefghijk\r\n\r\n"
        )
        self.answer = head.encode() + b"\xff\xd8\xff\xe0" + bytes(size - 4)


class _Connection(asyncio.Protocol):
    def __init__(self, upstream: Upstream) -> None:
        self._upstream = upstream
        self._transport: asyncio.Transport | None = None
        self._head = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are no subclasses of asyncio's.
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        head = self._head + data
        if not head.endswith(b"\r\n\r\n"):
            self._head = head
            return
        self._head = b""
        assert self._transport is not None
        if head.startswith(b"GET /health "):
            self._transport.write(_HEALTH)
            return
        upstream = self._upstream
        upstream.asked += 1
        if upstream.delay_seconds:
            loop = asyncio.get_running_loop()
            loop.call_later(upstream.delay_seconds, self._transport.write, upstream.answer)
        else:
            self._transport.write(upstream.answer)


@asynccontextmanager
async def upstream_on_loopback() -> AsyncIterator[Upstream]:
    """An upstream in this process, on a free port."""
    upstream = Upstream()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: _Connection(upstream), "127.0.0.1", 0, backlog=1024)
    upstream.port = server.sockets[0].getsockname()[1]
    async with server:
        yield upstream
