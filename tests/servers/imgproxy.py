"""The embedded engine or, where one is installed, the real imgproxy."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator

import pytest

from tests.servers.engine import IMAGES, running_engine
from tests.servers.process import free_port, running

KINDS = ["engine", "imgproxy"]


def found_imgproxy() -> str | None:
    """The real imgproxy of this machine, looked for where `imgproxy-cache imgproxy` looks."""
    return os.environ.get("CACHE_IMGPROXY_BIN") or shutil.which("imgproxy")


@contextlib.contextmanager
def some_imgproxy(kind: str, **settings: str) -> Iterator[int]:
    """The port of the engine, or of the real imgproxy; skips where that is not installed."""
    if kind == "engine":
        with running_engine(settings) as engine:
            yield engine.port
        return
    program = found_imgproxy()
    if program is None:
        pytest.skip("no imgproxy is installed")
    bind = settings.get("IMGPROXY_BIND", f"127.0.0.1:{free_port()}")
    environ = {
        "PATH": os.environ["PATH"],
        "IMGPROXY_BIND": bind,
        "IMGPROXY_LOCAL_FILESYSTEM_ROOT": str(IMAGES),
        **settings,
    }
    port = int(bind.rpartition(":")[2])
    with running([program], port=port, env=environ):
        yield port
