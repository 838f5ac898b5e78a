"""
The composition root: opens everything in the right order, and gives each part the
two or three values that it needs.  Nothing below sees :class:`Settings`.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import socket
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from functools import lru_cache, partial
from random import random
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.routing import BaseRoute, Match
from starlette.types import ASGIApp, Lifespan, Receive, Scope, Send

from imgproxy_cache.admin import Check, admin_app
from imgproxy_cache.asked_server import AskedServer
from imgproxy_cache.buffer import Buffer
from imgproxy_cache.core.hit import HitHeads
from imgproxy_cache.core.location import whereabouts
from imgproxy_cache.errors import StoreError
from imgproxy_cache.health import ImgproxyHealth
from imgproxy_cache.levels import levels
from imgproxy_cache.log import InfoLog
from imgproxy_cache.metrics import Metrics
from imgproxy_cache.proxy import Proxy
from imgproxy_cache.read_through import ReadThrough, Staleness
from imgproxy_cache.read_through.admission import Admission
from imgproxy_cache.read_through.fast_lane import FastLane, HitEvents
from imgproxy_cache.reading import RequestReader
from imgproxy_cache.settings import Settings
from imgproxy_cache.stores import ReadableStore, Store, open_store
from imgproxy_cache.tiers.descriptors import share_of_descriptors
from imgproxy_cache.tiers.disk import open_disk_tier
from imgproxy_cache.tiers.memory import MemoryTier
from imgproxy_cache.tiers.store import StoreTier
from imgproxy_cache.uploads import Uploads
from imgproxy_cache.uploads.events import UploadEvents
from imgproxy_cache.uploads.spool import open_spool
from imgproxy_cache.uploads.spooling import SpoolLimits
from imgproxy_cache.upstream import Upstream

LEVELS_SECONDS = 1.0
STORE_CHECK_SECONDS = 5.0
# Each takes more than a kilobyte: bytes are the bound in practice.
MOST_ITEMS_IN_MEMORY = 1_000_000
# Of a stop's time this is kept for uploads that slow readers and imgproxy must not use up.
LAST_UPLOADS_SECONDS = 0.5


class CatchAll(BaseRoute):
    """
    The one route: really every request.

    Starlette's own ``/{path:path}`` looks at the decoded path and stops at a
    newline in it.
    """

    def __init__(self) -> None:
        self.endpoint: Callable[[Scope, Receive, Send], Coroutine[Any, Any, None]]

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        return Match.FULL, {}

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.endpoint(scope, receive, send)


class Application(Starlette):
    """
    Starlette with one route, and nothing in front of it.

    Its middleware turns exceptions into pages, but the proxy answers its own
    errors, uvicorn those of a bug; its router finds what can only be the one
    route.  Together they would cost a seventh of a request.
    """

    def __init__(self, route: CatchAll, *, lifespan: Lifespan[Starlette]) -> None:
        super().__init__(routes=[route], lifespan=lifespan)
        self._route = route

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Coroutine[Any, Any, None]:
        if scope["type"] == "http":
            return self._route.endpoint(scope, receive, send)
        return super().__call__(scope, receive, send)


def proxy_app(
    settings: Settings,
    metrics: Metrics,
    info_log: InfoLog,
    *,
    admin_sockets: list[socket.socket],
    stop_deadline: Callable[[], float],
) -> Starlette:
    """
    Make the application of the public port.

    `stop_deadline` tells, once a stop was asked for, when (on the event loop's
    clock) the work that is left is to be abandoned.
    """
    catch_all = CatchAll()

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[dict[str, object]]:
        async with AsyncExitStack() as stack:
            store = await stack.enter_async_context(open_store(settings.store))
            upstream = await stack.enter_async_context(upstream_from(settings))
            buffer = buffer_from(settings)
            read_through = await stack.enter_async_context(
                read_through_from(settings, store, buffer)
            )
            uploads = await stack.enter_async_context(
                uploads_from(settings, store, metrics, info_log=info_log, read_through=read_through)
            )
            if read_through is not None:
                metrics.watch_tiers(read_through.tiers)
            metrics.watch(*levels(upstream, buffer, uploads, read_through))
            fast_lane = fast_lane_of(settings, read_through, metrics)
            proxy = catch_all.endpoint = Proxy(
                reader=reader_from(settings, read_through),
                upstream=upstream,
                buffer=buffer,
                uploads=uploads,
                read_through=read_through,
                fast_lane=fast_lane,
                metrics=metrics,
                info_log=info_log,
                storage_rules=settings.storage_rules,
                key_rules=settings.key_rules,
                now=time.time,
            )
            stack.push_async_callback(lambda: uploads.drain(stop_deadline()))
            stack.push_async_callback(lambda: proxy.finish(stop_deadline() - LAST_UPLOADS_SECONDS))
            checks = {
                "imgproxy": (await stack.enter_async_context(health_of(settings))).why_not_ready,
                "store": _store_check(store, uploads),
                "spool": _spool_check(uploads),
            }
            await stack.enter_async_context(_reading_levels(metrics))
            if admin_sockets:
                admin = admin_app(checks, metrics.text)
                await stack.enter_async_context(_serving(admin, admin_sockets))
            yield {"fast_lane": fast_lane}

    return Application(catch_all, lifespan=lifespan)


def upstream_from(settings: Settings, *, max_connections: int | None = None) -> Upstream:
    if max_connections is None:
        read_through = settings.read_through
        max_connections = (
            settings.upstream_connections if read_through is None else read_through.fill_concurrency
        )
    return Upstream(
        settings.upstream_host,
        settings.upstream_port,
        max_connections=max_connections,
        max_waiting=settings.upstream_queue_items,
        wait_seconds=settings.upstream_wait_seconds,
        connect_timeout_seconds=settings.upstream_connect_timeout_seconds,
        read_timeout_seconds=settings.upstream_read_timeout_seconds,
    )


def buffer_from(settings: Settings) -> Buffer:
    return Buffer(
        settings.buffer_bytes,
        wait_seconds=settings.upstream_wait_seconds,
        max_waiting=settings.upstream_queue_items,
    )


@asynccontextmanager
async def read_through_from(
    settings: Settings,
    store: ReadableStore,
    buffer: Buffer,
    *,
    now: Callable[[], float] = time.time,
    jitter: Callable[[], float] = random,
) -> AsyncIterator[ReadThrough | None]:
    """One worker's tiers; None where read-through is off."""
    given = settings.read_through
    if given is None:
        yield None
        return
    async with AsyncExitStack() as stack:
        disk = None
        if given.disk_dir is not None:
            disk = await stack.enter_async_context(
                open_disk_tier(
                    given.disk_dir,
                    whereabouts(settings.store),
                    max_bytes=given.disk_bytes,
                    heads=HitHeads(b"disk"),
                    now=now,
                    queue_bytes=settings.upload_queue_bytes,
                    queue_items=settings.upload_queue_items,
                )
            )
        rules = settings.storage_rules
        store_tier = None
        # With a secret nothing is there: a public bucket would bypass it.
        if rules.secret is None or rules.store_secret:
            store_tier = StoreTier(
                await stack.enter_async_context(store.reader(buffer)),
                miss_seconds=given.store_miss_seconds,
                miss_items=given.store_miss_items,
                max_bytes=rules.max_object_bytes,
                stale_while_revalidate_seconds=given.stale_while_revalidate_seconds,
                stale_if_error_seconds=given.stale_if_error_seconds,
            )
            stack.callback(store_tier.close)
        read_through = ReadThrough(
            memory=MemoryTier(
                max_bytes=given.memory_bytes,
                max_items=MOST_ITEMS_IN_MEMORY,
                max_files=share_of_descriptors(MOST_ITEMS_IN_MEMORY),
                heads=HitHeads(b"memory"),
            ),
            disk=disk,
            store=store_tier,
            path_rules=settings.path_rules,
            key_rules=settings.key_rules,
            admission=Admission(jitter=jitter),
            staleness=Staleness(
                while_revalidate_seconds=given.stale_while_revalidate_seconds,
                if_error_seconds=given.stale_if_error_seconds,
                negative_seconds=given.negative_seconds,
            ),
        )
        yield read_through


