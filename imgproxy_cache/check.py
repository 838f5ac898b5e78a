"""`imgproxy-cache check`: whether a set-up works, told without serving anybody."""

import asyncio
import os
import secrets
import time
from collections.abc import AsyncIterator, Awaitable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile

from imgproxy_cache.app import health_of
from imgproxy_cache.core.image import Image, image_from_answer
from imgproxy_cache.core.key import Key, key_from_target
from imgproxy_cache.core.location import StoreLocation
from imgproxy_cache.errors import FolderError, StoreError
from imgproxy_cache.private_folder import make_private
from imgproxy_cache.settings import Settings
from imgproxy_cache.stores import Store, open_store


@dataclass(frozen=True, slots=True)
class Finding:
    """What was tried; where it failed, `text` says what is wrong and what to do about it."""

    is_good: bool
    text: str

    def __str__(self) -> str:
        return f"{'ok    ' if self.is_good else 'failed'}  {self.text}"


async def check(settings: Settings) -> AsyncIterator[Finding]:
    """
    Try what the proxy will have to do: reach imgproxy, write on disk where it keeps images there,
    and write, read and delete an object.
    """
    yield Finding(True, "settings")
    yield await _check_imgproxy(settings)
    if settings.read_through is not None and settings.read_through.disk_dir is not None:
        yield _check_disk(settings.read_through.disk_dir)
    async for finding in _check_store(settings.store):
        yield finding


async def _check_imgproxy(settings: Settings) -> Finding:
    async with health_of(settings) as health:
        problem = await health.why_not_ready()
    if problem is None:
        return Finding(True, f"imgproxy: {settings.upstream_url}{settings.health_path}")
    wrong = "CACHE_UPSTREAM_URL or IMGPROXY_PATH_PREFIX"
    hint = f"start imgproxy (`imgproxy-cache run` does), or fix {wrong}"
    return Finding(False, f"imgproxy: {problem}: {hint}")


def _check_disk(folder: Path) -> Finding:
    """Leaves nothing there: a folder that is missing is made by the proxy, as its user."""
    there = next(place for place in (folder, *folder.parents) if os.path.lexists(place))
    try:
        if there == folder:
            make_private(folder, setting="CACHE_DISK_DIR", may_be_roots=True)
        with TemporaryFile(dir=there) as file:
            file.write(b"written by `imgproxy-cache check`")
    except FolderError as exc:
        return Finding(False, f"disk: {exc}")
    except OSError as exc:
        reason = (exc.strerror or str(exc)).lower()
        hint = f"let user {os.geteuid()} write there, or set CACHE_DISK_DIR to another folder"
        return Finding(False, f"disk: {there}: {reason}: {hint}")
    return Finding(True, f"disk: {folder}: write")


async def _check_store(location: StoreLocation) -> AsyncIterator[Finding]:
    try:
        async with open_store(location) as store:
            async for finding in _check_probe(store):
                yield finding
    except StoreError as exc:
        yield Finding(False, f"store: {exc}")


async def _check_probe(store: Store) -> AsyncIterator[Finding]:
    """Write, read and delete an object whose key nobody else can have."""
    path = b"/imgproxy-cache/check/" + secrets.token_hex(16).encode()
    key = key_from_target(path)
    probe = image_from_answer(
        path=path,
        body=b"written by `imgproxy-cache check`; may be deleted",
        content_type="text/plain",
        cache_control="no-store",
        content_disposition=None,
        at=time.time(),
    )
    written = await _try("write", store, asyncio.to_thread(store.put, key, probe))
    yield written
    if written.is_good:
        yield await _try("read", store, _read(store, key, probe))
        yield await _try("delete", store, store.delete(key))


async def _read(store: Store, key: Key, written: Image) -> None:
    found = await asyncio.to_thread(store.get, key)
    if found is None or found.body != written.body:
        raise StoreError(
            operation=f"get {key}",
            place=store.place,
            cause="what was just written is missing" if found is None else "another object",
            hint="expected a store where everybody sees what was written",
        )


async def _try(what: str, store: Store, operation: Awaitable[None]) -> Finding:
    try:
        await operation
    except StoreError as exc:
        return Finding(False, f"store: {exc}")
    return Finding(True, f"store: {store.place}: {what}")
