"""The folder store's own promises: plain pictures, private files, and no half of anything."""

import asyncio
import json
import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from imgproxy_cache.core.key import Key
from imgproxy_cache.core.location import FolderLocation
from imgproxy_cache.errors import StoreError
from imgproxy_cache.stores import Store, open_store
from tests.stores.images import KEY, PICTURE, picture

IMAGE = picture(PICTURE.body)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "outer").mkdir()
    return tmp_path / "outer" / "store"


@pytest.fixture
async def store(folder: Path) -> AsyncIterator[Store]:
    async with open_store(FolderLocation(str(folder))) as opened:
        yield opened


def files(folder: Path) -> dict[str, int]:
    """Every file and folder below, with its permissions."""
    found = {"": folder.stat()} | {str(p.relative_to(folder)): p.stat() for p in folder.rglob("*")}
    return {name: stat.S_IMODE(status.st_mode) for name, status in found.items()}


def names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


def a_file(path: Path) -> Path:
    path.write_text("no folder")
    return path


async def test_the_file_of_an_image_is_the_plain_picture(store: Store, folder: Path) -> None:
    await asyncio.to_thread(store.put, KEY, IMAGE)
    assert (folder / KEY).read_bytes() == IMAGE.body
    assert json.loads((folder / ".meta" / KEY).read_bytes()) == {
        "content_type": "image/png",
        "cache_control": "max-age=31536000, public",
        "content_disposition": 'inline; filename="chelsea.png"',
        "path_sha256": IMAGE.path_sha256,
        "content_sha256": IMAGE.content_sha256,
        "stored_at": "2026-02-03T04:05:06Z",
    }


async def test_nobody_else_can_read_the_folder(store: Store, folder: Path) -> None:
    before = os.umask(0)
    try:
        await asyncio.to_thread(store.put, KEY, IMAGE)
    finally:
        os.umask(before)
    assert files(folder) == {
        "": 0o700,
        ".meta": 0o700,
        ".meta/.lock": 0o600,
        f".meta/{KEY}": 0o600,
        ".tmp": 0o700,
        KEY: 0o600,
    }


async def test_opening_a_store_makes_nothing(store: Store, folder: Path) -> None:
    assert await asyncio.to_thread(store.get, KEY) is None
    await store.delete(KEY)
    assert names(folder.parent) == []


async def test_a_check_leaves_no_file_behind(store: Store, folder: Path) -> None:
    await store.check()
    assert files(folder) == {"": 0o700, ".meta": 0o700, ".tmp": 0o700}


async def test_names_beyond_ascii_are_kept_as_they_came(store: Store) -> None:
    image = picture(content_disposition='inline; filename="caf\xe9.jpg"')
    await asyncio.to_thread(store.put, KEY, image)
    assert await asyncio.to_thread(store.get, KEY) == image


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda folder: (folder / KEY).write_bytes(b"of another put"), id="picture"),
        pytest.param(lambda folder: (folder / KEY).write_bytes(b""), id="emptied by a power cut"),
        pytest.param(lambda folder: (folder / KEY).unlink(), id="picture gone"),
        pytest.param(lambda folder: (folder / ".meta" / KEY).unlink(), id="fields gone"),
        pytest.param(lambda folder: (folder / ".meta" / KEY).write_text("{"), id="fields cut"),
        pytest.param(lambda folder: (folder / ".meta" / KEY).write_text("[]"), id="fields odd"),
        pytest.param(lambda folder: (folder / ".meta" / KEY).write_text("{}"), id="fields empty"),
    ],
)
async def test_half_an_image_is_none_and_can_be_put_again(
    store: Store, folder: Path, damage: object
) -> None:
    await asyncio.to_thread(store.put, KEY, IMAGE)
    assert callable(damage)
    damage(folder)
    assert await asyncio.to_thread(store.get, KEY) is None
    await asyncio.to_thread(store.put, KEY, IMAGE)
    assert await asyncio.to_thread(store.get, KEY) == IMAGE


