"""Images as files of this machine: for a first run, for tests, for one small server."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import json
import os
import re
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import (
    AbstractAsyncContextManager,
    ExitStack,
    asynccontextmanager,
    contextmanager,
    suppress,
)
from hashlib import sha256
from pathlib import Path
from typing import BinaryIO

from imgproxy_cache.core.image import Image, StoredObject
from imgproxy_cache.core.key import Key
from imgproxy_cache.core.location import FolderLocation
from imgproxy_cache.errors import StoredTooLargeError, StoreError
from imgproxy_cache.stores.reader import Reader, Room, threaded_reader

_KEY = re.compile(r"[0-9a-f]{32}")
# A writer that died left its temporary file; no living one takes an hour for one image.
ORPHAN_SECONDS = 3600


class FolderStore:
    """
    The :class:`~imgproxy_cache.stores.Store` in a folder: `<key>` is the plain picture, and
    `.meta/<key>` (JSON) holds the rest of the image.

    Each file appears whole, by renaming.  The two renames of a put happen under a lock, shared
    by all processes, so no reader sees the picture of one put with the fields of another; and
    after a crash between the two, the picture's hash does not match: the image is then missing.
    """

    def __init__(self, location: FolderLocation) -> None:
        self._location = location
        self._folder = Path(location.path)
        self._meta = self._folder / ".meta"
        self._temporary = self._folder / ".tmp"

    @property
    def place(self) -> str:
        return str(self._location)

    def put(self, key: Key, image: Image) -> None:
        with self._told(f"put {key}"):
            self._put(_file_name(key), image)

    def create(self, key: Key, image: Image) -> bool:
        with self._told(f"put {key}"):
            return self._put(_file_name(key), image, is_new=True)

    def find(self, key: Key) -> StoredObject | None:
        with self._told(f"find {key}"):
            return self._find(_file_name(key))

    def get(self, key: Key, max_bytes: int | None = None) -> Image | None:
        with self._told(f"get {key}"):
            return self._get(_file_name(key), max_bytes)

    def reader(self, room: Room) -> AbstractAsyncContextManager[Reader]:
        return threaded_reader(self)

    async def delete(self, key: Key) -> None:
        with self._told(f"delete {key}"):
            await asyncio.to_thread(self._delete, _file_name(key))

    async def check(self) -> None:
        """Writes and removes a small file."""
        with self._told("check"):
            await asyncio.to_thread(self._check)

    def _put(self, name: str, image: Image, *, is_new: bool = False) -> bool:
        """Whether it was written: not where a new one is asked for and there is a picture."""
        if is_new and (self._folder / name).exists():
            return False
        self._make_folders()
        fields = image._asdict()
        del fields["body"]
        with (
            self._written(image.body) as picture,
            self._written(json.dumps(fields).encode()) as meta,
            self._locked(fcntl.LOCK_EX),
        ):
            if is_new and (self._folder / name).exists():
                return False
            meta.replace(self._meta / name)
            picture.replace(self._folder / name)
        return True

    def _find(self, name: str) -> StoredObject | None:
        with suppress(FileNotFoundError), ExitStack() as stack:
            with self._locked(fcntl.LOCK_SH):
                picture = stack.enter_context(_opened(self._folder / name))
                meta = stack.enter_context(_opened(self._meta / name))
            body, fields = picture.read(), meta.read()
            with suppress(ValueError, TypeError, KeyError):
                found = json.loads(fields)
                if found["content_sha256"] == sha256(body).hexdigest():
                    ours = (found[name] for name in ("path_sha256", "content_sha256", "stored_at"))
                    return StoredObject(len(body), None, *ours)
            return StoredObject(len(body), None, "", "", "")
        return None

    def _get(self, name: str, max_bytes: int | None) -> Image | None:
        try:
            with ExitStack() as stack:
                with self._locked(fcntl.LOCK_SH):
                    meta = stack.enter_context(_opened(self._meta / name))
                    picture = stack.enter_context(_opened(self._folder / name))
                size = os.fstat(picture.fileno()).st_size
                if max_bytes is not None and size > max_bytes:
                    raise StoredTooLargeError(size, operation=f"get {name}", place=self.place)
                fields, body = meta.read(), picture.read()
        except FileNotFoundError:
            return None
        with suppress(ValueError, TypeError):
            image = Image(body=body, **json.loads(fields))
            if sha256(body).hexdigest() == image.content_sha256:
                return image
        return None

    def _delete(self, name: str) -> None:
        with suppress(FileNotFoundError), self._locked(fcntl.LOCK_EX):
            (self._folder / name).unlink(missing_ok=True)
            (self._meta / name).unlink(missing_ok=True)

    def _check(self) -> None:
        self._make_folders()
        with self._written(b"check"):
            pass

    @contextmanager
    def _written(self, content: bytes) -> Iterator[Path]:
        """A file (0600) with the content on disk, gone afterwards if it still has this name."""
        descriptor, name = tempfile.mkstemp(dir=self._temporary)
        path = Path(name)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
                file.flush()
                # Else a power cut can leave the name with nothing in it.
                os.fsync(file.fileno())
            yield path
        finally:
            path.unlink(missing_ok=True)

    @contextmanager
    def _locked(self, how: int) -> Iterator[None]:
        """The folder's lock, held for two renames or two opens: microseconds."""
        descriptor = os.open(self._meta / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, how)
            yield
        finally:
            os.close(descriptor)

    def _make_folders(self) -> None:
        for folder in (self._folder, self._meta, self._temporary):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def sweep(self) -> None:
        """Removes what writers that died have left."""
        with suppress(OSError):
            for path in self._temporary.iterdir():
                if time.time() - path.lstat().st_mtime > ORPHAN_SECONDS:
                    path.unlink(missing_ok=True)

    @contextmanager
    def _told(self, operation: str) -> Iterator[None]:
        """What fails is a failure of the store."""
        try:
            yield
        except (OSError, ValueError) as exc:
            raise _store_error(exc, operation, self._location) from exc


@asynccontextmanager
async def open_folder(location: FolderLocation) -> AsyncIterator[FolderStore]:
    """A store in the folder, which is made (0700) when the first image comes."""
    store = FolderStore(location)
    await asyncio.to_thread(store.sweep)
    yield store


def _file_name(key: Key) -> str:
    """The key, if it is one: nothing else may become a name in the folder, or outside of it."""
    if _KEY.fullmatch(key) is None:
        raise ValueError("not a cache key")
    return key


def _opened(path: Path) -> BinaryIO:
    """The file itself, not what a link in its place points to."""
    return os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), "rb")


def _store_error(exc: OSError | ValueError, operation: str, location: FolderLocation) -> StoreError:
    number = exc.errno if isinstance(exc, OSError) else None
    match number:
        case errno.EACCES | errno.EPERM | errno.EROFS:
            kind, hint = "denied", f"let user {os.getuid()} write {location.path}"
        case errno.ENOSPC | errno.EDQUOT:
            kind, hint = "full", "make room on this disk"
        case errno.ENOTDIR | errno.EEXIST:
            kind, hint = "bucket", "name a folder in CACHE_STORE_URL"
        case errno.ENOENT:
            kind, hint = "bucket", "it cannot be made: name another folder in CACHE_STORE_URL"
        case _:
            kind, hint = "other", ""
    cause = (exc.strerror if isinstance(exc, OSError) else None) or str(exc)
    return StoreError(
        operation=operation, place=str(location), cause=cause.lower(), hint=hint, kind=kind
    )
