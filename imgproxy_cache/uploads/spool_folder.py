"""
Where the spool is: its folders, names and locks, and a look into it from outside.

::

    CACHE_SPOOL_DIR/                       0700, ours
        <store>-<hash>/                    one for each store: another bucket's images are not ours
            .lock                          held while a folder below is made or taken over
            retry-now                      touched by an operator
            worker-<random>/               one for each process, which holds its .lock
                <time>-<key>.image
                state.json                 how uploading goes
            quarantine/
                <time>-<key>.image, .reason
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from imgproxy_cache import private_folder
from imgproxy_cache.core.key import Key
from imgproxy_cache.errors import FolderError, SpoolError

IMAGE, TEMPORARY, REASON = ".image", ".part", ".reason"
LOCK, NOTE, RETRY = ".lock", "state.json", "retry-now"
QUARANTINE, WORKER = "quarantine", "worker-"

_NAME = re.compile(r"([0-9]{19})-([0-9a-f]{32})\.image")


@dataclass(frozen=True, slots=True)
class SpoolFile:
    """A whole file in the spool; `accepted_at` is seconds since the epoch."""

    path: Path
    key: Key
    size: int
    accepted_at: float


def image_name(key: Key, accepted_at: float) -> str:
    """The name of an image's file; in the order of names the oldest comes first."""
    return f"{int(accepted_at * 1e9):019d}-{key}{IMAGE}"


def is_image_name(name: str) -> bool:
    return _NAME.fullmatch(name) is not None


def file_at(path: Path) -> SpoolFile:
    """What name and size of a file say."""
    found = _NAME.fullmatch(path.name)
    if found is None:
        raise OSError(errno.EINVAL, "not a file of the spool", str(path))
    return SpoolFile(path, Key(found[2]), path.stat().st_size, int(found[1]) / 1e9)


def make_private(folder: Path, *, may_be_roots: bool = False) -> None:
    """
    Make a folder of the spool ours alone.

    Raises:
        SpoolError: it is a link, or another user's
    """
    try:
        private_folder.make_private(folder, setting="CACHE_SPOOL_DIR", may_be_roots=may_be_roots)
    except FolderError as exc:
        raise SpoolError(str(exc)) from exc


def new_worker_folder(store: Path) -> tuple[Path, int]:
    """A folder for this process, and its lock, which is held as long as we live."""
    folder = store / f"{WORKER}{secrets.token_hex(8)}"
    with _locked(store):
        folder.mkdir(mode=0o700)
        return folder, _open_lock(folder)


def folders_of_the_dead(store: Path, *, but: Path) -> Iterator[tuple[Path, int]]:
    """What no process holds, with the lock that makes it ours; the caller closes it."""
    for folder in _worker_folders(store):
        if folder == but:
            continue
        try:
            with _locked(store):
                lock = _open_lock(folder)
        except OSError:
            continue  # its process lives, or another one was faster
        yield folder, lock


def remove_worker_folder(folder: Path) -> None:
    """Remove a folder without images; one with something else in it stays."""
    with suppress(OSError):
        (folder / NOTE).unlink(missing_ok=True)
        (folder / LOCK).unlink()
        folder.rmdir()


def spooled_files(store: Path) -> Iterator[SpoolFile]:
    """What waits in a store's folder, whichever process has it at the moment."""
    for worker in _worker_folders(store):
        for name in sorted(filter(is_image_name, _names(worker))):
            with suppress(OSError):  # it may be stored or taken over meanwhile
                yield file_at(worker / name)


def quarantined(store: Path) -> Iterator[tuple[SpoolFile, str]]:
    """What was moved aside, and why."""
    folder = store / QUARANTINE
    for name in sorted(filter(is_image_name, _names(folder))):
        with suppress(OSError):
            reason = (folder / name).with_suffix(REASON)
            text = reason.read_text().strip() if reason.exists() else "unknown"
            yield file_at(folder / name), text


def bring_back(store: Path, now: float) -> int:
    """
    Have what was set aside wait again, as if it had come now; how many there were.

    It is left as by a process that has ended: a running one takes it over, or the next to start.
    """
    files = [file for file, _ in quarantined(store)]
    if not files:
        return 0
    worker, lock = new_worker_folder(store)
    try:
        for number, file in enumerate(files):
            # Its age counts anew: else the oldest would be given up at once.
            file.path.rename(worker / image_name(file.key, now + number / 1000))
            file.path.with_suffix(REASON).unlink(missing_ok=True)
    finally:
        os.close(lock)
    return len(files)


def notes(store: Path) -> Iterator[str]:
    """What the processes that upload from a store's folder have left word of."""
    for worker in _worker_folders(store):
        with suppress(OSError):
            yield (worker / NOTE).read_text()


def ask_for_retry(store: Path) -> bool:
    """Have a running server try everything now; False if there is none."""
    for folder in _worker_folders(store):
        try:
            with _locked(store):
                os.close(_open_lock(folder))
        except BlockingIOError:
            (store / RETRY).touch()
            return True
        except OSError:
            continue
    return False


def sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _worker_folders(store: Path) -> list[Path]:
    return [store / name for name in sorted(_names(store)) if name.startswith(WORKER)]


def _names(folder: Path) -> list[str]:
    """What is in a folder, which may be gone by now."""
    try:
        return [path.name for path in folder.iterdir()]
    except FileNotFoundError:
        return []


@contextmanager
def _locked(store: Path) -> Iterator[None]:
    """Alone among all processes, for microseconds: else a new folder would seem a dead one's."""
    descriptor = os.open(store / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _open_lock(folder: Path) -> int:
    """
    The lock of a worker's folder, taken.

    Raises:
        BlockingIOError: a living process has it
        OSError: the folder is gone
    """
    lock = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(lock)
        raise
    return lock
