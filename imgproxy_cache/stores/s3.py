"""S3: a client of obstore's, and the way past it for what every image pays for."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from obstore.store import S3Store

from imgproxy_cache.core.location import S3Location
from imgproxy_cache.errors import StoreError
from imgproxy_cache.stores.s3_access import S3Access, is_reached_directly
from imgproxy_cache.stores.s3_writer import S3Writer

if TYPE_CHECKING:
    from obstore.store import ClientConfig, S3Credential

    from imgproxy_cache.stores.credentials import AwsCredentials

T = TypeVar("T")


class DirectS3(NamedTuple):
    """Connections of our own."""

    access: S3Access
    writer: S3Writer


async def open_s3(
    location: S3Location, seconds: Callable[[int], float]
) -> tuple[Callable[[ClientConfig], S3Store], DirectS3 | None]:
    """
    What makes clients of obstore's, and the way past it; None behind a proxy, to which it speaks.

    `seconds` says for how many bytes a put may take how long.

    Raises:
        StoreError: a certificate file is not there
    """
    credentials = await asyncio.to_thread(_aws_credentials)
    certificates = None
    if credentials.ca_bundle:
        certificates = _certificates(credentials.ca_bundle, location)
    open_client = partial(_client, location, certificates, _from_any_thread(credentials))
    if not is_reached_directly(location):
        return open_client, None
    access = S3Access(location, credentials, certificates)
    writer = S3Writer(access, _from_any_thread(access.renewed_signer), seconds=seconds)
    return open_client, DirectS3(access, writer)


def _client(
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
        # Many servers know only the plain DELETE.
        disable_bulk_delete=True,
        client_options=client_options,
        retry_config={"max_retries": 0},
        credential_provider=credentials,
    )


def _from_any_thread(ask: Callable[[], Awaitable[T]]) -> Callable[[], T]:
    """
    The same for a thread, which waits while this event loop asks.

    obstore asks an asynchronous provider of credentials from within an event loop only.
    """
    loop = asyncio.get_running_loop()

    async def asked() -> T:
        return await ask()

    def ask_and_wait() -> T:
        return asyncio.run_coroutine_threadsafe(asked(), loop).result()

    return ask_and_wait


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
