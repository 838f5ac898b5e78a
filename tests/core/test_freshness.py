"""Freshness as RFC 9111 section 4.2 counts it; the dates come from `date -d ... +%s`."""

from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imgproxy_cache.core.answer_fields import read_answer_fields
from imgproxy_cache.core.freshness import (
    CacheControl,
    current_age,
    freshness,
    lifetimes,
    read_cache_control,
    time_to_live,
)
from imgproxy_cache.core.headers import Headers
from imgproxy_cache.core.kept import Lifetimes

NOW = 1_700_000_000.0  # Tue, 14 Nov 2023 22:13:20 GMT


def control(value: bytes) -> tuple[bytes, bytes]:
    return (b"Cache-Control", value)


def control_of(fields: Mapping[bytes, bytes]) -> CacheControl:
    return read_cache_control(fields.get(b"cache-control", b""))


def expires(value: bytes) -> tuple[bytes, bytes]:
    return (b"Expires", value)


def date(value: bytes) -> tuple[bytes, bytes]:
    return (b"Date", value)


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
        pytest.param([control(b"max-age=" + b"0" * 5000 + b"60")], 60, id="leading zeros"),
        pytest.param([control(b"max-age=0000000000000")], 0, id="nothing but zeros"),
        pytest.param([control(b"max-age='60'")], 0, id="in single quotes is stale"),
        pytest.param(
            [control(b'extension="max-age=3600", max-age=1')], 1, id="max-age in a quoted string"
        ),
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
            [date(b"Sat, 01 Jan 2000 00:00:00 GMT"), control(b"max-age=60")],
            60,
            id="Date says nothing of the age",
        ),
        pytest.param(
            [date(b"Tue, 14 Nov 2023 22:13:10 GMT"), expires(b"Tue, 14 Nov 2023 22:13:30 GMT")],
            20,
            id="Expires by a clock that is slow",
        ),
        pytest.param(
            [date(b"Tue, 14 Nov 2023 22:20:00 GMT"), expires(b"Tue, 14 Nov 2023 22:18:20 GMT")],
            -100,
            id="Expires ahead, but behind Date",
        ),
        pytest.param(
            [
                date(b"Tue, 14 Nov 2023 22:13:30 GMT"),
                expires(b"Tue, 14 Nov 2023 22:13:40 GMT"),
                (b"Age", b"15"),
            ],
            -5,
            id="Expires behind Date and Age",
        ),
        pytest.param(
            [date(b"foo"), expires(b"Tue, 14 Nov 2023 22:13:30 GMT")],
            10,
            id="Expires with a Date that is none",
        ),
        pytest.param([expires(b"Tue, 14 Nov 2023 23:13:20 UTC")], 0, id="Expires not in GMT"),
        pytest.param(
            [
                expires(b"Tue, 14 Nov 2023 23:13:20 GMT"),
                expires(b"Tue, 14 Nov 2023 23:13:20 GMT"),
            ],
            0,
            id="Expires twice",
        ),
    ],
)
def test_freshness(headers: Headers, seconds: float | None) -> None:
    fields = read_answer_fields(200, headers).by_name
    assert freshness(control_of(fields), fields, NOW) == seconds


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


def kept_until(*headers: tuple[bytes, bytes]) -> tuple[float, float, float] | None:
    """Seconds for which an answer is fresh, may be validated in the background, bridges errors."""
    read = lifetimes(
        read_answer_fields(200, list(headers)).by_name,
        NOW,
        stale_while_revalidate_seconds=30,
        stale_if_error_seconds=600,
    )
    if read is None:
        return None
    assert read.received_at == NOW
    return (
        read.fresh_until - NOW,
        read.stale_while_revalidate_until - NOW,
        read.stale_if_error_until - NOW,
    )


@pytest.mark.parametrize(
    ("value", "until"),
    [
        pytest.param(b"max-age=60, public", (60, 90, 660), id="the operator's windows"),
        pytest.param(b"max-age=60, stale-while-revalidate=7", (60, 67, 660), id="its own"),
        pytest.param(b"max-age=60, stale-if-error=7", (60, 90, 67), id="its own for errors"),
        pytest.param(b"max-age=60, Stale-If-Error=7", (60, 90, 67), id="in any case"),
        pytest.param(
            b"max-age=60, stale-while-revalidate=0, stale-if-error=0", (60, 60, 60), id="no window"
        ),
        pytest.param(
            b"max-age=60, stale-while-revalidate=x, stale-if-error", (60, 60, 60), id="no numbers"
        ),
        pytest.param(
            b"max-age=60, stale-if-error=7, stale-if-error=8", (60, 90, 60), id="said twice"
        ),
        pytest.param(b"max-age=60, must-revalidate", (60, 60, 60), id="must-revalidate"),
        pytest.param(b"max-age=60, proxy-revalidate", (60, 60, 60), id="proxy-revalidate"),
        pytest.param(b"max-age=60, s-maxage=90", (90, 90, 90), id="s-maxage"),
        pytest.param(
            b"max-age=60, must-revalidate, stale-while-revalidate=7, stale-if-error=8",
            (60, 60, 60),
            id="must-revalidate before the windows",
        ),
        pytest.param(
            b"s-maxage=60, stale-while-revalidate=7, stale-if-error=8",
            (60, 60, 60),
            id="s-maxage before the windows",
        ),
        pytest.param(b"max-age=60, immutable", (60, 90, 660), id="immutable"),
        pytest.param(b"max-age=1", (1, 31, 601), id="for a second"),
        pytest.param(b"stale-while-revalidate=60, stale-if-error=60", None, id="windows alone"),
        pytest.param(b"public", None, id="no lifetime"),
        pytest.param(b"", None, id="nothing"),
        pytest.param(b"max-age=0, stale-if-error=60", None, id="stale on arrival"),
        pytest.param(b"max-age=60, no-store", None, id="no-store"),
        pytest.param(b"max-age=60, private", None, id="private"),
        pytest.param(b"max-age=60, no-cache", None, id="no-cache"),
        pytest.param(b'max-age=60, no-cache="Foo"', None, id="no-cache for a field"),
        pytest.param(b'max-age=60, private="Foo"', None, id="private for a field"),
        pytest.param(b"max-age=60 public", None, id="unreadable"),
    ],
)
def test_answer_is_kept_as_long_as_it_says(
    value: bytes, until: tuple[float, float, float] | None
) -> None:
    assert kept_until(control(value)) == until


