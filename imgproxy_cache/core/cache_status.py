"""The value of our `Cache-Status` field (RFC 9211)."""

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType

from imgproxy_cache.core.freshness import time_to_live
from imgproxy_cache.core.kept import Lifetimes
from imgproxy_cache.core.policy import NotStored


class Forwarded(StrEnum):
    """Why imgproxy was asked, in the words of RFC 9211 section 2.2."""

    __hash__ = str.__hash__  # as NotStored's

    URI_MISS = "uri-miss"
    VARY_MISS = "vary-miss"
    STALE = "stale"
    BYPASS = "bypass"


def cache_status(
    why_not: NotStored | None, *, collapsed: bool, forwarded: Forwarded = Forwarded.URI_MISS
) -> bytes:
    """
    What became of a request that imgproxy answered.

    `stored` where `why_not` is None: it will be, if the answer arrives whole.
    `collapsed`: the answer is shared with a request that came before.
    """
    return _VALUES[why_not, collapsed, forwarded]


def cache_status_of_failure(detail: str, forwarded: Forwarded | None = Forwarded.URI_MISS) -> bytes:
    """
    What became of a request that imgproxy did not answer, or (None) was not asked for.

    `detail` is a token.
    """
    reason = "" if forwarded is None else f"fwd={forwarded}; "
    return f"imgproxy-cache; {reason}detail={detail}".encode("ascii")


def cache_status_of_hit(lifetimes: Lifetimes, now: float, tier: bytes) -> bytes:
    """An answer out of a tier, about which nobody was asked."""
    return b"imgproxy-cache; hit; ttl=%d; detail=%b" % (time_to_live(lifetimes, now), tier)


def cache_status_of_stale(lifetimes: Lifetimes, now: float, tier: bytes, status: int) -> bytes:
    """
    An answer out of a tier, about which imgproxy was asked first: its status, 0 if it gave none.

    That is no hit, whatever it said: RFC 9211 section 2.1.
    """
    asked = b"fwd=stale; fwd-status=%d" % status if status else b"fwd=stale"
    ttl = time_to_live(lifetimes, now)
    return b"imgproxy-cache; %b; ttl=%d; detail=%b" % (asked, ttl, tier)


def _value(why_not: NotStored | None, forwarded: Forwarded, *, collapsed: bool) -> bytes:
    reason = "method" if why_not is NotStored.METHOD else forwarded
    outcome = "stored" if why_not is None else f"detail={why_not}"
    parts = ["imgproxy-cache", f"fwd={reason}"]
    if collapsed:
        parts.append("collapsed")
    return "; ".join([*parts, outcome]).encode("ascii")


_VALUES: Mapping[tuple[NotStored | None, bool, Forwarded], bytes] = MappingProxyType(
    {
        (why_not, collapsed, forwarded): _value(why_not, forwarded, collapsed=collapsed)
        for why_not in (None, *NotStored)
        for collapsed in (False, True)
        for forwarded in Forwarded
    }
)
