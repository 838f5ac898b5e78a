"""What is asked of sources, and what they answer, whatever kind they are."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

Headers = list[tuple[bytes, bytes]]


@dataclass(frozen=True, slots=True)
class SourceRules:
    """What a server's settings say about sources."""

    local_root: Path | None = None
    """``IMGPROXY_LOCAL_FILESYSTEM_ROOT``; None: no ``local://`` at all."""
    allowed_sources: tuple[re.Pattern[str], ...] = ()
    """What a source's URL must begin with; empty: anything."""
    allow_loopback: bool = False
    allow_link_local: bool = False
    allow_private: bool = True
    ignore_ssl_verification: bool = False
    max_redirects: int = 10
    download_timeout_seconds: float = 5.0
    user_agent: str = "imgproxy-cache"


@dataclass(frozen=True, slots=True)
class SourceAnswer:
    """What a source answered, as it came; the body can be read once."""

    status: int
    headers: Headers
    """Names in lower case."""
    chunks: AsyncIterator[bytes]

    def header(self, name: bytes) -> str | None:
        """The first field of this lower-case name."""
        return next((value.decode("latin-1") for key, value in self.headers if key == name), None)
