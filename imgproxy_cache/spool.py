"""
Accepted images that survive a restart: one file each, in a folder of their own.

::

    CACHE_SPOOL_DIR/                       0700, ours
        <store>-<hash>/                    one for each store: another bucket's images are not ours
            worker-<random>/               one for each process, which holds its .lock
                <time>-<key>.image
            quarantine/
                <time>-<key>.image, .reason

A file appears whole: written under a temporary name, synced, renamed, the folder
synced.  Everything here blocks, and is called in threads.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import secrets
import stat
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Self

from imgproxy_cache.core.key import Key
from imgproxy_cache.core.spool_file import SpooledImage, read_spool_file, spool_head
from imgproxy_cache.errors import SpoolError, SpoolFileError

_NAME = re.compile(r"([0-9]{19})-([0-9a-f]{32})\.image")
_TEMPORARY = ".part"
_LOCK = ".lock"
_QUARANTINE = "quarantine"
_WORKER = "worker-"
_NOTE = "state.json"
_RETRY = "retry-now"


@dataclass(frozen=True, slots=True)
class SpoolFile:
    """A whole file in the spool; `accepted_at` is seconds since the epoch."""

    path: Path
    key: Key
    size: int
    accepted_at: float


class Spool:
    """
    One process's part of the spool of one store.

    Methods raise OSError as the file system does; what that means for an image
    is decided by the caller.
    """

    def __init__(self, folder: Path, *, sync: bool) -> None:
        self._store_folder = folder
        self._sync = sync
        self._folder, self._lock = _new_worker_folder(folder)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        """Give the folder up: what is left in it is another process's, or the next one's."""
        with suppress(OSError):
            if not any(_NAME.fullmatch(path.name) for path in self._folder.iterdir()):
                _remove_worker_folder(self._folder)
        os.close(self._lock)

    def write(
        self, images: Sequence[tuple[SpooledImage, bytes]]
    ) -> tuple[list[SpoolFile], OSError | None]:
        """
        Write images whole; what is returned survives the machine (with `sync`).

        Stops at the first that the disk does not take, and says why.
        """
        files: list[SpoolFile] = []
        failure: OSError | None = None
        try:
            for image, body in images:
                files.append(self._write(image, body))
            if self._sync:
                _sync_folder(self._folder)
        except OSError as exc:
            failure = exc
        return files, failure

    def _write(self, image: SpooledImage, body: bytes) -> SpoolFile:
        name = f"{int(image.accepted_at * 1e9):019d}-{image.key}.image"
        path = self._folder / name
        temporary = path.with_suffix(_TEMPORARY)
        head = spool_head(image)
        try:
            descriptor = os.open(
                temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600
            )
            with os.fdopen(descriptor, "wb") as file:
                file.write(head)
                file.write(body)
                file.flush()
                if self._sync:
                    os.fsync(descriptor)
            temporary.rename(path)
        except OSError:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise
        return SpoolFile(path, image.key, len(head) + len(body), image.accepted_at)

    def read(self, file: SpoolFile) -> tuple[SpooledImage, bytes]:
        """
        The image of a file.

        Raises:
            SpoolFileError: it is damaged
        """
        return _read(file.path)

    def remove(self, files: Sequence[SpoolFile]) -> None:
        """
        Forget images that the store has.

        Not synced: a file that comes back after a crash is found stored already.
        """
        for file in files:
            file.path.unlink(missing_ok=True)

    def note(self, text: str) -> None:
        """Leave word of how uploading goes, for `imgproxy-cache spool`."""
        temporary = self._folder / f"{_NOTE}{_TEMPORARY}"
        temporary.write_text(text)
        temporary.rename(self._folder / _NOTE)

    def retry_was_asked_at(self) -> float:
        """When an operator last asked for everything to be tried now; 0 if never."""
        try:
            return (self._store_folder / _RETRY).stat().st_mtime
        except OSError:
            return 0.0

    def quarantine(self, file: SpoolFile, reason: str) -> None:
        """Move a file aside, with the reason beside it, for an operator to look at."""
        folder = self._store_folder / _QUARANTINE
        folder.mkdir(mode=0o700, exist_ok=True)
        file.path.rename(folder / file.path.name)
        (folder / file.path.name).with_suffix(".reason").write_text(reason + "\n")

    def adopt(self) -> Iterator[SpoolFile]:
        """
        Take over what processes that ended have left, oldest first for each.

        Half-written files are removed.  Of several that try, one gets a folder.
        """
        for folder in sorted(self._store_folder.glob(f"{_WORKER}*")):
            if folder == self._folder:
                continue
            lock = _lock_of_the_dead(folder)
            if lock is None:
                continue
            try:
                yield from self._take_all(folder)
            finally:
                os.close(lock)

    def _take_all(self, folder: Path) -> Iterator[SpoolFile]:
        for name in sorted(path.name for path in folder.iterdir()):
            if _NAME.fullmatch(name) is None:
                if name.endswith(_TEMPORARY):
                    (folder / name).unlink(missing_ok=True)
                continue
            path = (folder / name).rename(self._folder / name)
            yield file_at(path)
        _remove_worker_folder(folder)


def open_spool(root: Path, place: str, *, sync: bool) -> Spool:
    """
    The spool of the store at `place`, under `root`.

    Raises:
        SpoolError: a folder cannot be made or written, or is not ours alone
    """
    try:
        folder = store_folder(root, place)
        for needed in (root, folder):
            _make_private(needed)
        return Spool(folder, sync=sync)
    except OSError as exc:
        raise SpoolError(f"{exc.filename or root}: {exc.strerror}: fix CACHE_SPOOL_DIR") from exc


def store_folder(root: Path, place: str) -> Path:
    """The folder of a store: a name for people, and a hash because names are not unique."""
    readable = re.sub(r"[^A-Za-z0-9]+", "-", place).strip("-")[:48]
    return root / f"{readable}-{sha256(place.encode()).hexdigest()[:12]}"


def spooled_files(folder: Path) -> Iterator[SpoolFile]:
    """What waits in a store's folder, whoever it belongs to at the moment."""
    for worker in sorted(folder.glob(f"{_WORKER}*")):
        with suppress(OSError):
            for path in sorted(worker.glob("*.image")):
                with suppress(OSError):
                    yield file_at(path)


