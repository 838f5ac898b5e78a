"""
The load: HTTP/1.1 clients that reuse their connections, cheap enough not to be what is measured.

A client reads the head of an answer and counts its body; an answer of 5 KB costs it 7 us.
"""

import asyncio
import itertools
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from typing import cast

START_SECONDS = 20.0
HEAD_BYTES = 2048
MOST_WAITING = 500

# All clients read into the same memory, which so stays in their core's cache: bodies are counted,
# and not looked at.
_BUFFER = bytearray(262_144)
_LENGTH = b"\r\ncontent-length: "
HEAD = (
    b"Host: img.example\r\nAccept: image/avif,image/webp,*/*\r\n"
    b"User-Agent: Mozilla/5.0\r\nReferer: https://page.example/\r\n\r\n"
)


class UnexpectedAnswerError(Exception):
    """What came back is not what the benchmark can read."""


class Client(asyncio.BufferedProtocol):
    """
    One connection, one request at a time.

    Tells the status of each answer when it is whole; 0 if the connection was lost before.
    """

    def __init__(
        self, was_answered: "Callable[[Client, int], None]", *, head: bytes = HEAD
    ) -> None:
        self._was_answered = was_answered
        self._after_target = b" HTTP/1.1\r\n" + head
        self._head = b""
        self._last_head = b"\r\n"  # no answer begins with it
        self._last_status = 0
        self._last_bytes = 0
        self._status = 0
        self._bytes_left = 0
        self._transport: asyncio.Transport | None = None
        self._is_waiting = False
        self.is_lost = False
        self.asked_at = 0.0

    def ask(self, target: bytes) -> None:
        assert self._transport is not None
        self._is_waiting = True
        self._transport.write(b"GET " + target + self._after_target)

    def close(self) -> None:
        assert self._transport is not None
        self._is_waiting = False
        self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are no subclasses of asyncio's.
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_lost = True
        if self._is_waiting:
            self._was_answered(self, 0)

    def get_buffer(self, sizehint: int) -> bytearray:
        return _BUFFER

    def buffer_updated(self, nbytes: int) -> None:
        if self._status:
            self._bytes_left -= nbytes
        else:
            self._read_head(nbytes)
        if self._status and self._bytes_left <= 0:
            status, self._status = self._status, 0
            self._is_waiting = False
            self._was_answered(self, status)

    def _read_head(self, nbytes: int) -> None:
        # That of most answers is the one before: not to read it again halves what a client costs.
        if self._head or not _BUFFER.startswith(self._last_head, 0, nbytes):
            seen = self._head + _BUFFER[: min(nbytes, HEAD_BYTES)]
            end = seen.find(b"\r\n\r\n") + 4
            if end < 4:
                self._head = seen
                return
            nbytes += len(self._head)
            self._head = b""
            self._last_head = seen[:end]
            self._last_status = int(seen[9:12])
            self._last_bytes = end + _content_length(self._last_head)
        self._status = self._last_status
        self._bytes_left = self._last_bytes - nbytes


def _content_length(head: bytes) -> int:
    """Searched in lower case: a pattern that ignores case takes a microsecond more."""
    _, name, rest = head.lower().partition(_LENGTH)
    if not name:
        raise UnexpectedAnswerError(f"no Content-Length: {head!r}")
    return int(rest[: rest.index(b"\r\n")])


class Tally:
    """What came back so far."""

    def __init__(self) -> None:
        self.statuses: Counter[int] = Counter()
        self.seconds: list[float] = []
        """How long each answer took, its body included."""
        self.all_asked = asyncio.Event()
        """Set when there was nothing left to ask for."""
        self.finished = asyncio.Event()
        """Set when all that was asked for is answered as well."""

    @property
    def images(self) -> int:
        return self.statuses[200]

    def expect_only_images(self, server: str) -> None:
        """Raises: UnexpectedAnswerError when something else was answered, or nothing at all."""
        if not self.images or self.images < self.statuses.total():
            raise UnexpectedAnswerError(f"{server} answered {dict(self.statuses)}")


async def answered(port: int, target: bytes) -> None:
    """One answer. Raises: UnexpectedAnswerError if it is not 200."""
    async with asyncio.timeout(START_SECONDS), asking(port, iter([target]), connections=1) as tally:
        await tally.finished.wait()
        tally.expect_only_images(f"port {port}")


@asynccontextmanager
async def asking(
    port: int, targets: Iterator[bytes], *, connections: int, heads: Sequence[bytes] = (HEAD,)
) -> AsyncIterator[Tally]:
    """
    So many clients that ask for the next target as soon as they are answered.

    Each sends the same one of `heads` with all its requests.
    """
    tally = Tally()
    idle = 0

    def ask_next(client: Client) -> None:
        nonlocal idle
        target = None if client.is_lost else next(targets, None)
        if target is not None:
            client.ask(target)
            return
        tally.all_asked.set()
        idle += 1
        if idle == connections:
            tally.finished.set()

    def was_answered(client: Client, status: int) -> None:
        tally.statuses[status] += 1
        ask_next(client)

    async with _closing() as clients:
        for _, head in zip(range(connections), itertools.cycle(heads), strict=False):
            clients.append(await _connected(port, was_answered, head=head))
        for client in clients:
            ask_next(client)
        yield tally


@asynccontextmanager
async def asking_at_rate(
    port: int, targets: Iterator[bytes], *, per_second: float, head: bytes = HEAD
) -> AsyncIterator[Tally]:
    """
    The next target at even intervals, however long the answers take.

    Raises: UnexpectedAnswerError when too many are not answered yet.
    """
    tally = Tally()
    idle: list[Client] = []

    def was_answered(client: Client, status: int) -> None:
        tally.statuses[status] += 1
        tally.seconds.append(time.monotonic() - client.asked_at)
        idle.append(client)
        if asking.done() and len(idle) == len(clients):
            tally.finished.set()

    async def ask() -> None:
        started = time.monotonic()
        for number, target in enumerate(targets):
            await asyncio.sleep(started + number / per_second - time.monotonic())
            client = idle.pop() if idle else None
            if client is not None and client.is_lost:
                clients.remove(client)
                client = None
            if client is None:
                client = await _connected(port, was_answered, head=head)
                clients.append(client)
            client.asked_at = time.monotonic()
            client.ask(target)
            if len(clients) - len(idle) > MOST_WAITING:
                raise UnexpectedAnswerError(f"{MOST_WAITING} clients wait: {per_second}/s is more")

    async with _closing() as clients:
        asking = asyncio.create_task(ask())
        try:
            yield tally
            if asking.done():
                await asking
        finally:
            asking.cancel()


@asynccontextmanager
async def _closing() -> AsyncIterator[list[Client]]:
    clients: list[Client] = []
    try:
        yield clients
    finally:
        for client in clients:
            if not client.is_lost:
                client.close()


async def _connected(
    port: int, was_answered: Callable[[Client, int], None], *, head: bytes
) -> Client:
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(START_SECONDS):
        opening = loop.create_connection(lambda: Client(was_answered, head=head), "127.0.0.1", port)
        return (await opening)[1]