async def test_a_link_in_the_place_of_a_picture_is_replaced_and_not_followed(
    store: Store, folder: Path, tmp_path: Path
) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(IMAGE.body)
    await asyncio.to_thread(store.put, KEY, IMAGE)
    (folder / KEY).unlink()
    (folder / KEY).symlink_to(secret)
    with pytest.raises(StoreError):
        await asyncio.to_thread(store.get, KEY)
    await asyncio.to_thread(store.put, KEY, picture(b"new"))
    assert await asyncio.to_thread(store.get, KEY) == picture(b"new")
    assert secret.read_bytes() == IMAGE.body


@pytest.mark.parametrize("key", [KEY.upper(), KEY[:-1], KEY + "0", f"{KEY}/", f"{KEY}\n", ".tmp"])
async def test_what_is_no_key_is_refused(store: Store, key: str) -> None:
    with pytest.raises(StoreError, match="not a cache key"):
        await asyncio.to_thread(store.put, Key(key), IMAGE)


async def test_a_folder_that_cannot_be_made_is_told() -> None:
    async with open_store(FolderLocation("/proc/images")) as store:
        with pytest.raises(StoreError) as caught:
            await store.check()
    assert str(caught.value) == (
        "file:///proc/images: check: no such file or directory: "
        "it cannot be made: name another folder in CACHE_STORE_URL"
    )


async def test_a_file_in_the_place_of_the_folder_is_told(tmp_path: Path) -> None:
    taken = a_file(tmp_path / "taken")
    async with open_store(FolderLocation(str(taken))) as store:
        with pytest.raises(StoreError) as caught:
            await store.check()
    assert str(caught.value) == (
        f"file://{taken}: check: file exists: name a folder in CACHE_STORE_URL"
    )


async def test_a_folder_that_may_not_be_written_names_who_must_be_let_in() -> None:
    """/sys refuses root as well."""
    async with open_store(FolderLocation("/sys/imgproxy-cache")) as store:
        with pytest.raises(StoreError) as caught:
            await asyncio.to_thread(store.put, KEY, IMAGE)
    assert caught.value.kind == "denied"
    assert caught.value.hint == f"let user {os.getuid()} write /sys/imgproxy-cache"


async def test_what_a_dead_writer_left_is_swept_and_a_living_ones_is_not(
    store: Store, folder: Path
) -> None:
    await asyncio.to_thread(store.put, KEY, IMAGE)
    old, fresh = folder / ".tmp" / "old", folder / ".tmp" / "fresh"
    for path in (old, fresh):
        path.write_bytes(b"half")
    os.utime(old, (time.time() - 4000,) * 2)
    async with open_store(FolderLocation(str(folder))) as reopened:
        assert await asyncio.to_thread(reopened.get, KEY) == IMAGE
    assert not old.exists()
    assert fresh.exists()


WRITER = """
import asyncio, sys
from itertools import cycle
from imgproxy_cache.core.location import FolderLocation
from imgproxy_cache.stores import open_store
from tests.stores.images import KEY, picture

async def write() -> None:
    async with open_store(FolderLocation(sys.argv[1])) as store:
        for letter in cycle(b"ab"):
            store.put(KEY, picture(bytes([letter]) * 200_000, cache_control=chr(letter)))
            print("put", flush=True)

asyncio.run(write())
"""


async def test_a_writer_killed_at_any_moment_leaves_a_whole_image_or_none(folder: Path) -> None:
    images = [picture(letter.encode() * 200_000, cache_control=letter) for letter in "ab"]
    async with open_store(FolderLocation(str(folder))) as store:
        for puts in (1, 2, 3, 5, 8):
            await asyncio.to_thread(kill_after, puts, folder)
            assert await asyncio.to_thread(store.get, KEY) in [None, *images]
            await asyncio.to_thread(store.put, KEY, IMAGE)
            assert await asyncio.to_thread(store.get, KEY) == IMAGE


def kill_after(puts: int, folder: Path) -> None:
    command = [sys.executable, "-c", WRITER, str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        for _ in range(puts):
            assert writer.stdout.readline() == "put\n"
        writer.send_signal(signal.SIGKILL)
