"""
What happens to an image after it was answered: it is stored, in the background.

Everything here is bounded: images that wait or are on their way to the store by number and by
bytes, uploads at once by number.  What does not fit is not stored, and counted.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from time import perf_counter
from types import TracebackType
from typing import Protocol, Self

import structlog

from imgproxy_cache.core.image import Image, image_from_answer
from imgproxy_cache.core.key import Key
from imgproxy_cache.errors import StoreError
from imgproxy_cache.stores import Store

log = structlog.get_logger()

# Joining and hashing takes 1 ms a megabyte: smaller ones are done in the event loop, where they
# cost less than the way to a thread and back (0.1 ms) and stall nobody.
INLINE_BYTES = 256 * 1024


@dataclass(frozen=True, slots=True)
class Upload:
    """A whole image as it came from imgproxy; `path` is the raw one, without its query."""

    key: Key
    path: bytes
    chunks: tuple[bytes, ...]
    size: int
    content_type: str
    cache_control: str | None
    content_disposition: str | None


class UploadEvents(Protocol):
    """Is told what became of every upload that was offered: exactly one of these for each."""

    def stored(self, size: int, seconds: float) -> None:
        """The store has it; `seconds` from the start of its upload, without waiting."""

    def failed(self, kind: str) -> None:
        """The store refused or could not be reached: the kind of the StoreError."""

    def dropped(self, size: int) -> None:
        """There was no room for it."""

    def abandoned(self, items: int) -> None:
        """So many were not stored when time was up."""


class Uploads:
    """
    The queue in front of the store, and the tasks that empty it.

    A task lives while there is something to upload, so that none can be missing later.
    """

    def __init__(
        self,
        store: Store,
        events: UploadEvents,
        *,
        concurrency: int,
        max_items: int,
        max_bytes: int,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._store = store
        self._events = events
        self._concurrency = concurrency
        self.max_items = max_items
        self.max_bytes = max_bytes
        self._now = now
        self._waiting: deque[Upload] = deque()
        self._tasks: set[asyncio.Task[None]] = set()
        self._working = 0
        self._items = 0
        self._bytes = 0
        self._is_closed = False
        self._is_dropping = False
        bucket = store.place.partition("://")[2].partition("/")[0]
        self._bucket = bucket or store.place
        self._message = "Uploaded to S3" if store.place.startswith("s3://") else "Stored"

    @property
    def queue_items(self) -> int:
        """Images that wait for their upload or are on their way."""
        return self._items

    @property
    def queue_bytes(self) -> int:
        """Their bytes."""
        return self._bytes

    def offer(self, upload: Upload) -> bool:
        """Takes the image if there is room for it; never waits, never raises."""
        if (
            self._is_closed
            or self._items >= self.max_items
            or self._bytes + upload.size > self.max_bytes
        ):
            self._drop(upload)
            return False
        self._items += 1
        self._bytes += upload.size
        self._waiting.append(upload)
        if self._working < self._concurrency:
            self._working += 1
            task = asyncio.create_task(self._work())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        return True

    async def drain(self, deadline: float) -> int:
        """
        Waits until everything is stored, what is offered meanwhile included, but not longer
        than to the deadline on the event loop's clock; then takes nothing more.

        Returns how many had to be abandoned; a line in the log names their number as well.
        """
        loop = asyncio.get_running_loop()
        while self._tasks and (left := deadline - loop.time()) > 0:
            await asyncio.wait(self._tasks, timeout=left)
        self._is_closed = True
        tasks = tuple(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        abandoned, abandoned_bytes = self._items, self._bytes
        self._waiting.clear()
        self._items = self._bytes = 0
        if abandoned:
            self._events.abandoned(abandoned)
            log.warning("upload.abandoned", items=abandoned, bytes=abandoned_bytes)
        return abandoned

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.drain(deadline=0)

    def _drop(self, upload: Upload) -> None:
        self._events.dropped(upload.size)
        if not self._is_dropping:
            self._is_dropping = True
            log.warning(
                "upload.dropped",
                message="images are not stored: said once, until the queue has been empty again",
                reason="stopping" if self._is_closed else "the upload queue is full",
                key=upload.key,
                bytes=upload.size,
                queue_items=self._items,
                queue_bytes=self._bytes,
            )

    async def _work(self) -> None:
        while self._waiting:
            upload = self._waiting.popleft()
            await self._upload(upload)
            # Not when cancelled: such an upload is one of the abandoned.
            self._items -= 1
            self._bytes -= upload.size
        # No await since the queue was seen empty: whatever is offered from now on starts a task.
        self._working -= 1
        self._is_dropping = False

    async def _upload(self, upload: Upload) -> None:
        """The one place where an upload ends: for later, where it would be tried again."""
        started = perf_counter()
        try:
            if upload.size > INLINE_BYTES:
                image = await asyncio.to_thread(self._image, upload)
            else:
                image = self._image(upload)
            await self._store.put(upload.key, image)
        except StoreError as exc:
            self._failed(upload, exc)
        except Exception as exc:
            unexpected = StoreError(
                operation=f"put {upload.key}",
                place=self._store.place,
                cause=f"{type(exc).__name__}: {exc}",
                hint="this is a bug in imgproxy-cache: please report it",
                kind="bug",
            )
            self._failed(upload, unexpected)
        else:
            seconds = perf_counter() - started
            self._events.stored(upload.size, seconds)
            log.info(
                "upload.stored",
                message=self._message,
                path=_printable(upload.path),
                bucket=self._bucket,
                key=upload.key,
                bytes=upload.size,
                seconds=round(seconds, 4),
            )

    def _image(self, upload: Upload) -> Image:
        return image_from_answer(
            path=upload.path,
            body=b"".join(upload.chunks),
            content_type=upload.content_type,
            cache_control=upload.cache_control,
            content_disposition=upload.content_disposition,
            now=self._now(),
        )

    def _failed(self, upload: Upload, error: StoreError) -> None:
        self._events.failed(error.kind)
        log.error(
            "upload.failed",
            message=str(error),
            path=_printable(upload.path),
            key=upload.key,
            place=error.place,
            operation=error.operation,
            cause=error.cause,
            hint=error.hint,
            kind=error.kind,
            bytes=upload.size,
        )


def _printable(path: bytes) -> str:
    return path.decode("ascii", "backslashreplace")
