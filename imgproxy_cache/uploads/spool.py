"""
Accepted images that survive a restart: one file each, in a folder of our own.

A file appears whole: written under a temporary name, synced, renamed, the folder
synced.  Everything here blocks, and is called in a thread.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from imgproxy_cache.core.spool_file import SpooledImage, read_spool_file, spool_head
from imgproxy_cache.errors import SpoolError, SpoolFileError
from imgproxy_cache.private_folder import store_folder
from imgproxy_cache.uploads.spool_folder import (
    NOTE,
    QUARANTINE,
    REASON,
    RETRY,
    TEMPORARY,
    SpoolFile,
    file_at,
    folders_of_the_dead,
    image_name,
    is_image_name,
    make_private,
    new_worker_folder,
    remove_worker_folder,
    sync_folder,
)

# The oldest of what was set aside goes when there is more: nobody has looked at it.
MOST_QUARANTINED = 1000


class Spool:
    """
    This process's part of the spool of one store.

    Methods raise OSError as the file system does; what that means for an image
    is decided by the caller.
    """

    def __init__(self, folder: Path, *, sync: bool) -> None:
        self._store_folder = folder
        self._sync = sync
        self._folder, self._lock = new_worker_folder(folder)

    def close(self) -> None:
        """Give the folder up: what is left in it is another process's, or the next one's."""
        with suppress(OSError):
            if not any(is_image_name(path.name) for path in self._folder.iterdir()):
                remove_worker_folder(self._folder)
        os.close(self._lock)

    def write(
        self, images: Sequence[tuple[SpooledImage, bytes]]
    ) -> tuple[list[SpoolFile], OSError | None]:
        """
        Write images whole; those whose files are returned survive the machine (with `sync`).

        Stops at the first that the disk does not take, and says why.
        """
        files: list[SpoolFile] = []
        failure: OSError | None = None
        try:
            for image, body in images:
                files.append(self._write(image, body))
        except OSError as exc:
            failure = exc
        if files and self._sync:
            try:
                sync_folder(self._folder)
            except OSError as exc:
                return [], exc
        return files, failure

    def _write(self, image: SpooledImage, body: bytes) -> SpoolFile:
        # Plain strings and descriptors: pathlib and file objects would cost as much as the rest.
        path = f"{self._folder}/{image_name(image.key, image.accepted_at)}"
        temporary = f"{path}{TEMPORARY}"
        head = spool_head(image)
        try:
            self._write_file(temporary, head, body)
            os.rename(temporary, path)  # noqa: PTH104
        except OSError:
            with suppress(OSError):
                os.unlink(temporary)  # noqa: PTH108
            raise
        return SpoolFile(Path(path), image.key, len(head) + len(body), image.accepted_at)

    def _write_file(self, path: str, head: bytes, body: bytes) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(path, flags, 0o600)
        try:
            _write_all(descriptor, head, body)
            if self._sync:
                os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def try_to_write(self, size: int) -> None:
        """Fail as :meth:`write` does, where the disk has no room for a file of this size."""
        path = f"{self._folder}/room{TEMPORARY}"
        try:
            self._write_file(path, b"", bytes(size))
        finally:
            with suppress(OSError):
                os.unlink(path)  # noqa: PTH108

    def remove(self, file: SpoolFile) -> None:
        """
        Forget an image that the store has.

        Not synced: a file that comes back after a crash is found stored already.
        """
        file.path.unlink(missing_ok=True)

    def quarantine(self, file: SpoolFile, reason: str) -> None:
        """Move a file aside, with the reason beside it, for an operator to look at."""
        folder = self._store_folder / QUARANTINE
        folder.mkdir(mode=0o700, exist_ok=True)
        aside = folder / file.path.name
        aside.with_suffix(REASON).write_text(reason + "\n")
        file.path.rename(aside)
        for path in sorted(folder.glob(f"*{aside.suffix}"))[:-MOST_QUARANTINED]:
            path.unlink(missing_ok=True)
            path.with_suffix(REASON).unlink(missing_ok=True)

    def adopt(self) -> Iterator[SpoolFile]:
        """
        Take over what processes that ended have left, oldest first for each.

        Half-written files are removed.  Of several that try, one gets a folder.
        """
        for folder, lock in folders_of_the_dead(self._store_folder, but=self._folder):
            try:
                yield from self._take_all(folder)
            finally:
                os.close(lock)

    def _take_all(self, folder: Path) -> Iterator[SpoolFile]:
        for name in sorted(path.name for path in folder.iterdir()):
            if is_image_name(name):
                yield file_at((folder / name).rename(self._folder / name))
            elif name.endswith(TEMPORARY):
                (folder / name).unlink(missing_ok=True)
        remove_worker_folder(folder)

    def note(self, text: str) -> None:
        """Leave word of how uploading goes, for `imgproxy-cache spool`."""
        temporary = self._folder / f"{NOTE}{TEMPORARY}"
        temporary.write_text(text)
        temporary.rename(self._folder / NOTE)

    def retry_was_asked_at(self) -> float:
        """When an operator last asked for everything to be tried now; 0 if never."""
        try:
            return (self._store_folder / RETRY).stat().st_mtime
        except OSError:
            return 0.0


def read_spooled(file: SpoolFile) -> tuple[SpooledImage, bytes]:
    """
    The image of a file.

    Raises:
        SpoolFileError: it is damaged, or another image's
    """
    descriptor = os.open(file.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as opened:
        image, body = read_spool_file(opened.read())
    if image.key != file.key:
        raise SpoolFileError("its name is another image's")
    return image, body


def _write_all(descriptor: int, head: bytes, body: bytes) -> None:
    """With one call as a rule: after each the thread waits for the interpreter."""
    written = os.writev(descriptor, (head, body))
    if written < len(head) + len(body):
        left = memoryview(head + body)[written:]
        while left:
            left = left[os.write(descriptor, left) :]


def open_spool(root: Path, place: str, *, sync: bool) -> Spool:
    """
    The spool of the store at `place`, under `root`.

    Raises:
        SpoolError: a folder cannot be made or written, or is not ours alone
    """
    try:
        folder = store_folder(root, place)
        make_private(root, may_be_roots=True)
        make_private(folder)
        return Spool(folder, sync=sync)
    except OSError as exc:
        raise SpoolError(f"{exc.filename or root}: {exc.strerror}: fix CACHE_SPOOL_DIR") from exc
