"""
The HTTP source that the tapes were recorded with: ``/KIND/FILE``, as their README says.

``cut`` is new: a body that ends in the middle.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from tests.servers.engine import IMAGES

MODIFIED = "Wed, 21 Oct 2015 07:28:00 GMT"
EXTRA_HEADERS = {
    "cc60": {"Cache-Control": "max-age=60, public"},
    "nostore": {"Cache-Control": "no-store"},
    "private": {"Cache-Control": "private"},
    "nocache": {"Cache-Control": "no-cache"},
    "expires": {"Expires": "Thu, 01 Jan 2099 00:00:00 GMT"},
    "etag": {"ETag": '"source-etag"', "Last-Modified": MODIFIED},
}


class TapeSource(ThreadingHTTPServer):
    """``slow`` answers once ``release`` is set; ``waiting`` counts those who wait for it."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Requests)
        self.release = threading.Event()
        self.waiting = threading.Semaphore(0)


class _Requests(BaseHTTPRequestHandler):
    server: TapeSource

    def do_GET(self) -> None:
        _, kind, name = self.path.split("/")
        if kind == "slow":
            self.server.waiting.release()
            self.server.release.wait(60)
        if kind.isdigit():
            self._answer(int(kind), b"no such image", {})
        elif kind == "cut":
            whole = (IMAGES / name).read_bytes()
            self._answer(200, whole[:1000], {"Content-Length": str(len(whole))})
        elif kind == "html":
            self._answer(200, b"<html>not an image</html>", {"Content-Type": "text/html"})
        elif kind == "garbage":
            self._answer(200, b"\xff\xd8\xff\xe0" + b"garbage" * 50, {"Content-Type": "image/jpeg"})
        elif kind == "etag" and self.headers["If-None-Match"] == '"source-etag"':
            self._answer(304, b"", EXTRA_HEADERS["etag"])
        else:
            extra = EXTRA_HEADERS.get(kind, {})
            body = (IMAGES / name).read_bytes()
            self._answer(200, body, {"Content-Type": "image/jpeg", **extra})

    def _answer(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if status != 304 and "Content-Length" not in headers:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        try:
            self.wfile.write(body)
        except ConnectionError:
            return  # the engine did not wait for it

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name it has
        pass


@contextmanager
def tape_source() -> Iterator[TapeSource]:
    with TapeSource() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.release.set()
            server.shutdown()
            thread.join(10)
