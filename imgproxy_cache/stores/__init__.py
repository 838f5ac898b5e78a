"""Places where images are kept: the port that all of them fulfil, and the way to open one."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from typing import Protocol

from imgproxy_cache.core.image import Image, StoredObject
from imgproxy_cache.core.key import Key
from imgproxy_cache.core.location import FolderLocation, StoreLocation
from imgproxy_cache.stores.reader import Reader, Room


class Store(Protocol):
    """
    Keeps images by cache key.

    An image is visible whole or not at all: after a crash in the middle of
    :meth:`put`, :meth:`get` returns the previous image or None.  Putting a key
    twice keeps the later image.  Safe to use from many tasks and threads at once,
    and from many processes.

    What images pass through (:meth:`put`, :meth:`create`, :meth:`find`, :meth:`get`) blocks, and is
    called in threads: over obstore that is 55 us of CPU where an awaited put would be 80, and 80
    where an awaited get would be 100.  It ends by itself, with an error of kind ``timeout`` if need
    be.

    Every method raises :class:`~imgproxy_cache.errors.StoreError` when the
    store itself fails: a missing image is no failure, a missing bucket is one
    (of kind ``bucket``).  Nothing is tried twice, but what was sent over a connection that the
    store was closing.
    """

    @property
    def place(self) -> str:
        """The store as printed: ``s3://images/processed``; without credentials."""

    def put(self, key: Key, image: Image) -> None:
        """Keeps the image under the key; when this returns, every reader finds it."""

    def create(self, key: Key, image: Image) -> bool:
        """
        As :meth:`put`, if there is nothing under the key; else changes nothing, and is False.

        Of several that create the same key at once, one does (where the store has conditional
        writes; where it has not, the last one stays).
        """

    def find(self, key: Key) -> StoredObject | None:
        """What is under the key, without its bytes."""

    def get(self, key: Key, max_bytes: int | None = None) -> Image | None:
        """
        The image as it was put, or None.

        One of more than `max_bytes`, which others may have put there, is not read: StoreError of
        kind ``too-large``.

        Hashes and time are empty where another program stored the object.
        """

    async def delete(self, key: Key) -> None:
        """Forgets the image, if there is one."""

    async def check(self) -> None:
        """Proves that the store can be reached and used, within 5 seconds and for little."""


class ReadableStore(Store, Protocol):
    """A store that clients are given images of."""

    def reader(self, room: Room) -> AbstractAsyncContextManager[Reader]:
        """What gets them for the event loop, as :meth:`get` does, into memory that is there."""


def open_store(location: StoreLocation) -> AbstractAsyncContextManager[ReadableStore]:
    """
    The store at the location; nothing is dialled before its first use.

    Credentials that are missing or wrong make its methods fail, not its opening.

    Raises: StoreError where the store cannot even be described (a certificate file that is
    not there).
    """
    # Each import costs memory and start-up time that only its own kind of store has to pay.
    if isinstance(location, FolderLocation):
        from imgproxy_cache.stores.folder import open_folder  # noqa: PLC0415

        return open_folder(location)
    from imgproxy_cache.stores.object_store import open_object_store  # noqa: PLC0415

    return open_object_store(location)