def fast_lane_of(
    settings: Settings,
    read_through: ReadThrough | None,
    events: HitEvents,
    *,
    now: Callable[[], float] = time.time,
) -> FastLane | None:
    """None where no tier answers at once, and where each hit is to have its line in the log."""
    nearest = None if read_through is None else read_through.nearest
    if read_through is None or nearest is None or settings.log_level == "debug":
        return None
    return FastLane(read_through, nearest, events, now=now)


def uploads_from(
    settings: Settings,
    store: Store,
    events: UploadEvents,
    *,
    info_log: InfoLog | None = None,
    spool_is_lasting: bool | None = None,
    read_through: ReadThrough | None = None,
) -> Uploads:
    """One worker's: it may fill its part of the spool."""
    has_spool = settings.spool_items > 0
    return Uploads(
        store,
        events,
        concurrency=settings.upload_concurrency,
        max_items=settings.upload_queue_items,
        max_bytes=settings.upload_queue_bytes,
        open_spool=partial(
            open_spool, settings.spool_dir, whereabouts(settings.store), sync=settings.spool_sync
        )
        if has_spool
        else None,
        spool_limits=SpoolLimits(
            max_bytes=max(1, settings.spool_bytes // settings.workers),
            max_files=max(1, settings.spool_items // settings.workers),
            max_age_seconds=settings.spool_max_age_seconds,
        ),
        spool_is_lasting=settings.spool_is_lasting
        if spool_is_lasting is None
        else spool_is_lasting,
        info_log=info_log,
        disk=None if read_through is None else read_through.disk,
        keeps_store_fresh=read_through is not None and read_through.store is not None,
    )


@asynccontextmanager
async def health_of(settings: Settings) -> AsyncIterator[ImgproxyHealth]:
    """Asked over a connection of its own: images may have taken all of theirs, and all be well."""
    async with upstream_from(settings, max_connections=1) as upstream:
        yield ImgproxyHealth(upstream, settings.upstream_url, settings.health_path)


def reader_from(settings: Settings, read_through: ReadThrough | None) -> RequestReader:
    return RequestReader(
        read_through=read_through,
        peer_is_trusted=_peer_is_trusted(settings),
        storage_rules=settings.storage_rules,
    )


def _peer_is_trusted(settings: Settings) -> Callable[[str], bool]:
    networks = settings.trusted_proxies

    @lru_cache(maxsize=1024)
    def peer_is_trusted(address: str) -> bool:
        return any(ipaddress.ip_address(address) in network for network in networks)

    return peer_is_trusted if networks else lambda address: False


def _store_check(store: Store, uploads: Uploads) -> Check:
    async def why_not_ready() -> str | None:
        # Where no image waits that would be tried again, nobody else would see that it is back.
        if uploads.store_problem is not None and uploads.waiting:
            return uploads.store_problem
        try:
            async with asyncio.timeout(STORE_CHECK_SECONDS):
                await store.check()
        except StoreError as error:
            return str(error)
        except TimeoutError:
            return f"{store.place}: check: no answer in {STORE_CHECK_SECONDS:g} s"
        return None

    return why_not_ready


def _spool_check(uploads: Uploads) -> Check:
    async def why_not_ready() -> str | None:
        return uploads.spool_problem

    return why_not_ready


@asynccontextmanager
async def _reading_levels(metrics: Metrics) -> AsyncIterator[None]:
    async def read() -> None:
        while True:
            metrics.read_levels()
            await asyncio.sleep(LEVELS_SECONDS)

    task = asyncio.create_task(read())
    try:
        yield
    finally:
        task.cancel()


class _QuietServer(AskedServer):
    """A server inside another one's process: signals are not its business."""

    def capture_signals(self) -> AbstractAsyncContextManager[None]:  # type: ignore[override]
        return contextlib.nullcontext()


@asynccontextmanager
async def _serving(app: ASGIApp, sockets: list[socket.socket]) -> AsyncIterator[None]:
    config = uvicorn.Config(
        app,
        http="httptools",
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        timeout_graceful_shutdown=1,
    )
    server = _QuietServer(config)
    task = asyncio.create_task(server.serve(sockets=sockets))
    try:
        yield
    finally:
        server.stop()
        await task
