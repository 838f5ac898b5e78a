"""
The disk tier's folder, which all workers share.

::

    CACHE_DISK_DIR/                    0700, ours
        <store>-<hash>/                one for each store: another instance's answers are not ours
            totals                     bytes and items of each of the folders 00 to ff; the lock
            00/ ... ff/
                <hash of key>.kept     see core/kept_file.py; last used at its modification time
            new/                       locked by the process that counts everything anew
                <random>.part          locked by its writer as long as that lives

A file is written under a temporary name and renamed, so that it is there whole or not at all.
Nothing is synced: this is a cache, and after a crash of the machine checksums tell what to keep.

Everything here blocks, and is called in threads.
"""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
import shutil
import stat
from collections.abc import Generator, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from imgproxy_cache.core.kept import Kept, KeptAnswer, TierKey, tier_key
from imgproxy_cache.core.kept_file import KeptHead, kept_head, read_kept_head, whole_kept
from imgproxy_cache.errors import KeptFileError
from imgproxy_cache.private_folder import make_private, store_folder
from imgproxy_cache.tiers.disk_room import Room, remove_unless_folder, size_on_disk
from imgproxy_cache.tiers.disk_totals import Totals

SETTING = "CACHE_DISK_DIR"
# As in memory: one that takes more would push out dozens to save one render.
LARGEST_SHARE = 8
# No description, with the line before it, is longer.
LONGEST_HEAD = 1_000_200


@dataclass(frozen=True, slots=True)
class OpenFile:
    """A whole and undamaged file; whoever has this closes the descriptor."""

    descriptor: int
    head: KeptHead
    kept: Kept


