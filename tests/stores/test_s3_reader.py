"""The reader of a bucket over connections of our own: failures, addresses, what is sent."""

import asyncio
import uuid
from dataclasses import replace
from pathlib import Path

import pytest

from imgproxy_cache.core.location import S3Location
from imgproxy_cache.errors import StoreError
from imgproxy_cache.stores import open_store
from imgproxy_cache.stores.reader import Outcome, ThreadedReader, Unread
from imgproxy_cache.stores.s3_reader import ALWAYS_READ_BYTES, MOST_CONNECTIONS, S3Reader
from tests.faults.front import Fault, faulty_front
from tests.servers.s3 import S3Server
from tests.stores.images import KEY, PICTURE, picture
from tests.stores.reading import MOST_BYTES, buffer, got
from tests.stores.scripted import scripted


async def failure_at(location: S3Location) -> StoreError:
    async with open_store(location) as store, store.reader(buffer()) as reader:
        with pytest.raises(StoreError) as caught:
            await got(reader)
    return caught.value


@pytest.mark.parametrize("folder", ["", "a/b", "a b", "~a*b+c", "b\u00f6ld", "50%25#1?"])
async def test_it_reads_what_was_put_into_any_folder(location: S3Location, folder: str) -> None:
    async with (
        open_store(replace(location, folder=folder)) as store,
        store.reader(buffer()) as reader,
    ):
        await asyncio.to_thread(store.put, KEY, PICTURE)
        assert await got(reader) == await asyncio.to_thread(store.get, KEY) == PICTURE


async def test_an_object_of_another_program_is_an_image_without_hashes(
    s3: S3Server, location: S3Location
) -> None:
    s3.client().put_object(
        Bucket=location.bucket, Key=f"processed/{KEY}", Body=b"theirs", ContentType="image/webp"
    )
    async with open_store(location) as store, store.reader(buffer()) as reader:
        found = await got(reader)
        assert found == await asyncio.to_thread(store.get, KEY)
    assert found is not None
    assert (found.body, found.content_type, found.path_sha256) == (b"theirs", "image/webp", "")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        pytest.param("AWS_ACCESS_KEY_ID", "priv\u00e4t", id="no ASCII"),
        pytest.param("AWS_ACCESS_KEY_ID", "private\n", id="a line out of a file"),
        pytest.param("AWS_SECRET_ACCESS_KEY", "private\n", id="a secret's line"),
        pytest.param("AWS_SESSION_TOKEN", "private\r\nHost: elsewhere", id="two lines"),
    ],
)
async def test_keys_that_no_header_can_hold_are_told_without_showing_them(
    location: S3Location, no_cloud: pytest.MonkeyPatch, name: str, value: str
) -> None:
    no_cloud.setenv(name, value)
    error = await failure_at(location)
    assert (error.kind, error.cause) == (
        "credentials",
        "AWS credentials are to be ASCII, without a line's end",
    )


async def test_over_tls_it_trusts_whom_the_bundle_names(
    s3_tls: S3Server, location: S3Location, no_cloud: pytest.MonkeyPatch
) -> None:
    assert s3_tls.ca_bundle is not None
    no_cloud.setenv("AWS_CA_BUNDLE", str(s3_tls.ca_bundle))
    bucket = s3_tls.make_bucket(f"images-{uuid.uuid4().hex}")
    there = replace(location, endpoint=s3_tls.endpoint, bucket=bucket)
    async with open_store(there) as store, store.reader(buffer()) as reader:
        await asyncio.to_thread(store.put, KEY, PICTURE)
        assert await got(reader) == PICTURE
        assert isinstance(reader, S3Reader)


async def test_half_of_an_image_is_a_failure_and_no_image(
    s3: S3Server, location: S3Location
) -> None:
    async with faulty_front(s3) as front:
        there = replace(location, endpoint=f"http://127.0.0.1:{front.port}")
        async with open_store(there) as store, store.reader(buffer()) as reader:
            await asyncio.to_thread(store.put, KEY, picture(bytes(100_000)))
            front.fail(Fault.HALF_ANSWER)
            with pytest.raises(StoreError) as caught:
                await got(reader)
    assert caught.value.kind == "unreachable"
    assert caught.value.cause.endswith("it closed the connection in the middle of its answer")


@pytest.mark.parametrize(
    ("answer", "kind", "cause"),
    [
        pytest.param(
            b"HTTP/1.1 200 OK\r\n\r\nhello",
            "unreachable",
            "it did not say where its answer ends",
            id="no length",
        ),
        pytest.param(b"SSH-2.0-x\r\n", "unreachable", "it sent what is not HTTP: ", id="no HTTP"),
        pytest.param(
            b"HTTP/1.1 500 Oops\r\nContent-Length: 100000\r\n\r\n" + b"<" * 100_000,
            "busy",
            "answered 500 Internal Server Error",
            id="much that is no image",
        ),
        pytest.param(
            b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n",
            "region",
            "answered 302 Found",
            id="somewhere else",
        ),
    ],
)
async def test_what_is_no_image_is_a_failure(
    location: S3Location, answer: bytes, kind: str, cause: str
) -> None:
    async with scripted(answer, hangs_up=True) as server:
        endpoint = f"http://127.0.0.1:{server.port}"
        error = await failure_at(replace(location, endpoint=endpoint))
    assert error.kind == kind
    assert error.cause.startswith(f"{endpoint}: {cause}")


