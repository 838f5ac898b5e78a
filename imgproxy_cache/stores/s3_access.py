"""Where a bucket is, and with which keys it is asked: what reader and writer have in common."""

from __future__ import annotations

import ssl
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import TYPE_CHECKING
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from imgproxy_cache.core.aws_signature import RequestSigner, object_path
from imgproxy_cache.core.key import Key
from imgproxy_cache.core.location import S3Location
from imgproxy_cache.core.printable import fits_a_header

if TYPE_CHECKING:
    from obstore.store import S3Credential

    Credentials = Callable[[], Awaitable[S3Credential]]

# As obstore has it: keys are asked for again so long before they expire.
RENEWED_BEFORE = timedelta(minutes=5)
CONNECT_SECONDS = 5.0
# Shorter than the idle limit of any store we know (5 seconds with versitygw and azurite): a
# connection that the other side is about to close must not be used.
IDLE_SECONDS = 4.0
# Of an answer that is no image, as much is read: what S3 says of an error has some hundred bytes.
MOST_ERROR_BYTES = 64 * 1024


class S3Access:
    """
    The address of a bucket, and its keys, which are asked for when they are needed.

    `certificates` are PEM: who may sign the endpoint's beside the system's authorities.
    """

    def __init__(
        self, location: S3Location, credentials: Credentials, certificates: bytes | None
    ) -> None:
        url = urlsplit(location.endpoint)
        is_tls = url.scheme == "https"
        usual_port = 443 if is_tls else 80
        self.location = location
        self.host = url.hostname or ""
        self.port = url.port or usual_port
        self.tls = _tls_context(certificates) if is_tls else None
        in_brackets = f"[{self.host}]" if ":" in self.host else self.host
        self._host_field = in_brackets if self.port == usual_port else f"{in_brackets}:{self.port}"
        self._folder = object_path(url.path, location.bucket, location.folder)
        self._credentials = credentials
        self._signer: RequestSigner | None = None
        self._renewed_at = float("inf")

    def path(self, key: Key) -> bytes:
        """Of an object, as it stands in a request."""
        return self._folder + key.encode("ascii")

    def signer(self, now: float) -> RequestSigner | None:
        """None if keys have to be asked for first, at this time in seconds since the epoch."""
        return self._signer if now < self._renewed_at else None

    async def renewed_signer(self) -> RequestSigner:
        """
        One with keys that were asked for now.

        Raises:
            LookupError: there are none, or such that no header can hold them
        """
        keys = await self._credentials()
        said = keys["access_key_id"] + keys["secret_access_key"] + (keys["token"] or "")
        if not fits_a_header(said):
            raise LookupError("AWS credentials are to be ASCII, without a line's end")
        signer = RequestSigner(
            host=self._host_field,
            region=self.location.region,
            access_key_id=keys["access_key_id"],
            secret_access_key=keys["secret_access_key"],
            token=keys["token"],
        )
        expires_at = keys["expires_at"]
        self._signer = signer
        self._renewed_at = (
            float("inf") if expires_at is None else (expires_at - RENEWED_BEFORE).timestamp()
        )
        return signer


def is_reached_directly(location: S3Location) -> bool:
    """False where the environment names a proxy on the way there: to those obstore speaks."""
    url = urlsplit(location.endpoint)
    proxies = getproxies()
    is_named = url.scheme in proxies or "all" in proxies
    return not is_named or bool(proxy_bypass(url.hostname or ""))


def _tls_context(certificates: bytes | None) -> ssl.SSLContext:
    context = ssl.create_default_context()
    # As obstore has it, and Python before 3.13: what `openssl req -x509` makes for an authority of
    # one's own says nothing of its usage, which that refuses.
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    if certificates is not None:
        # Comments may be of any language, and Python takes ASCII only.
        context.load_verify_locations(cadata=certificates.decode("ascii", "ignore"))
    return context
