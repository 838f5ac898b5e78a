"""Where the engine gets originals: local files and HTTP, refusing what imgproxy refuses."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path

Headers = list[tuple[bytes, bytes]]


@dataclass(frozen=True, slots=True)
class SourceRules:
    """What a server's settings say about sources."""

    local_root: Path | None = None  # IMGPROXY_LOCAL_FILESYSTEM_ROOT
    allowed_sources: tuple[re.Pattern[str], ...] = ()  # empty: all
    allow_loopback: bool = False
    allow_link_local: bool = False
    allow_private: bool = True
    ignore_ssl_verification: bool = False
    max_redirects: int = 10
    download_timeout_seconds: float = 5.0
    user_agent: str = "imgproxy-cache"


@dataclass(frozen=True, slots=True)
class SourceAnswer:
    """What a source answered, as it came; the body is read once."""

    status: int
    headers: Headers
    chunks: AsyncIterator[bytes]

    def header(self, name: bytes) -> str | None:
        """Give the first field of this lower-case name."""
        raise NotImplementedError


@dataclass(frozen=True, slots=True)
class Source:
    """An original, whole; ``headers`` are the source's own."""

    body: bytes
    headers: Headers


@dataclass(frozen=True, slots=True)
class NotModified:
    """The source says that the client's copy is still good."""

    headers: Headers


def open_source(
    url: str, request_headers: Headers, rules: SourceRules
) -> AbstractAsyncContextManager[SourceAnswer]:
    """
    Ask a source, following redirects; any status but a redirect's is an answer (for ``raw``).

    Raises: SourceNotAllowed, SourceUnreachable, SourceTimedOut.
    """
    raise NotImplementedError


async def fetch_source(
    url: str, request_headers: Headers, rules: SourceRules, *, max_bytes: int = 0
) -> Source | NotModified:
    """
    Get an original, whole; ``max_bytes`` 0 is no limit, ``request_headers`` are conditionals.

    Raises: SourceNotAllowed, SourceUnreachable, SourceTimedOut, SourceIncomplete, InvalidSource.
    """
    raise NotImplementedError
