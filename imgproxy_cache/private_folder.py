"""Folders for what nobody else may read or put there."""

from __future__ import annotations

import os
import re
import stat
from contextlib import suppress
from hashlib import sha256
from pathlib import Path

from imgproxy_cache.errors import FolderError


def store_folder(root: Path, place: str) -> Path:
    """The folder of a store: a name for people, and a hash because such names may be the same."""
    readable = re.sub(r"[^A-Za-z0-9]+", "-", place).strip("-")[:48]
    return root / f"{readable}-{sha256(place.encode()).hexdigest()[:12]}"


def make_private(folder: Path, *, setting: str, may_be_roots: bool = False) -> None:
    """
    Make a folder that is ours alone; one that is there has to be, or is made so.

    One that is mounted often is root's (`may_be_roots`), who could look into ours anyway.
    `setting` is what an operator can do about it.

    Raises:
        FolderError: it is a link, or another user's
    """
    with suppress(FileExistsError):
        folder.mkdir(mode=0o700, parents=True)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode):
        raise FolderError(f"{folder} is a link or no folder: set {setting} to a folder")
    if may_be_roots and found.st_uid == 0 != os.geteuid():
        return
    if found.st_uid != os.geteuid():
        raise FolderError(
            f"{folder} belongs to user {found.st_uid}, we run as {os.geteuid()}: "
            f"give it to us, or set {setting} to another folder"
        )
    if stat.S_IMODE(found.st_mode) & 0o077:
        folder.chmod(0o700)
