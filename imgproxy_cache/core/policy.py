"""
What may be stored.

Storing "any 200" would let anyone's `HEAD` overwrite a good image with nothing
and put error pages, other people's images and scripts into a public bucket.
An answer is stored only if every condition here holds.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from imgproxy_cache.core.access import is_bearer_of
from imgproxy_cache.core.freshness import freshness, read_cache_control
from imgproxy_cache.core.headers import Headers
from imgproxy_cache.core.imgproxy_path import (
    ImgproxyPath,
    PathRules,
    signature_spelling_is_canonical,
)
from imgproxy_cache.core.media_types import IMAGE_TYPES, SVG, TYPES_OF_FORMAT, media_type
from imgproxy_cache.core.short_values import remembered_if_short
from imgproxy_cache.core.variants import named_fields


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
    formats_are_negotiated: bool = False
    """One of `IMGPROXY_AUTO_*` is on: `Vary` names `Accept`, whatever the path says."""
    settings_may_be_hidden: bool = False
    """imgproxy has settings from elsewhere, or runs elsewhere."""
    fallback_max_age: int | None = None
    fallback_is_unmarked: bool = False
    path_rules: PathRules = field(default=PathRules(), repr=False)


def why_not_stored(
    rules: StorageRules,
    *,
    method: str,
    path: ImgproxyPath | None,
    credentials: NotStored | None,
    status: int,
    fields: Mapping[bytes, bytes],
    now: float,
) -> NotStored | None:
    """
    The first reason not to store an answer of which the head is known; None if there is none.

    `credentials` is of :func:`why_not_by_credentials`; `fields` are the answer's by
    lower-case name, repeated ones joined by commas.
    None is not yet a yes: the body has to pass :func:`why_not_stored_whole`.
    """
    if method != "GET":
        return NotStored.METHOD
    # A public bucket would bypass the secret.
    if rules.secret is not None and not rules.store_secret:
        return NotStored.SECRET
    return (
        credentials
        or _why_not_by_options(path)
        or _why_not_by_spelling(rules, path)
        or _why_not_by_content(path, status, fields, svg_is_safe=rules.store_svg)
        or _why_not_by_lifetime(rules, fields, now, least_seconds=rules.min_max_age_seconds)
        or _why_not_by_vary(rules, path, fields)
        or _why_not_by_length(rules, fields)
        # imgproxy served what we cannot read as a path: it may have any option.
        or (NotStored.SPELLING if path is None else None)
    )


def why_not_kept(
    rules: StorageRules,
    *,
    method: str,
    path: ImgproxyPath | None,
    credentials: NotStored | None,
    status: int,
    fields: Mapping[bytes, bytes],
    now: float,
) -> NotStored | None:
    """
    The first reason not to keep an answer in the local tiers, asked as :func:`why_not_stored`.

    They are ours alone, unlike a bucket: secret and signature are checked before they are
    asked, all fields are given back, an SVG's Content-Security-Policy with them,
    variants lie side by side, and what is stale is not given.
    """
    if method != "GET":
        return NotStored.METHOD
    return (
        credentials
        or _why_not_by_options(path)
        or _why_not_by_content(path, status, fields, svg_is_safe=True)
        or _why_not_by_lifetime(rules, fields, now, least_seconds=0)
        or (NotStored.VARY if named_fields(fields.get(b"vary", b"")) is None else None)
        or _why_not_by_length(rules, fields)
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


def accept_is_ignored(rules: StorageRules, path: ImgproxyPath | None) -> bool:
    """Whether imgproxy neither looks at `Accept` for this path nor says that it does."""
    return _accept_is_fixed_by(path, rules) and not rules.formats_are_negotiated


def why_not_by_credentials(
    request_headers: Headers, *, secret: bytes | None, cookie_passthrough: bool
) -> NotStored | None:
    """
    The reason in a request's fields not to store its answer, None if there is none.

    They are those that imgproxy is sent, names in lower case.
    """
    has_cookies = False
    for name, value in request_headers:
        if name == b"authorization" and (secret is None or not is_bearer_of(value, secret)):
            return NotStored.AUTHORIZATION
        if name == b"cookie":
            has_cookies = True
    return NotStored.COOKIE if has_cookies and cookie_passthrough else None


def _why_not_by_options(path: ImgproxyPath | None) -> NotStored | None:
    if path is not None and path.is_raw:
        return NotStored.RAW
    # Access control that a copy would outlive.
    return NotStored.EXPIRES if path is not None and path.expires else None


def _why_not_by_spelling(rules: StorageRules, path: ImgproxyPath | None) -> NotStored | None:
    if path is None or not rules.path_rules.keys:
        return None
    is_canonical = signature_spelling_is_canonical(path, rules.path_rules)
    return None if is_canonical else NotStored.SPELLING


def _why_not_by_content(
    path: ImgproxyPath | None, status: int, fields: Mapping[bytes, bytes], *, svg_is_safe: bool
) -> NotStored | None:
    if status != 200 or b"content-range" in fields:
        return NotStored.STATUS
    if b"set-cookie" in fields:
        return NotStored.SET_COOKIE
    kind = media_type(fields.get(b"content-type", b""))
    pinned = None if path is None else path.format
    allowed = IMAGE_TYPES if pinned is None else TYPES_OF_FORMAT.get(pinned, ())
    if kind not in allowed:
        return NotStored.CONTENT_TYPE
    # A bucket's URL cannot carry the CSP that keeps an SVG's scripts from running.
    if kind == SVG and not svg_is_safe:
        return NotStored.SVG
    return NotStored.CONTENT_ENCODING if b"content-encoding" in fields else None


def _why_not_by_lifetime(
    rules: StorageRules, fields: Mapping[bytes, bytes], now: float, *, least_seconds: int
) -> NotStored | None:
    cache_control = read_cache_control(fields.get(b"cache-control", b""))
    seconds = freshness(cache_control, fields, now)
    if cache_control.forbids_storing or seconds is None or seconds <= 0:
        return NotStored.CACHE_CONTROL
    if seconds < least_seconds:
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
    fixed = {b"accept"} if _accept_is_fixed_by(path, rules) else set()
    return None if named <= fixed else NotStored.VARY


def _accept_is_fixed_by(path: ImgproxyPath | None, rules: StorageRules) -> bool:
    return (
        path is not None
        and path.format is not None
        and not rules.formats_are_enforced
        and not rules.settings_may_be_hidden
    )


def _why_not_by_length(rules: StorageRules, fields: Mapping[bytes, bytes]) -> NotStored | None:
    announced = fields.get(b"content-length", b"")
    if not announced.isdigit():
        return None  # the body will tell
    if announced.strip(b"0") == b"":
        return NotStored.EMPTY
    # Twenty digits are more than any body; int() of thousands of them would raise.
    too_large = len(announced) > 20 or int(announced) > rules.max_object_bytes
    return NotStored.TOO_LARGE if too_large else None


@remembered_if_short(most=256, longest=256)
def _field_names(vary: bytes) -> frozenset[bytes]:
    names = (name.strip(b" \t") for name in vary.lower().split(b","))
    return frozenset(name for name in names if name)
