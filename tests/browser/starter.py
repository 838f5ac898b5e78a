"""`imgproxy-cache serve` as a process, and its log."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.servers.process import free_port

START_SECONDS = 30.0


@dataclass(slots=True)
class RunningProxy:
    process: subprocess.Popen[bytes]
    log_path: Path
    port: int

    def events(self, event: str) -> list[dict[str, Any]]:
        lines = self.log_path.read_text("utf-8").splitlines()
        entries = [json.loads(line) for line in lines if line.startswith("{")]
        return [entry for entry in entries if entry["event"] == event]

    def wait_for(self, event: str) -> dict[str, Any]:
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline and self.process.poll() is None:
            if found := self.events(event):
                return found[0]
            time.sleep(0.01)
        raise RuntimeError(f"no {event}: {self.log_path.read_text('utf-8')[-2000:]}")


@contextmanager
def running_proxy(settings: Mapping[str, str], log_path: Path) -> Iterator[RunningProxy]:
    port = free_port()
    environ = {
        "PATH": os.environ["PATH"],
        "IMGPROXY_BIND": f"127.0.0.1:{port}",
        "CACHE_ADMIN_BIND": "",
        **settings,
    }
    with log_path.open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "imgproxy_cache", "serve"], env=environ, stdout=log, stderr=log
        )
    try:
        proxy = RunningProxy(process, log_path, port)
        proxy.wait_for("server.started")
        yield proxy
    finally:
        process.terminate()
        process.wait(10)
