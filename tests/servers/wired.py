"""
The proxy's own parts in the test's event loop, behind a real socket, with a store in memory.

For what has to be looked at from inside, or needs a limit that no setting has; what a
user runs is in `proxy.py`.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.server import ServerState

from imgproxy_cache.app import (
    buffer_from,
    fast_lane_of,
    read_through_from,
    reader_from,
    upstream_from,
)
from imgproxy_cache.buffer import Buffer
from imgproxy_cache.core.image import Image, StoredObject
from imgproxy_cache.core.key import Key
from imgproxy_cache.errors import StoreError
from imgproxy_cache.metrics import Metrics
from imgproxy_cache.protocol import ClientConnection
from imgproxy_cache.proxy import PATIENCE_SECONDS, Proxy
from imgproxy_cache.read_through import ReadThrough
from imgproxy_cache.read_through.fast_lane import FastLane
from imgproxy_cache.refusals import Refusal
from imgproxy_cache.settings import Settings
from imgproxy_cache.stalls import MIN_CLIENT_BYTES_PER_SECOND
from imgproxy_cache.stores.reader import Reader, Room, threaded_reader
from imgproxy_cache.uploads import Uploads
from imgproxy_cache.upstream import Upstream

NOW = 1_750_000_000.0
STORE_SECONDS = 20.0


@dataclass(slots=True)
class Clock:
    """The time of the proxy, which passes when a test says so."""

    now: float = NOW

    def __call__(self) -> float:
        return self.now


class MemoryStore:
    """A store whose contents can be waited for."""

    place = "memory://images"

    def __init__(self) -> None:
        self.images: dict[str, Image] = {}
        self.failure: StoreError | None = None
        """Of whatever is written."""
        self._changed = asyncio.Event()
        self._loop = asyncio.get_running_loop()

    def put(self, key: Key, image: Image) -> None:
        if self.failure is not None:
            raise self.failure
        self.images[key] = image
        self._loop.call_soon_threadsafe(self._changed.set)

    def create(self, key: Key, image: Image) -> bool:
        is_new = key not in self.images
        if is_new:
            self.put(key, image)
        return is_new

    def find(self, key: Key) -> StoredObject | None:
        image = self.images.get(key)
        if image is None:
            return None
        return StoredObject(
            len(image.body), None, image.path_sha256, image.content_sha256, image.stored_at
        )

    def get(self, key: Key, max_bytes: int | None = None) -> Image | None:
        return self.images.get(key)

    def reader(self, room: Room) -> AbstractAsyncContextManager[Reader]:
        return threaded_reader(self)

    async def delete(self, key: Key) -> None:
        self.images.pop(key, None)

    async def check(self) -> None:
        pass

    async def until_stored(self, key: str) -> Image:
        """The image under the key, as soon as it is there."""
        async with asyncio.timeout(STORE_SECONDS):
            while key not in self.images:
                self._changed.clear()
                await self._changed.wait()
        return self.images[key]


class _Complaints(logging.Handler):
    """What uvicorn and asyncio complain of: nothing, unless there is a bug."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.records: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(logging.Formatter().format(record))


@dataclass(slots=True)
class WiredProxy:
    """A proxy that listens on `port`, and its parts."""

    port: int
    proxy: Proxy
    store: MemoryStore
    upstream: Upstream
    buffer: Buffer
    uploads: Uploads
    metrics: Metrics
    state: ServerState
    requests: list[dict[str, object]]
    """What was logged of each request."""
    refusals: list[tuple[Refusal, bytes]]
    """What was refused before the proxy saw it, with its target."""
    clock: Clock
    read_through: ReadThrough | None

    @property
    def hits_at_once(self) -> int:
        """How many hits the fast lane gave."""
        (count,) = re.findall(rb"imgproxy_cache_hits_at_once_total ([0-9]+)", self.metrics.text())
        return int(count)

    async def until_idle(self) -> None:
        """Wait until every request has been served and everything is stored."""
        async with asyncio.timeout(STORE_SECONDS):
            while self.state.tasks or self.upstream.in_use:
                await asyncio.sleep(0)
            # Large images are on their way to the uploads still.
            await self.proxy.finish(asyncio.get_running_loop().time() + STORE_SECONDS)
            while self.uploads.queue_items:
                await asyncio.sleep(0)

    async def until_on_disk(self) -> None:
        """Wait until everything is where it stays: what the store has confirmed is handed over."""
        await self.until_idle()
        assert self.read_through is not None
        assert self.read_through.disk is not None
        await self.read_through.disk.settle()


