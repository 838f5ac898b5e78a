"""Field values written by hand from RFC 9211."""

import pytest

from imgproxy_cache.core.cache_status import cache_status, cache_status_of_failure
from imgproxy_cache.core.policy import NotStored


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
