"""
Requests for objects of S3, signed as Signature Version 4 has it.

Source: https://docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-header-based-auth.html
"""

from __future__ import annotations

import hmac
from datetime import UTC, datetime
from functools import lru_cache
from hashlib import sha256
from typing import Final
from urllib.parse import quote

_EMPTY: Final = sha256(b"").hexdigest().encode("ascii")
_TERMINATOR: Final = b"aws4_request"
_SERVICE: Final = b"s3"


class GetSigner:
    """
    Makes whole requests for objects, with one pair of keys: 5 us each.

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
        fields = [
            (b"host", host.encode("ascii")),
            (b"x-amz-content-sha256", _EMPTY),
            (b"x-amz-date", b"%b"),
        ]
        if token:
            fields.append((b"x-amz-security-token", token.encode("ascii").replace(b"%", b"%%")))
        names = b";".join(name for name, _ in fields)
        signed = b"".join(b"%b:%b\n" % field for field in fields)
        sent = b"".join(b"%b: %b\r\n" % field for field in fields)
        # What is left to fill in: path and time; then scope and signature.
        self._canonical_request = b"GET\n%%b\n\n%b\n%b\n%b" % (signed, names, _EMPTY)
        self._request = (
            b"GET %%b HTTP/1.1\r\n%bAuthorization: AWS4-HMAC-SHA256 Credential=%b/%%b,"
            b" SignedHeaders=%b, Signature=%%b\r\nUser-Agent: imgproxy-cache\r\n\r\n"
        ) % (sent, access_key_id.encode("ascii").replace(b"%", b"%%"), names)
        self._region = region.encode("ascii")
        self._secret = b"AWS4" + secret_access_key.encode("ascii")
        self._day = b""
        self._scope = b""
        self._key = b""

    def request(self, path: bytes, now: float) -> bytes:
        """The request for what is under a path of :func:`object_path`, at this time."""
        stamp = _stamp(int(now))
        if not stamp.startswith(self._day) or not self._day:
            self._begin_day(stamp[:8])
        canonical_request = self._canonical_request % (path, stamp)
        digest = sha256(canonical_request).hexdigest().encode("ascii")
        to_sign = b"AWS4-HMAC-SHA256\n%b\n%b\n%b" % (stamp, self._scope, digest)
        signature = hmac.digest(self._key, to_sign, "sha256").hex().encode("ascii")
        return self._request % (path, stamp, self._scope, signature)

    def _begin_day(self, day: bytes) -> None:
        """A key is for one day."""
        scope = (day, self._region, _SERVICE, _TERMINATOR)
        key = self._secret
        for part in scope:
            key = hmac.digest(key, part, "sha256")
        self._key = key
        self._scope = b"/".join(scope)
        self._day = day


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
