"""What may be stored."""

from dataclasses import dataclass, field
from enum import StrEnum

from imgproxy_cache.core.headers import Headers
from imgproxy_cache.core.imgproxy_path import ImgproxyPath


class NotStored(StrEnum):
    """Why an answer is not stored, in the order in which the reasons are looked for."""

    METHOD = "method"
    SECRET = "secret"  # noqa: S105 - a reason's name
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
    """What of the settings decides about storing."""

    max_object_bytes: int = 52_428_800
    min_max_age_seconds: int = 3600
    store_svg: bool = False
    store_secret: bool = False
    secret: bytes | None = field(default=None, repr=False)
    cookie_passthrough: bool = False
    keys_are_known: bool = False


def why_not_stored(
    rules: StorageRules,
    *,
    method: str,
    path: ImgproxyPath | None,
    request_headers: Headers,
    status: int,
    headers: Headers,
    now: float,
) -> NotStored | None:
    raise NotImplementedError


def why_not_stored_whole(rules: StorageRules, *, size: int, complete: bool) -> NotStored | None:
    raise NotImplementedError
