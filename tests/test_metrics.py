"""The figures for Prometheus, beside what prometheus-client makes of the same observations."""

from __future__ import annotations

import pytest
from prometheus_client import CollectorRegistry, Histogram, generate_latest

from imgproxy_cache.metrics import SECONDS, Metrics

NAME = "imgproxy_cache_request_seconds"
HELP = "From request to the end of the answer"


@pytest.mark.parametrize(
    "observed",
    [
        pytest.param([], id="none"),
        pytest.param([0.0], id="nothing at all"),
        pytest.param([0.001, 0.5, 30.0], id="on bounds"),
        pytest.param([0.0011, 0.0024, 0.7, 29.5], id="between bounds"),
        pytest.param([30.5, 4000.0], id="beyond the last"),
    ],
)
def test_tallied_histogram_shows_what_the_librarys_own_shows(observed: list[float]) -> None:
    """It advances the library's private counts: one that has them no more fails here."""
    registry = CollectorRegistry()
    own = Histogram(NAME, HELP, registry=registry, buckets=SECONDS)
    metrics = Metrics()
    for seconds in observed:
        own.observe(seconds)
        metrics.request_ended(
            "stored", collapsed=False, seconds=seconds, first_byte_seconds=None, size=0
        )

    of_ours = [line for line in metrics.text().splitlines() if NAME.encode() in line]
    assert of_ours == generate_latest(registry).splitlines()


def test_no_series_says_when_a_counter_was_made() -> None:
    metrics = Metrics()
    metrics.request_ended("stored", collapsed=False, seconds=0.1, first_byte_seconds=0.05, size=100)
    text = metrics.text()

    assert b'imgproxy_cache_requests_total{outcome="stored"} 1.0' in text
    assert b"_created" not in text
