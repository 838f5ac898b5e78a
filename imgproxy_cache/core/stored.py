"""Answers made of what a store has kept: others may write there, and bytes get lost."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from hashlib import sha256
from typing import NamedTuple

from imgproxy_cache.core.freshness import lifetimes
from imgproxy_cache.core.hit import fields_of_stored_image
from imgproxy_cache.core.http_date import http_date
from imgproxy_cache.core.image import Image, seconds_from_words
from imgproxy_cache.core.kept import KeptAnswer
from imgproxy_cache.core.media_types import IMAGE_TYPES, media_type
from imgproxy_cache.errors import StoredImageError


def answer_from_store(
    image: Image,
    *,
    path_sha256: str,
    name: bytes,
    stale_while_revalidate_seconds: float,
    stale_if_error_seconds: float,
) -> KeptAnswer | None:
    """
    The answer, under a tier's name; None where the image does not say for how long it is fresh.

    That counts from when it was stored: what is stale by now is an answer too, and a restart
    changes none.  `path_sha256` is that of the path's
    :class:`~imgproxy_cache.core.key.StoredName`.  The seconds are the operator's, as for
    :func:`~imgproxy_cache.core.freshness.lifetimes`.

    Hashes the body (0.7 to 1 ms a megabyte): not in the event loop.

    Raises:
        StoredImageError: it is cut off, of another path, of another program, or no image
    """
    described = _described(image)
    stored_at = _stored_at(image, path_sha256, is_image=described.is_image)
    times = lifetimes(
        described.by_name,
        stored_at,
        stale_while_revalidate_seconds=stale_while_revalidate_seconds,
        stale_if_error_seconds=stale_if_error_seconds,
    )
    if times is None:
        return None
    return KeptAnswer(
        name=name,
        selection=(),
        status=200,
        fields=(*described.fields, (b"Date", http_date(int(stored_at)))),
        body=image.body,
        content_sha256=image.content_sha256,
        etag=None,
        lifetimes=times,
    )


class _Described(NamedTuple):
    """What an image's fields come to, without when it was stored."""

    is_image: bool
    fields: tuple[tuple[bytes, bytes], ...]
    by_name: Mapping[bytes, bytes]
    """That from which its lifetimes are read."""


def _described(image: Image) -> _Described:
    texts = (image.content_type, image.cache_control, image.content_disposition)
    # Most images have the same; others may write to a store: 256 of 8 KB would be megabytes.
    is_short = sum(map(len, filter(None, texts))) <= 512
    return (_read_fields if is_short else _read_fields.__wrapped__)(*texts)


@lru_cache(maxsize=256)
def _read_fields(
    content_type: str, cache_control: str | None, content_disposition: str | None
) -> _Described:
    kind = media_type(content_type.encode("latin-1", "replace"))
    return _Described(
        # An SVG is one too: its Content-Security-Policy keeps its scripts from running.
        kind in IMAGE_TYPES,
        fields_of_stored_image(content_type, cache_control, content_disposition),
        {b"cache-control": (cache_control or "").encode("latin-1", "replace")},
    )


def _stored_at(image: Image, path_sha256: str, *, is_image: bool) -> float:
    """When the image was stored, in seconds since the epoch, if it is what was stored."""
    if not (image.path_sha256 and image.content_sha256):
        raise StoredImageError("another program has put it there: it has no hashes")
    if image.path_sha256 != path_sha256:
        raise StoredImageError("it is the image of another path")
    if not is_image:
        raise StoredImageError(f"its type is no image's: {image.content_type[:100]!a}")
    if image.content_sha256 != sha256(image.body).hexdigest():
        raise StoredImageError(f"its {len(image.body)} bytes are not those that were stored")
    try:
        return seconds_from_words(image.stored_at)
    except ValueError as exc:
        raise StoredImageError(f"when it was stored is no time: {image.stored_at[:100]!a}") from exc
