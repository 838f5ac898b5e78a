"""What a store keeps: the plain image and the few header fields that belong to it."""

from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from hashlib import sha256
from typing import NamedTuple


class Image(NamedTuple):
    """
    An image as stored.

    `path_sha256` is of the raw path: MD5 keys can be made to collide, and the
    path itself may be long and private.  `stored_at` is RFC 3339 in UTC.
    """

    body: bytes
    content_type: str
    cache_control: str | None
    content_disposition: str | None
    path_sha256: str
    content_sha256: str
    stored_at: str


@dataclass(frozen=True, slots=True)
class StoredObject:
    """
    What a store says of an image without giving it.

    `etag` is as the store has it, None where it has none.  Hashes and time (RFC 3339, UTC) are
    empty where another program stored the object.
    """

    size: int
    etag: str | None
    path_sha256: str
    content_sha256: str
    stored_at: str


def image_from_answer(
    *,
    path: bytes,
    body: bytes,
    content_type: str,
    cache_control: str | None,
    content_disposition: str | None,
    at: float,
) -> Image:
    """
    Make the image to store out of a whole answer, given at so many seconds since the epoch.

    Hashes the body (about 1 ms a megabyte): not on the request path.
    """
    return Image(
        body=body,
        content_type=content_type,
        cache_control=cache_control,
        content_disposition=content_disposition,
        path_sha256=sha256(path).hexdigest(),
        content_sha256=sha256(body).hexdigest(),
        stored_at=time_in_words(int(at)),
    )


@lru_cache(maxsize=64)  # many images have the same second, and strftime costs 5 us
def time_in_words(seconds: int) -> str:
    """Seconds since the epoch as RFC 3339 has them, in UTC."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def seconds_from_words(text: str) -> float:
    """
    The time that :func:`time_in_words` has written, as seconds since the epoch.

    Raises: ValueError for anything else
    """
    if not text.endswith("Z"):
        raise ValueError(f"no time in UTC: {text[:100]!a}")
    return datetime.fromisoformat(text).timestamp()
