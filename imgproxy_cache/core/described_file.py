"""
What the spool's files and the disk tier's have in common.

::

    <format> <bytes of JSON> <SHA-256 of JSON>\\n
    {"size": ..., "content_sha256": ..., ...}\\n
    <the body>

`size` and `content_sha256` are the body's.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from hashlib import sha256
from typing import Any

_FIRST_LINE = re.compile(rb"([!-~]{1,40}) ([0-9]{1,6}) ([0-9a-f]{64})\n")
_LONGEST_FIRST_LINE = 128


class UnlikeWrittenError(ValueError):
    """A file is not whole, or not as it was written; says how."""


def described_head(file_format: bytes, description: Mapping[str, Any]) -> bytes:
    """What stands in a file before the body."""
    fields = json.dumps(description).encode("ascii") + b"\n"
    digest = sha256(fields).hexdigest().encode("ascii")
    return b"%b %d %b\n%b" % (file_format, len(fields), digest, fields)


def read_description(content: bytes, formats: Collection[bytes]) -> tuple[Any, int]:
    """
    What describes the body, and where that begins.

    Raises:
        UnlikeWrittenError
    """
    first_line = _FIRST_LINE.match(content[:_LONGEST_FIRST_LINE])
    if first_line is None or first_line[1] not in formats:
        raise UnlikeWrittenError("it does not begin as a file of ours")
    start = first_line.end()
    end = start + int(first_line[2])
    fields = content[start:end]
    if sha256(fields).hexdigest().encode("ascii") != first_line[3]:
        raise UnlikeWrittenError("its description is damaged")
    try:
        return json.loads(fields), end
    except (ValueError, RecursionError) as exc:
        raise UnlikeWrittenError("its description is another program's") from exc


def check_body(body: bytes, size: int, content_sha256: str) -> None:
    """
    Raises:
        UnlikeWrittenError
    """
    if len(body) != size:
        raise UnlikeWrittenError(f"it holds {len(body)} bytes of an image of {size}")
    if sha256(body).hexdigest() != content_sha256:
        raise UnlikeWrittenError("the image is damaged")
