"""Dates of RFC 9110 section 5.6.7; their seconds come from `date -u -d ... +%s`."""

from email.utils import formatdate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imgproxy_cache.core.http_date import http_date, read_http_date

NOW = 1_700_000_000.0  # Tue, 14 Nov 2023 22:13:20 GMT


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        # the three of the RFC
        (b"Sun, 06 Nov 1994 08:49:37 GMT", 784111777),
        (b"Sunday, 06-Nov-94 08:49:37 GMT", 784111777),
        (b"Sun Nov  6 08:49:37 1994", 784111777),
        # case, weekdays that are not right
        (b"THU, 18 Aug 2050 02:01:18 GMT", 2544400878),
        (b"Thu, 18 AUG 2050 02:01:18 GMT", 2544400878),
        (b"Thu, 18 Aug 2050 02:01:18 gMT", 2544400878),
        (b"Mon, 18 Aug 2050 02:01:18 GMT", 2544400878),
        (b"Thursday, 18-Aug-50 02:01:18 GMT", 2544400878),
        (b"Thu Aug  8 02:01:18 2050", 2543536878),
        (b"Thu Aug 18 02:01:18 2050", 2544400878),
        (b"Wednesday, 21-Oct-15 07:28:00 GMT", 1445412480),
        # far away
        (b"Tue, 19 Jan 2038 14:14:08 GMT", 2147523248),
        (b"Sun, 21 Nov 2286 04:46:39 GMT", 10000039599),
        (b"Fri, 31 Dec 9999 23:59:59 GMT", 253402300799),
        (b"Thu, 01 Jan 1970 00:00:00 GMT", 0),
        (b"Wed, 31 Dec 1969 23:59:59 GMT", -1),
        (b"Mon, 01 Jan 0001 00:00:00 GMT", -62135596800),
        # a year of two digits is the next, if that is not more than 50 years ahead
        (b"Tuesday, 14-Nov-73 00:00:00 GMT", 3277843200),
        (b"Tuesday, 14-Nov-74 00:00:00 GMT", 153619200),
        (b"Tuesday, 14-Nov-99 00:00:00 GMT", 942537600),
        # leap days and seconds
        (b"Thu, 29 Feb 2024 00:00:00 GMT", 1709164800),
        (b"Thu, 29 Feb 2023 00:00:00 GMT", None),
        (b"Sat, 31 Dec 2016 23:59:60 GMT", 1483228800),
        # nearly dates
        (b"Thu, 18 Aug 2050 02:01:18 UTC", None),
        (b"Thu, 18 Aug 2050 02:01:18 AEST", None),
        (b"Thu, 18 Aug 2050 02:01:18 +0000", None),
        (b"Thu, 18 Aug 2050 02:01:18", None),
        (b"Thu, 18 Aug 50 02:01:18 GMT", None),
        (b"Thu 18 Aug 2050 02:01:18 GMT", None),
        (b"Thu, 18  Aug  2050 02:01:18 GMT", None),
        (b"Thu, 18-Aug-2050 02:01:18 GMT", None),
        (b"Thu, 18 Aug 2050 02.01.18 GMT", None),
        (b"Thu, 18 Aug 2050 2:01:18 GMT", None),
        (b"Thu, 8 Aug 2050 02:01:18 GMT", None),
        (b"18 Aug 2050 02:01:18 GMT", None),
        (b"Foo, 18 Aug 2050 02:01:18 GMT", None),
        (b"Thu, 18 Foo 2050 02:01:18 GMT", None),
        (b"Thu, 00 Aug 2050 02:01:18 GMT", None),
        (b"Thu, 32 Aug 2050 02:01:18 GMT", None),
        (b"Thu, 18 Aug 0000 02:01:18 GMT", None),
        (b"Thu, 18 Aug 2050 24:00:00 GMT", None),
        (b"Thu, 18 Aug 2050 02:60:18 GMT", None),
        (b"Thu, 18 Aug 2050 02:01:61 GMT", None),
        (b" Thu, 18 Aug 2050 02:01:18 GMT", None),
        (b"Thu, 18 Aug 2050 02:01:18 GMT\n", None),
        (b"Thu, 18 Aug 2050 02:01:18 GMT, Thu, 18 Aug 2050 02:01:19 GMT", None),
        (b"Thu Aug 8 02:01:18 2050", None),
        (b"", None),
        (b"0", None),
        (b"-1", None),
        (b"2544400878", None),
        (b"2050-08-18T02:01:18Z", None),
        (b"Thu, 18 Aug \xd9\xa2050 02:01:18 GMT", None),
    ],
    ids=repr,
)
def test_date_is_read_in_its_three_forms_and_in_no_other(value: bytes, seconds: int | None) -> None:
    assert read_http_date(value, NOW) == seconds


@pytest.mark.parametrize(
    ("now", "seconds"),
    [
        pytest.param(942_537_600.0, 942_537_600, id="in 1999"),
        pytest.param(1_700_000_000.0, 942_537_600, id="in 2023"),
        pytest.param(3_277_843_200.0, 4_098_297_600, id="in 2073"),
    ],
)
def test_year_of_two_digits_is_of_the_century_that_it_is_read_in(now: float, seconds: int) -> None:
    assert read_http_date(b"Sunday, 14-Nov-99 00:00:00 GMT", now) == seconds


def test_date_is_written_as_the_rfc_prefers() -> None:
    assert http_date(784111777) == b"Sun, 06 Nov 1994 08:49:37 GMT"


@given(st.integers(-62_135_596_800, 253_402_300_799))  # the years from 1 to 9999
def test_date_is_written_as_the_standard_library_writes_it(seconds: int) -> None:
    assert http_date(seconds) == formatdate(seconds, usegmt=True).encode()


@given(st.integers(-(2**33), 2**37))
def test_date_is_read_as_it_was_written(seconds: int) -> None:
    assert read_http_date(formatdate(seconds, usegmt=True).encode(), NOW) == seconds


@given(st.one_of(st.binary(), st.text("SunNov ,-:0169GMT").map(str.encode)))
def test_any_bytes_are_a_date_or_none(value: bytes) -> None:
    assert isinstance(read_http_date(value, NOW), int | None)
