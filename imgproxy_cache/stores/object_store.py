"""
Images as objects of S3, Google Cloud Storage or Azure Blob Storage.

Over obstore, but for what every image of S3 pays for: see `s3_writer.py` and `s3_reader.py`.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Literal
from urllib.parse import quote

import obstore
from obstore.exceptions import AlreadyExistsError
from obstore.store import AzureStore, GCSStore, S3Store

from imgproxy_cache.core.image import Image, StoredObject
from imgproxy_cache.core.key import Key, object_name
from imgproxy_cache.core.location import AzureLocation, GcsLocation, S3Location
from imgproxy_cache.core.printable import fits_a_header
from imgproxy_cache.errors import StoredTooLargeError, StoreError
from imgproxy_cache.stores.failures import (
    ObjectLocation,
    error_of_opening,
    is_missing_key,
    lacks_conditional_writes,
    store_error,
)
from imgproxy_cache.stores.reader import Reader, Room, threaded_reader
from imgproxy_cache.stores.s3 import DirectS3, open_s3
from imgproxy_cache.stores.s3_access import CONNECT_SECONDS, IDLE_SECONDS
from imgproxy_cache.stores.s3_reader import s3_reader

if TYPE_CHECKING:
    from obstore import Attributes
    from obstore.store import ClientConfig

Client = S3Store | GCSStore | AzureStore

# What has a shorter time-out: a store that hangs is asked again soon after it is back.
SMALL_BYTES = 512 * 1024
CHECK_SECONDS = 5.0

# A file's name has up to 255 bytes, which take three times as many when they are escaped.
MOST_DISPOSITION_BYTES = 1024
# S3 takes 2 KB of metadata in 8 KB of header fields, a file system 4 KB of attributes, and not each
# store says that it is this image which it refuses.
MOST_FIELD_BYTES = 2048

# Fields of Image kept as metadata.  Azure wants names that C# would take: `path_sha256`.
METADATA = ("path_sha256", "content_sha256", "stored_at")

_KEY = re.compile(r"[0-9a-f]{32}")
_FILENAME = re.compile(r'(inline|attachment); filename="(.*)"')


class ObjectStore:
    """The :class:`~imgproxy_cache.stores.Store` in a bucket: one object for each image."""

    def __init__(
        self,
        client: Client,
        client_for_small: Client,
        location: ObjectLocation,
        s3: DirectS3 | None,
    ) -> None:
        self._client = client
        self._client_for_small = client_for_small
        self._location = location
        self._s3 = s3
        self._has_conditional_writes = True
        is_azure = isinstance(location, AzureLocation)
        self._metadata = [
            (field, field if is_azure else field.replace("_", "-")) for field in METADATA
        ]

    @property
    def place(self) -> str:
        return str(self._location)

    def put(self, key: Key, image: Image) -> None:
        name = self._name(key)
        try:
            self._put(key, name, image, "overwrite")
        except StoreError:
            raise
        except Exception as exc:
            raise self._error(exc, f"put {name}") from exc

    def create(self, key: Key, image: Image) -> bool:
        if not self._has_conditional_writes:
            return self._create_after_a_look(key, image)
        name = self._name(key)
        try:
            self._put(key, name, image, "create")
        except (AlreadyExistsError, FileExistsError):
            return False
        except StoreError:
            raise
        except Exception as exc:
            if not lacks_conditional_writes(exc):
                raise self._error(exc, f"put {name}") from exc
            self._has_conditional_writes = False
            return self._create_after_a_look(key, image)
        return True

    def _put(self, key: Key, name: str, image: Image, mode: Literal["create", "overwrite"]) -> None:
        attributes = self._attributes(name, image)
        if self._s3 is not None:
            self._s3.writer.put(key, image, attributes, only_new=mode == "create")
            return
        obstore.put(
            self._client if len(image.body) > SMALL_BYTES else self._client_for_small,
            name,
            image.body,
            attributes=attributes,
            mode=mode,
            use_multipart=False,
        )

    def _create_after_a_look(self, key: Key, image: Image) -> bool:
        if self.find(key) is not None:
            return False
        self.put(key, image)
        return True

    def find(self, key: Key) -> StoredObject | None:
        name = self._name(key)
        try:
            # obstore's `head` leaves the metadata out.
            found = obstore.get(self._client_for_small, name, options={"head": True})
        except FileNotFoundError as exc:
            if is_missing_key(str(exc)):
                return None
            raise self._error(exc, f"head {name}") from exc
        except Exception as exc:
            raise self._error(exc, f"head {name}") from exc
        ours = (found.attributes.get(name, "") for _, name in self._metadata)
        return StoredObject(found.meta["size"], found.meta["e_tag"], *ours)

    def get(self, key: Key, max_bytes: int | None = None) -> Image | None:
        name = self._name(key)
        try:
            found = obstore.get(self._client_for_small, name)
            size = found.meta["size"]
            if max_bytes is None or size <= max_bytes:
                return self._image(bytes(found.bytes()), found.attributes)
        except FileNotFoundError as exc:
            if is_missing_key(str(exc)):
                return None
            raise self._error(exc, f"get {name}") from exc
        except Exception as exc:
            raise self._error(exc, f"get {name}") from exc
        raise StoredTooLargeError(size, operation=f"get {name}", place=self.place)

    def reader(self, room: Room) -> AbstractAsyncContextManager[Reader]:
        return threaded_reader(self) if self._s3 is None else s3_reader(self._s3.access, room)

    async def delete(self, key: Key) -> None:
        name = self._name(key)
        try:
            await obstore.delete_async(self._client, name)
        except FileNotFoundError as exc:
            if not is_missing_key(str(exc)):
                raise self._error(exc, f"delete {name}") from exc
        except Exception as exc:
            raise self._error(exc, f"delete {name}") from exc

    async def check(self) -> None:
        """Lists a folder that is not there: proves address, bucket and credentials."""
        nowhere = object_name(self._location.folder, Key(".imgproxy-cache"))
        try:
            async with asyncio.timeout(CHECK_SECONDS):
                await obstore.list_with_delimiter_async(self._client, nowhere)
        except Exception as exc:
            raise self._error(exc, "check") from exc

    def _attributes(self, name: str, image: Image) -> Attributes:
        """
        The fields of an object.

        Raises:
            StoreError: of kind ``fields``: the store would refuse this image alone
        """
        attributes: Attributes = {"Content-Type": image.content_type}
        if image.cache_control is not None:
            attributes["Cache-Control"] = image.cache_control
        if image.content_disposition is not None:
            attributes["Content-Disposition"] = _stored_disposition(image.content_disposition)
        for field, its_name in self._metadata:
            attributes[its_name] = getattr(image, field)
        values = "".join(attributes.values())
        if len(values) > MOST_FIELD_BYTES:
            raise self._unfit(name, f"its fields have {len(values)} characters")
        # obstore panics at such a value, and prints the panic.
        if not fits_a_header(values):
            field, value = next(item for item in attributes.items() if not fits_a_header(item[1]))
            raise self._unfit(name, f"{field} holds what a header cannot: {value!a}")
        return attributes

    def _unfit(self, name: str, cause: str) -> StoreError:
        hint = "fix the header fields that imgproxy or the source sends with it"
        return StoreError(
            operation=f"put {name}", place=self.place, cause=cause, hint=hint, kind="fields"
        )

    def _image(self, body: bytes, attributes: Attributes) -> Image:
        path_sha256, content_sha256, stored_at = (
            attributes.get(name, "") for _, name in self._metadata
        )
        return Image(
            body=body,
            content_type=attributes.get("Content-Type", ""),
            cache_control=attributes.get("Cache-Control"),
            content_disposition=attributes.get("Content-Disposition"),
            path_sha256=path_sha256,
            content_sha256=content_sha256,
            stored_at=stored_at,
        )

    def _name(self, key: Key) -> str:
        """
        Of its object.

        Raises:
            StoreError: that is no key, and might lead elsewhere
        """
        if not _KEY.fullmatch(key):
            raise store_error(ValueError(f"no key: {key[:100]!a}"), "name", self._location)
        return object_name(self._location.folder, key)

    def _error(self, exc: Exception, operation: str) -> StoreError:
        return store_error(exc, operation, self._location)


@asynccontextmanager
async def open_object_store(
    location: ObjectLocation,
    *,
    timeout_seconds: float = 60,
    small_timeout_seconds: float = 10,
) -> AsyncIterator[ObjectStore]:
    """
    A store at the location; GCS and Azure find their credentials in their own variables.

    `timeout_seconds` is for a whole request, the image included, and the other for putting one
    of up to :data:`SMALL_BYTES`, and for getting any: what takes longer is of no use to a client
    that waits.  Nothing is dialled yet.
    """
    client_options: ClientConfig = {
        "connect_timeout": timedelta(seconds=CONNECT_SECONDS),
        "timeout": timedelta(seconds=timeout_seconds),
        "pool_idle_timeout": timedelta(seconds=IDLE_SECONDS),
        "user_agent": "imgproxy-cache",
    }

    def seconds(size: int) -> float:
        return small_timeout_seconds if size <= SMALL_BYTES else timeout_seconds

    try:
        open_client, s3 = await _opener(location, seconds)
        client = open_client(client_options)
        client_options["timeout"] = timedelta(seconds=small_timeout_seconds)
        client_for_small = open_client(client_options)
    except StoreError:
        raise
    except Exception as exc:
        raise error_of_opening(exc, location) from exc
    try:
        yield ObjectStore(client, client_for_small, location, s3)
    finally:
        if s3 is not None:
            s3.writer.close()


async def _opener(
    location: ObjectLocation, seconds: Callable[[int], float]
) -> tuple[Callable[[ClientConfig], Client], DirectS3 | None]:
    match location:
        case S3Location():
            return await open_s3(location, seconds)
        case GcsLocation():
            return partial(_gcs_client, location), None
        case AzureLocation():
            return partial(_azure_client, location), None


def _gcs_client(location: GcsLocation, client_options: ClientConfig) -> GCSStore:
    # An emulator's http:// comes from the operator's own variables; Google's is https://.
    client_options["allow_http"] = True
    return GCSStore(location.bucket, client_options=client_options, retry_config={"max_retries": 0})


def _azure_client(location: AzureLocation, client_options: ClientConfig) -> AzureStore:
    client_options["allow_http"] = True
    return AzureStore(
        location.container, client_options=client_options, retry_config={"max_retries": 0}
    )


def _stored_disposition(value: str) -> str:
    """
    The same Content-Disposition in ASCII: stores sign and keep nothing else.

    A name far longer than a file's is left out: it is in the path, anybody's to choose, and a store
    that has no room for it fails as one that is broken.
    """
    stored = value if value.isascii() else _ascii_disposition(value)
    return stored if len(stored) <= MOST_DISPOSITION_BYTES else _disposition_type(value)


def _ascii_disposition(value: str) -> str:
    """
    One beyond ASCII in the form for it.

    imgproxy puts the name of the source into `filename` as it is, and what comes as UTF-8 has
    been read as Latin-1.  Source: RFC 6266 section 5, RFC 8187 section 3.2.
    """
    with suppress(UnicodeError):
        value = value.encode("latin-1").decode("utf-8")
    found = _FILENAME.fullmatch(value)
    if found is None:
        return _disposition_type(value)
    return f"{found[1]}; filename*=UTF-8''{quote(found[2].replace('%22', chr(34)), safe='')}"


def _disposition_type(value: str) -> str:
    return "attachment" if value.lower().startswith("attachment") else "inline"
