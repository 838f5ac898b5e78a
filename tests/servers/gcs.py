"""
fake-gcs-server: stands in for Google Cloud Storage on loopback (it checks no keys).

It speaks GCS's JSON dialect well and its XML dialect, in which obstore talks, only in part.  A
small front puts that right: uploads take the door of signed URLs, `%2F` is a slash in names of
objects, an upload's answer has its ETag, its condition holds, HEAD tells the length, and what is
missing is told in XML with a 404.
"""

import http.client
import json
import os
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tests.servers import build
from tests.servers.process import free_port, running

HOP_BY_HOP = {"connection", "transfer-encoding", "content-length", "date", "host"}


@dataclass(frozen=True, slots=True)
class GcsServer:
    """A running server, and the variables with which a client finds it."""

    endpoint: str

    @property
    def environ(self) -> dict[str, str]:
        """A service account that names the server and asks for no token."""
        account = {
            "gcs_base_url": self.endpoint,
            "disable_oauth": True,
            "client_email": "",
            "private_key": "",
            "private_key_id": "",
        }
        return {"GOOGLE_SERVICE_ACCOUNT_KEY": json.dumps(account)}

    def make_bucket(self, bucket: str) -> str:
        """Creates the bucket."""
        request = urllib.request.Request(
            f"{self.endpoint}/storage/v1/b?project=test",
            data=json.dumps({"name": bucket}).encode(),
            headers={"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=5):
            return bucket


@contextmanager
def gcs_server(folder: Path) -> Iterator[GcsServer]:
    """A server that keeps its objects in memory."""
    port, front_port = free_port(), free_port()
    command = [
        str(build.fake_gcs()),
        *("-backend", "memory", "-scheme", "http", "-host", "127.0.0.1", "-port", str(port)),
        *("-public-host", f"127.0.0.1:{port}", "-log-level", "error"),
    ]
    with running(command, port=port, env={"PATH": os.environ["PATH"], "HOME": str(folder)}):
        front = ThreadingHTTPServer(("127.0.0.1", front_port), _front(port))
        front.daemon_threads = True
        thread = threading.Thread(target=front.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield GcsServer(f"http://127.0.0.1:{front_port}")
        finally:
            front.shutdown()
            thread.join()
            front.server_close()


def _front(port: int) -> type[BaseHTTPRequestHandler]:  # noqa: C901 - one class
    conditional = threading.Lock()

    class Front(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        # Head and body leave in two writes: without this the second waits 40 ms.
        disable_nagle_algorithm = True

        def _pass_on(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
            if self.headers.get("x-goog-if-generation-match") == "0":
                with conditional:
                    self._answer(body, may_exist=False)
            else:
                self._answer(body)

        def _answer(self, body: bytes, *, may_exist: bool = True) -> None:
            target = self.path if "/storage/v1/" in self.path else self._xml_target()
            if may_exist or _ask(port, "HEAD", self._name(), {}, b"")[0] != 200:
                status, fields, answer = _ask(port, self.command, target, dict(self.headers), body)
            else:
                status, fields, answer = 412, [], b""
            if status in (404, 500):
                bucket = urlsplit(self.path).path.split("/")[1]
                bucket_status, _, _ = _ask(port, "GET", f"/storage/v1/b/{bucket}", {}, b"")
                code = "NoSuchBucket" if bucket_status == 404 else "NoSuchKey"
                status = 404
                answer = f"<Error><Code>{code}</Code><Message>Not found.</Message></Error>".encode()
            elif self.command == "PUT" and status == 200:
                fields.append(("ETag", json.loads(answer)["etag"]))
            self.send_response(status)
            for name, value in fields:
                if name.lower() not in HOP_BY_HOP:
                    self.send_header(name, value)
            size = dict(fields).get("Content-Length") if self.command == "HEAD" else None
            self.send_header("Content-Length", size or str(len(answer)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(answer)

        def _name(self) -> str:
            return self.path.replace("%2F", "/")

        def _xml_target(self) -> str:
            return f"{self._name()}?X-Goog-Algorithm=any" if self.command == "PUT" else self._name()

        do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _pass_on  # noqa: N815

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
            """Tests are quiet."""

    return Front


def _ask(
    port: int, method: str, target: str, fields: dict[str, str], body: bytes
) -> tuple[int, list[tuple[str, str]], bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        sent = {name: value for name, value in fields.items() if name.lower() not in HOP_BY_HOP}
        connection.request(method, target, body, sent)
        answer = connection.getresponse()
        return answer.status, answer.getheaders(), answer.read()
    finally:
        connection.close()