@pytest.mark.parametrize(
    ("endpoint", "listens_on", "host"),
    [
        pytest.param("http://[::1]:{port}", "::1", "[::1]:{port}", id="IPv6"),
        pytest.param("http://LocalHost:{port}", "127.0.0.1", "localhost:{port}", id="a name"),
        pytest.param("http://a:b@127.0.0.1:{port}/s3/", "127.0.0.1", "127.0.0.1:{port}", id="path"),
    ],
)
async def test_the_host_field_is_that_of_the_endpoint(
    location: S3Location, endpoint: str, listens_on: str, host: str
) -> None:
    answer = b"HTTP/1.1 200 OK\r\nContent-Type: image/png\r\nContent-Length: 3\r\n\r\nPNG"
    async with scripted(answer, host=listens_on) as server:
        there = replace(location, endpoint=endpoint.format(port=server.port))
        async with open_store(there) as store, store.reader(buffer()) as reader:
            found = await got(reader)
    assert found is not None
    assert found.body == b"PNG"
    [head] = server.heads
    line, *fields = head.split(b"\r\n")
    prefix = "/s3" if "/s3" in endpoint else ""
    assert line == f"GET {prefix}/{location.bucket}/processed/{KEY} HTTP/1.1".encode()
    assert f"host: {host.format(port=server.port)}".encode() in fields


@pytest.mark.parametrize(
    "framed",
    [
        pytest.param(b"Content-Length: 6\r\n\r\n", id="told first"),
        pytest.param(b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n3\r\ndef\r\n", id="in chunks"),
    ],
)
async def test_an_object_of_more_bytes_than_agreed_is_not_read_on(
    location: S3Location, framed: bytes
) -> None:
    async with scripted(b"HTTP/1.1 200 OK\r\n" + framed) as server:
        there = replace(location, endpoint=f"http://127.0.0.1:{server.port}")
        async with open_store(there) as store, store.reader(buffer()) as reader:
            with pytest.raises(StoreError, match="it has 6 bytes") as caught:
                await got(reader, max_bytes=5)
            async with asyncio.timeout(20):
                while server.writers:  # the connection ends, and with it what was still to come
                    await asyncio.sleep(0)
    assert caught.value.kind == "too-large"


@pytest.mark.parametrize(
    "has_length", [pytest.param(True, id="told first"), pytest.param(False, id="in chunks")]
)
async def test_a_large_image_is_read_where_there_is_memory_for_it(
    location: S3Location, has_length: bool
) -> None:
    body = bytes(ALWAYS_READ_BYTES + 1)
    framed = b"Content-Length: %d\r\n\r\n%b" % (len(body), body)
    if not has_length:
        framed = b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
    async with scripted(b"HTTP/1.1 200 OK\r\n" + framed) as server:
        there = replace(location, endpoint=f"http://127.0.0.1:{server.port}")
        room = buffer(len(body))
        async with open_store(there) as store, store.reader(room) as reader:
            assert room.take(1)
            told: list[Outcome] = []
            reader.get(KEY, MOST_BYTES, told.append)
            async with asyncio.timeout(20):
                while not told:
                    await asyncio.sleep(0)
            assert told == [Unread.NO_ROOM]
            room.give_back(1)
            found = await got(reader)
            assert found is not None
            assert found.body == body
            assert room.used == 0


async def test_those_that_wait_for_a_connection_have_not_begun(
    location: S3Location, silent_port: int
) -> None:
    there = replace(location, endpoint=f"http://127.0.0.1:{silent_port}")
    told: list[Outcome] = []
    async with open_store(there) as store, store.reader(buffer()) as reader:
        gets = [reader.get(KEY, MOST_BYTES, told.append) for _ in range(MOST_CONNECTIONS)]
        async with asyncio.timeout(10):
            while not all(get.has_begun for get in gets):
                await asyncio.sleep(0)
        last = reader.get(KEY, MOST_BYTES, told.append)
        assert not last.has_begun
        for get in (last, *gets):
            get.abandon()
    assert told == []


@pytest.mark.parametrize(
    ("environ", "reads_itself"),
    [
        pytest.param({}, True, id="no proxy"),
        pytest.param({"HTTP_PROXY": "http://127.0.0.1:1"}, False, id="a proxy"),
        pytest.param({"all_proxy": "http://127.0.0.1:1"}, False, id="one for all"),
        pytest.param({"HTTPS_PROXY": "http://127.0.0.1:1"}, True, id="a proxy for others"),
        pytest.param(
            {"HTTP_PROXY": "http://127.0.0.1:1", "NO_PROXY": "127.0.0.1"}, True, id="but not for it"
        ),
    ],
)
async def test_behind_a_proxy_obstore_reads(
    location: S3Location,
    no_cloud: pytest.MonkeyPatch,
    environ: dict[str, str],
    reads_itself: bool,
) -> None:
    for name, value in environ.items():
        no_cloud.setenv(name, value)
    async with open_store(location) as store, store.reader(buffer()) as reader:
        assert isinstance(reader, S3Reader if reads_itself else ThreadedReader)


async def test_it_is_of_the_place_of_its_store(location: S3Location, tmp_path: Path) -> None:
    async with open_store(location) as store, store.reader(buffer()) as reader:
        assert reader.place == store.place == f"s3://{location.bucket}/processed"
