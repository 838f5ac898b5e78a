"""
Requests to S3, signed as Signature Version 4 has it.

Source: https://docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-header-based-auth.html
"""

from __future__ import annotations

import hmac
from datetime import UTC, datetime
from functools import lru_cache
from hashlib import sha256
from typing import Final
from urllib.parse import quote

from imgproxy_cache.core.headers import Headers

NO_BODY: Final = sha256(b"").hexdigest().encode("ascii")
_TERMINATOR: Final = b"aws4_request"
_SERVICE: Final = b"s3"


class RequestSigner:
    """
    Makes the heads of requests, with one pair of keys: 6 us each.  For many threads.

    `host` is that of the endpoint, with its port if that is not the scheme's own; `token` belongs
    to keys that expire.
    """

    def __init__(
        self,
        *,
        host: str,
        region: str,
        access_key_id: str,
        secret_access_key: str,
        token: str | None,
    ) -> None:
        self._fields: Headers = [(b"host", host.encode("ascii"))]
        if token:
            self._fields.append((b"x-amz-security-token", token.encode("ascii")))
        self._access_key_id = access_key_id.encode("ascii")
        self._secret = b"AWS4" + secret_access_key.encode("ascii")
        self._region = region.encode("ascii")
        self._of_day = (b"", b"", b"")

    def request(
        self,
        method: bytes,
        path: bytes,
        now: float,
        *,
        body_sha256: bytes = NO_BODY,
        signed: Headers | None = None,
        unsigned: bytes = b"",
    ) -> bytes:
        """
        The head of a request at this time, for a path of :func:`object_path` and a key.

        `signed` are `content-type` and `x-amz-*`, with values that have no space at their ends
        and none twice; `unsigned` are lines.
        """
        stamp = _stamp(int(now))
        fields = [
            *self._fields,
            (b"x-amz-content-sha256", body_sha256),
            (b"x-amz-date", stamp),
            *(signed or ()),
        ]
        fields.sort()
        names = b";".join([name for name, _ in fields])
        canonical = b"".join([b"%b:%b\n" % field for field in fields])
        request = b"%b\n%b\n\n%b\n%b\n%b" % (method, path, canonical, names, body_sha256)
        scope, key = self._scope_and_key(stamp[:8])
        digest = sha256(request).hexdigest().encode("ascii")
        to_sign = b"AWS4-HMAC-SHA256\n%b\n%b\n%b" % (stamp, scope, digest)
        signature = hmac.digest(key, to_sign, "sha256").hex().encode("ascii")
        return (
            b"%b %b HTTP/1.1\r\n%b%bAuthorization: AWS4-HMAC-SHA256 Credential=%b/%b,"
            b" SignedHeaders=%b, Signature=%b\r\nUser-Agent: imgproxy-cache\r\n\r\n"
        ) % (
            method,
            path,
            b"".join([b"%b: %b\r\n" % field for field in fields]),
            unsigned,
            self._access_key_id,
            scope,
            names,
            signature,
        )

    def _scope_and_key(self, day: bytes) -> tuple[bytes, bytes]:
        """A key is for one day."""
        of_day = self._of_day
        if of_day[0] != day:
            parts = (day, self._region, _SERVICE, _TERMINATOR)
            key = self._secret
            for part in parts:
                key = hmac.digest(key, part, "sha256")
            of_day = self._of_day = (day, b"/".join(parts), key)
        return of_day[1:]


def object_path(prefix: str, bucket: str, folder: str) -> bytes:
    """
    What stands before the keys of a folder, slash included: in path style, ready for the wire.

    `prefix` is the endpoint's own path, as it stands in its URL.
    """
    parts = [bucket, *folder.strip("/").split("/")] if folder.strip("/") else [bucket]
    return f"{prefix.rstrip('/')}/{'/'.join(quote(part, safe='~') for part in parts)}/".encode()


@lru_cache(maxsize=4)
def _stamp(seconds: int) -> bytes:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y%m%dT%H%M%SZ").encode("ascii")
