"""The engine as an ASGI application: from a request to bytes on the wire, errors to status."""

from __future__ import annotations

import asyncio
import re
import secrets
import time
from collections.abc import Coroutine
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from structlog.typing import FilteringBoundLogger
from uvicorn._types import ASGIReceiveCallable, ASGISendCallable, Scope

from imgproxy_cache.engine.answers import (
    CONTENT_SECURITY_POLICY,
    Answer,
    cache_control,
    first,
    raw_headers,
)
from imgproxy_cache.engine.errors import EngineError, Forbidden, TimedOut
from imgproxy_cache.engine.landing import LANDING_PAGE
from imgproxy_cache.engine.options import Options
from imgproxy_cache.engine.processing import Processing, secret_is_right
from imgproxy_cache.engine.routes import Route, route_of
from imgproxy_cache.engine.settings import Settings
from imgproxy_cache.engine.sources import Headers, open_source

EMPTY_BODY = b" "
"""What imgproxy sends where there is nothing to say."""
PASSED_ON_TO_RAW = frozenset({b"if-none-match", b"if-modified-since", b"accept-encoding", b"range"})


@dataclass(slots=True)
class _Exchange:
    """One request and its answer on the wire."""

    send: ASGISendCallable
    common: Headers
    is_started: bool = False
    is_finished: bool = False

    async def start(self, status: int, headers: Headers) -> None:
        self.is_started = True
        await self.send(
            {
                "type": "http.response.start",
                "status": status,
                "headers": [*self.common, *headers],
            }
        )

    async def body(self, body: bytes, *, more: bool = False) -> None:
        self.is_finished = not more
        await self.send({"type": "http.response.body", "body": body, "more_body": more})

    async def answer(self, answer: Answer) -> None:
        length = [] if answer.status == 304 else [(b"Content-Length", b"%d" % len(answer.body))]
        await self.start(answer.status, [*answer.headers, *length])
        await self.body(answer.body)


class Engine:
    """An ASGI application that answers as imgproxy does."""

    def __init__(
        self, settings: Settings, processing: Processing, log: FilteringBoundLogger
    ) -> None:
        self._settings = settings
        self._processing = processing
        self._log = log

    async def __call__(
        self, scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable
    ) -> None:
        if scope["type"] != "http":
            return
        headers: Headers = list(scope["headers"])
        target: bytes = scope["target"]  # type: ignore[typeddict-item]
        settings = self._settings
        route = route_of(scope["method"], target, settings.path.prefix, settings.health_path)
        request_id = _request_id(headers)
        exchange = _Exchange(send, _common_headers(request_id))
        if route is Route.PROCESSING:
            await _unless_the_client_leaves(
                self._process(exchange, target, headers, request_id), exchange, receive
            )
        else:
            await exchange.answer(self._plain_answer(route))

    def _plain_answer(self, route: Route) -> Answer:
        text = (b"Content-Type", b"text/plain")
        if route is Route.BAD_REQUEST:
            return Answer(400, [text], b"400 Bad Request")
        if route is Route.NOT_FOUND:
            return Answer(404, [text], EMPTY_BODY)
        if route is Route.HEALTH:
            return Answer(200, [text, (b"Cache-Control", b"no-cache")], b"imgproxy is running")
        lifetime = cache_control(
            200, expires=0, source=[], rules=self._settings.answers, now=time.time()
        )
        if route is Route.LANDING:
            return Answer(200, [(b"Content-Type", b"text/html"), *lifetime], LANDING_PAGE)
        return Answer(200, [text, *lifetime, *self._cors()], EMPTY_BODY)

    async def _process(
        self, exchange: _Exchange, target: bytes, headers: Headers, request_id: str
    ) -> None:
        """Answer a processing path; every failure becomes an answer, or breaks off a begun one."""
        started = time.monotonic()
        exchange.common += self._cors()
        error: Exception | None = None
        try:
            async with asyncio.timeout(self._settings.server.timeout_seconds):
                status = await self._answer(exchange, target, headers)
        except TimeoutError:
            error = TimedOut("the request took too long")
        except EngineError as exc:
            error = exc
        except Exception as exc:
            self._log.exception("request.broken", request_id=request_id)
            error = EngineError(repr(exc))
        if isinstance(error, EngineError):
            status = error.status
            if not exchange.is_started:
                headers = [(b"Content-Type", b"text/plain")]
                await exchange.answer(Answer(status, headers, error.public.encode()))
        self._log.info(
            "request.answered",
            status=status,
            path=target.partition(b"?")[0].decode("utf-8", "replace"),
            seconds=round(time.monotonic() - started, 4),
            request_id=request_id,
            **({"error": str(error)} if error else {}),
        )

    async def _answer(self, exchange: _Exchange, target: bytes, headers: Headers) -> int:
        if not secret_is_right(headers, self._settings.secret):
            raise Forbidden("wrong secret")
        url, options = self._processing.understood(target, headers)
        if options.raw:
            return await self._stream(exchange, url, options, headers)
        answer = await self._processing.image(url, options, headers)
        await exchange.answer(answer)
        return answer.status

    async def _stream(
        self, exchange: _Exchange, url: str, options: Options, headers: Headers
    ) -> int:
        """Pass a source on as it is; what breaks in the middle breaks off the answer too."""
        rules = self._settings.answers
        wanted = [field for field in headers if field[0] in PASSED_ON_TO_RAW]
        async with open_source(url, wanted, self._settings.sources) as source:
            status = source.status
            lifetime = cache_control(
                status,
                expires=options.expires,
                source=source.headers,
                rules=rules,
                now=time.time(),
            )
            passed_on = raw_headers(status, source.headers, url=url, options=options, rules=rules)
            await exchange.start(status, [*passed_on, *lifetime])
            async for chunk in source.chunks:
                await exchange.body(chunk, more=True)
            await exchange.body(b"")
        return status

    def _cors(self) -> Headers:
        origin = self._settings.answers.allow_origin
        if not origin:
            return []
        return [
            (b"Access-Control-Allow-Origin", origin.encode("utf-8", "surrogateescape")),
            (b"Access-Control-Allow-Methods", b"GET, OPTIONS"),
        ]


_REQUEST_ID = re.compile(r"[A-Za-z0-9_-]+", re.ASCII)


def _request_id(headers: Headers) -> str:
    given = first(headers, b"x-request-id") or ""
    return given if _REQUEST_ID.fullmatch(given) else secrets.token_urlsafe(16)


def _common_headers(request_id: str) -> Headers:
    return [
        (b"Server", b"imgproxy"),
        (b"X-Request-Id", request_id.encode("ascii")),
        (b"Content-Security-Policy", CONTENT_SECURITY_POLICY),
    ]


async def _unless_the_client_leaves(
    work: Coroutine[Any, Any, None], exchange: _Exchange, receive: ASGIReceiveCallable
) -> None:
    """Do the work; a client that leaves before its whole answer was sent ends it."""
    working = asyncio.create_task(work)
    leaving = asyncio.create_task(_disconnected(receive))
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not exchange.is_finished:
            working.cancel()
        with suppress(asyncio.CancelledError):
            await working
    finally:
        leaving.cancel()
        working.cancel()


async def _disconnected(receive: ASGIReceiveCallable) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
