"""``local://``: files under one folder, and nothing outside it."""

from __future__ import annotations

import asyncio
import hashlib
import mimetypes
import os
import posixpath
import re
import stat
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from email.utils import format_datetime, parsedate_to_datetime
from pathlib import Path, PurePath

from imgproxy_cache.engine.errors import SourceUnreachable
from imgproxy_cache.engine.source_answer import Headers, SourceAnswer

# Not waiting: opening a named pipe would block until somebody writes to it
OPEN_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


async def open_local(url: str, request_headers: Headers, root: Path) -> SourceAnswer:
    """
    Answer as a web server would that serves ``root``.

    Raises: SourceUnreachable.
    """
    name = file_name(url)
    body, status = await asyncio.to_thread(read_beneath, root, name)
    headers = _headers(name, status)
    if _is_not_modified(headers, request_headers):
        return SourceAnswer(304, headers, _chunks(b""))
    headers.append((b"accept-ranges", b"bytes"))
    part = _asked_part(request_headers, len(body))
    if part is None:
        return SourceAnswer(200, [*headers, _length(body)], _chunks(body))
    piece = body[part.start : part.stop]
    place = b"bytes %d-%d/%d" % (part.start, part.stop - 1, len(body))
    return SourceAnswer(206, [*headers, _length(piece), (b"content-range", place)], _chunks(piece))


def file_name(url: str) -> str:
    """
    The path below the root that a ``local:`` URL names, without a slash in front.

    imgproxy takes everything literally (``%`` too) but for a host, which it
    passes over, and a query, which it cuts off.
    """
    path = url.partition(":")[2].partition("?")[0]
    if path.startswith("//"):
        path = path[2:].partition("/")[2]
    return posixpath.normpath("/" + path.lstrip("/")).lstrip("/")


def read_beneath(root: Path, name: str) -> tuple[bytes, os.stat_result]:
    """
    Read a file below ``root``; links may be followed as long as they stay there.

    The path is resolved first and then opened part by part without following
    links, so that a link made in between leads nowhere.

    Raises: SourceUnreachable.
    """
    try:
        real_root = Path(root).resolve(strict=True)
        inside = (real_root / name).resolve(strict=True).relative_to(real_root)
        opened = _opened(real_root, inside)
        try:
            status = os.fstat(opened)
            if not stat.S_ISREG(status.st_mode):
                raise SourceUnreachable(f"{name!r} is no file")
            # Of a folder this would raise, and leave it open.
            with os.fdopen(opened, "rb", closefd=False) as file:
                return file.read(), status
        finally:
            os.close(opened)
    except (OSError, ValueError, RuntimeError) as exc:
        raise SourceUnreachable(f"{name!r}: {exc}") from exc


def _opened(root: Path, inside: PurePath) -> int:
    opened = os.open(root, OPEN_FLAGS | os.O_DIRECTORY)
    for part in inside.parts:
        folder = opened
        try:
            opened = os.open(part, OPEN_FLAGS, dir_fd=folder)
        finally:
            os.close(folder)
    return opened


def _headers(name: str, status: os.stat_result) -> Headers:
    version = f"{name}\0{status.st_size}\0{status.st_mtime_ns}"
    etag = hashlib.sha256(version.encode(errors="surrogatepass")).hexdigest()
    modified = datetime.fromtimestamp(int(status.st_mtime), UTC)
    media_type = mimetypes.guess_type(name)[0] or "application/octet-stream"
    return [
        (b"content-type", media_type.encode()),
        (b"etag", f'"{etag}"'.encode()),
        (b"last-modified", format_datetime(modified, usegmt=True).encode()),
    ]


def _is_not_modified(headers: Headers, request_headers: Headers) -> bool:
    """Whether the client's copy is the file as it is.  Source: RFC 9110 section 13.2.2."""
    answer, request = dict(headers), {name.lower(): value for name, value in request_headers}
    if tag := request.get(b"if-none-match"):
        return tag.removeprefix(b"W/") == answer[b"etag"]
    since = request.get(b"if-modified-since")
    if since is None:
        return False
    try:
        return parsedate_to_datetime(answer[b"last-modified"].decode()) <= parsedate_to_datetime(
            since.decode("latin-1")
        )
    except (TypeError, ValueError):
        return False


_RANGE = re.compile(rb"bytes=(?:([0-9]{1,18})-([0-9]{0,18})|-([0-9]{1,18}))")


def _asked_part(request_headers: Headers, size: int) -> range | None:
    """
    The one range that is asked for, where there is such; else the whole is answered.

    Source: RFC 9110 section 14.2.
    """
    asked = _RANGE.fullmatch(dict(request_headers).get(b"range", b""))
    if asked is None:
        return None
    first, last, from_end = asked.groups()
    if from_end:
        part = range(max(0, size - int(from_end)), size)
    else:
        part = range(int(first), min(int(last) + 1, size) if last else size)
    return part or None


def _length(body: bytes) -> tuple[bytes, bytes]:
    return (b"content-length", b"%d" % len(body))


async def _chunks(body: bytes) -> AsyncIterator[bytes]:
    if body:
        yield body
