"""Where the engine gets originals: local files and HTTP, refusing what imgproxy refuses."""

from __future__ import annotations

import re
import zlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from imgproxy_cache.engine.errors import (
    InvalidSource,
    SourceIncomplete,
    SourceNotAllowed,
    SourceUnreachable,
)
from imgproxy_cache.engine.http_source import Network, open_http
from imgproxy_cache.engine.local_source import open_local
from imgproxy_cache.engine.source_answer import Headers, SourceAnswer, SourceRules

__all__ = [
    "Headers",
    "Network",
    "NotModified",
    "Source",
    "SourceAnswer",
    "SourceRules",
    "check_is_allowed",
    "fetch_source",
    "open_source",
]

GZIP_OR_ZLIB = 32 + zlib.MAX_WBITS
WHOLE = re.compile(r"bytes 0-(\d+)/(\d+)")


@dataclass(frozen=True, slots=True)
class Source:
    """An original, whole; ``headers`` are the source's own."""

    body: bytes
    headers: Headers


@dataclass(frozen=True, slots=True)
class NotModified:
    """The source says that the client's copy is still good."""

    headers: Headers


def check_is_allowed(url: str, rules: SourceRules) -> None:
    """
    Hold a source's URL against what the settings allow; its address is checked later.

    Raises: SourceNotAllowed.
    """
    allowed = rules.allowed_sources
    if allowed and not any(pattern.match(url) for pattern in allowed):
        raise SourceNotAllowed(f"{url!r} is not in IMGPROXY_ALLOWED_SOURCES")


@asynccontextmanager
async def open_source(
    url: str, request_headers: Headers, rules: SourceRules, network: Network | None = None
) -> AsyncIterator[SourceAnswer]:
    """
    Ask a source, following redirects; any status but a redirect's is an answer (for ``raw``).

    The download timeout runs until the context is left.

    Raises: SourceNotAllowed, SourceUnreachable, SourceTimedOut, SourceIncomplete.
    """
    check_is_allowed(url, rules)
    scheme = url.partition(":")[0].lower()
    if scheme in {"http", "https"}:
        async with open_http(url, request_headers, rules, network or Network()) as answer:
            yield answer
    elif scheme == "local" and rules.local_root:
        yield await open_local(url, request_headers, rules.local_root)
    else:
        raise SourceUnreachable(f"unknown scheme {scheme!r}")


async def fetch_source(
    url: str,
    request_headers: Headers,
    rules: SourceRules,
    *,
    max_bytes: int = 0,
    network: Network | None = None,
) -> Source | NotModified:
    """
    Get an original, whole; ``max_bytes`` 0 is no limit, ``request_headers`` are conditionals.

    Raises: SourceNotAllowed, SourceUnreachable, SourceTimedOut, SourceIncomplete, InvalidSource.
    """
    async with open_source(url, request_headers, rules, network) as answer:
        if answer.status == 304:
            return NotModified(answer.headers)
        _check_status(answer)
        if answer.header(b"content-encoding") == "gzip":
            return Source(await _unzipped(answer.chunks, max_bytes), _without_coding(answer))
        length = answer.header(b"content-length") or ""
        if max_bytes and length.isdecimal() and int(length) > max_bytes:
            raise InvalidSource(f"{length} bytes are more than the {max_bytes} allowed")
        return Source(await _joined(answer.chunks, max_bytes), answer.headers)


def _check_status(answer: SourceAnswer) -> None:
    status = answer.status
    if status == 206:
        part = WHOLE.fullmatch(answer.header(b"content-range") or "")
        if part and int(part[1]) + 1 == int(part[2]):
            return
        raise SourceUnreachable("the source sent only a part")
    if status != 200:
        public = status if 400 <= status < 500 else 502 if status >= 500 else 404
        raise SourceUnreachable(f"the source answered {status}", status=public)


async def _joined(chunks: AsyncIterator[bytes], max_bytes: int) -> bytes:
    whole = bytearray()
    async for chunk in chunks:
        whole += chunk
        if max_bytes and len(whole) > max_bytes:
            raise InvalidSource(f"more bytes than the {max_bytes} allowed")
    return bytes(whole)


async def _unzipped(chunks: AsyncIterator[bytes], max_bytes: int) -> bytes:
    """Some servers compress although nobody asked them to."""
    unzip = zlib.decompressobj(GZIP_OR_ZLIB)
    whole = bytearray()
    try:
        async for chunk in chunks:
            # One byte more than allowed is enough to know
            room = max_bytes + 1 - len(whole) if max_bytes else 0
            whole += unzip.decompress(chunk, room)
            if max_bytes and len(whole) > max_bytes:
                raise InvalidSource(f"more bytes than the {max_bytes} allowed")
        whole += unzip.flush()
    except zlib.error as exc:
        raise SourceUnreachable(f"the source's gzip is broken: {exc}") from exc
    if not unzip.eof:
        raise SourceIncomplete("the source's gzip ended too early")
    return bytes(whole)


def _without_coding(answer: SourceAnswer) -> Headers:
    """The header fields without those that describe the compressed body."""
    gone = {b"content-encoding", b"content-length"}
    return [(name, value) for name, value in answer.headers if name not in gone]
