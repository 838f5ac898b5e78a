"""
What may be stored.

Storing "any 200" would let anyone's `HEAD` overwrite a good image with nothing
and put error pages, other people's images and scripts into a public bucket.
An answer is stored only if every condition here holds.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import lru_cache
from hmac import compare_digest
from types import MappingProxyType

from imgproxy_cache.core.freshness import freshness, read_cache_control
from imgproxy_cache.core.headers import Headers
from imgproxy_cache.core.imgproxy_path import (
    ImgproxyPath,
    PathRules,
    signature_spelling_is_canonical,
)


class NotStored(StrEnum):
    """Why an answer is not stored, in the order in which the reasons are looked for."""

    __hash__ = str.__hash__  # Enum's own is a Python function, called a few times a request

    METHOD = "method"
    SECRET = "secret"  # noqa: S105 - the name of a reason
    AUTHORIZATION = "authorization"
    COOKIE = "cookie"
    RAW = "raw"
    EXPIRES = "expires"
    SPELLING = "spelling"
    STATUS = "status"
    SET_COOKIE = "set-cookie"
    CONTENT_TYPE = "content-type"
    SVG = "svg"
    CONTENT_ENCODING = "content-encoding"
    CACHE_CONTROL = "cache-control"
    SHORT_LIVED = "short-lived"
    FALLBACK = "fallback"
    VARY = "vary"
    EMPTY = "empty"
    TOO_LARGE = "too-large"
    INCOMPLETE = "incomplete"


@dataclass(frozen=True, slots=True)
class StorageRules:
    """
    What of the settings decides about storing.

    Fallback images look like any other.  Where they have a lifetime of their
    own, `fallback_max_age` is it; where a status of their own tells them, both
    fallback fields keep their defaults; where nothing does,
    `fallback_is_unmarked` and nothing at all is stored.
    """

    max_object_bytes: int = 52_428_800
    min_max_age_seconds: int = 3600
    store_svg: bool = False
    store_secret: bool = False
    secret: bytes | None = field(default=None, repr=False)
    """`IMGPROXY_SECRET`"""
    cookie_passthrough: bool = False
    formats_are_enforced: bool = False
    """One of `IMGPROXY_ENFORCE_*` is on: the path's format is not the last word."""
    settings_may_be_hidden: bool = False
    """imgproxy has settings from elsewhere, or runs elsewhere."""
    fallback_max_age: int | None = None
    fallback_is_unmarked: bool = False
    path_rules: PathRules = field(default=PathRules(), repr=False)


_ICON_TYPES = frozenset({b"image/x-icon", b"image/vnd.microsoft.icon"})
_HEIF_TYPES = frozenset({b"image/heic", b"image/heif"})  # imgproxy says image/heif for both
_TYPES_OF_FORMAT: Mapping[str, frozenset[bytes]] = MappingProxyType(
    {
        "jpeg": frozenset({b"image/jpeg"}),
        "png": frozenset({b"image/png"}),
        "webp": frozenset({b"image/webp"}),
        "avif": frozenset({b"image/avif"}),
        "gif": frozenset({b"image/gif"}),
        "jxl": frozenset({b"image/jxl"}),
        "heic": _HEIF_TYPES,
        "heif": _HEIF_TYPES,
        "tiff": frozenset({b"image/tiff"}),
        "bmp": frozenset({b"image/bmp"}),
        "ico": _ICON_TYPES,
        "svg": frozenset({b"image/svg+xml"}),
    }
)
_STORABLE_TYPES = frozenset().union(*_TYPES_OF_FORMAT.values())


def why_not_stored(
    rules: StorageRules,
    *,
    method: str,
    path: ImgproxyPath | None,
    request_headers: Headers,
    status: int,
    fields: Mapping[bytes, bytes],
    now: float,
) -> NotStored | None:
    """
    The first reason not to store an answer of which the head is known; None if there is none.

    `request_headers` are those that imgproxy was sent, names in lower case;
    `fields` the answer's by lower-case name, repeated ones joined by commas.
    None is not yet a yes: the body has to pass :func:`why_not_stored_whole`.
    """
    return (
        _why_not_by_request(rules, method, request_headers)
        or _why_not_by_path(rules, path)
        or _why_not_by_content(rules, path, status, fields)
        or _why_not_by_lifetime(rules, fields, now)
        or _why_not_by_vary(rules, path, fields)
        or _why_not_by_length(rules, fields)
        # imgproxy served what we cannot read as a path: it may have any option.
        or (NotStored.SPELLING if path is None else None)
    )


