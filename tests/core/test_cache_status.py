"""Field values written by hand from RFC 9211."""

import pytest

from imgproxy_cache.core.cache_status import (
    Forwarded,
    cache_status,
    cache_status_of_failure,
    cache_status_of_hit,
    cache_status_of_stale,
)
from imgproxy_cache.core.policy import NotStored
from tests.core.lifetimes import FOR_AN_HOUR, NOW


@pytest.mark.parametrize(
    ("why_not", "collapsed", "value"),
    [
        pytest.param(None, False, b"imgproxy-cache; fwd=uri-miss; stored", id="stored"),
        pytest.param(
            None, True, b"imgproxy-cache; fwd=uri-miss; collapsed; stored", id="shared fetch"
        ),
        pytest.param(
            NotStored.SVG, False, b"imgproxy-cache; fwd=uri-miss; detail=svg", id="refused"
        ),
        pytest.param(
            NotStored.SHORT_LIVED,
            True,
            b"imgproxy-cache; fwd=uri-miss; collapsed; detail=short-lived",
            id="refused, shared fetch",
        ),
        pytest.param(
            NotStored.METHOD, False, b"imgproxy-cache; fwd=method; detail=method", id="no GET"
        ),
    ],
)
def test_value_says_what_became_of_the_answer(
    why_not: NotStored | None, collapsed: bool, value: bytes
) -> None:
    assert cache_status(why_not, collapsed=collapsed) == value


def test_failure_is_named_by_its_detail() -> None:
    value = cache_status_of_failure("unreachable")
    assert value == b"imgproxy-cache; fwd=uri-miss; detail=unreachable"


@pytest.mark.parametrize(
    ("forwarded", "value"),
    [
        pytest.param(Forwarded.VARY_MISS, b"imgproxy-cache; fwd=vary-miss; stored", id="variant"),
        pytest.param(Forwarded.STALE, b"imgproxy-cache; fwd=stale; stored", id="stale"),
        pytest.param(Forwarded.BYPASS, b"imgproxy-cache; fwd=bypass; stored", id="bypass"),
    ],
)
def test_value_says_why_imgproxy_was_asked(forwarded: Forwarded, value: bytes) -> None:
    assert cache_status(None, collapsed=False, forwarded=forwarded) == value


def test_failure_of_which_imgproxy_was_not_asked_names_no_reason_to_ask() -> None:
    """RFC 9211 section 2.2: `fwd` says that a request went forward."""
    assert cache_status_of_failure("failing", None) == b"imgproxy-cache; detail=failing"


def test_failure_says_why_imgproxy_was_asked() -> None:
    value = cache_status_of_failure("timed-out", Forwarded.STALE)
    assert value == b"imgproxy-cache; fwd=stale; detail=timed-out"


@pytest.mark.parametrize(
    ("seconds_later", "ttl"),
    [
        pytest.param(0, b"3600", id="fresh"),
        pytest.param(3600, b"0", id="at the end"),
        pytest.param(3600.1, b"-1", id="stale"),
    ],
)
def test_hit_says_how_long_it_is_good_and_which_tier_had_it(
    seconds_later: float, ttl: bytes
) -> None:
    value = cache_status_of_hit(FOR_AN_HOUR, NOW + seconds_later, b"disk")
    assert value == b"imgproxy-cache; hit; ttl=%b; detail=disk" % ttl


@pytest.mark.parametrize(
    ("status", "value"),
    [
        pytest.param(
            503, b"imgproxy-cache; fwd=stale; fwd-status=503; ttl=-400; detail=memory", id="failed"
        ),
        pytest.param(0, b"imgproxy-cache; fwd=stale; ttl=-400; detail=memory", id="no answer"),
    ],
)
def test_what_imgproxy_was_asked_about_is_no_hit(status: int, value: bytes) -> None:
    assert cache_status_of_stale(FOR_AN_HOUR, NOW + 4000, b"memory", status) == value