class DiskFolder:
    """
    The files of one store's tier.

    Methods raise OSError as the file system does.  Safe to call from several threads.
    """

    def __init__(self, root: Path, place: str, *, max_bytes: int, max_items: int) -> None:
        self.path = store_folder(root, place)
        self.room = Room(self.path, max_bytes=max_bytes, max_items=max_items)
        self._largest = max_bytes // LARGEST_SHARE
        self._root = root
        self._new = self.path / "new"

    def prepare(self) -> None:
        """
        Raises:
            FolderError: it cannot be ours alone
        """
        make_private(self._root, setting=SETTING, may_be_roots=True)
        make_private(self.path, setting=SETTING)
        make_private(self._new, setting=SETTING)

    def open(self, key: TierKey) -> OpenFile | None:
        """
        The file of a key, read whole; it is used now.

        Raises:
            KeptFileError: it was damaged, or another's: it is gone now
        """
        path = self._path(key)
        try:
            # Not what a link points to; and a pipe would keep us waiting.
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        except OSError as exc:
            if exc.errno not in (errno.ELOOP, errno.ENXIO, errno.ENOTDIR):
                raise
            self._discard(path, None)
            raise KeptFileError("it is no file") from exc
        try:
            return self._read(key, path, descriptor)
        except BaseException:
            os.close(descriptor)
            raise

    def _read(self, key: TierKey, path: Path, descriptor: int) -> OpenFile:
        try:
            file = self._whole(key, descriptor)
        except KeptFileError:
            self._discard(path, os.fstat(descriptor))
            raise
        with suppress(OSError):  # a disk that can only be read by now, as after damage
            os.utime(descriptor)
        return file

    def _whole(self, key: TierKey, descriptor: int) -> OpenFile:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode) or found.st_size > self.room.max_bytes:
            raise KeptFileError("it is none of ours")
        content = os.pread(descriptor, found.st_size, 0)
        head = read_kept_head(content)
        if _key_of(head.kept) != key:
            raise KeptFileError("it is the answer to something else")
        return OpenFile(descriptor, head, whole_kept(head, content))

    def write(self, key: TierKey, kept: Kept) -> bool:
        """Whether it may be kept: it takes no more than an eighth of everything."""
        parts = [kept_head(kept), kept.body if isinstance(kept, KeptAnswer) else b""]
        size = size_on_disk(sum(map(len, parts)))
        if size > self._largest:
            return False
        self.room.make_for(size)  # before the disk is full
        with self._temporary() as (path, descriptor):
            _write_all(descriptor, parts)
            self._install(path, key, size)
        return True

    def take_over(self, path: Path, key: TierKey) -> bool:
        """
        Move a file of the spool here; whether it is one that may be kept.

        What was received later stays: the file may have been in the spool for hours.  Where the
        spool is on another disk, that is a copy.
        """
        with path.open("rb") as file:
            size = size_on_disk(os.fstat(file.fileno()).st_size)
            try:
                kept = read_kept_head(file.read(LONGEST_HEAD)).kept
            except KeptFileError:
                return False
        if _key_of(kept) != key or size > self._largest or not isinstance(kept, KeptAnswer):
            return False
        os.utime(path)
        try:
            return self._install(path, key, size, unless_later_than=kept)
        except OSError as exc:
            if exc.errno != errno.EXDEV:
                raise
            return self._copy(path, key, size, kept)

    def _copy(self, path: Path, key: TierKey, size: int, kept: KeptAnswer) -> bool:
        with self._temporary() as (temporary, descriptor):
            with path.open("rb") as source, os.fdopen(descriptor, "wb", closefd=False) as copy:
                shutil.copyfileobj(source, copy)
            is_here = self._install(temporary, key, size, unless_later_than=kept)
        path.unlink()
        return is_here

    def remove(self, key: TierKey) -> None:
        self._discard(self._path(key), None)

    def used(self, key: TierKey) -> None:
        """Its file was used just now: all workers are told by its time."""
        with suppress(FileNotFoundError, NotADirectoryError):
            os.utime(self._path(key), follow_symlinks=False)

    def count(self) -> Generator[None]:
        """
        Look through everything, in steps; remove what is too much, or was left behind.

        Ends at once where another process does so already.
        """
        descriptor = os.open(self._new, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            with suppress(BlockingIOError):
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                self._sweep()
                yield from self.room.count()
        finally:
            os.close(descriptor)

    def _sweep(self) -> None:
        """Remove what writers that died have left: nobody holds its lock."""
        for path in self._new.iterdir():
            with suppress(OSError):
                descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    path.unlink()
                finally:
                    os.close(descriptor)

    def _install(
        self, path: Path, key: TierKey, size: int, *, unless_later_than: KeptAnswer | None = None
    ) -> bool:
        """
        Give a file its name here, in the place of what has that; but leave that alone where it
        was received later than the answer given, and say so by False.
        """
        target = self._path(key)
        with self.room.locked_for(size) as totals:
            remove_unless_folder(target.parent)
            target.parent.mkdir(mode=0o700, exist_ok=True)
            if unless_later_than is not None and was_received_later(
                _answer_in(target), unless_later_than
            ):
                return False
            before = _file_size(target)
            if before is None:
                _unlink(totals, target)  # a folder, if anything
            path.rename(target)
            totals.add(_number(target), size - (before or 0), int(before is None))
        return True

    def _discard(self, path: Path, found: os.stat_result | None) -> None:
        """Remove what lies there; if it is `found`, and not what took its place meanwhile."""
        with self.room.locked() as totals:
            remove_unless_folder(path.parent)
            with suppress(FileNotFoundError):
                if found is None or os.path.samestat(found, path.lstat()):
                    _unlink(totals, path)

    @contextmanager
    def _temporary(self) -> Iterator[tuple[Path, int]]:
        """A new file, gone afterwards if it still has this name."""
        path = self._new / f"{secrets.token_hex(8)}.part"
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(path, flags, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield path, descriptor
        finally:
            path.unlink(missing_ok=True)
            os.close(descriptor)

    def _path(self, key: TierKey) -> Path:
        name = sha256(key).hexdigest()
        return self.path / name[:2] / f"{name[2:]}.kept"


def was_received_later(kept: Kept | None, than: KeptAnswer) -> bool:
    """Of signposts nobody can tell."""
    if not isinstance(kept, KeptAnswer):
        return False
    return kept.lifetimes.received_at > than.lifetimes.received_at


def _answer_in(path: Path) -> Kept | None:
    """What a file says of its answer, if there is one that says anything."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file:
            return read_kept_head(file.read(LONGEST_HEAD)).kept
    except (OSError, KeptFileError):
        return None


def _key_of(kept: Kept) -> TierKey:
    return tier_key(kept.name, kept.selection if isinstance(kept, KeptAnswer) else ())


def _number(path: Path) -> int:
    """Of the folder that a file is in."""
    return int(path.parent.name, 16)


def _file_size(path: Path) -> int | None:
    """What is counted for a file; None where there is none."""
    try:
        found = path.lstat()
    except FileNotFoundError:
        return None
    return None if stat.S_ISDIR(found.st_mode) else size_on_disk(found.st_size)


def _unlink(totals: Totals, path: Path) -> None:
    """Remove what has a file's name, whatever it is."""
    size = _file_size(path)
    if size is not None:
        path.unlink()
        totals.add(_number(path), -size, -1)
    elif path.is_dir():
        shutil.rmtree(path)


def _write_all(descriptor: int, parts: list[bytes]) -> None:
    for part in parts:
        left = memoryview(part)
        while left:
            left = left[os.write(descriptor, left) :]