def settings(upstream_port: int, **environ: str) -> Settings:
    """Settings as the environment would give them."""
    return Settings.from_environ(
        {
            "CACHE_STORE_URL": "file:///nowhere",
            "CACHE_UPSTREAM_URL": f"http://127.0.0.1:{upstream_port}",
            **environ,
        }
    )


@asynccontextmanager
async def wired_proxy(
    upstream_port: int,
    arrival_seconds: float = 10.0,
    min_client_bytes_per_second: float = MIN_CLIENT_BYTES_PER_SECOND,
    keep_alive_seconds: int = 75,
    patience_seconds: float = PATIENCE_SECONDS,
    /,
    **environ: str,
) -> AsyncIterator[WiredProxy]:
    """
    A proxy in front of the upstream, with these settings.

    Fails if uvicorn or asyncio had anything to complain of, or a request crashed.
    """
    given = settings(upstream_port, **environ)
    metrics = Metrics()
    requests: list[dict[str, object]] = []
    refusals: list[tuple[Refusal, bytes]] = []
    store = MemoryStore()
    clock = Clock()
    complaints = _Complaints()
    crashes: list[Exception] = []
    loggers = [logging.getLogger(name) for name in ("uvicorn.error", "asyncio")]
    for logger in loggers:
        logger.addHandler(complaints)
    buffer = buffer_from(given)
    async with (
        upstream_from(given) as upstream,
        # Once left alone, imgproxy is so for two seconds: no probe comes in between.
        read_through_from(given, store, buffer, now=clock, jitter=lambda: 1.0) as read_through,
        Uploads(
            store,
            concurrency=given.upload_concurrency,
            max_items=given.upload_queue_items,
            max_bytes=given.upload_queue_bytes,
            events=metrics,
            now=clock,
            disk=None if read_through is None else read_through.disk,
            keeps_store_fresh=read_through is not None,
        ) as uploads,
    ):
        fast_lane = fast_lane_of(given, read_through, metrics, now=clock)
        proxy = Proxy(
            reader=reader_from(given, read_through),
            upstream=upstream,
            buffer=buffer,
            uploads=uploads,
            read_through=read_through,
            fast_lane=fast_lane,
            metrics=metrics,
            info_log=lambda event, **fields: requests.append(fields),
            storage_rules=given.storage_rules,
            key_rules=given.key_rules,
            now=clock,
            patience_seconds=patience_seconds,
        )
        make_protocol, state = _protocol(
            _watched(proxy, crashes),
            given,
            metrics,
            arrival_seconds,
            min_client_bytes_per_second,
            keep_alive_seconds,
            refusals,
            fast_lane,
        )
        server = await asyncio.get_running_loop().create_server(
            make_protocol, "127.0.0.1", 0, backlog=4096
        )
        port = server.sockets[0].getsockname()[1]
        try:
            yield WiredProxy(
                port,
                proxy,
                store,
                upstream,
                buffer,
                uploads,
                metrics,
                state,
                requests,
                refusals,
                clock,
                read_through,
            )
        finally:
            server.close()
            for connection in tuple(state.connections):
                connection.transport.abort()
            for task in tuple(state.tasks):
                task.cancel()
            for logger in loggers:
                logger.removeHandler(complaints)
    assert complaints.records == []
    assert crashes == []


def _watched(app: ASGIApp, crashes: list[Exception]) -> ASGIApp:
    async def watched(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await app(scope, receive, send)
        except Exception as exc:
            crashes.append(exc)
            raise

    return watched


def _protocol(
    app: ASGIApp,
    given: Settings,
    metrics: Metrics,
    arrival_seconds: float,
    min_client_bytes_per_second: float,
    keep_alive_seconds: int,
    refusals: list[tuple[Refusal, bytes]],
    fast_lane: FastLane | None,
) -> tuple[Any, ServerState]:
    config = uvicorn.Config(
        app,
        http=ClientConnection,
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        timeout_keep_alive=keep_alive_seconds,
    )
    config.load()
    state = ServerState()
    make_protocol = partial(
        ClientConnection,
        config=config,
        server_state=state,
        app_state={"fast_lane": fast_lane},
        client_stall_seconds=given.client_stall_seconds,
        client_was_cut_off=metrics.client_was_cut_off,
        request_was_refused=lambda refusal, target: refusals.append((refusal, target)),
        arrival_seconds=arrival_seconds,
        min_client_bytes_per_second=min_client_bytes_per_second,
    )
    return make_protocol, state
