"""
`imgproxy-cache serve` with a clock in its event loop: how late does the loop come to a timer?

A program of its own; writes a line for each tick to the file named by BENCHMARK_TICKS at its end:
the time (on the machine's monotonic clock) and the milliseconds that it was late.
"""

import asyncio
import os
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import wraps
from pathlib import Path
from typing import Any

from starlette.applications import Starlette

from imgproxy_cache import app as composition
from imgproxy_cache.settings import Settings

TICK_SECONDS = 0.001


def probed(app: Starlette, file: Path) -> Starlette:
    """The same application, timed from its start to its end."""
    lifespan = app.router.lifespan_context
    ticks: list[tuple[float, float]] = []

    @asynccontextmanager
    async def timed(app: Starlette) -> AsyncIterator[Any]:
        async with lifespan(app) as state:
            tick(asyncio.get_running_loop(), ticks)
            yield state
        write(ticks, file)

    app.router.lifespan_context = timed
    return app


def tick(loop: asyncio.AbstractEventLoop, ticks: list[tuple[float, float]]) -> None:
    due = time.monotonic() + TICK_SECONDS

    def note() -> None:
        now = time.monotonic()
        ticks.append((now, (now - due) * 1000))
        tick(loop, ticks)

    loop.call_later(TICK_SECONDS, note)


def write(ticks: list[tuple[float, float]], file: Path) -> None:
    file.write_text("".join(f"{at} {late}\n" for at, late in ticks))


def main() -> int:
    make_app = composition.proxy_app

    @wraps(make_app)
    def make_probed_app(*args: Any, **kwargs: Any) -> Starlette:
        return probed(make_app(*args, **kwargs), Path(os.environ["BENCHMARK_TICKS"]))

    # The one thing that is not as users start it; the server takes what it finds there.
    composition.proxy_app = make_probed_app
    from imgproxy_cache.server import serve  # noqa: PLC0415

    return serve(Settings.from_environ(os.environ))


if __name__ == "__main__":
    sys.exit(main())
