"""The operator's port: `/ready` and `/metrics`.  Never on the public port."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping

from prometheus_client import CONTENT_TYPE_LATEST
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

Check = Callable[[], Awaitable[str | None]]
"""Why a part is not ready, in one line; None if it is."""


def admin_app(checks: Mapping[str, Check], metrics_text: Callable[[], bytes]) -> Starlette:
    """
    Make the application behind `CACHE_ADMIN_BIND`.

    ``/ready`` answers 200 if every check passes, else 503, with the reason of each.
    """

    async def ready(request: Request) -> Response:
        reasons = await asyncio.gather(*(check() for check in checks.values()))
        parts = {
            name: "ok" if reason is None else reason
            for name, reason in zip(checks, reasons, strict=True)
        }
        is_ready = not any(reasons)
        return JSONResponse(
            {"ready": is_ready, **parts},
            status_code=200 if is_ready else 503,
            headers={"Cache-Control": "no-store"},
        )

    async def metrics(request: Request) -> Response:
        return Response(metrics_text(), media_type=CONTENT_TYPE_LATEST)

    return Starlette(routes=[Route("/ready", ready), Route("/metrics", metrics)])
