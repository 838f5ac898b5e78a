"""A server that takes requests and answers with bytes that were written down."""

import asyncio
import re
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
HANG_UP = b""
_LENGTH = re.compile(rb"\r\ncontent-length: (\d+)\r\n", re.IGNORECASE)


@dataclass(slots=True)
class Scripted:
    """Where it is, the heads that it was sent, and how many connections were made."""

    port: int = 0
    heads: list[bytes] = field(default_factory=list)
    connections: int = 0
    writers: list[asyncio.StreamWriter] = field(default_factory=list)

    def say(self, unasked: bytes) -> None:
        """On every connection that is open: it has arrived when this returns."""
        for writer in self.writers:
            writer.write(unasked)


@asynccontextmanager
async def scripted(
    *answers: bytes,
    host: str = "127.0.0.1",
    reads_bodies: bool = True,
    hangs_up: bool = False,
    tls: ssl.SSLContext | None = None,
) -> AsyncIterator[Scripted]:
    """
    Each request gets the next answer, the last one again and again; HANG_UP is none.

    It hangs up after each answer, or else keeps its connections.
    """
    found = Scripted()
    left = list(answers)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        found.connections += 1
        found.writers.append(writer)
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                found.heads.append(head)
                length = _LENGTH.search(head)
                if reads_bodies and length is not None:
                    await reader.readexactly(int(length[1]))
                answer = left.pop(0) if len(left) > 1 else left[0]
                writer.write(answer)
                if answer == HANG_UP or hangs_up:
                    break
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        found.writers.remove(writer)
        writer.close()

    server = await asyncio.start_server(serve, host, 0, ssl=tls)
    async with server:
        found.port = server.sockets[0].getsockname()[1]
        yield found
