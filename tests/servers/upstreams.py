"""
An imgproxy that does as it is told, and notes every byte that it was sent.

For what a real one will not do on demand: wait, cut a body, lie about its length,
reset, hang, speak out of turn.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Final

WAIT_SECONDS = 20.0

STORABLE: Final = (
    b"Server: imgproxy",
    b"Content-Type: image/jpeg",
    b"Cache-Control: max-age=31536000, public",
)
"""The fields of an answer that may be stored, but for those that frame its body."""


class End(Enum):
    """How a script can end; without one the connection stays open for the next request."""

    CLOSE = auto()
    RESET = auto()
    HANG = auto()
    """Keep the connection and say nothing more, until the other side closes it."""


@dataclass(slots=True)
class Gate:
    """Where a script waits for its test: `reached` is set by the script, `open` by the test."""

    reached: asyncio.Event = field(default_factory=asyncio.Event)
    open: asyncio.Event = field(default_factory=asyncio.Event)


Step = bytes | Gate | End
Script = tuple[Step, ...]


def head(*fields: bytes, status: bytes = b"200 OK") -> bytes:
    return b"\r\n".join([b"HTTP/1.1 " + status, *fields, b"", b""])


def image(body: bytes, *fields: bytes) -> bytes:
    """A whole answer that may be stored."""
    return head(*STORABLE, b"Content-Length: %d" % len(body), *fields) + body


def chunked(*chunks: bytes) -> bytes:
    """A whole answer in chunks that may be stored."""
    body = b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks)
    return head(*STORABLE, b"Transfer-Encoding: chunked") + body + b"0\r\n\r\n"


@dataclass(frozen=True, slots=True)
class Received:
    """A request as it came, and on which of the connections."""

    connection: int
    head: bytes

    @property
    def line(self) -> bytes:
        return self.head.partition(b"\r\n")[0]

    @property
    def target(self) -> bytes:
        return self.line.split(b" ", 1)[1].removesuffix(b" HTTP/1.1")

    @property
    def fields(self) -> list[tuple[bytes, bytes]]:
        lines = self.head.removesuffix(b"\r\n\r\n").split(b"\r\n")[1:]
        return [(name, value) for name, _, value in (line.partition(b": ") for line in lines)]

    def all(self, name: bytes) -> list[bytes]:
        return [value for field, value in self.fields if field == name]


class FakeImgproxy:
    """
    Answers `/health`, then what each target's scripts say, one script a request and the last
    of them for ever; any other target with an image of its own.
    """

    def __init__(self) -> None:
        self.port = 0
        self.received: list[Received] = []
        self.written: dict[bytes, int] = {}
        """How often an answer to this target was handed to the system to its last byte."""
        self.raw: dict[int, bytearray] = {}
        """All bytes of each connection."""
        self.open_connections = 0
        self.is_healthy = True
        self.default: Callable[[Received], Script] = _image_of
        self._scripts: dict[bytes, list[Script]] = {}
        self._changed = asyncio.Condition()
        self._tasks: set[asyncio.Task[None]] = set()

    def script(self, target: bytes, *steps: Step) -> None:
        """Do this for the next request for the target, and for those after the last script."""
        self._scripts.setdefault(target, []).append(steps)

    def asked_for(self, target: bytes) -> list[Received]:
        return [one for one in self.received if one.target == target]

    @property
    def images_asked_for(self) -> list[Received]:
        """All but health checks."""
        return [one for one in self.received if one.target != b"/health"]

    async def until(self, is_so: Callable[[FakeImgproxy], bool]) -> None:
        """Wait for something to be true of it."""
        async with asyncio.timeout(WAIT_SECONDS), self._changed:
            await self._changed.wait_for(lambda: is_so(self))

    async def until_asked(self, target: bytes, times: int = 1) -> None:
        await self.until(lambda self: len(self.asked_for(target)) >= times)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        number = len(self.raw)
        self.raw[number] = bytearray()
        self.open_connections += 1
        writer.transport.set_write_buffer_limits(0)
        try:
            while await self._exchange(number, reader, writer):
                pass
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # the other side has gone, or the test is over
        finally:
            self.open_connections -= 1
            writer.transport.abort()
            await self._tell()

    async def _exchange(
        self, number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bool:
        """One request and its answer; whether another may follow."""
        received = await reader.readuntil(b"\r\n\r\n")
        self.raw[number] += received
        self.received.append(Received(number, received))
        await self._tell()
        target = self.received[-1].target
        for step in self._script(self.received[-1]):
            if isinstance(step, bytes):
                writer.write(step)
                await writer.drain()
            elif isinstance(step, Gate):
                step.reached.set()
                await self._at(step, reader)
            elif step is End.HANG:
                self.raw[number] += await reader.read()
                return False
            else:
                if step is End.RESET:
                    _reset_when_closed(writer)
                return False
        self.written[target] = self.written.get(target, 0) + 1
        await self._tell()
        return True

    async def _at(self, gate: Gate, reader: asyncio.StreamReader) -> None:
        """Wait for the gate, or for the other side to go."""
        gone = asyncio.ensure_future(reader.read(1))
        opened = asyncio.ensure_future(gate.open.wait())
        try:
            await asyncio.wait((gone, opened), return_when=asyncio.FIRST_COMPLETED)
            if not opened.done():
                raise ConnectionError("nobody waits for the rest")
        finally:
            for task in (gone, opened):
                task.cancel()
            await asyncio.gather(gone, opened, return_exceptions=True)

    def _script(self, received: Received) -> Script:
        scripts = self._scripts.get(received.target)
        if scripts is None and received.target.endswith(b"/health"):
            status = b"200 OK" if self.is_healthy else b"503 Service Unavailable"
            fields = (b"Server: imgproxy", b"Content-Type: text/plain", b"Content-Length: 2")
            return (head(*fields, status=status) + b"ok",)
        if scripts is None:
            return self.default(received)
        return scripts.pop(0) if len(scripts) > 1 else scripts[0]

    async def hang_up(self) -> None:
        """Break off every connection."""
        tasks = tuple(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _tell(self) -> None:
        async with self._changed:
            self._changed.notify_all()


def _image_of(received: Received) -> Script:
    whole = image(b"image of " + received.target)
    if received.line.startswith(b"HEAD "):
        return (whole.partition(b"\r\n\r\n")[0] + b"\r\n\r\n",)
    return (whole,)


def _reset_when_closed(writer: asyncio.StreamWriter) -> None:
    sock: socket.socket = writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


@asynccontextmanager
async def fake_imgproxy() -> AsyncIterator[FakeImgproxy]:
    """One on a free port of 127.0.0.1."""
    fake = FakeImgproxy()
    server = await asyncio.start_server(fake.serve, "127.0.0.1", 0, limit=1 << 20, backlog=4096)
    fake.port = server.sockets[0].getsockname()[1]
    try:
        yield fake
    finally:
        server.close()
        await fake.hang_up()
