"""What the engine is made of: settings, log, fallback image, workers, server."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
import threading
from collections.abc import Mapping
from typing import Any

import uvloop
from structlog.typing import FilteringBoundLogger

from imgproxy_cache.engine.asgi import Engine
from imgproxy_cache.engine.errors import EngineError
from imgproxy_cache.engine.formats import format_of
from imgproxy_cache.engine.listen import listen, open_sockets
from imgproxy_cache.engine.log import open_log
from imgproxy_cache.engine.processing import Processing
from imgproxy_cache.engine.settings import FallbackRules, Settings, settings_from_environ
from imgproxy_cache.engine.sources import Source, SourceRules, fetch_source
from imgproxy_cache.engine.work import Workers
from imgproxy_cache.errors import SettingsError

WHAT_THIS_IS = (
    "This is the embedded engine of imgproxy-cache: for a first run, for tests and for small "
    "sites. Production runs imgproxy, https://imgproxy.net"
)

ABANDONED_SECONDS = 2.0
"""How long a stop waits for renders whose clients are gone; nothing can interrupt libvips."""


def serve(environ: Mapping[str, str]) -> int:
    """Answer imgproxy's URLs until SIGTERM; the status to exit with: 0, or 2 for bad settings."""
    try:
        settings = settings_from_environ(environ)
        log = open_log(settings.server.log_level, settings.server.log_format)
        log.warning("engine.started", message=WHAT_THIS_IS)
        if settings.unknown:
            log.warning(
                "settings.ignored",
                names=", ".join(settings.unknown),
                message="These settings mean nothing to the embedded engine",
            )
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_serve(settings, log))
    except SettingsError as exc:
        print(exc, file=sys.stderr)  # noqa: T201 - there may be no log yet
        return 2
    return 0


async def _serve(settings: Settings, log: FilteringBoundLogger) -> None:
    server = settings.server
    fallback = await _fallback_image(settings.fallback, settings.sources)
    try:
        sockets = open_sockets(server.network, server.bind)
    except (OSError, ValueError) as exc:
        raise SettingsError([f"IMGPROXY_BIND={server.bind!r}: {exc}"]) from exc
    async with Workers(server.workers, server.queue_size) as workers:
        engine: Any = Engine(settings, Processing(settings, workers, fallback, log), log)
        addresses = [_address(sock) for sock in sockets]
        log.info("engine.listening", addresses=addresses, workers=server.workers)
        await listen(
            engine,
            sockets,
            keep_alive_seconds=server.keep_alive_seconds,
            graceful_stop_seconds=server.graceful_stop_seconds,
        )
        _end_within(ABANDONED_SECONDS)
    log.info("engine.stopped")


def _end_within(seconds: float) -> None:
    """Every request has its answer: what is still rendered is for nobody, and may take minutes."""
    ending = threading.Timer(seconds, os._exit, [0])
    ending.daemon = True
    ending.start()


def _address(sock: socket.socket) -> str:
    name = sock.getsockname()
    return name if isinstance(name, str) else f"{name[0]}:{name[1]}"


async def _fallback_image(rules: FallbackRules, sources: SourceRules) -> Source | None:
    """
    Get the image that is answered where there is no source.

    Raises: SettingsError.
    """
    try:
        if rules.data:
            image = Source(rules.data, [])
        elif rules.path:
            image = Source(rules.path.read_bytes(), [])
        elif rules.url:
            fetched = await fetch_source(rules.url, [], sources)
            assert isinstance(fetched, Source)  # noqa: S101 - no conditionals were sent
            kept = {b"expires", b"last-modified"}
            image = Source(
                fetched.body, [field for field in fetched.headers if field[0] not in kept]
            )
        else:
            return None
        format_of(image.body)
    except (EngineError, OSError) as exc:
        raise SettingsError([f"IMGPROXY_FALLBACK_IMAGE: expected an image: {exc}"]) from exc
    return image
