"""Read-through as operators and browsers meet it: processes, photographs, kills and restarts."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import hmac
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.servers.imgproxy import KINDS, some_imgproxy
from tests.servers.process import free_port
from tests.servers.proxy import RunningProxy, running_proxy
from tests.servers.s3 import S3Server
from tests.wire import ask

PHOTOGRAPH = "local:///astronaut.jpg"
PATH = f"/_/rs:fit:200:200/plain/{PHOTOGRAPH}".encode()
ON = {"CACHE_READ_THROUGH": "true"}
WAIT_SECONDS = 20.0
KEYS = [
    {"IMGPROXY_KEY": "943b421c9eb07c830af81030552c8600", "IMGPROXY_SALT": "520f986b998545b4"},
    {"IMGPROXY_KEY": "00c62550318fa0c038b70ce9b124b349", "IMGPROXY_SALT": "4b545899b689f025"},
]


def signed(rest: str, keys: dict[str, str]) -> bytes:
    key, salt = (bytes.fromhex(value) for value in keys.values())
    digest = hmac.digest(key, salt + rest.encode(), hashlib.sha256)
    return f"/{base64.urlsafe_b64encode(digest).decode().rstrip('=')}{rest}".encode()


def on_disk_of(folder: Path) -> dict[str, str]:
    """The disk tier of one store: that of another store is another."""
    (folder / "store").mkdir()
    store, disk = (folder / "store").as_uri(), str(folder / "disk")
    return {**ON, "CACHE_STORE_URL": store, "CACHE_DISK_DIR": disk}


async def until(proxy: RunningProxy, level: str, at_least: float) -> None:
    """Levels are read once a second, and so are the counts of other workers."""
    async with asyncio.timeout(WAIT_SECONDS):
        while (await proxy.metrics()).get(level, 0) < at_least:
            await asyncio.sleep(0.05)


@pytest.mark.parametrize("kind", KINDS)
async def test_photograph_is_rendered_once_and_then_comes_from_memory(kind: str) -> None:
    with some_imgproxy(kind) as port:
        async with running_proxy(port, **ON) as proxy:
            made = await ask(proxy.port, PATH)
            hits = [await ask(proxy.port, PATH) for _ in range(3)]
            etag = hits[0][b"ETag"]
            same = await ask(proxy.port, PATH, b"If-None-Match: " + etag)
            part = await ask(proxy.port, PATH, b"Range: bytes=100-199")
            metrics = await proxy.metrics()
            assert await proxy.stop() == 0

    assert made[b"Cache-Status"] == b"imgproxy-cache; fwd=uri-miss; stored"
    for hit in hits:
        assert hit[b"Cache-Status"].startswith(b"imgproxy-cache; hit; ttl=")
        assert hit[b"Cache-Status"].endswith(b"detail=memory")
        assert hit.body == made.body
        # What imgproxy sent is sent again, but for what is of one answer.
        for name in (b"Cache-Control", b"Content-Type", b"Content-Security-Policy", b"Server"):
            assert hit.all(name) == made.all(name)
    assert etag == b'"%b"' % hashlib.sha256(made.body).hexdigest()[:32].encode()
    assert (same.status, same.body) == (304, b"")
    assert (part.status, part.body) == (206, made.body[100:200])
    assert metrics['fetches{status="200"}'] == 1
    assert metrics['requests{outcome="hit-memory"}'] == 5
    assert metrics['tier_hits{tier="memory"}'] == 5
    assert metrics['first_byte_seconds_count{outcome="hit-memory"}'] == 5
    assert metrics["memory_tier_bytes"] > len(made.body)
    assert [entry["outcome"] for entry in proxy.events("request.served")] == ["stored"]


@pytest.mark.parametrize("kind", KINDS)
async def test_images_on_disk_outlive_a_restart_and_imgproxy(kind: str, tmp_path: Path) -> None:
    on_disk = on_disk_of(tmp_path)
    port = free_port()
    with contextlib.ExitStack() as stack:
        stack.enter_context(some_imgproxy(kind, IMGPROXY_BIND=f"127.0.0.1:{port}"))
        async with running_proxy(port, **on_disk) as proxy:
            made = await ask(proxy.port, PATH)
            await until(proxy, "disk_tier_items", 1)
            assert await proxy.stop() == 0
        async with running_proxy(port, **on_disk) as proxy:
            stack.close()
            from_disk = await ask(proxy.port, PATH)
            from_memory = await ask(proxy.port, PATH)
            missing = [await ask(proxy.port, PATH + b"%d" % number) for number in range(6)]
            hit = await ask(proxy.port, PATH)
            assert await proxy.stop() == 0

    assert from_disk[b"Cache-Status"].endswith(b"detail=disk")
    assert from_memory[b"Cache-Status"].endswith(b"detail=memory")
    assert from_disk.body == from_memory.body == hit.body == made.body
    assert from_disk[b"Content-Security-Policy"] == made[b"Content-Security-Policy"]
    # Five failures, and then it is left alone.
    assert [answer.status for answer in missing] == [502] * 5 + [503]
    assert missing[-1][b"Retry-After"] == b"1"
    assert len(proxy.events("upstream.paused")) == 1


async def test_workers_share_what_is_on_disk(tmp_path: Path) -> None:
    on_disk = {**on_disk_of(tmp_path), "WEB_CONCURRENCY": "2"}
    with some_imgproxy("engine") as port:
        async with running_proxy(port, **on_disk) as proxy:
            await proxy.wait_for("server.started", times=2)
            made = await ask(proxy.port, PATH)
            await until(proxy, "disk_tier_items", 1)
            answers = []
            for _ in range(2):  # one worker may accept all that come at once
                answers += await asyncio.gather(*(ask(proxy.port, PATH) for _ in range(60)))
            await until(proxy, 'requests{outcome="hit-memory"}', 1)
            await until(proxy, 'fetches{status="200"}', 1)
            fetches = (await proxy.metrics())['fetches{status="200"}']
            workers = {entry["pid"] for entry in proxy.events("server.started")}
            assert await proxy.stop() == 0

    assert {answer.body for answer in answers} == {made.body}
    assert fetches == 1
    assert len(workers) == 2
    # One has it in memory from the start, the other finds it on disk, and has it then.
    sources = [answer[b"Cache-Status"].rpartition(b"=")[2] for answer in answers]
    assert set(sources) <= {b"memory", b"disk"}


@pytest.mark.parametrize("kind", KINDS)
async def test_change_of_keys_ends_old_urls_and_not_what_is_kept(kind: str, tmp_path: Path) -> None:
    on_disk = on_disk_of(tmp_path)
    rest = f"/rs:fit:60:60/plain/{PHOTOGRAPH}"
    before, after = (signed(rest, keys) for keys in KEYS)
    with some_imgproxy(kind, **KEYS[0]) as port:
        async with running_proxy(port, **on_disk, **KEYS[0]) as proxy:
            made = await ask(proxy.port, before)
            forged = await ask(proxy.port, after)
            await until(proxy, "disk_tier_items", 1)
            assert await proxy.stop() == 0
    with some_imgproxy(kind, **KEYS[1]) as port:
        async with running_proxy(port, **on_disk, **KEYS[1]) as proxy:
            old = await ask(proxy.port, before)
            new = await ask(proxy.port, after)
            assert await proxy.stop() == 0

    assert (made.status, forged.status) == (200, 403)
    assert forged[b"Cache-Status"] == b"imgproxy-cache; fwd=bypass; detail=status"
    assert old.status == 403
    assert (new.status, new.body) == (200, made.body)
    assert new[b"Cache-Status"].endswith(b"detail=disk")


async def test_image_in_the_bucket_outlives_restarts_of_everything(s3: S3Server) -> None:
    bucket = s3.make_bucket(f"images-{uuid.uuid4().hex[:12]}")
    in_bucket = {**ON, "S3_BUCKET": bucket, "S3_ENDPOINT": s3.endpoint, **s3.environ}
    with some_imgproxy("engine") as port:
        async with running_proxy(port, **in_bucket) as proxy:
            made = await ask(proxy.port, PATH)
            await proxy.wait_for("upload.stored")
            assert await proxy.stop() == 0
        async with running_proxy(port, **in_bucket) as proxy:
            from_store = await ask(proxy.port, PATH)
            from_memory = await ask(proxy.port, PATH)
            metrics = await proxy.metrics()
            assert await proxy.stop() == 0

    assert from_store[b"Cache-Status"].endswith(b"detail=store")
    assert from_memory[b"Cache-Status"].endswith(b"detail=memory")
    for answer in (from_store, from_memory):
        assert (answer.status, answer.body) == (200, made.body)
        assert answer[b"Content-Type"] == made[b"Content-Type"]
        assert answer[b"Cache-Control"] == made[b"Cache-Control"]
    assert metrics['tier_hits{tier="store"}'] == 1
    assert 'fetches{status="200"}' not in metrics


def shorter(stored: dict[str, Any]) -> None:
    stored["Body"] = stored["Body"][:-1]


def other_bytes(stored: dict[str, Any]) -> None:
    stored["Body"] = stored["Body"][:-1] + b"?"


def other_type(stored: dict[str, Any]) -> None:
    stored["ContentType"] = "text/html"


def of_another_path(stored: dict[str, Any]) -> None:
    stored["Metadata"] = {**stored["Metadata"], "path-sha256": hashlib.sha256(b"/b").hexdigest()}


@pytest.mark.parametrize("change", [shorter, other_bytes, other_type, of_another_path])
async def test_object_that_is_not_what_was_put_there_is_a_miss_and_replaced(
    s3: S3Server, change: Callable[[dict[str, Any]], None]
) -> None:
    bucket = s3.make_bucket(f"images-{uuid.uuid4().hex[:12]}")
    in_bucket = {**ON, "S3_BUCKET": bucket, "S3_ENDPOINT": s3.endpoint, **s3.environ}
    sources = []
    with some_imgproxy("engine") as port:
        for run in range(3):
            async with running_proxy(port, **in_bucket) as proxy:
                answer = await ask(proxy.port, PATH)
                sources.append(answer[b"Cache-Status"].rpartition(b"; ")[2])
                if run < 2:
                    await proxy.wait_for("upload.stored")
                assert await proxy.stop() == 0
            if run == 0:
                (name,) = s3.names(bucket)
                found = s3.client().get_object(Bucket=bucket, Key=name)
                stored = {
                    "Body": found["Body"].read(),
                    "ContentType": found["ContentType"],
                    "CacheControl": found["CacheControl"],
                    "Metadata": found["Metadata"],
                }
                change(stored)
                s3.client().put_object(Bucket=bucket, Key=name, **stored)

    assert sources == [b"stored", b"stored", b"detail=store"]
