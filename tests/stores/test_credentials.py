"""Credentials that expire, handed out by a loopback endpoint as containers have one."""

import asyncio
import json
import threading
import uuid
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, TypeVar

import pytest

from imgproxy_cache.core.location import S3Location
from imgproxy_cache.errors import StoreError
from imgproxy_cache.stores import open_store
from imgproxy_cache.stores.credentials import AwsCredentials
from tests.servers.s3 import S3Server
from tests.stores.images import KEY, PICTURE
from tests.stores.reading import buffer, got

T = TypeVar("T")


class CredentialEndpoint:
    """Hands out one pair of keys after the other; the last one again and again."""

    def __init__(self) -> None:
        self.asked = 0
        self.status = 200
        self.lifetime = timedelta(minutes=1)
        self.access_key = ""

    def answer(self) -> bytes:
        self.asked += 1
        expires = datetime.now(UTC) + self.lifetime
        return json.dumps(
            {
                "AccessKeyId": self.access_key,
                "SecretAccessKey": f"secret of {self.access_key}",
                "Token": "",
                "Expiration": expires.strftime("%Y-%m-%dT%H:%M:%SZ"),
            }
        ).encode()


@contextmanager
def serving(endpoint: CredentialEndpoint) -> Iterator[str]:
    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = endpoint.answer()
            self.send_response(endpoint.status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
            """Tests are quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/keys"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def endpoint(no_cloud: pytest.MonkeyPatch) -> Iterator[CredentialEndpoint]:
    """What the container's endpoint says; the environment points there and nowhere else."""
    endpoint = CredentialEndpoint()
    with serving(endpoint) as url:
        no_cloud.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", url)
        yield endpoint


def keys(name: str) -> dict[str, str]:
    return {name: f"secret of {name}"}


async def when_keys_are_renewed(work: Callable[[], Awaitable[T]]) -> T:
    """obstore asks at most every tenth of a second: until then the old keys are refused."""
    async with asyncio.timeout(20):
        while True:
            with suppress(StoreError):
                return await work()


async def test_keys_that_expire_are_replaced_before_they_do(
    s3: S3Server, endpoint: CredentialEndpoint
) -> None:
    bucket = s3.make_bucket(f"images-{uuid.uuid4().hex}")
    location = S3Location(bucket, "", s3.endpoint, "auto")
    async with open_store(location) as store, store.reader(buffer()) as reader:
        for name in ("first", "second", "third"):
            endpoint.access_key = name
            s3.admit(keys(name))
            await when_keys_are_renewed(lambda: asyncio.to_thread(store.put, KEY, PICTURE))
            # Large and small images have connections of their own, which ask for their own keys.
            assert await when_keys_are_renewed(lambda: asyncio.to_thread(store.get, KEY)) == PICTURE
            assert await when_keys_are_renewed(lambda: got(reader)) == PICTURE
    s3.admit({})
    assert endpoint.asked >= 3


async def test_keys_that_live_long_are_asked_for_once(
    s3: S3Server, endpoint: CredentialEndpoint
) -> None:
    endpoint.access_key = "long"
    endpoint.lifetime = timedelta(hours=1)
    s3.admit(keys("long"))
    bucket = s3.make_bucket(f"images-{uuid.uuid4().hex}")
    location = S3Location(bucket, "", s3.endpoint, "auto")
    async with open_store(location) as store, store.reader(buffer()) as reader:
        for _ in range(20):
            await asyncio.to_thread(store.put, KEY, PICTURE)
            assert await got(reader) == PICTURE
    s3.admit({})
    assert endpoint.asked == 1


async def test_many_that_need_keys_at_once_ask_for_them_once(endpoint: CredentialEndpoint) -> None:
    endpoint.access_key = "long"
    endpoint.lifetime = timedelta(hours=1)
    credentials = AwsCredentials()
    found = await asyncio.gather(*(credentials() for _ in range(5)))
    assert [one["access_key_id"] for one in found] == ["long"] * 5
    assert endpoint.asked == 1


async def test_an_endpoint_that_fails_is_told_and_asked_again_later(
    s3: S3Server, endpoint: CredentialEndpoint
) -> None:
    endpoint.status = 403
    location = S3Location("any-bucket", "", s3.endpoint, "auto")
    async with open_store(location) as store, store.reader(buffer()) as reader:
        for _ in range(5):
            with pytest.raises(StoreError) as caught:
                await asyncio.to_thread(store.put, KEY, PICTURE)
            with pytest.raises(StoreError) as caught_by_reader:
                await got(reader)
    for error in (caught.value, caught_by_reader.value):
        assert error.kind == "credentials"
        assert error.cause.startswith("AWS credentials cannot be read: ")
    assert endpoint.asked <= 3, "botocore tries three times, and then we wait"


async def test_obstore_is_told_to_ask_again_before_botocore_would_renew(
    endpoint: CredentialEndpoint,
) -> None:
    endpoint.access_key = "long"
    endpoint.lifetime = timedelta(hours=1)
    found = await AwsCredentials()()
    expires_at = found["expires_at"]
    assert expires_at is not None
    assert timedelta(minutes=5) < expires_at - datetime.now(UTC) <= timedelta(minutes=6)


async def test_keys_of_the_shared_file_never_expire(
    no_cloud: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    shared = tmp_path / "credentials"
    shared.write_text("[images]\naws_access_key_id = one\naws_secret_access_key = two\n")
    no_cloud.setenv("AWS_SHARED_CREDENTIALS_FILE", str(shared))
    no_cloud.setenv("AWS_PROFILE", "images")
    assert await AwsCredentials()() == {
        "access_key_id": "one",
        "secret_access_key": "two",
        "token": None,
        "expires_at": None,
    }
