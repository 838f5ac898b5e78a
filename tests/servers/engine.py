"""The embedded engine as a process of its own, and what it says on the wire and in its log."""

from __future__ import annotations

import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

ROOT = Path(__file__).parents[2]
IMAGES = ROOT / "tests" / "images"
START_SECONDS = 60.0
ANSWER_SECONDS = 60.0

Headers = list[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class WireAnswer:
    """An answer as it came; names of header fields in lower case."""

    status: int
    headers: Headers
    body: bytes

    def __getitem__(self, name: str) -> str | None:
        return next((value for key, value in self.headers if key == name), None)


@dataclass(slots=True)
class RunningEngine:
    """A started engine: where it is, and its process."""

    process: subprocess.Popen[bytes]
    log_path: Path
    port: int = 0
    listening: dict[str, Any] = field(default_factory=dict)

    def log(self) -> list[dict[str, Any]]:
        """Every event so far."""
        lines = self.log_path.read_text("utf-8").splitlines()
        return [json.loads(line) for line in lines if line.startswith("{")]

    def wait_for(self, event: str, *, seconds: float = START_SECONDS) -> dict[str, Any]:
        """The first event of this name, as soon as it is there."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and self.process.poll() is None:
            if found := [entry for entry in self.log() if entry["event"] == event]:
                return found[0]
            time.sleep(0.01)
        raise RuntimeError(f"no {event}: {self.log_path.read_text('utf-8')[-2000:]}")

    def send(self, request: bytes) -> socket.socket:
        connection = socket.create_connection(("127.0.0.1", self.port), timeout=ANSWER_SECONDS)
        connection.sendall(request)
        return connection

    def ask(
        self, target: bytes | str, method: str = "GET", headers: Headers | None = None
    ) -> WireAnswer:
        """One request on a connection of its own, the target's bytes as they are."""
        with self.send(request(target, method, headers)) as connection:
            return read_answer(connection)

    def stop(self) -> int:
        """Ask it to stop; its exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(START_SECONDS)


def request(target: bytes | str, method: str = "GET", headers: Headers | None = None) -> bytes:
    raw = target if isinstance(target, bytes) else target.encode("utf-8", "surrogateescape")
    fields = [("Host", "img.example"), ("Connection", "close"), *(headers or [])]
    head = "".join(f"{name}: {value}\r\n" for name, value in fields).encode("latin-1")
    return method.encode() + b" " + raw + b" HTTP/1.1\r\n" + head + b"\r\n"


def first_to_answer(connections: Iterable[socket.socket]) -> socket.socket:
    with selectors.DefaultSelector() as selector:
        for connection in connections:
            selector.register(connection, selectors.EVENT_READ, connection)
        [(first, _), *_] = selector.select(ANSWER_SECONDS)
    found: socket.socket = first.data
    return found


def read_answer(connection: socket.socket) -> WireAnswer:
    """Read to the end of the connection; chunks are put together."""
    received = b""
    while part := connection.recv(65536):
        received += part
    head, _, body = received.partition(b"\r\n\r\n")
    status_line, *lines = head.decode("latin-1").split("\r\n")
    headers = [(name.lower(), value) for name, _, value in (line.partition(": ") for line in lines)]
    if ("transfer-encoding", "chunked") in headers:
        body = _unchunked(body)
    return WireAnswer(int(status_line.split(" ")[1]), headers, body)


def _unchunked(body: bytes) -> bytes:
    whole = b""
    while body:
        size, _, rest = body.partition(b"\r\n")
        whole += rest[: int(size, 16)]
        body = rest[int(size, 16) + 2 :]
    return whole


@contextmanager
def running_engine(settings: Mapping[str, str] | None = None) -> Iterator[RunningEngine]:
    """
    An engine on a free port of 127.0.0.1 that serves the test images.

    ``settings`` are added; ``IMAGES`` in a value is their folder.
    """
    given = {name: value.replace("IMAGES", str(IMAGES)) for name, value in (settings or {}).items()}
    environ = {
        "PATH": os.environ["PATH"],
        "IMGPROXY_BIND": "127.0.0.1:0",
        "IMGPROXY_LOCAL_FILESYSTEM_ROOT": str(IMAGES),
        "IMGPROXY_ALLOW_LOOPBACK_SOURCE_ADDRESSES": "true",
        "IMGPROXY_LOG_FORMAT": "json",
        **given,
    }
    with TemporaryDirectory() as folder:
        log_path = Path(folder) / "log"
        with log_path.open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "imgproxy_cache.engine"],
                env=environ,
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        engine = RunningEngine(process, log_path)
        try:
            engine.listening = engine.wait_for("engine.listening")
            engine.port = int(engine.listening["addresses"][0].rpartition(":")[2])
            _wait_until_it_accepts(engine.port)
            yield engine
        finally:
            process.kill()
            process.wait(START_SECONDS)


def _wait_until_it_accepts(port: int) -> None:
    """The address is logged once it is bound, a moment before anybody listens there."""
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.005)
        else:
            return
