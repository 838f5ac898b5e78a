"""Dates as HTTP writes them (RFC 9110 section 5.6.7)."""

from __future__ import annotations

import re
from datetime import date
from functools import lru_cache
from typing import Final

_MONTHS: Final = b"jan feb mar apr may jun jul aug sep oct nov dec".split()
_WEEKDAYS: Final = b"Mon Tue Wed Thu Fri Sat Sun".split()
_PARTS: Final = {
    b"weekday": rb"(?:mon|tue|wed|thu|fri|sat|sun)",
    b"long_weekday": rb"(?:mon|tues|wednes|thurs|fri|satur|sun)day",
    b"month": b"(?P<month>%b)" % b"|".join(_MONTHS),
    b"time": rb"(?P<hour>[01][0-9]|2[0-3]):(?P<minute>[0-5][0-9]):(?P<second>[0-5][0-9]|60)",
}
# Case is not minded: RFC 9110 asks to be robust with dates.  Nor is whether the weekday is right.
_FORMS: Final = tuple(
    re.compile(form % _PARTS, re.IGNORECASE)
    for form in (  # IMF-fixdate, RFC 850, asctime()
        rb"%(weekday)b, (?P<day>[0-9]{2}) %(month)b (?P<year>[0-9]{4}) %(time)b GMT",
        rb"%(long_weekday)b, (?P<day>[0-9]{2})-%(month)b-(?P<year>[0-9]{2}) %(time)b GMT",
        rb"%(weekday)b %(month)b (?P<day>[ 0-9][0-9]) %(time)b (?P<year>[0-9]{4})",
    )
)
_LONGEST: Final = len(b"Wednesday, 01-Jan-00 00:00:00 GMT")
_FIRST_DAY: Final = date(1970, 1, 1).toordinal()
_SECONDS_OF_A_YEAR: Final = 31_556_952


def read_http_date(value: bytes, now: float) -> int | None:
    """
    A date in one of its three forms as seconds since the epoch; None for anything else.

    `now` tells the century of a year of two digits.
    """
    if len(value) > _LONGEST:
        return None
    return _read(value, 1970 + int(now // _SECONDS_OF_A_YEAR))


@lru_cache(maxsize=64)
def http_date(seconds: int) -> bytes:
    """Seconds since the epoch as HTTP writes them, for the years that have four digits."""
    # A tenth of what email.utils takes: images out of a store have each their own.
    days, seconds = divmod(seconds, 86400)
    minutes, seconds = divmod(seconds, 60)
    return b"%b %02d:%02d:%02d GMT" % (_day(days), minutes // 60, minutes % 60, seconds)


@lru_cache(maxsize=64)
def _day(days: int) -> bytes:
    day = date.fromordinal(_FIRST_DAY + days)
    weekday, month = _WEEKDAYS[day.weekday()], _MONTHS[day.month - 1].title()
    return b"%b, %02d %b %04d" % (weekday, day.day, month, day.year)


@lru_cache(maxsize=256)
def _read(value: bytes, this_year: int) -> int | None:
    match = next((match for form in _FORMS if (match := form.fullmatch(value))), None)
    if match is None:
        return None
    year = int(match["year"])
    if len(match["year"]) == 2:
        year += this_year - this_year % 100
        if year > this_year + 50:  # RFC 9110 section 5.6.7
            year -= 100
    try:
        day = date(year, 1 + _MONTHS.index(match["month"].lower()), int(match["day"]))
    except ValueError:
        return None
    seconds = int(match["hour"]) * 3600 + int(match["minute"]) * 60 + int(match["second"])
    return (day.toordinal() - _FIRST_DAY) * 86400 + seconds
