"""Storing an image without asking for, or writing, what the store has already."""

from __future__ import annotations

import time
from collections import OrderedDict
from datetime import datetime
from hashlib import md5

from imgproxy_cache.core.image import Image, StoredObject
from imgproxy_cache.core.key import Key
from imgproxy_cache.stores import Store

RECENT_SECONDS = 60.0
RECENT_ITEMS = 10_000

_Identity = tuple[str, str]


class Dedup:
    """
    Puts images into a store, each content once.

    The first put of a key is a conditional create (``If-None-Match: *``): in the
    usual case one request in all.  Where there is an object already, its hash
    decides.  What was stored in the last minute is not asked for again, which is
    what a page with many visitors and a broken cache would do.

    To be called from many threads, by one at a time for each key.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._recent: OrderedDict[Key, tuple[_Identity, float]] = OrderedDict()

    def put(self, key: Key, image: Image, now: float) -> bool:
        """
        Have the store keep the image; False if it had the same already.

        An image that has waited does not take the place of one that is newer (`now` is in
        seconds since the epoch).

        Raises:
            StoreError: the store failed
        """
        was_recent = self._recently_stored(key)
        if was_recent == (image.path_sha256, image.content_sha256):
            return False
        if was_recent is not None:
            self._store.put(key, image)
        elif not self._store.create(key, image):
            found = self._store.find(key)
            if found is not None and _is_same(found, image):
                self._remember(key, image)
                return False
            if found is not None and _is_late(image, found, now):
                return False
            self._store.put(key, image)
        self._remember(key, image)
        return True

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


def _is_late(image: Image, found: StoredObject, now: float) -> bool:
    """
    It has waited in a spool while a newer one was stored by somebody else.

    One that has not waited is the newest there is, whatever the clocks of others say.
    """
    waited = now - datetime.fromisoformat(image.stored_at).timestamp()
    return waited > RECENT_SECONDS and found.stored_at > image.stored_at
