"""
One image in the spool, as one file that describes itself.

::

    imgproxy-cache-spool/1 <bytes of JSON> <SHA-256 of JSON>\\n
    {"key": ..., "path": ..., "size": ..., "content_sha256": ..., ...}\\n
    <the image>

Whatever happens to such a file, reading it gives what was written or says what is
wrong with it.
"""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass
from hashlib import sha256

from imgproxy_cache.core.key import Key, key_from_target
from imgproxy_cache.errors import SpoolFileError

_FIRST_LINE = re.compile(rb"imgproxy-cache-spool/1 ([0-9]{1,6}) ([0-9a-f]{64})\n")
_LONGEST_FIRST_LINE = 128


@dataclass(frozen=True, slots=True)
class SpooledImage:
    """All of an accepted image but its bytes; `accepted_at` is seconds since the epoch."""

    key: Key
    path: str
    content_type: str
    cache_control: str | None
    content_disposition: str | None
    size: int
    content_sha256: str
    accepted_at: float


def spool_head(image: SpooledImage) -> bytes:
    """What stands in the file before the image."""
    fields = json.dumps(asdict(image)).encode("ascii") + b"\n"
    return b"imgproxy-cache-spool/1 %d %b\n%b" % (
        len(fields),
        sha256(fields).hexdigest().encode("ascii"),
        fields,
    )


def read_spool_file(content: bytes) -> tuple[SpooledImage, bytes]:
    """
    The image and its bytes.

    Raises:
        SpoolFileError: the file is not whole, or not as it was written
    """
    first_line = _FIRST_LINE.match(content[:_LONGEST_FIRST_LINE])
    if first_line is None:
        raise SpoolFileError("it does not begin as a spool file")
    start = first_line.end()
    end = start + int(first_line[1])
    fields = content[start:end]
    if sha256(fields).hexdigest().encode("ascii") != first_line[2]:
        raise SpoolFileError("its description is damaged")
    image = _description(fields)
    body = content[end:]
    if len(body) != image.size:
        raise SpoolFileError(f"it holds {len(body)} bytes of an image of {image.size}")
    if sha256(body).hexdigest() != image.content_sha256:
        raise SpoolFileError("the image is damaged")
    return image, body


def _description(fields: bytes) -> SpooledImage:
    """Of a description as it was written: by us, or by somebody who knows how to hash."""
    try:
        image = SpooledImage(**json.loads(fields))
        key = key_from_target(image.path.encode("ascii"))
    except (ValueError, TypeError, AttributeError) as exc:
        raise SpoolFileError("its description is another program's") from exc
    if key != image.key:
        raise SpoolFileError("its key is not that of its path")
    return image
