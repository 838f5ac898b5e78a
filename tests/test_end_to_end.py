"""
The main job on real input: a photograph in, an image out at once, and found in a real S3 server.

Behind the proxy process stands the embedded engine and, where one is installed
(`CACHE_IMGPROXY_BIN`, or `imgproxy` on `PATH`), the real imgproxy.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import io
import subprocess
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
from PIL import Image

from tests.servers.imgproxy import KINDS, some_imgproxy
from tests.servers.process import free_port
from tests.servers.proxy import running_proxy
from tests.servers.s3 import S3Server
from tests.wire import Answer, ask

PHOTOGRAPH = "local:///astronaut.jpg"
KEY, SALT = "943b421c9eb07c830af81030552c86009268de4e", "520f986b998545b4785e0defbc4f3c1203f22de2"


@pytest.fixture(scope="module", params=KINDS)
def imgproxy_port(request: pytest.FixtureRequest) -> Iterator[int]:
    """One imgproxy without keys, for all tests of this file."""
    with some_imgproxy(request.param) as port:
        yield port


@pytest.fixture
def bucket(s3: S3Server) -> str:
    return s3.make_bucket(f"images-{uuid.uuid4().hex[:12]}")


def in_bucket(s3: S3Server, bucket: str, **more: str) -> dict[str, str]:
    """The settings with which the proxy stores there."""
    return {"S3_BUCKET": bucket, "S3_ENDPOINT": s3.endpoint, **s3.environ, **more}


def md5(path: bytes) -> str:
    return (
        subprocess.run(["md5sum"], input=path, capture_output=True, check=True).stdout[:32].decode()
    )


def sha256(data: bytes) -> str:
    return (
        subprocess.run(["sha256sum"], input=data, capture_output=True, check=True)
        .stdout[:64]
        .decode()
    )


def size_and_format(answer: Answer) -> tuple[int, int, str | None]:
    with Image.open(io.BytesIO(answer.body)) as picture:
        picture.load()
        return (*picture.size, picture.format)


def encoded(source: str) -> str:
    return base64.urlsafe_b64encode(source.encode()).decode().rstrip("=")


PATHS = [
    pytest.param(
        f"/_/rs:fit:200:200/plain/{PHOTOGRAPH}", (200, 200, "JPEG"), "image/jpeg", id="plain"
    ),
    pytest.param(
        f"/_/rs:fill:300:100/g:no/{encoded(PHOTOGRAPH)}.webp",
        (300, 100, "WEBP"),
        "image/webp",
        id="base64, as WebP",
    ),
    pytest.param(
        f"/insecure/resize:fit:64:64:0/plain/{PHOTOGRAPH}@png",
        (64, 64, "PNG"),
        "image/png",
        id="long option, as PNG",
    ),
    pytest.param(
        "/_/w:100/plain/local:///%63offee.jpg", (100, 67, "JPEG"), "image/jpeg", id="escaped"
    ),
]


@pytest.mark.parametrize(("path", "picture", "content_type"), PATHS)
async def test_photograph_is_resized_answered_and_found_in_the_bucket_under_its_md5(
    imgproxy_port: int,
    s3: S3Server,
    bucket: str,
    path: str,
    picture: tuple[int, int, str],
    content_type: str,
) -> None:
    raw = path.encode()
    async with running_proxy(imgproxy_port, **in_bucket(s3, bucket)) as proxy:
        answer = await ask(proxy.port, raw + b"?a=query", b"Accept: image/webp,image/avif,*/*")
        uploaded = await proxy.wait_for("upload.stored")
        assert await proxy.stop() == 0

    assert (answer.status, answer.is_whole) == (200, True)
    assert size_and_format(answer) == picture
    assert answer[b"Content-Type"].decode() == content_type
    assert answer[b"Cache-Status"] == b"imgproxy-cache; fwd=uri-miss; stored"
    assert uploaded["message"] == "Uploaded to S3"
    assert (uploaded["path"], uploaded["bucket"], uploaded["key"]) == (path, bucket, md5(raw))
    assert s3.names(bucket) == [md5(raw)]
    stored = s3.read(bucket, md5(raw))
    assert stored.body == answer.body
    assert stored.content_type == content_type
    assert stored.cache_control == answer[b"Cache-Control"].decode()
    assert stored.content_disposition == answer[b"Content-Disposition"].decode()
    assert stored.metadata["path-sha256"] == sha256(raw)
    assert stored.metadata["content-sha256"] == sha256(answer.body)
    age = datetime.now(UTC) - datetime.fromisoformat(stored.metadata["stored-at"])
    assert 0 <= age.total_seconds() < 60


async def test_images_are_stored_in_the_folder_with_one_slash_behind_it(
    imgproxy_port: int, s3: S3Server, bucket: str
) -> None:
    path = f"/_/rs:fit:50:50/plain/{PHOTOGRAPH}".encode()
    environ = in_bucket(s3, bucket, S3_FOLDER="processed/")
    async with running_proxy(imgproxy_port, **environ) as proxy:
        await ask(proxy.port, path)
        await proxy.wait_for("upload.stored")

    assert s3.names(bucket) == [f"processed/{md5(path)}"]


async def test_images_are_stored_over_tls_with_an_authority_of_ones_own(
    imgproxy_port: int, s3_tls: S3Server
) -> None:
    bucket = s3_tls.make_bucket(f"images-{uuid.uuid4().hex[:12]}")
    path = f"/_/rs:fit:50:50/plain/{PHOTOGRAPH}".encode()
    async with running_proxy(imgproxy_port, **in_bucket(s3_tls, bucket)) as proxy:
        answer = await ask(proxy.port, path)
        await proxy.wait_for("upload.stored")
        assert (await proxy.admin(b"/ready")).status == 200

    assert s3_tls.read(bucket, md5(path)).body == answer.body


async def test_nothing_is_stored_but_images_that_anyone_may_have(
    imgproxy_port: int, s3: S3Server, bucket: str
) -> None:
    path = f"/_/rs:fit:40:40/plain/{PHOTOGRAPH}".encode()
    refused = {
        b"/health": b"content-type",
        b"/_/plain/local:///no-such.jpg": b"status",
        b"/_/plain/local:///logo.svg": b"svg",
        b"/_/raw:1/plain/local:///astronaut.jpg": b"raw",
        b"/_/exp:4102444800/plain/local:///astronaut.jpg": b"expires",
    }
    async with running_proxy(imgproxy_port, **in_bucket(s3, bucket)) as proxy:
        head = await ask(proxy.port, path, method=b"HEAD")
        assert (head.status, head.body) == (200, b"")
        authorized = await ask(proxy.port, path, b"Authorization: Bearer x")
        assert authorized[b"Cache-Status"].endswith(b"detail=authorization")
        for target, why in refused.items():
            answer = await ask(proxy.port, target)
            assert answer[b"Cache-Status"] == b"imgproxy-cache; fwd=uri-miss; detail=" + why
        assert await proxy.stop() == 0

    assert s3.names(bucket) == []


async def test_head_does_not_overwrite_what_is_stored(
    imgproxy_port: int, s3: S3Server, bucket: str
) -> None:
    path = f"/_/rs:fit:41:41/plain/{PHOTOGRAPH}".encode()
    async with running_proxy(imgproxy_port, **in_bucket(s3, bucket)) as proxy:
        answer = await ask(proxy.port, path)
        await ask(proxy.port, path, method=b"HEAD")
        assert await proxy.stop() == 0

    assert s3.read(bucket, md5(path)).body == answer.body


def signed(rest: str) -> str:
    digest = hmac.digest(bytes.fromhex(KEY), bytes.fromhex(SALT) + rest.encode(), hashlib.sha256)
    return f"/{base64.urlsafe_b64encode(digest).decode().rstrip('=')}{rest}"


@pytest.mark.parametrize("kind", KINDS)
async def test_signed_path_is_stored_as_it_was_signed_and_no_other_spelling_of_it(
    kind: str, s3: S3Server, bucket: str
) -> None:
    keys = {"IMGPROXY_KEY": KEY, "IMGPROXY_SALT": SALT}
    rest = f"/rs:fit:30:30/plain/{PHOTOGRAPH}"
    path = signed(rest)
    last = path[43]  # the signature's 43rd character has two bits to spare
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    spelt_otherwise = path[:43] + alphabet[alphabet.index(last) ^ 1] + path[44:]
    with some_imgproxy(kind, **keys) as port:
        async with running_proxy(port, **keys, **in_bucket(s3, bucket)) as proxy:
            good = await ask(proxy.port, path.encode())
            other = await ask(proxy.port, spelt_otherwise.encode())
            wrong = await ask(proxy.port, f"/{'A' * 43}{rest}".encode())
            assert await proxy.stop() == 0

    assert (good.status, good[b"Cache-Status"][-6:]) == (200, b"stored")
    assert (other.status, other.body) == (200, good.body)
    assert other[b"Cache-Status"].endswith(b"detail=spelling")
    assert wrong.status == 403
    assert s3.names(bucket) == [md5(path.encode())]


@pytest.mark.parametrize("kind", KINDS)
async def test_imgproxy_may_go_and_come_back(kind: str) -> None:
    path = f"/_/rs:fit:20:20/plain/{PHOTOGRAPH}".encode()
    port = free_port()
    bind = {"IMGPROXY_BIND": f"127.0.0.1:{port}"}
    with contextlib.ExitStack() as stack:
        stack.enter_context(some_imgproxy(kind, **bind))
        async with running_proxy(port) as proxy:
            assert (await ask(proxy.port, path)).status == 200
            stack.close()
            assert (await ask(proxy.port, path)).status == 502
            assert (await proxy.admin(b"/ready")).status == 503
            stack.enter_context(some_imgproxy(kind, **bind))
            assert (await ask(proxy.port, path)).status == 200
            assert (await proxy.admin(b"/ready")).status == 200
