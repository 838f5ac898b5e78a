"""
A front that stands before a real S3 server and fails as it is told.

Every request has a connection of its own to the server: what is cut, is cut for good.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from enum import Enum, auto
from pathlib import Path
from random import Random

from tests.servers.s3 import S3Server

HEAD_BYTES = 65_536
SLOW_BYTES, SLOW_SECONDS = 4096, 0.02


class Fault(Enum):
    """What happens to a request; NONE passes it on."""

    NONE = auto()
    UNAVAILABLE = auto()
    """503, as S3 says it."""
    FORBIDDEN = auto()
    """403, as S3 says it."""
    HANG = auto()
    """Takes the request and says nothing."""
    RESET = auto()
    """Breaks the connection off."""
    SLOW = auto()
    """Passes the request on a little at a time."""
    CUT = auto()
    """Passes on a part of the request, then breaks off on both sides."""
    LOST = auto()
    """Passes the request on, then breaks off instead of answering: it was done all the same."""
    HALF_ANSWER = auto()
    """Passes the request on, and half of what is answered, then breaks off."""
    UNCONDITIONAL = auto()
    """501 to what has `If-None-Match`, as S3 says it; else passes the request on."""
    UNCONDITIONAL_405 = auto()
    """The same as 405, without a word."""


_REFUSALS = {
    Fault.UNAVAILABLE: ("503 Slow Down", "SlowDown", "Please reduce your request rate."),
    Fault.FORBIDDEN: ("403 Forbidden", "AccessDenied", "Access Denied."),
    Fault.UNCONDITIONAL: (
        "501 Not Implemented",
        "NotImplemented",
        "A header you provided implies functionality that is not implemented.",
    ),
    Fault.UNCONDITIONAL_405: ("405 Method Not Allowed", "", ""),
}
_OF_CONDITIONS = (Fault.UNCONDITIONAL, Fault.UNCONDITIONAL_405)


@dataclass(frozen=True, slots=True)
class Asked:
    """A request as it came, and the status of its answer; 0 if it got none."""

    method: str
    target: str
    status: int


class FaultyFront:
    """
    Fails with `fault`, each request with the probability `share`.

    `faults` instead of one fault are taken in turn at random.
    """

    def __init__(self, s3: S3Server, *, seed: int) -> None:
        self.port = 0
        self.faults: tuple[Fault, ...] = (Fault.NONE,)
        self.share = 1.0
        self.cut_after = 1000
        self.asked: list[Asked] = []
        self._s3 = s3
        self._random = Random(seed)
        self._tasks: set[asyncio.Task[None]] = set()

    def fail(self, *faults: Fault, share: float = 1.0) -> None:
        self.faults, self.share = faults, share

    def heal(self) -> None:
        """Pass everything on from now on; what hangs goes on hanging."""
        self.faults = (Fault.NONE,)

    def count(self, method: str, *statuses: int) -> int:
        return sum(one.method == method and one.status in statuses for one in self.asked)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        try:
            while await self._exchange(reader, writer):
                pass
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.transport.abort()

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """One request; whether another may follow."""
        head = await reader.readuntil(b"\r\n\r\n")
        fault = (
            self._random.choice(self.faults) if self._random.random() < self.share else Fault.NONE
        )
        if fault in _OF_CONDITIONS and b"\r\nif-none-match:" not in head.lower():
            fault = Fault.NONE
        if fault is Fault.RESET:
            _reset_when_closed(writer)
            self._note(head, 0)
            return False
        body = await reader.readexactly(_length(head))
        if fault in _REFUSALS:
            self._note(head, int(_REFUSALS[fault][0][:3]))
            writer.write(_refusal(fault, head))
            await writer.drain()
            return True
        if fault is Fault.HANG:
            self._note(head, 0)
            await reader.read()
            return False
        return await self._pass_on(fault, head, body, writer)

    async def _pass_on(
        self, fault: Fault, head: bytes, body: bytes, writer: asyncio.StreamWriter
    ) -> bool:
        whole = head[:-2] + b"Connection: close\r\n\r\n" + body
        backend_reader, backend = await asyncio.open_connection("127.0.0.1", self._s3.port)
        try:
            if fault is Fault.CUT:
                backend.write(whole[: self.cut_after])
                await backend.drain()
                self._note(head, 0)
                return False
            step = SLOW_BYTES if fault is Fault.SLOW else len(whole)
            for start in range(0, len(whole), step):
                backend.write(whole[start : start + step])
                await backend.drain()
                if fault is Fault.SLOW:
                    await asyncio.sleep(SLOW_SECONDS)
            answer = await backend_reader.read()
        finally:
            backend.close()
        if fault is Fault.LOST:
            self._note(head, 0)
            return False
        self._note(head, int(answer[9:12]))
        writer.write(answer[: len(answer) // 2] if fault is Fault.HALF_ANSWER else answer)
        await writer.drain()
        return False

    def _note(self, head: bytes, status: int) -> None:
        method, target, _ = head.split(b"\r\n", 1)[0].decode().split(" ")
        self.asked.append(Asked(method, target, status))

    async def close(self) -> None:
        tasks = tuple(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@asynccontextmanager
async def faulty_front(
    s3: S3Server, *, tls: Path | None = None, seed: int = 5
) -> AsyncIterator[FaultyFront]:
    """A front on a free port; with `tls`, a folder with `cert.pem` and `key.pem`."""
    front = FaultyFront(s3, seed=seed)
    context = None
    if tls is not None:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(tls / "cert.pem", tls / "key.pem")
    server = await asyncio.start_server(
        front.serve, "127.0.0.1", 0, limit=HEAD_BYTES, backlog=1024, ssl=context
    )
    front.port = server.sockets[0].getsockname()[1]
    try:
        yield front
    finally:
        server.close()
        await front.close()


def _length(head: bytes) -> int:
    for line in head.split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            return int(value)
    return 0


def _refusal(fault: Fault, head: bytes) -> bytes:
    status, code, message = _REFUSALS[fault]
    error = f"<Error><Code>{code}</Code><Message>{message}</Message></Error>"
    body = error.encode() if code else b""
    fields = (
        f"HTTP/1.1 {status}\r\nContent-Type: application/xml\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return fields.encode() + (b"" if head.startswith(b"HEAD") else body)


def _reset_when_closed(writer: asyncio.StreamWriter) -> None:
    sock: socket.socket = writer.get_extra_info("socket")
    with suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
