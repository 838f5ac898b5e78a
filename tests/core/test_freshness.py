"""Freshness as RFC 9111 section 4.2 counts it; the dates come from `date -d ... +%s`."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imgproxy_cache.core.answer_fields import read_answer_fields
from imgproxy_cache.core.freshness import CacheControl, freshness, read_cache_control
from imgproxy_cache.core.headers import Headers

NOW = 1_700_000_000.0  # Tue, 14 Nov 2023 22:13:20 GMT


def control(value: bytes) -> tuple[bytes, bytes]:
    return (b"Cache-Control", value)


def expires(value: bytes) -> tuple[bytes, bytes]:
    return (b"Expires", value)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        pytest.param([], None, id="nothing said"),
        pytest.param([control(b"public")], None, id="no lifetime said"),
        pytest.param([control(b"max-age=60, public")], 60, id="max-age"),
        pytest.param([control(b"MAX-AGE=60")], 60, id="any case"),
        pytest.param([control(b'max-age="60"')], 60, id="quoted"),
        pytest.param([control(b"max-age=0")], 0, id="max-age of nothing"),
        pytest.param([control(b"max-age=60, s-maxage=7")], 7, id="s-maxage is for us"),
        pytest.param([control(b"s-maxage=7"), control(b"max-age=60")], 7, id="in two fields"),
        pytest.param([control(b"max-age=60"), (b"age", b"50")], 10, id="less its age"),
        pytest.param([control(b"max-age=60"), (b"Age", b"70")], -10, id="older than it may get"),
        pytest.param([control(b"max-age=60"), (b"Age", b"old")], 60, id="age that is no number"),
        pytest.param([control(b"max-age=60"), (b"Age", b"50, 7")], 10, id="first of two ages"),
        pytest.param([control(b"max-age=abc")], 0, id="no number is stale"),
        pytest.param([control(b"max-age=-60")], 0, id="less than nothing is stale"),
        pytest.param([control(b"max-age=1.5")], 0, id="a fraction is stale"),
        pytest.param([control(b"max-age=60, max-age=70")], 0, id="said twice is stale"),
        pytest.param([control(b"max-age=")], 0, id="unreadable is stale"),
        pytest.param([control(b"max-age=60; public")], 0, id="wrong separator is stale"),
        pytest.param([control(b"max-age=\xb2")], 0, id="superscript two is no digit"),
        pytest.param([control(b"max-age=" + b"9" * 5000)], 2**31, id="no end of digits"),
        pytest.param([control(b"max-age=2147483649")], 2**31, id="more than counts"),
        pytest.param([expires(b"Tue, 14 Nov 2023 23:13:20 GMT")], 3600, id="Expires in an hour"),
        pytest.param(
            [expires(b"Tuesday, 14-Nov-23 23:13:20 GMT")], 3600, id="Expires as in RFC 850"
        ),
        pytest.param([expires(b"Tue Nov 14 23:13:20 2023")], 3600, id="Expires as asctime()"),
        pytest.param([expires(b"Tue, 14 Nov 2023 21:13:20 GMT")], -3600, id="Expires an hour ago"),
        pytest.param([expires(b"0")], 0, id="Expires that is no date"),
        pytest.param([expires(b"")], 0, id="empty Expires"),
        pytest.param(
            [expires(b"Tue, 14 Nov 2023 23:13:20 GMT"), control(b"max-age=60")],
            60,
            id="max-age before Expires",
        ),
        pytest.param(
            [expires(b"Tue, 14 Nov 2023 23:13:20 GMT"), control(b"max-age=x")],
            0,
            id="broken max-age before Expires",
        ),
        pytest.param(
            [(b"Date", b"Sat, 01 Jan 2000 00:00:00 GMT"), control(b"max-age=60")],
            60,
            id="Date is not looked at",
        ),
    ],
)
def test_freshness(headers: Headers, seconds: float | None) -> None:
    assert freshness(read_answer_fields(200, headers).by_name, NOW) == seconds


@pytest.mark.parametrize(
    ("value", "forbids"),
    [
        (b"", False),
        (b"max-age=60, public, immutable, must-revalidate", False),
        (b"no-store", True),
        (b"max-age=9000, No-Store", True),
        (b"private", True),
        (b"no-cache", True),
        (b'private="set-cookie", max-age=60', True),
        (b'no-cache="x"', True),
        (b",, max-age=60 ,\t, no-store ,", True),
        (b'community="a, no-store", max-age=60', False),
        (b'community="a\\", no-store", max-age=60', False),
        (b"x-no-store, no-store-x", False),
        (b'max-age=60, "no-store"', True),
        (b"max-age=60 public", True),
        (b"max age=60", True),
        (b'community="open, max-age=60', True),
    ],
    ids=repr,
)
def test_storing_is_forbidden_by_a_directive_and_by_what_cannot_be_read(
    value: bytes, forbids: bool
) -> None:
    assert read_cache_control(value).forbids_storing is forbids


@given(value=st.one_of(st.binary(), st.text('max-age=s," \\\t0;no-store').map(str.encode)))
def test_any_bytes_are_read(value: bytes) -> None:
    assert isinstance(read_cache_control(value), CacheControl)
    freshness({b"cache-control": value, b"age": value}, NOW)
    freshness({b"expires": value}, NOW)
