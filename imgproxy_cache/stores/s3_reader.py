"""
Images out of S3 for clients who wait, over connections of our own.

A hit from the store is on the way of an answer.  A get costs 51 us here, which is 92 over obstore
(awaited; 79 in a thread, and two changes of threads).  What is found or deleted goes over obstore.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager

from imgproxy_cache.core.aws_signature import RequestSigner
from imgproxy_cache.core.headers import Headers
from imgproxy_cache.core.image import Image
from imgproxy_cache.core.key import Key, object_name
from imgproxy_cache.core.location import S3Location
from imgproxy_cache.errors import StoredTooLargeError, StoreError, UpstreamBroken, UpstreamError
from imgproxy_cache.stores.failures import (
    error_of_answer,
    error_of_transport,
    is_missing_key,
    store_error,
)
from imgproxy_cache.stores.reader import Get, Outcome, Reader, Room, Unread
from imgproxy_cache.stores.s3_access import IDLE_SECONDS, MOST_ERROR_BYTES, S3Access
from imgproxy_cache.upstream import Exchange, Upstream

# A store that answers within 30 ms is asked 1,000 times a second by so many.
MOST_CONNECTIONS = 32
MOST_WAITING = 10_000
# Where clients' images have taken all memory, small ones are read still: 8 MB in all.
ALWAYS_READ_BYTES = 256 * 1024
CONNECT_SECONDS = 3.0
# Nobody waits for longer (and STORE_SECONDS of the tier is less).
SILENT_SECONDS = 10.0


class S3Reader:
    """
    The :class:`~imgproxy_cache.stores.reader.Reader` of a bucket.

    `now` is the time in seconds since the epoch.
    """

    def __init__(
        self,
        access: S3Access,
        upstream: Upstream,
        room: Room,
        *,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._room = room
        self._access = access
        self._upstream = upstream
        self._now = now
        self._renewing: set[asyncio.Task[None]] = set()

    @property
    def place(self) -> str:
        return str(self._access.location)

    def get(self, key: Key, max_bytes: int, tell: Callable[[Outcome], None]) -> Get:
        get = _S3Get(self._access.location, self._room, key, max_bytes, tell)
        now = self._now()
        signer = self._access.signer(now)
        if signer is not None:
            self._send(get, signer, now)
        else:
            task = asyncio.create_task(self._send_with_new_keys(get))
            self._renewing.add(task)
            task.add_done_callback(self._renewing.discard)
        return get

    async def _send_with_new_keys(self, get: _S3Get) -> None:
        try:
            signer = await self._access.renewed_signer()
        except Exception as exc:  # whatever the chain of credentials runs
            get.fail(store_error(exc, get.operation, self._access.location))
        else:
            self._send(get, signer, self._now())

    def _send(self, get: _S3Get, signer: RequestSigner, now: float) -> None:
        if not get.is_over:
            request = signer.get(self._access.path(get.key), now)
            get.exchange = self._upstream.fetch(request, get)


class _S3Get:
    """One get, and the :class:`~imgproxy_cache.upstream.AnswerSink` of its answer."""

    __slots__ = (
        "_chunks",
        "_fields",
        "_location",
        "_max_bytes",
        "_room",
        "_size",
        "_status",
        "_taken",
        "_tell",
        "exchange",
        "is_over",
        "key",
    )

    def __init__(
        self,
        location: S3Location,
        room: Room,
        key: Key,
        max_bytes: int,
        tell: Callable[[Outcome], None],
    ) -> None:
        self.key = key
        self.is_over = False
        self.exchange: Exchange | None = None
        self._location = location
        self._room = room
        self._taken = 0  # of the room
        self._max_bytes = max_bytes
        self._tell = tell
        self._status = 0
        self._fields: Mapping[bytes, bytes] = {}
        self._chunks: list[bytes] = []
        self._size = 0

    @property
    def operation(self) -> str:
        return f"get {object_name(self._location.folder, self.key)}"

    @property
    def has_begun(self) -> bool:
        return self.exchange is not None and self.exchange.is_sent

    def abandon(self) -> None:
        exchange = self.exchange
        self._is_over_now()
        if exchange is not None:
            exchange.abandon()

    def fail(self, error: StoreError) -> None:
        if not self.is_over:
            self._is_over_now()
            self._tell(error)

    # AnswerSink

    def answer_began(self, status: int, headers: Headers) -> None:
        self._status = status
        self._fields = fields = {name.lower(): value for name, value in headers}
        length = fields.get(b"content-length", b"")
        if status == 200 and length.isdigit():
            self._needs(int(length))

    def chunk_came(self, chunk: bytes) -> None:
        if self.is_over:
            return
        self._size += len(chunk)
        if self._status == 200:
            self._chunks.append(chunk)
            if self._size > self._taken:  # it did not say how much there would be
                self._needs(self._size)
        elif self._size <= MOST_ERROR_BYTES:
            self._chunks.append(chunk)

    def answer_ended(self, *, is_whole: bool) -> None:
        if self.is_over:
            return
        self._is_over_now()
        body = self._chunks[0] if len(self._chunks) == 1 else b"".join(self._chunks)
        if self._status == 200 and is_whole:
            self._tell(_image(body, self._fields))
        elif self._status == 404 and is_missing_key(body.decode("utf-8", "replace")):
            self._tell(None)
        elif self._status != 200:
            self._tell(error_of_answer(self._status, body, self.operation, self._location))
        else:
            error = UpstreamBroken("did not say where its answer ends")
            self._tell(error_of_transport(error, self.operation, self._location))

    def fetch_failed(self, error: UpstreamError) -> None:
        self.fail(error_of_transport(error, self.operation, self._location))

    def _needs(self, size: int) -> None:
        """So many bytes of memory, in all."""
        if size > self._max_bytes:
            place = str(self._location)
            self.abandon()
            self._tell(StoredTooLargeError(size, operation=self.operation, place=place))
        elif size <= ALWAYS_READ_BYTES:
            pass
        elif self._room.take(size - self._taken):
            self._taken = size
        else:
            self.abandon()
            self._tell(Unread.NO_ROOM)

    def _is_over_now(self) -> None:
        self.is_over = True
        self.exchange = None  # it refers to us: the collector would have to find that out
        taken, self._taken = self._taken, 0
        if taken:
            self._room.give_back(taken)


@asynccontextmanager
async def s3_reader(access: S3Access, room: Room) -> AsyncIterator[Reader]:
    async with Upstream(
        access.host,
        access.port,
        max_connections=MOST_CONNECTIONS,
        max_waiting=MOST_WAITING,
        wait_seconds=SILENT_SECONDS,
        connect_timeout_seconds=CONNECT_SECONDS,
        read_timeout_seconds=SILENT_SECONDS,
        max_idle_seconds=IDLE_SECONDS,
        name="the store",
        tls=access.tls,
    ) as upstream:
        yield S3Reader(access, upstream, room)


def _image(body: bytes, fields: Mapping[bytes, bytes]) -> Image:
    return Image(
        body=body,
        content_type=fields.get(b"content-type", b"").decode("latin-1"),
        cache_control=_text(fields.get(b"cache-control")),
        content_disposition=_text(fields.get(b"content-disposition")),
        path_sha256=fields.get(b"x-amz-meta-path-sha256", b"").decode("latin-1"),
        content_sha256=fields.get(b"x-amz-meta-content-sha256", b"").decode("latin-1"),
        stored_at=fields.get(b"x-amz-meta-stored-at", b"").decode("latin-1"),
    )


def _text(value: bytes | None) -> str | None:
    return None if value is None else value.decode("latin-1")
