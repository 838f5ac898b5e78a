"""The value of our `Cache-Status` field (RFC 9211)."""

from collections.abc import Mapping
from types import MappingProxyType

from imgproxy_cache.core.policy import NotStored


def cache_status(why_not: NotStored | None, *, collapsed: bool) -> bytes:
    """
    What became of a request that imgproxy answered.

    `stored` where `why_not` is None: it will be, if the answer arrives whole.
    `collapsed`: the answer is shared with a request that came before.
    """
    return _VALUES[why_not, collapsed]


def cache_status_of_failure(detail: str) -> bytes:
    """What became of a request that imgproxy did not answer; `detail` is a token."""
    return f"imgproxy-cache; fwd=uri-miss; detail={detail}".encode("ascii")


def _value(why_not: NotStored | None, *, collapsed: bool) -> bytes:
    forwarded = "method" if why_not is NotStored.METHOD else "uri-miss"
    outcome = "stored" if why_not is None else f"detail={why_not}"
    parts = ["imgproxy-cache", f"fwd={forwarded}"]
    if collapsed:
        parts.append("collapsed")
    return "; ".join([*parts, outcome]).encode("ascii")


_VALUES: Mapping[tuple[NotStored | None, bool], bytes] = MappingProxyType(
    {
        (why_not, collapsed): _value(why_not, collapsed=collapsed)
        for why_not in (None, *NotStored)
        for collapsed in (False, True)
    }
)
