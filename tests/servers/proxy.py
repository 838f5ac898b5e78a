"""`imgproxy-cache serve` as a process of its own, as a user runs it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tests.servers.process import free_port
from tests.wire import Answer, ask

ROOT = Path(__file__).parents[2]
WAIT_SECONDS = 30.0
_SAMPLE = re.compile(r"^imgproxy_cache_(\w+?)(?:_total)?(?:\{(.*)\})? (\S+)$", re.MULTILINE)


class RunningProxy:
    """A started proxy: its process, its ports, and what it says in its log and to operators."""

    def __init__(
        self, process: asyncio.subprocess.Process, port: int, admin_port: int, folder: Path
    ) -> None:
        self.process = process
        self.port = port
        self.admin_port = admin_port
        self.folder = folder
        """Of the store, unless the test named another store."""
        self.output: list[str] = []
        """Every line that it printed."""
        self._changed = asyncio.Condition()
        self._reading = asyncio.create_task(self._read())

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def log(self) -> list[dict[str, Any]]:
        """Every event so far."""
        return [json.loads(line) for line in self.output if line.startswith("{")]

    def events(self, name: str) -> list[dict[str, Any]]:
        return [entry for entry in self.log if entry["event"] == name]

    async def wait_for(self, event: str, times: int = 1) -> dict[str, Any]:
        """The event of this name, the latest of so many."""
        async with asyncio.timeout(WAIT_SECONDS), self._changed:
            await self._changed.wait_for(
                lambda: len(self.events(event)) >= times or self._reading.done()
            )
        assert len(self.events(event)) >= times, "\n".join(self.output[-20:])
        return self.events(event)[times - 1]

    async def ended(self) -> int:
        """Its exit status, once it has ended and said all it had to say."""
        async with asyncio.timeout(WAIT_SECONDS):
            await self._reading
            return await self.process.wait()

    async def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return await self.ended()

    async def admin(self, path: bytes) -> Answer:
        return await ask(self.admin_port, path)

    async def metrics(self) -> dict[str, float]:
        """The samples by name (without prefix and ``_total``) and labels: ``name{labels}``."""
        text = (await self.admin(b"/metrics")).body.decode()
        return {
            f"{name}{{{labels}}}" if labels else name: float(value)
            for name, labels, value in _SAMPLE.findall(text)
        }

    def children(self) -> list[int]:
        """The processes that it started and that are still there."""
        listing = Path(f"/proc/{self.pid}/task/{self.pid}/children")
        try:
            return [int(pid) for pid in listing.read_text().split()]
        except FileNotFoundError:
            return []

    def open_files(self) -> int:
        return sum(1 for _ in Path(f"/proc/{self.pid}/fd").iterdir())

    def memory_bytes(self, which: str = "VmRSS") -> int:
        """Resident memory now; with `VmHWM`, at its highest."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        kilobytes = re.search(rf"{which}:\s+(\d+) kB", status)
        assert kilobytes is not None
        return int(kilobytes[1]) * 1024

    def page_faults(self) -> int:
        """How often it touched memory that it did not have yet."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return int(fields[7])  # minflt, the 10th: proc_pid_stat(5)

    async def _read(self) -> None:
        assert self.process.stdout is not None
        async for line in self.process.stdout:
            self.output.append(line.decode(errors="replace").rstrip("\n"))
            async with self._changed:
                self._changed.notify_all()
        async with self._changed:
            self._changed.notify_all()


@asynccontextmanager
async def started_proxy(upstream_port: int, **environ: str) -> AsyncIterator[RunningProxy]:
    """
    A proxy that may not be ready yet; whatever is left of it is killed in the end.

    Fails if a request crashed.
    """
    with TemporaryDirectory() as folder:
        store = _folder(folder, "store")
        port, admin_port = free_port(), free_port()
        given = {
            "PATH": os.environ["PATH"],
            "HOME": folder,
            "TMPDIR": folder,
            "AWS_EC2_METADATA_DISABLED": "true",
            "IMGPROXY_BIND": f"127.0.0.1:{port}",
            "CACHE_ADMIN_BIND": f"127.0.0.1:{admin_port}",
            "CACHE_UPSTREAM_URL": f"http://127.0.0.1:{upstream_port}",
            "CACHE_UPSTREAM_CONNECT_TIMEOUT_SECONDS": "30",  # a fake one may be very busy
            **({} if "S3_BUCKET" in environ else {"CACHE_STORE_URL": f"file://{store}"}),
            **environ,
        }
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "imgproxy_cache", "serve"),
            env=given,
            cwd=ROOT,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            limit=1 << 20,
        )
        proxy = RunningProxy(process, port, admin_port, store)
        try:
            yield proxy
        finally:
            for pid in (*proxy.children(), proxy.pid):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            await proxy.ended()
        # Of one that was killed the last line may be half a one.
        assert [line for line in proxy.output if '"event":"request.crashed"' in line] == []


@asynccontextmanager
async def running_proxy(upstream_port: int, **environ: str) -> AsyncIterator[RunningProxy]:
    """A proxy that listens."""
    async with started_proxy(upstream_port, **environ) as proxy:
        await proxy.wait_for("server.started")
        yield proxy


def _folder(*parts: str) -> Path:
    folder = Path(*parts)
    folder.mkdir()
    return folder
