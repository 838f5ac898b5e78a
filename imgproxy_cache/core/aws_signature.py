"""
Requests to S3, signed as Signature Version 4 has it.

Source: https://docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-header-based-auth.html
"""

from __future__ import annotations

import hmac
from datetime import UTC, datetime
from functools import lru_cache
from hashlib import sha256
from typing import TYPE_CHECKING, Final, NamedTuple
from urllib.parse import quote

from imgproxy_cache.core.headers import Headers

if TYPE_CHECKING:
    from hashlib import _Hash as _Sha256

NO_BODY: Final = sha256(b"").hexdigest().encode("ascii")
_TERMINATOR: Final = b"aws4_request"
_SERVICE: Final = b"s3"
_BLOCK_BYTES: Final = 64  # of SHA-256; its keys, being hashes, are shorter


class _Common(NamedTuple):
    """What the requests of one second have in common that have the same fields."""

    second: int
    lines: bytes
    canonical: bytes
    """What is signed of a request behind its method and path."""
    to_sign: bytes
    """What stands before the hash of that."""
    authorization: bytes
    """What stands before the signature."""
    inner: _Sha256
    outer: _Sha256
    """The hashes of HMAC (RFC 2104), which have read the key: half the work of :mod:`hmac`."""


class RequestSigner:
    """
    Makes the heads of requests, with one pair of keys: 3 us for a get, 6 for a put.  For many
    threads.

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
        self._of_day = (b"", b"", sha256(), sha256())
        self._of_gets = self._common(0, NO_BODY, [])

    def get(self, path: bytes, now: float) -> bytes:
        """The head of a request at this time, for a path of :func:`object_path` and a key."""
        common = self._of_gets
        second = int(now)
        if common.second != second:
            common = self._of_gets = self._common(second, NO_BODY, [])
        return _signed(b"GET", path, common)

    def put(
        self, path: bytes, now: float, *, body_sha256: bytes, signed: Headers, unsigned: bytes
    ) -> bytes:
        """
        The same for a request with a body.

        `signed` are `content-type` and `x-amz-*`, with values that have no space at their ends
        and none twice; `unsigned` are lines.
        """
        return _signed(b"PUT", path, self._common(int(now), body_sha256, signed), unsigned)

    def _common(self, second: int, body_sha256: bytes, signed: Headers) -> _Common:
        stamp = _stamp(second)
        fields = [
            *self._fields,
            (b"x-amz-content-sha256", body_sha256),
            (b"x-amz-date", stamp),
            *signed,
        ]
        fields.sort()
        names = b";".join([name for name, _ in fields])
        canonical = b"".join([b"%b:%b\n" % field for field in fields])
        scope, inner, outer = self._scope_and_key(stamp[:8])
        return _Common(
            second,
            b"".join([b"%b: %b\r\n" % field for field in fields]),
            b"%b\n%b\n%b" % (canonical, names, body_sha256),
            b"AWS4-HMAC-SHA256\n%b\n%b\n" % (stamp, scope),
            b"Authorization: AWS4-HMAC-SHA256 Credential=%b/%b, SignedHeaders=%b, Signature="
            % (self._access_key_id, scope, names),
            inner,
            outer,
        )

    def _scope_and_key(self, day: bytes) -> tuple[bytes, _Sha256, _Sha256]:
        """A key is for one day."""
        of_day = self._of_day
        if of_day[0] != day:
            parts = (day, self._region, _SERVICE, _TERMINATOR)
            key = self._secret
            for part in parts:
                key = hmac.digest(key, part, "sha256")
            block = key.ljust(_BLOCK_BYTES, b"\0")
            inner = sha256(bytes(byte ^ 0x36 for byte in block))
            outer = sha256(bytes(byte ^ 0x5C for byte in block))
            of_day = self._of_day = (day, b"/".join(parts), inner, outer)
        return of_day[1:]


def _signed(method: bytes, path: bytes, common: _Common, unsigned: bytes = b"") -> bytes:
    request = sha256(b"%b\n%b\n\n%b" % (method, path, common.canonical))
    inner, outer = common.inner.copy(), common.outer.copy()
    inner.update(common.to_sign + request.hexdigest().encode("ascii"))
    outer.update(inner.digest())
    return b"%b %b HTTP/1.1\r\n%b%b%b%b\r\nUser-Agent: imgproxy-cache\r\n\r\n" % (
        method,
        path,
        common.lines,
        unsigned,
        common.authorization,
        outer.hexdigest().encode("ascii"),
    )


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
