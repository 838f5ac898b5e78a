"""What :class:`imgproxy_cache.stores.Store` promises, tried on every store there is."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from imgproxy_cache.core.image import Image
from imgproxy_cache.core.key import Key
from imgproxy_cache.core.location import (
    AzureLocation,
    FolderLocation,
    GcsLocation,
    S3Location,
    StoreLocation,
)
from imgproxy_cache.errors import StoreError
from imgproxy_cache.stores import ReadableStore, Store, open_store
from imgproxy_cache.stores.reader import Outcome, Reader
from tests.servers.azure import AzureServer
from tests.servers.gcs import GcsServer
from tests.servers.s3 import S3Server
from tests.stores.images import KEY, picture
from tests.stores.reading import MOST_BYTES, buffer, got

BUCKET_STORES = ["s3", "s3_tls", "gcs", "azure"]


def locate(kind: str, request: pytest.FixtureRequest, folder: str, bucket: str) -> StoreLocation:
    """A place for this test alone; its variables are set, its bucket is not made."""
    server = request.getfixturevalue(kind)
    patch: pytest.MonkeyPatch = request.getfixturevalue("no_cloud")
    for name, value in server.environ.items():
        patch.setenv(name, value)
    match server:
        case S3Server():
            return S3Location(bucket, folder, server.endpoint, "auto")
        case GcsServer():
            return GcsLocation(bucket, folder)
        case AzureServer():
            return AzureLocation(bucket, folder)
    raise AssertionError(server)


def make_bucket(server: S3Server | GcsServer | AzureServer, bucket: str) -> None:
    if isinstance(server, AzureServer):
        server.make_container(bucket)
    else:
        server.make_bucket(bucket)


def files_below(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


@pytest.fixture(params=[*BUCKET_STORES, "file"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[ReadableStore]:
    if request.param == "file":
        location: StoreLocation = FolderLocation(str(tmp_path / "outer" / "store"))
    else:
        bucket = f"images-{uuid.uuid4().hex}"
        location = locate(request.param, request, "processed", bucket)
        make_bucket(request.getfixturevalue(request.param), bucket)
    async with open_store(location) as opened:
        yield opened


@pytest.fixture
async def reader(store: ReadableStore) -> AsyncIterator[Reader]:
    async with store.reader(buffer()) as reader:
        yield reader


@pytest.fixture(params=BUCKET_STORES)
async def store_without_bucket(request: pytest.FixtureRequest) -> AsyncIterator[ReadableStore]:
    location = locate(request.param, request, "processed", f"nowhere-{uuid.uuid4().hex}")
    async with open_store(location) as opened:
        yield opened


@pytest.mark.parametrize(
    "image",
    [
        pytest.param(picture(), id="all fields"),
        pytest.param(picture(cache_control=None), id="no cache-control"),
        pytest.param(picture(content_disposition=None), id="no content-disposition"),
        pytest.param(picture(content_disposition="attachment"), id="attachment without a name"),
        pytest.param(picture(content_disposition='inline; filename=""'), id="empty name"),
        pytest.param(picture(content_disposition='inline; filename="a  b"'), id="two spaces"),
        pytest.param(picture(content_disposition='inline; filename="%22;+&=#?/"'), id="signs"),
        pytest.param(picture(content_disposition=r'inline; filename="\\"'), id="backslashes"),
        pytest.param(picture(content_disposition="<>&'"), id="what XML would mind"),
        pytest.param(picture(content_type="image/svg+xml"), id="another type"),
        pytest.param(picture(b""), id="empty"),
        pytest.param(picture(b"\0"), id="one byte"),
        pytest.param(picture(b"\xff\xd8\r\n\0" * 1_000_000), id="5 MB"),
    ],
)
async def test_an_image_comes_back_as_it_was_put(
    store: Store, reader: Reader, image: Image
) -> None:
    await asyncio.to_thread(store.put, KEY, image)
    assert await asyncio.to_thread(store.get, KEY) == image
    assert await got(reader) == image


HEADER_VALUES = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=100).map(
    str.strip
)


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    body=st.binary(max_size=2000),
    cache_control=st.none() | HEADER_VALUES.filter(bool),
    content_disposition=st.none() | HEADER_VALUES.filter(bool),
)
async def test_whatever_a_header_may_hold_comes_back(
    store: Store,
    reader: Reader,
    body: bytes,
    cache_control: str | None,
    content_disposition: str | None,
) -> None:
    image = picture(body, cache_control=cache_control, content_disposition=content_disposition)
    await asyncio.to_thread(store.put, KEY, image)
    assert await asyncio.to_thread(store.get, KEY) == image
    assert await got(reader) == image


async def test_an_image_that_is_larger_than_agreed_is_not_read(
    store: Store, reader: Reader
) -> None:
    await asyncio.to_thread(store.put, KEY, picture(b"eleven byte"))
    assert await asyncio.to_thread(store.get, KEY, 11) == picture(b"eleven byte")
    with pytest.raises(StoreError, match="it has 11 bytes") as caught:
        await asyncio.to_thread(store.get, KEY, 10)
    assert caught.value.kind == "too-large"
    with pytest.raises(StoreError, match="it has 11 bytes") as caught:
        await got(reader, max_bytes=10)
    assert caught.value.kind == "too-large"
    assert await asyncio.to_thread(store.get, KEY, 11) == picture(b"eleven byte")
    assert await got(reader, max_bytes=11) == picture(b"eleven byte")


async def test_a_key_that_was_never_put_is_none(store: Store, reader: Reader) -> None:
    assert await asyncio.to_thread(store.get, KEY) is None
    assert await got(reader) is None


async def test_many_images_are_read_at_once(store: Store, reader: Reader) -> None:
    images = {Key(f"{n:032x}"): picture(bytes([n]) * 40_000) for n in range(100)}
    await asyncio.gather(*(asyncio.to_thread(store.put, *entry) for entry in images.items()))
    assert await asyncio.gather(*(got(reader, key) for key in images)) == list(images.values())


async def test_of_a_get_that_is_abandoned_nothing_is_told(store: Store, reader: Reader) -> None:
    await asyncio.to_thread(store.put, KEY, picture())
    told: list[Outcome] = []
    for _ in range(100):
        reader.get(KEY, MOST_BYTES, told.append).abandon()
    assert await got(reader) == picture()
    assert told == []


async def test_a_key_put_twice_keeps_the_later_image(store: Store) -> None:
    await asyncio.to_thread(store.put, KEY, picture(b"first", cache_control=None))
    await asyncio.to_thread(
        store.put, KEY, picture(b"second, and longer", content_disposition=None)
    )
    assert await asyncio.to_thread(store.get, KEY) == picture(
        b"second, and longer", content_disposition=None
    )


async def test_a_deleted_image_is_gone_and_its_neighbour_is_not(store: Store) -> None:
    neighbour = Key("f" * 32)
    await asyncio.to_thread(store.put, KEY, picture())
    await asyncio.to_thread(store.put, neighbour, picture(b"neighbour"))
    await store.delete(KEY)
    assert await asyncio.to_thread(store.get, KEY) is None
    assert await asyncio.to_thread(store.get, neighbour) == picture(b"neighbour")


async def test_deleting_what_is_not_there_is_no_failure(store: Store) -> None:
    await store.delete(KEY)


async def test_readers_meet_whole_images_while_writers_replace_them(store: Store) -> None:
    images = [picture(bytes([n]) * 50_000, cache_control=f"max-age={n}") for n in range(8)]
    await asyncio.to_thread(store.put, KEY, images[0])
    writers = [asyncio.to_thread(store.put, KEY, image) for image in images]
    found = await asyncio.gather(*writers, *(asyncio.to_thread(store.get, KEY) for _ in range(16)))
    assert all(image in images for image in found[len(writers) :])
    assert await asyncio.to_thread(store.get, KEY) in images


@pytest.mark.parametrize(
    "key",
    [
        "../escaped",
        "../../escaped",
        "/escaped",
        "a/../../escaped",
        ".",
        "..",
        "",
        "a//b",
        "%2e%2e%2fescaped",
        "..\\escaped",
        "a\0b",
        "a\nb",
        "x" * 2000,
        ".meta/.lock",
        "\udcff",
    ],
)
async def test_a_hostile_key_stays_inside_or_is_refused(
    store: Store, key: str, tmp_path: Path
) -> None:
    hostile = Key(key)
    try:
        await asyncio.to_thread(store.put, hostile, picture(b"hostile"))
    except StoreError:
        with pytest.raises(StoreError):
            await asyncio.to_thread(store.get, hostile)
    else:
        assert await asyncio.to_thread(store.get, hostile) == picture(b"hostile")
        await store.delete(hostile)
    assert all("store" in path.parts for path in files_below(tmp_path))


async def test_a_store_that_can_be_used_passes_its_check(store: Store) -> None:
    await store.check()


async def test_a_missing_bucket_is_a_failure_and_no_missing_image(
    store_without_bucket: ReadableStore,
) -> None:
    store = store_without_bucket
    operations: list[Callable[[], Awaitable[object]]] = [
        lambda: asyncio.to_thread(store.put, KEY, picture()),
        lambda: asyncio.to_thread(store.get, KEY),
        lambda: store.delete(KEY),
        store.check,
    ]
    for operation in operations:
        with pytest.raises(StoreError) as caught:
            await operation()
        assert (caught.value.kind, caught.value.place) == ("bucket", store.place)
        assert caught.value.hint.startswith("create it or fix ")
    async with store.reader(buffer()) as reader:
        with pytest.raises(StoreError) as caught:
            await got(reader)
    assert (caught.value.kind, caught.value.place) == ("bucket", store.place)


async def test_an_image_is_created_where_there_is_none(store: Store) -> None:
    assert await asyncio.to_thread(store.create, KEY, picture()) is True
    assert await asyncio.to_thread(store.get, KEY) == picture()


async def test_nothing_is_created_where_there_is_an_image(store: Store) -> None:
    await asyncio.to_thread(store.put, KEY, picture(b"first"))
    assert await asyncio.to_thread(store.create, KEY, picture(b"second")) is False
    assert await asyncio.to_thread(store.get, KEY) == picture(b"first")


async def test_of_many_that_create_the_same_image_one_does(store: Store) -> None:
    images = [picture(bytes([n]) * 1000) for n in range(8)]
    created = await asyncio.gather(
        *(asyncio.to_thread(store.create, KEY, image) for image in images)
    )
    assert created.count(True) == 1
    assert await asyncio.to_thread(store.get, KEY) == images[created.index(True)]


async def test_an_image_is_created_again_after_it_was_deleted(store: Store) -> None:
    await asyncio.to_thread(store.put, KEY, picture(b"first"))
    await store.delete(KEY)
    assert await asyncio.to_thread(store.create, KEY, picture(b"second")) is True


async def test_what_is_found_is_what_was_put(store: Store) -> None:
    await asyncio.to_thread(store.put, KEY, picture(b"hello world"))
    found = await asyncio.to_thread(store.find, KEY)
    assert found is not None
    assert (found.size, found.content_sha256, found.stored_at) == (
        11,
        "b94d27b9934d3e08a52e52d7da7dabfac484efe37a5380ee9088f7ace2efcde9",
        picture().stored_at,
    )


async def test_what_was_never_put_is_not_found(store: Store) -> None:
    assert await asyncio.to_thread(store.find, KEY) is None


async def test_creating_in_a_missing_bucket_is_a_failure(store_without_bucket: Store) -> None:
    with pytest.raises(StoreError) as caught:
        await asyncio.to_thread(store_without_bucket.create, KEY, picture())
    assert caught.value.kind == "bucket"
    assert caught.value.operation == f"put processed/{KEY}"
