"""How long an answer stays fresh, in seconds, as a shared cache counts (RFC 9111 section 4.2)."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime
from functools import lru_cache

# RFC 9111 section 1.2.2: what is larger counts as this.
_LARGEST_DELTA_SECONDS = 2**31
_FORBIDDING = frozenset({"no-store", "private", "no-cache"})
_DIRECTIVE = re.compile(
    r"[ \t]*([!#$%&'*+\-.^_`|~0-9A-Za-z]+)"  # RFC 9110 section 5.6.2: token
    r'(?:=(?:"((?:[^"\\]|\\.)*)"|([^\s",;=]+)))?[ \t]*(?:,|\Z)',
)
_EMPTY_ELEMENTS = re.compile(r"[ \t]*(?:,[ \t]*)*")


@dataclass(frozen=True, slots=True)
class CacheControl:
    """
    What a `Cache-Control` field says to a shared cache that never revalidates.

    `lifetime` is `s-maxage`, else `max-age`; None where neither is given.  A
    value that is no number of seconds, or is said twice, counts as 0: stale.
    """

    forbids_storing: bool = False
    lifetime: int | None = None
    max_age: int | None = None


def freshness(fields: Mapping[bytes, bytes], now: float) -> float | None:
    """
    Seconds for which an answer that came in at `now` stays fresh; None if it does not say.

    `fields` are by lower-case name, repeated ones joined by commas.  `s-maxage`
    before `max-age` before `Expires`, less `Age`.  Zero and below is stale.
    `Date` is not looked at: imgproxy dates what it has just made, and an older
    date would only measure how two clocks differ.

    Source: RFC 9111 sections 4.2.1 and 4.2.3
    """
    lifetime: float | None = read_cache_control(fields.get(b"cache-control", b"")).lifetime
    if lifetime is None:
        if b"expires" not in fields:
            return None
        expires = _timestamp(fields[b"expires"])
        lifetime = 0 if expires is None else expires - now
    return lifetime - _age(fields[b"age"]) if b"age" in fields else lifetime


def read_cache_control(value: bytes) -> CacheControl:
    """Read a `Cache-Control` field; one that cannot be read forbids to store."""
    # imgproxy sends a handful of values; with cache-control passthrough the sources choose them,
    # and their length.
    read = _read_cache_control if len(value) <= 256 else _read_cache_control.__wrapped__
    return read(value)


@lru_cache(maxsize=1024)
def _read_cache_control(value: bytes) -> CacheControl:
    directives = _directives(value.decode("latin-1"))
    if directives is None:
        return CacheControl(forbids_storing=True, lifetime=0)
    names = [name for name, _ in directives]
    seconds = {
        name: _delta_seconds(argument) if names.count(name) == 1 else 0
        for name, argument in directives
        if name in ("max-age", "s-maxage")
    }
    max_age = seconds.get("max-age")
    return CacheControl(
        forbids_storing=not _FORBIDDING.isdisjoint(names),
        lifetime=seconds.get("s-maxage", max_age),
        max_age=max_age,
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
    # Ten digits are more than the largest; int() of thousands of them would be slow.
    return _LARGEST_DELTA_SECONDS if len(argument) > 10 else min(int(argument), 2**31)


def _age(value: bytes) -> int:
    # RFC 9111 section 5.1: of several the first counts, one that is no number is ignored.
    return _delta_seconds(value.partition(b",")[0].strip().decode("latin-1"))


@lru_cache(maxsize=1024)
def _timestamp(value: bytes) -> float | None:
    """An HTTP date as seconds since 1970; None where it is none, `0` for one."""
    try:
        date = parsedate_to_datetime(value.decode("latin-1"))
        return (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp()
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
