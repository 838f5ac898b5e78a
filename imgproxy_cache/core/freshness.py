"""How long an answer stays fresh, in seconds, as a shared cache counts (RFC 9111 section 4.2)."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from math import floor

from imgproxy_cache.core.http_date import read_http_date
from imgproxy_cache.core.kept import Lifetimes
from imgproxy_cache.core.short_values import remembered_if_short

# RFC 9111 section 1.2.2: what is larger counts as this.
_LARGEST_DELTA_SECONDS = 2**31
# `private` and `no-cache` with fields named too (sections 5.2.2.4 and 5.2.2.7 allow it).
_FORBIDDING = frozenset({"no-store", "private", "no-cache"})
_FORBIDDING_STALE = frozenset({"must-revalidate", "proxy-revalidate", "s-maxage"})
_COUNTED = frozenset({"max-age", "s-maxage", "stale-while-revalidate", "stale-if-error"})
_DIRECTIVE = re.compile(
    r"[ \t]*([!#$%&'*+\-.^_`|~0-9A-Za-z]+)"  # RFC 9110 section 5.6.2: token
    r'(?:=(?:"((?:[^"\\]|\\.)*)"|([^\s",;=]+)))?[ \t]*(?:,|\Z)',
)
_EMPTY_ELEMENTS = re.compile(r"[ \t]*(?:,[ \t]*)*")


@dataclass(frozen=True, slots=True)
class CacheControl:
    """
    What a `Cache-Control` field says to a shared cache.

    `lifetime` is `s-maxage`, else `max-age`; numbers are seconds, and None where
    they are not given.  A value that is no number of seconds, or is said twice,
    counts as 0.

    `forbids_stale` is for `must-revalidate`, `proxy-revalidate` and `s-maxage`.
    """

    forbids_storing: bool = False
    lifetime: int | None = None
    max_age: int | None = None
    forbids_stale: bool = False
    stale_while_revalidate: int | None = None
    stale_if_error: int | None = None


def lifetimes(
    fields: Mapping[bytes, bytes],
    received_at: float,
    *,
    stale_while_revalidate_seconds: float,
    stale_if_error_seconds: float,
) -> Lifetimes | None:
    """
    Until when an answer that came in at `received_at` may be given.

    None where it may not be kept, does not say how long it is fresh, or is stale
    already.  `fields` as for :func:`freshness`.  The seconds are the operator's;
    what the answer says goes before.

    An answer that forbids to be given stale stays forbidden when it has a window
    of RFC 5861 too: RFC 9111 section 4.2.4 lets that permit what nothing
    prohibits, and makes no exception from what is prohibited.

    Source: RFC 9111 section 4.2, RFC 5861
    """
    cache_control = read_cache_control(fields.get(b"cache-control", b""))
    seconds = freshness(cache_control, fields, received_at)
    if cache_control.forbids_storing or seconds is None or seconds <= 0:
        return None
    fresh_until = received_at + seconds
    age = _age(fields[b"age"]) if b"age" in fields else 0
    if cache_control.forbids_stale:
        return Lifetimes(received_at, age, fresh_until, fresh_until, fresh_until)
    while_revalidate, if_error = cache_control.stale_while_revalidate, cache_control.stale_if_error
    return Lifetimes(
        received_at,
        age,
        fresh_until,
        fresh_until
        + (stale_while_revalidate_seconds if while_revalidate is None else while_revalidate),
        fresh_until + (stale_if_error_seconds if if_error is None else if_error),
    )


def current_age(lifetimes: Lifetimes, now: float) -> int:
    """
    For how many seconds an answer has existed; a clock that was set back makes it no younger.

    Arrival and `now`, which may be a whole second already, are taken by their seconds: between
    the cut-off parts of both a second of its age would be lost, and the next cache would
    keep the answer for longer than it may.

    Source: RFC 9111 section 4.2.3
    """
    return int(lifetimes.age) + max(0, floor(now) - floor(lifetimes.received_at))


def time_to_live(lifetimes: Lifetimes, now: float) -> int:
    """For how many seconds an answer is still fresh; below zero if it is stale."""
    return floor(lifetimes.fresh_until - max(now, lifetimes.received_at))


def freshness(
    cache_control: CacheControl, fields: Mapping[bytes, bytes], now: float
) -> float | None:
    """
    Seconds for which an answer that came in at `now` stays fresh; None if it does not say.

    `fields` are by lower-case name, repeated ones joined by commas, and
    `cache_control` is read of them.  `s-maxage` before `max-age` before
    `Expires`, less `Age`.  Zero and below is stale.  `Date` is what `Expires`
    counts from, and says nothing of the age: imgproxy dates what it has just
    made, and an older date would only measure how two clocks differ.

    Source: RFC 9111 sections 4.2.1 and 4.2.3
    """
    lifetime: float | None = cache_control.lifetime
    if lifetime is None:
        if b"expires" not in fields:
            return None
        expires = read_http_date(fields[b"expires"], now)
        date = read_http_date(fields.get(b"date", b""), now)
        lifetime = 0 if expires is None else expires - (now if date is None else date)
    return lifetime - _age(fields[b"age"]) if b"age" in fields else lifetime


# imgproxy sends a handful of values; with cache-control passthrough the sources choose them,
# and their length.
@remembered_if_short(most=1024, longest=256)
def read_cache_control(value: bytes) -> CacheControl:
    """Read a `Cache-Control` field; one that cannot be read forbids to store."""
    directives = _directives(value.decode("latin-1"))
    if directives is None:
        return CacheControl(forbids_storing=True, lifetime=0)
    names = [name for name, _ in directives]
    seconds = {
        name: _delta_seconds(argument) if names.count(name) == 1 else 0
        for name, argument in directives
        if name in _COUNTED
    }
    max_age = seconds.get("max-age")
    return CacheControl(
        forbids_storing=not _FORBIDDING.isdisjoint(names),
        lifetime=seconds.get("s-maxage", max_age),
        max_age=max_age,
        forbids_stale=not _FORBIDDING_STALE.isdisjoint(names),
        stale_while_revalidate=seconds.get("stale-while-revalidate"),
        stale_if_error=seconds.get("stale-if-error"),
    )


def _directives(text: str) -> list[tuple[str, str]] | None:
    directives: list[tuple[str, str]] = []
    position = _end_of_empty_elements(text, 0)
    while position < len(text):
        match = _DIRECTIVE.match(text, position)
        if match is None:
            return None
        name, quoted, token = match.groups()
        directives.append((name.lower(), quoted or token or ""))
        position = _end_of_empty_elements(text, match.end())
    return directives


def _end_of_empty_elements(text: str, position: int) -> int:
    match = _EMPTY_ELEMENTS.match(text, position)
    return match.end() if match else position


def _delta_seconds(argument: str) -> int:
    if not (argument.isascii() and argument.isdecimal()):
        return 0
    digits = argument.lstrip("0")
    # Ten digits are more than the largest; int() of thousands of them would be slow.
    if len(digits) > 10:
        return _LARGEST_DELTA_SECONDS
    return min(int(digits or 0), _LARGEST_DELTA_SECONDS)


def _age(value: bytes) -> int:
    # RFC 9111 section 5.1: of several the first counts, one that is no number is ignored.
    return _delta_seconds(value.partition(b",")[0].strip().decode("latin-1"))
