"""Images as objects of S3, Google Cloud Storage or Azure Blob Storage, over obstore."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from datetime import timedelta
from functools import partial
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Literal
from urllib.parse import quote, urlsplit

import obstore
from obstore.exceptions import AlreadyExistsError
from obstore.store import AzureStore, GCSStore, S3Store

from imgproxy_cache.core.image import Image, StoredObject
from imgproxy_cache.core.key import Key, object_name
from imgproxy_cache.core.location import AzureLocation, GcsLocation, S3Location
from imgproxy_cache.errors import StoredTooLargeError, StoreError
from imgproxy_cache.stores.failures import (
    ObjectLocation,
    is_missing_key,
    lacks_conditional_writes,
    store_error,
)
from imgproxy_cache.stores.reader import Reader, threaded_reader
from imgproxy_cache.stores.s3_reader import is_reached_directly, s3_reader

if TYPE_CHECKING:
    from obstore import Attributes
    from obstore.store import ClientConfig, S3Credential

    from imgproxy_cache.stores.credentials import AwsCredentials

Client = S3Store | GCSStore | AzureStore
OpenReader = Callable[[], AbstractAsyncContextManager[Reader]]

# Shorter than the idle limit of any store we know (5 seconds with versitygw and azurite): nothing
# is tried twice here, so a connection that the other side is about to close must not be used.
POOL_IDLE = timedelta(seconds=4)
# What has a shorter time-out: a store that hangs is asked again soon after it is back.
SMALL_BYTES = 512 * 1024
CHECK_SECONDS = 5.0

# Fields of Image kept as metadata.  Azure wants names that C# would take: `path_sha256`.
METADATA = ("path_sha256", "content_sha256", "stored_at")

_FILENAME = re.compile(r'(inline|attachment); filename="(.*)"')


class ObjectStore:
    """The :class:`~imgproxy_cache.stores.Store` in a bucket: one object for each image."""

    def __init__(
        self,
        client: Client,
        client_for_small: Client,
        location: ObjectLocation,
        open_reader: OpenReader | None,
    ) -> None:
        self._client = client
        self._client_for_small = client_for_small
        self._location = location
        self._open_reader = open_reader
        self._has_conditional_writes = True
        is_azure = isinstance(location, AzureLocation)
        self._metadata = [
            (field, field if is_azure else field.replace("_", "-")) for field in METADATA
        ]

    @property
    def place(self) -> str:
        return str(self._location)

    def put(self, key: Key, image: Image) -> None:
        name = object_name(self._location.folder, key)
        try:
            self._put(name, image, "overwrite")
        except Exception as exc:
            raise self._error(exc, f"put {name}") from exc

    def create(self, key: Key, image: Image) -> bool:
        if not self._has_conditional_writes:
            return self._create_after_a_look(key, image)
        name = object_name(self._location.folder, key)
        try:
            self._put(name, image, "create")
        except AlreadyExistsError:
            return False
        except Exception as exc:
            if not lacks_conditional_writes(exc):
                raise self._error(exc, f"put {name}") from exc
            self._has_conditional_writes = False
            return self._create_after_a_look(key, image)
        return True

    def _put(self, name: str, image: Image, mode: Literal["create", "overwrite"]) -> None:
        obstore.put(
            self._client if len(image.body) > SMALL_BYTES else self._client_for_small,
            name,
            image.body,
            attributes=self._attributes(image),
            mode=mode,
            use_multipart=False,
        )

    def _create_after_a_look(self, key: Key, image: Image) -> bool:
        if self.find(key) is not None:
            return False
        self.put(key, image)
        return True

    def find(self, key: Key) -> StoredObject | None:
        name = object_name(self._location.folder, key)
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
        name = object_name(self._location.folder, key)
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

    def reader(self) -> AbstractAsyncContextManager[Reader]:
        return threaded_reader(self) if self._open_reader is None else self._open_reader()

    async def delete(self, key: Key) -> None:
        name = object_name(self._location.folder, key)
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

    def _attributes(self, image: Image) -> Attributes:
        attributes: Attributes = {"Content-Type": image.content_type}
        if image.cache_control is not None:
            attributes["Cache-Control"] = image.cache_control
        if image.content_disposition is not None:
            attributes["Content-Disposition"] = _ascii_disposition(image.content_disposition)
        for field, name in self._metadata:
            attributes[name] = getattr(image, field)
        # obstore panics at such a value, and prints the panic.
        if not _fits_a_header("".join(attributes.values())):
            name, value = next(
                (name, value) for name, value in attributes.items() if not _fits_a_header(value)
            )
            raise ValueError(f"{name} holds what a header cannot: {value!a}")
        return attributes

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

    def _error(self, exc: Exception, operation: str) -> StoreError:
        return store_error(exc, operation, self._location)


@asynccontextmanager
async def open_object_store(
    location: ObjectLocation,
    *,
    connect_timeout_seconds: float = 5,
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
        "connect_timeout": timedelta(seconds=connect_timeout_seconds),
        "timeout": timedelta(seconds=timeout_seconds),
        "pool_idle_timeout": POOL_IDLE,
        "user_agent": "imgproxy-cache",
    }
    try:
        open_client, open_reader = await _openers(location)
        client = open_client(client_options)
        client_options["timeout"] = timedelta(seconds=small_timeout_seconds)
        client_for_small = open_client(client_options)
    except StoreError:
        raise
    except Exception as exc:
        raise store_error(exc, "open", location) from exc
    yield ObjectStore(client, client_for_small, location, open_reader)


async def _openers(
    location: ObjectLocation,
) -> tuple[Callable[[ClientConfig], Client], OpenReader | None]:
    """What opens a client of obstore's, and a reader where there is one of our own."""
    match location:
        case S3Location():
            return await _s3_openers(location)
        case GcsLocation():
            return partial(_gcs_client, location), None
        case AzureLocation():
            return partial(_azure_client, location), None