def quarantined(folder: Path) -> Iterator[tuple[SpoolFile, str]]:
    """What was moved aside, and why."""
    for path in sorted((folder / _QUARANTINE).glob("*.image")):
        with suppress(OSError):
            reason = path.with_suffix(".reason")
            yield file_at(path), reason.read_text().strip() if reason.exists() else "unknown"


def notes(folder: Path) -> Iterator[str]:
    """What the processes that upload from a store's folder have left word of."""
    for path in sorted(folder.glob(f"{_WORKER}*/{_NOTE}")):
        with suppress(OSError):
            yield path.read_text()


def ask_for_retry(folder: Path) -> bool:
    """Have everything tried now; False if no living process would."""
    (folder / _RETRY).touch()
    for worker in folder.glob(f"{_WORKER}*"):
        lock = _lock_of_the_dead(worker)
        if lock is None:
            return True
        os.close(lock)
    return False


def file_at(path: Path) -> SpoolFile:
    """What the name of a file says."""
    found = _NAME.fullmatch(path.name)
    if found is None:
        raise OSError(errno.EINVAL, "not a file of the spool", str(path))
    return SpoolFile(path, Key(found[2]), path.stat().st_size, int(found[1]) / 1e9)


def _read(path: Path) -> tuple[SpooledImage, bytes]:
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as file:
        image, body = read_spool_file(file.read())
    if image.key not in path.name:
        raise SpoolFileError("its name is another image's")
    return image, body


def _make_private(folder: Path) -> None:
    """Make a folder that is ours alone; one that is there has to be."""
    with suppress(FileExistsError):
        folder.mkdir(mode=0o700, parents=True)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode):
        raise SpoolError(f"{folder} is a link or no folder: set CACHE_SPOOL_DIR to a folder")
    if found.st_uid != os.geteuid():
        raise SpoolError(
            f"{folder} belongs to user {found.st_uid}, we run as {os.geteuid()}: "
            "give it to us, or set CACHE_SPOOL_DIR to another folder"
        )
    if stat.S_IMODE(found.st_mode) & 0o077:
        folder.chmod(0o700)


def _new_worker_folder(store_folder: Path) -> tuple[Path, int]:
    """
    A folder of our own, and its lock, held as long as we live.

    The lock is taken before the folder has the name by which others find it.
    """
    name = f"{_WORKER}{secrets.token_hex(8)}"
    unnamed = store_folder / f".{name}"
    unnamed.mkdir(mode=0o700)
    lock = os.open(unnamed / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    return unnamed.rename(store_folder / name), lock


def _lock_of_the_dead(folder: Path) -> int | None:
    """The lock of a folder whose process is gone; None if it lives, or another was faster."""
    try:
        lock = os.open(folder / _LOCK, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        (folder / _LOCK).stat()  # not taken over and removed meanwhile
    except OSError:
        os.close(lock)
        return None
    return lock


def _remove_worker_folder(folder: Path) -> None:
    """Remove a folder without images, unless something that is not ours is in it."""
    with suppress(OSError):
        (folder / _NOTE).unlink(missing_ok=True)
        (folder / _LOCK).unlink()
        folder.rmdir()


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
