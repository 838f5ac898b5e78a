"""Failures that a real store shows only on a bad day, as a server on loopback acts them."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from imgproxy_cache.core.location import S3Location
from imgproxy_cache.errors import StoreError
from imgproxy_cache.stores import open_store
from tests.servers.s3 import S3Server
from tests.stores.images import KEY, PICTURE
from tests.stores.reading import buffer, got


@contextmanager
def answering(status: int, body: str) -> Iterator[str]:
    """The endpoint of a server that has one answer."""

    class Answer(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_PUT(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.do_GET()

        def do_GET(self) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
            """Tests are quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def xml(code: str) -> str:
    return f"<Error><Code>{code}</Code><Message>Words of the store.</Message></Error>"


@pytest.mark.parametrize(
    ("status", "body", "kind", "cause", "hint"),
    [
        pytest.param(
            400,
            xml("ExpiredToken"),
            "credentials",
            "ExpiredToken: Words of the store",
            "fix AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (or the profile or role)",
            id="expired token",
        ),
        pytest.param(
            403,
            xml("AccessDenied"),
            "denied",
            "AccessDenied: Words of the store",
            "allow these credentials to get, put, delete and list objects here",
            id="not allowed",
        ),
        pytest.param(
            403,
            xml("RequestTimeTooSkewed"),
            "clock",
            "RequestTimeTooSkewed: Words of the store",
            "set the clock of this machine",
            id="wrong clock",
        ),
        pytest.param(
            400,
            xml("AuthorizationHeaderMalformed"),
            "region",
            "AuthorizationHeaderMalformed: Words of the store",
            "fix AWS_REGION or S3_ENDPOINT",
            id="wrong region",
        ),
        pytest.param(
            503,
            xml("SlowDown"),
            "busy",
            "SlowDown: Words of the store",
            "lower CACHE_UPLOAD_CONCURRENCY if this goes on",
            id="slow down",
        ),
        pytest.param(
            400, xml("Novelty"), "other", "Novelty: Words of the store", "", id="unknown code"
        ),
        pytest.param(
            503,
            "<html>",
            "busy",
            "{endpoint}: answered 503 Service Unavailable",
            "lower CACHE_UPLOAD_CONCURRENCY if this goes on",
            id="a balancer's 503",
        ),
        pytest.param(
            403,
            "",
            "denied",
            "{endpoint}: answered 403 Forbidden",
            "allow these credentials to get, put, delete and list objects here",
            id="403 without a word",
        ),
        pytest.param(
            404,
            "",
            "bucket",
            "no such bucket or container",
            "create it or fix S3_BUCKET",
            id="404 without a word",
        ),
        pytest.param(
            301,
            "",
            "region",
            "{endpoint}: answered 301 Moved Permanently",
            "fix AWS_REGION or S3_ENDPOINT",
            id="a redirect of a server in front of it",
        ),
        pytest.param(
            500,
            "",
            "busy",
            "{endpoint}: answered 500 Internal Server Error",
            "lower CACHE_UPLOAD_CONCURRENCY if this goes on",
            id="500 without a word",
        ),
    ],
)
async def test_what_the_store_says_becomes_cause_hint_and_kind(
    no_cloud: pytest.MonkeyPatch,
    s3: S3Server,
    status: int,
    body: str,
    kind: str,
    cause: str,
    hint: str,
) -> None:
    for name, value in s3.environ.items():
        no_cloud.setenv(name, value)
    with answering(status, body) as endpoint:
        location = S3Location("images", "", endpoint, "auto")
        async with open_store(location) as store, store.reader(buffer()) as reader:
            with pytest.raises(StoreError) as caught:
                await asyncio.to_thread(store.put, KEY, PICTURE)
            if (status, body) == (404, ""):
                assert await got(reader) is None, "a lesser server's way to say so"
                told = []
            else:
                with pytest.raises(StoreError) as caught_by_reader:
                    await got(reader)
                told = [caught_by_reader.value]
    said = (kind, cause.format(endpoint=endpoint), hint)
    for error in (caught.value, *told):
        assert (error.kind, error.cause, error.hint) == said
    assert [error.operation for error in (caught.value, *told)] == [
        f"put {KEY}",
        *(f"get {KEY}" for _ in told),
    ]