async def _s3_openers(
    location: S3Location,
) -> tuple[Callable[[ClientConfig], S3Store], OpenReader | None]:
    credentials = await asyncio.to_thread(_aws_credentials)
    certificates = None
    if credentials.ca_bundle:
        certificates = _certificates(credentials.ca_bundle, location)
    for_threads = _for_any_thread(credentials, asyncio.get_running_loop())
    open_client = partial(_s3_client, location, certificates, for_threads)
    if not is_reached_directly(location):
        return open_client, None
    return open_client, partial(s3_reader, location, credentials, certificates)


def _s3_client(
    location: S3Location,
    certificates: bytes | None,
    credentials: Callable[[], S3Credential],
    client_options: ClientConfig,
) -> S3Store:
    client_options["allow_http"] = location.endpoint.startswith("http://")
    if certificates is not None:
        client_options["root_certificate"] = certificates
    return S3Store(
        location.bucket,
        # Twice, and signing on: obstore reads variables of its own, which would go first.
        endpoint=location.endpoint,
        aws_endpoint_url_s3=location.endpoint,
        skip_signature=False,
        region=location.region,
        virtual_hosted_style_request=False,
        unsigned_payload=_nobody_listens_to(location.endpoint),
        # Many servers know only the plain DELETE.
        disable_bulk_delete=True,
        client_options=client_options,
        retry_config={"max_retries": 0},
        credential_provider=credentials,
    )


def _for_any_thread(
    credentials: AwsCredentials, loop: asyncio.AbstractEventLoop
) -> Callable[[], S3Credential]:
    """
    The credentials for the thread that needs them, which waits while the event loop finds them.

    obstore asks an asynchronous provider from within an event loop only.
    """

    def ask() -> S3Credential:
        return asyncio.run_coroutine_threadsafe(credentials(), loop).result()

    return ask


def _nobody_listens_to(endpoint: str) -> bool:
    """
    Whether what is sent there needs no hash in its signature: under TLS, or on this machine.

    It would cost 25 to 40 us for 30 KB, as much as all that we add to obstore's own work.
    """
    url = urlsplit(endpoint)
    if url.scheme == "https" or url.hostname == "localhost":
        return True
    try:
        return ip_address(url.hostname or "").is_loopback
    except ValueError:
        return False


def _aws_credentials() -> AwsCredentials:
    """Imported where it is needed: the AWS libraries take 30 MB and half a second."""
    from imgproxy_cache.stores.credentials import AwsCredentials  # noqa: PLC0415

    return AwsCredentials()


def _certificates(ca_bundle: str, location: S3Location) -> bytes:
    try:
        return Path(ca_bundle).read_bytes()
    except OSError as exc:
        raise StoreError(
            operation="open",
            place=str(location),
            cause=f"{ca_bundle}: {exc.strerror}",
            hint="fix AWS_CA_BUNDLE",
            kind="tls",
        ) from exc


def _gcs_client(location: GcsLocation, client_options: ClientConfig) -> GCSStore:
    # An emulator's http:// comes from the operator's own variables; Google's is https://.
    client_options["allow_http"] = True
    return GCSStore(location.bucket, client_options=client_options, retry_config={"max_retries": 0})


def _azure_client(location: AzureLocation, client_options: ClientConfig) -> AzureStore:
    client_options["allow_http"] = True
    return AzureStore(
        location.container, client_options=client_options, retry_config={"max_retries": 0}
    )


def _fits_a_header(value: str) -> bool:
    return value.isascii() and value.isprintable()


def _ascii_disposition(value: str) -> str:
    """
    The same Content-Disposition in ASCII: stores sign and keep nothing else.

    imgproxy puts the name of the source into `filename` as it is, and what comes as UTF-8 has
    been read as Latin-1.  Source: RFC 6266 section 5, RFC 8187 section 3.2.
    """
    if value.isascii():
        return value
    with suppress(UnicodeError):
        value = value.encode("latin-1").decode("utf-8")
    found = _FILENAME.fullmatch(value)
    if found is None:
        return "attachment" if value.lower().startswith("attachment") else "inline"
    return f"{found[1]}; filename*=UTF-8''{quote(found[2].replace('%22', chr(34)), safe='')}"