def test_age_that_an_answer_came_with_is_of_its_lifetime() -> None:
    aged = lifetimes(
        {b"cache-control": b"max-age=60", b"age": b"50"},
        NOW,
        stale_while_revalidate_seconds=0,
        stale_if_error_seconds=600,
    )
    assert aged == Lifetimes(
        received_at=NOW,
        age=50,
        fresh_until=NOW + 10,
        stale_while_revalidate_until=NOW + 10,
        stale_if_error_until=NOW + 610,
    )
    assert kept_until(control(b"max-age=60"), (b"Age", b"60")) is None


def test_expires_alone_is_a_lifetime() -> None:
    assert kept_until(expires(b"Tue, 14 Nov 2023 23:13:20 GMT")) == (3600, 3630, 4200)


FRESH_FOR_A_MINUTE = Lifetimes(
    received_at=NOW,
    age=0,
    fresh_until=NOW + 60,
    stale_while_revalidate_until=NOW + 60,
    stale_if_error_until=NOW + 60,
)


@pytest.mark.parametrize(
    ("age_on_arrival", "seconds_later", "age", "left"),
    [
        pytest.param(0, 0, 0, 60, id="at once"),
        pytest.param(0, 0.9, 0, 59, id="within a second"),
        pytest.param(0, 59.5, 59, 0, id="in the last second"),
        pytest.param(0, 60, 60, 0, id="at the end"),
        pytest.param(0, 60.1, 60, -1, id="just stale"),
        pytest.param(0, 3600, 3600, -3540, id="stale"),
        pytest.param(30, 10.5, 40, 49, id="older than we have it"),
        pytest.param(0, -3600, 0, 60, id="the clock was set back"),
        pytest.param(30, -3600, 30, 60, id="the clock was set back, and it was old"),
    ],
)
def test_age_and_what_is_left_are_counted_in_whole_seconds(
    age_on_arrival: float, seconds_later: float, age: int, left: int
) -> None:
    kept = FRESH_FOR_A_MINUTE._replace(age=age_on_arrival)
    assert current_age(kept, NOW + seconds_later) == age
    assert time_to_live(kept, NOW + seconds_later) == left


@pytest.mark.parametrize(
    ("received_at", "now", "age"),
    [
        pytest.param(NOW + 0.8, NOW + 0.9, 0, id="at once"),
        pytest.param(NOW + 0.8, NOW + 3.8, 3, id="three seconds later"),
        pytest.param(NOW + 0.8, NOW + 3, 3, id="as told at the beginning of that second"),
        pytest.param(NOW + 0.8, NOW, 0, id="as told at the beginning of the second it came in"),
    ],
)
def test_age_loses_no_second_to_the_moment_in_a_second_at_which_an_answer_came(
    received_at: float, now: float, age: int
) -> None:
    assert current_age(FRESH_FOR_A_MINUTE._replace(received_at=received_at), now) == age


@given(
    value=st.one_of(st.binary(), st.text('max-age=s," \\\t0;no-store').map(str.encode)),
    age=st.one_of(st.binary(), st.integers().map(lambda number: b"%d" % number)),
    now=st.floats(0, 1e11),
)
def test_what_is_kept_is_fresh_first_and_stale_then(value: bytes, age: bytes, now: float) -> None:
    read = lifetimes(
        {b"cache-control": b"max-age=60," + value, b"age": age},
        now,
        stale_while_revalidate_seconds=30,
        stale_if_error_seconds=600,
    )
    if read is not None:
        assert now < read.fresh_until
        assert read.fresh_until <= read.stale_while_revalidate_until
        assert read.fresh_until <= read.stale_if_error_until
        assert current_age(read, now) >= 0


@given(value=st.one_of(st.binary(), st.text('max-age=s," \\\t0;no-store').map(str.encode)))
def test_any_bytes_are_read(value: bytes) -> None:
    assert isinstance(read_cache_control(value), CacheControl)
    for fields in (
        {b"cache-control": value, b"age": value},
        {b"expires": value, b"date": value},
    ):
        assert isinstance(freshness(control_of(fields), fields, NOW), float | int | None)
