"""One attempt to store an image: what blocks of it, and is done in a thread."""

from __future__ import annotations

from time import perf_counter
from typing import NamedTuple

from imgproxy_cache.core.image import Image
from imgproxy_cache.uploads.dedup import Dedup, Put
from imgproxy_cache.uploads.pending import Pending, image_from_spool, image_from_upload
from imgproxy_cache.uploads.spool import read_spooled


class Stored(NamedTuple):
    """How many bytes, what the store has now, how long that took."""

    size: int
    put: Put
    seconds: float


def attempt(dedup: Dedup, pending: Pending, now: float) -> Stored:
    """
    Have the store keep the image.

    Raises:
        StoreError: the store failed
        SpoolFileError: its file is damaged
        OSError: its file cannot be read; FileNotFoundError if somebody has removed it
    """
    image = _image(pending)
    began = perf_counter()
    upload = pending.upload
    replaces = upload is not None and upload.replaces
    put = dedup.put(pending.key, image, now, replaces=replaces)
    return Stored(len(image.body), put, perf_counter() - began)


def _image(pending: Pending) -> Image:
    """Out of memory or spool; of what is only there, the event loop gets to know more by this."""
    upload = pending.upload
    if upload is not None:
        return image_from_upload(upload, pending.accepted_at)
    if pending.file is None:
        raise AssertionError("an image is in memory or in the spool")
    spooled, body = read_spooled(pending.file)
    pending.content_sha256 = spooled.content_sha256
    pending.path = spooled.path.encode("ascii")
    pending.kept = spooled.kept
    return image_from_spool(spooled, body)
