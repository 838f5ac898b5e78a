"""Storing an image without asking for, or writing, what the store has already."""

from __future__ import annotations

import time
from collections import OrderedDict
from datetime import datetime
from enum import Enum, auto
from hashlib import md5

from imgproxy_cache.core.freshness import read_cache_control
from imgproxy_cache.core.image import Image, StoredObject, seconds_from_words
from imgproxy_cache.core.key import Key
from imgproxy_cache.stores import Store

RECENT_SECONDS = 60.0
RECENT_ITEMS = 10_000

_Identity = tuple[str, str]


class Put(Enum):
    """What the store has, after an image was put into it."""

    NEW = auto()
    """The image, written now."""
    SAME = auto()
    """The image, as it had before."""
    LATER = auto()
    """Another one, which came after this one."""


class Dedup:
    """
    Puts images into a store, each content once.

    The first put of a key is a conditional create (``If-None-Match: *``): in the
    usual case one request in all.  Where there is an object already, its hash
    decides.  What was stored in the last minute is not asked for again, which is
    what a page with many visitors and a broken cache would do.

    With `keeps_fresh` an object is read back, and judged by its `stored_at`: what has used up
    half of its lifetime is put again, though it is the same.

    To be called from many threads, by one at a time for each key.
    """

    def __init__(self, store: Store, *, keeps_fresh: bool = False) -> None:
        self._store = store
        self._keeps_fresh = keeps_fresh
        self._recent: OrderedDict[Key, tuple[_Identity, float]] = OrderedDict()

    def put(self, key: Key, image: Image, now: float, *, replaces: bool = False) -> Put:
        """
        Have the store keep the image; with `replaces` whatever it says that it has.

        An image that has waited does not take the place of one that is newer (`now` is in
        seconds since the epoch).

        Raises:
            StoreError: the store failed
        """
        was_recent = None if replaces else self._recently_stored(key)
        if was_recent == (image.path_sha256, image.content_sha256):
            return Put.SAME
        if was_recent is not None or replaces:
            self._store.put(key, image)
        elif not self._store.create(key, image):
            found = self._store.find(key)
            if found is not None and _is_same(found, image):
                if not (self._keeps_fresh and _has_aged(found, image)):
                    self._remember(key, image)
                    return Put.SAME
            elif found is not None and _is_late(image, found, now):
                return Put.LATER
            self._store.put(key, image)
        self._remember(key, image)
        return Put.NEW

    def _recently_stored(self, key: Key) -> _Identity | None:
        identity, stored_at = self._recent.get(key, (None, 0.0))
        return identity if time.monotonic() - stored_at <= RECENT_SECONDS else None

    def _remember(self, key: Key, image: Image) -> None:
        # Each of these steps is one for other threads too.
        self._recent.pop(key, None)
        self._recent[key] = ((image.path_sha256, image.content_sha256), time.monotonic())
        if len(self._recent) > RECENT_ITEMS:
            self._recent.popitem(last=False)


def _is_same(found: StoredObject, image: Image) -> bool:
    """
    The same bytes, by our own hash or by an ETag, which S3 makes of the MD5; of the same path.

    Two paths can be made to have the same key, and another program's object says of no path.
    """
    if found.size != len(image.body) or found.path_sha256 != image.path_sha256:
        return False
    if found.content_sha256:
        return found.content_sha256 == image.content_sha256
    etag = (found.etag or "").strip('"')
    return etag == md5(image.body, usedforsecurity=False).hexdigest()


def _has_aged(found: StoredObject, image: Image) -> bool:
    """
    The object had used up half of its lifetime when the image came, or is never read back.

    By the image's time, and not by the clock: what is in a spool and was stored all the same, by
    a process that was killed, is as fresh as it can be.
    """
    lifetime = read_cache_control((image.cache_control or "").encode("ascii", "replace")).lifetime
    if not lifetime:
        return False  # none of the two would be read back
    if not found.content_sha256:
        return True
    try:
        used = seconds_from_words(image.stored_at) - seconds_from_words(found.stored_at)
    except ValueError:
        return True
    return used >= lifetime / 2


def _is_late(image: Image, found: StoredObject, now: float) -> bool:
    """
    It has waited in a spool while a newer one was stored by somebody else.

    One that has not waited is the newest there is, whatever the clocks of others say.
    """
    waited = now - datetime.fromisoformat(image.stored_at).timestamp()
    return waited > RECENT_SECONDS and found.stored_at > image.stored_at