def why_not_stored_whole(rules: StorageRules, *, size: int, complete: bool) -> NotStored | None:
    """
    The reason not to store a body that has ended after `size` bytes, None if there is none.

    `complete` says that the end is proved: a clean end, and the announced
    length reached or the chunked coding finished.  A body that ends with the
    connection proves nothing.
    """
    if size == 0:
        return NotStored.EMPTY
    if size > rules.max_object_bytes:
        return NotStored.TOO_LARGE
    return None if complete else NotStored.INCOMPLETE


def _why_not_by_request(
    rules: StorageRules, method: str, request_headers: Headers
) -> NotStored | None:
    if method != "GET":
        return NotStored.METHOD
    # A public bucket would bypass the secret.
    if rules.secret is not None and not rules.store_secret:
        return NotStored.SECRET
    has_cookies = False
    for name, value in request_headers:
        if name == b"authorization" and not _is_the_secret(value, rules.secret):
            return NotStored.AUTHORIZATION
        if name == b"cookie":
            has_cookies = True
    return NotStored.COOKIE if has_cookies and rules.cookie_passthrough else None


def _is_the_secret(authorization: bytes, secret: bytes | None) -> bool:
    return secret is not None and compare_digest(authorization, b"Bearer " + secret)


def _why_not_by_path(rules: StorageRules, path: ImgproxyPath | None) -> NotStored | None:
    if path is None:
        return None
    if path.is_raw:
        return NotStored.RAW
    # Access control that a copy would outlive.
    if path.expires:
        return NotStored.EXPIRES
    if rules.path_rules.keys and not signature_spelling_is_canonical(path, rules.path_rules):
        return NotStored.SPELLING
    return None


def _why_not_by_content(
    rules: StorageRules, path: ImgproxyPath | None, status: int, fields: Mapping[bytes, bytes]
) -> NotStored | None:
    if status != 200 or b"content-range" in fields:
        return NotStored.STATUS
    if b"set-cookie" in fields:
        return NotStored.SET_COOKIE
    media_type = _media_type(fields.get(b"content-type", b""))
    pinned = None if path is None else path.format
    allowed = _STORABLE_TYPES if pinned is None else _TYPES_OF_FORMAT.get(pinned, ())
    if media_type not in allowed:
        return NotStored.CONTENT_TYPE
    # A bucket's URL cannot carry the CSP that keeps an SVG's scripts from running.
    if media_type == b"image/svg+xml" and not rules.store_svg:
        return NotStored.SVG
    return NotStored.CONTENT_ENCODING if b"content-encoding" in fields else None


def _why_not_by_lifetime(
    rules: StorageRules, fields: Mapping[bytes, bytes], now: float
) -> NotStored | None:
    cache_control = read_cache_control(fields.get(b"cache-control", b""))
    seconds = freshness(fields, now)
    if cache_control.forbids_storing or seconds is None or seconds <= 0:
        return NotStored.CACHE_CONTROL
    if seconds < rules.min_max_age_seconds:
        return NotStored.SHORT_LIVED
    if rules.fallback_is_unmarked:
        return NotStored.FALLBACK
    if cache_control.max_age is not None and cache_control.max_age == rules.fallback_max_age:
        return NotStored.FALLBACK
    return None


def _why_not_by_vary(
    rules: StorageRules, path: ImgproxyPath | None, fields: Mapping[bytes, bytes]
) -> NotStored | None:
    if b"vary" not in fields:
        return None
    named = _field_names(fields[b"vary"])
    accept_is_fixed_by_the_key = (
        path is not None
        and path.format is not None
        and not rules.formats_are_enforced
        and not rules.settings_may_be_hidden
    )
    fixed = {b"accept"} if accept_is_fixed_by_the_key else set()
    return None if named <= fixed else NotStored.VARY


def _why_not_by_length(rules: StorageRules, fields: Mapping[bytes, bytes]) -> NotStored | None:
    announced = fields.get(b"content-length", b"")
    if not announced.isdigit():
        return None  # the body will tell
    if announced.strip(b"0") == b"":
        return NotStored.EMPTY
    # Twenty digits are more than any body; int() of thousands of them would raise.
    too_large = len(announced) > 20 or int(announced) > rules.max_object_bytes
    return NotStored.TOO_LARGE if too_large else None


@lru_cache(maxsize=256)
def _media_type(content_type: bytes) -> bytes:
    return content_type.partition(b";")[0].strip(b" \t").lower()


@lru_cache(maxsize=256)
def _field_names(vary: bytes) -> frozenset[bytes]:
    names = (name.strip(b" \t") for name in vary.lower().split(b","))
    return frozenset(name for name in names if name)
