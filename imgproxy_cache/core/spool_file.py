"""
One image in the spool, as one file that describes itself: see
:mod:`~imgproxy_cache.core.described_file`.

Whatever happens to such a file, reading it gives what was written or says what is
wrong with it.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from imgproxy_cache.core.described_file import (
    UnlikeWrittenError,
    check_body,
    described_head,
    read_description,
)
from imgproxy_cache.core.kept import KeptAnswer
from imgproxy_cache.core.kept_file import kept_description, kept_from_description
from imgproxy_cache.core.key import Key, key_from_target
from imgproxy_cache.errors import SpoolFileError

_FORMAT = b"imgproxy-cache-spool/1"


@dataclass(frozen=True, slots=True)
class SpooledImage:
    """
    All of an accepted image but its bytes; `accepted_at` is seconds since the epoch.

    `path` is what `key` is the MD5 of: see :func:`~imgproxy_cache.core.key.identity_from_target`.
    With `kept` (an answer without its body) the file can move into the disk tier later.
    """

    key: Key
    path: str
    content_type: str
    cache_control: str | None
    content_disposition: str | None
    size: int
    content_sha256: str
    accepted_at: float
    kept: KeptAnswer | None = None


_DESCRIBED = [field.name for field in fields(SpooledImage) if field.name != "kept"]


def spool_head(image: SpooledImage) -> bytes:
    """What stands in the file before the image."""
    description: dict[str, Any] = {name: getattr(image, name) for name in _DESCRIBED}
    if image.kept is not None:
        description["kept"] = kept_description(image.kept)
    return described_head(_FORMAT, description)


def read_spool_file(content: bytes) -> tuple[SpooledImage, bytes]:
    """
    The image and its bytes.

    Raises:
        SpoolFileError: the file is not whole, or not as it was written
    """
    try:
        description, body_at = read_description(content, (_FORMAT,))
        image = _described(description)
        body = content[body_at:]
        check_body(body, image.size, image.content_sha256)
    except UnlikeWrittenError as exc:
        raise SpoolFileError(str(exc)) from exc
    return image, body


def _described(description: Any) -> SpooledImage:
    """Of a description as it was written: by us, or by somebody who knows how to hash."""
    try:
        if (kept := description.pop("kept", None)) is not None:
            kept = kept_from_description(kept, description["content_sha256"])
        image = SpooledImage(**description, kept=kept)
        key = key_from_target(image.path.encode("ascii"))
    except (ValueError, TypeError, AttributeError, LookupError) as exc:
        raise SpoolFileError("its description is another program's") from exc
    if key != image.key:
        raise SpoolFileError("its key is not that of its path")
    return image
