"""
What is counted, for Prometheus.

What happens with each request is tallied, and handed over with the levels (queues,
buffers, connections) once a second and at each scrape.  With several workers prometheus-client
keeps the figures in files that all of them share (in :data:`FIGURES_DIR`),
so that any worker answers for all.
"""

from __future__ import annotations

import os
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.multiprocess import MultiProcessCollector

from imgproxy_cache.core.policy import NotStored
from imgproxy_cache.read_through.fast_lane import HitsAtOnce
from imgproxy_cache.tiers import Counted

PREFIX = "imgproxy_cache"
# The variable of prometheus-client's that names the folder.
FIGURES_DIR = "PROMETHEUS_MULTIPROC_DIR"
# From an answer out of memory to imgproxy's own time-out.
SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
# From an upload at once to one after a long outage.
AGES = (0.01, 0.05, 0.1, 0.25, 0.5, 1, 5, 30, 60, 300, 1800, 7200, 86_400, 604_800)

# Outcomes of requests that were answered with what is kept.
FROM_TIERS = frozenset(
    {
        "hit-memory",
        "hit-disk",
        "hit-store",
        "revalidated",
        "stale-if-error",
        "stale-while-revalidate",
    }
)
# What happens in a tier, as its counts name it.
TIER_EVENTS = {
    "hits": "Lookups that found something",
    "misses": "Lookups that found nothing",
    "puts": "Answers and signposts that were put there",
    "refused": "Puts that were not taken: too large, or too many at once",
    "evictions": "Entries that made room for others",
    "broken": "Entries that were not what was put there: a miss",
    "errors": "Lookups that failed with their place",
}
FORWARDED = "forwarded"
FAILED = "failed"
_GIVEN_BY = {
    **{outcome: outcome for outcome in FROM_TIERS},
    **dict.fromkeys(("stored", *NotStored), FORWARDED),
}
HITS = {tier: f"hit-{tier}" for tier in ("memory", "disk")}

# Of all workers the largest is shown: what they share, and who is in trouble.
LARGEST_COUNTS = ("_seconds", "_is_down", "_is_failing", "disk_tier_bytes", "disk_tier_items")

Level = tuple[str, str, Callable[[], float]]
"""A gauge: name, help, how to read it."""


class Metrics:
    """The figures of one worker, and the text with the figures of all."""

    def __init__(self) -> None:
        # One more line for each counter and histogram, with the time at which it was made.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self._registry = CollectorRegistry()
        self._levels: list[tuple[Gauge, Callable[[], float]]] = []
        self._requests = self._counter(
            "requests", "Requests by outcome (the reason where an image was not stored)", "outcome"
        )
        self._at_once = self._counter("hits_at_once", "Hits of the fast lane, without parsing")
        self._collapsed = self._counter("requests_collapsed", "Requests that shared a fetch")
        self._cut_off = self._counter(
            "clients_cut_off", "Clients that took too little for too long"
        )
        self._answer_bytes = self._counter("answer_bytes", "Bytes of bodies sent to clients")
        self._fetched_bytes = self._counter("fetched_bytes", "Bytes of bodies from imgproxy")
        self._fetches = self._counter("fetches", "Answers of imgproxy by status", "status")
        self._seconds = self._histogram("request_seconds", "From request to the end of the answer")
        first_byte = Histogram(
            f"{PREFIX}_first_byte_seconds",
            "From request to the first byte of the answer, by who gave it",
            ("outcome",),
            registry=self._registry,
            buckets=SECONDS,
        )
        self._first_byte = {
            outcome: _Tallied(first_byte.labels(outcome), SECONDS)
            for outcome in (*sorted(FROM_TIERS), FORWARDED, FAILED)
        }
        self._tier_events: list[_TierEvent] = []
        self._uploads = self._counter("uploads", "What became of images to be stored", "result")
        self._upload_bytes = self._counter(
            "upload_bytes", "Bytes of images to be stored, by what became of them", "result"
        )
        self._upload_seconds = self._histogram("upload_seconds", "Time that storing took")
        self._stored_age = self._histogram(
            "stored_age_seconds", "From acceptance until stored", AGES
        )
        self._spooled_age = self._histogram(
            "spooled_age_seconds", "From acceptance until in the spool", AGES
        )
        # Kept as plain numbers until the next reading: a counter's `inc` costs 0.5 us.
        self._requests_by: defaultdict[str, int] = defaultdict(int)
        self._fetches_by: defaultdict[int, int] = defaultdict(int)
        self._uploads_by: defaultdict[str, int] = defaultdict(int)
        self._upload_bytes_by: defaultdict[str, int] = defaultdict(int)
        self._answered = 0
        self._fetched = 0
        self._hits_at_once: dict[str, HitsAtOnce] = {}
        _forget_dead_workers()

    # Requests

    def request_ended(
        self,
        outcome: str,
        *,
        collapsed: bool,
        seconds: float,
        first_byte_seconds: float | None,
        size: int,
    ) -> None:
        """`first_byte_seconds` is None where no byte was sent."""
        self._requests_by[outcome] += 1
        self._answered += size
        self._seconds.add(seconds)
        if first_byte_seconds is not None:
            self._first_byte[_GIVEN_BY.get(outcome, FAILED)].add(first_byte_seconds)
        if collapsed:
            self._collapsed.inc()

    def hits_at_once(self, tier: str) -> HitsAtOnce:
        """Those that the proxy never saw, because they were at hand."""
        return self._hits_at_once.setdefault(tier, HitsAtOnce(slow_seconds=SECONDS[0]))

    def request_refused(self, outcome: str) -> None:
        """One that the proxy never saw."""
        self._requests_by[outcome] += 1

    def fetch_ended(self, status: int, size: int) -> None:
        self._fetches_by[status] += 1
        self._fetched += size

    def refused(self, why_not: str) -> None:
        """Announced as stored, and then not fit to be."""
        self._uploads_by[f"refused_{why_not}"] += 1

    def client_was_cut_off(self) -> None:
        self._cut_off.inc()

    # Uploads (UploadEvents)

    def accepted(self, size: int) -> None:
        self._became("accepted", size)

    def adopted(self, size: int, age: float) -> None:
        self._became("adopted", size)

    def spooled(self, size: int, age: float) -> None:
        self._became("spooled", size)
        self._spooled_age.add(age)

    def retried(self, size: int, kind: str) -> None:
        self._became(f"retried_{kind}", size)

    def stored(self, size: int, age: float, seconds: float) -> None:
        self._became("stored", size)
        self._upload_seconds.add(seconds)
        self._stored_age.add(age)

    def unchanged(self, size: int) -> None:
        self._became("unchanged", size)

    def superseded(self, size: int) -> None:
        self._became("superseded", size)

    def failed(self, size: int, kind: str) -> None:
        self._became(f"failed_{kind}", size)

    def quarantined(self, size: int) -> None:
        self._became("quarantined", size)

    def dropped(self, size: int) -> None:
        self._became("dropped", size)

    def expired(self, size: int, age: float) -> None:
        self._became("expired", size)

    def left(self, items: int, size: int) -> None:
        self._became("left", size, items)

    def abandoned(self, items: int, size: int) -> None:
        self._became("abandoned", size, items)

    def _became(self, result: str, size: int, items: int = 1) -> None:
        self._uploads_by[result] += items
        self._upload_bytes_by[result] += size

    # Levels

    def watch(self, *levels: Level) -> None:
        """Show what these functions return."""
        for name, text, read in levels:
            gauge = Gauge(
                f"{PREFIX}_{name}",
                text,
                registry=self._registry,
                multiprocess_mode="livemax"
                if name.removesuffix("_limit").endswith(LARGEST_COUNTS)
                else "livesum",
            )
            self._levels.append((gauge, read))
        self.read_levels()

    def watch_tiers(self, tiers: Mapping[str, Counted]) -> None:
        """Show what they count, by their names."""
        for event, text in TIER_EVENTS.items():
            counter = self._counter(f"tier_{event}", text, "tier")
            for name, tier in tiers.items():
                self._tier_events.append(_TierEvent(counter.labels(name), tier, event))

    def read_levels(self) -> None:
        """Bring gauges, and counters that are kept as plain numbers, up to date."""
        for tier, hits in self._hits_at_once.items():
            self._add(HITS[tier], hits)
        for outcome, number in self._requests_by.items():
            self._requests.labels(outcome).inc(number)
        for status, number in self._fetches_by.items():
            self._fetches.labels(str(status)).inc(number)
        for result, number in self._uploads_by.items():
            self._uploads.labels(result).inc(number)
        for result, number in self._upload_bytes_by.items():
            self._upload_bytes.labels(result).inc(number)
        self._answer_bytes.inc(self._answered)
        self._fetched_bytes.inc(self._fetched)
        for tier_event in self._tier_events:
            tier_event.hand_over()
        for tallied in (
            self._seconds,
            self._upload_seconds,
            self._stored_age,
            self._spooled_age,
            *self._first_byte.values(),
        ):
            tallied.hand_over()
        self._requests_by.clear()
        self._fetches_by.clear()
        self._uploads_by.clear()
        self._upload_bytes_by.clear()
        self._answered = self._fetched = 0
        for gauge, read in self._levels:
            gauge.set(read())

    def _add(self, outcome: str, hits: HitsAtOnce) -> None:
        if not hits.number:
            return
        self._requests_by[outcome] += hits.number
        self._at_once.inc(hits.number)
        self._answered += hits.bytes
        for tallied in (self._seconds, self._first_byte[outcome]):
            tallied.add_all(hits.number, hits.slow, hits.seconds)
        hits.number, hits.bytes, hits.seconds, hits.slow = 0, 0, 0.0, []

    def text(self) -> bytes:
        """All figures in Prometheus' text format."""
        self.read_levels()
        if FIGURES_DIR not in os.environ:
            return generate_latest(self._registry)
        of_all_workers = CollectorRegistry()
        MultiProcessCollector(of_all_workers)  # type: ignore[no-untyped-call]
        return generate_latest(of_all_workers)

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(f"{PREFIX}_{name}", text, labels, registry=self._registry)

    def _histogram(self, name: str, text: str, buckets: Sequence[float] = SECONDS) -> _Tallied:
        histogram = Histogram(f"{PREFIX}_{name}", text, registry=self._registry, buckets=buckets)
        return _Tallied(histogram, buckets)


class _TierEvent:
    """A counter of what a tier counts as a plain number."""

    def __init__(self, counter: Counter, tier: Counted, event: str) -> None:
        self._counter = counter
        self._tier = tier
        self._event = event
        self._handed_over = 0

    def hand_over(self) -> None:
        number = getattr(self._tier.counts, self._event)
        self._counter.inc(number - self._handed_over)
        self._handed_over = number


class _Tallied:
    """
    A histogram whose observations are kept as plain numbers until they are handed over.

    `add` takes one more of them.  They are sorted into their buckets then, for many at once: a call
    costs ten times as much where it is made for a lone image, in caches that imgproxy has had.
    """

    def __init__(self, histogram: Histogram, buckets: Sequence[float]) -> None:
        self._histogram = histogram
        self._bounds = buckets
        self._values: list[float] = []
        self.add: Callable[[float], None] = self._values.append
        self._in_first = 0
        self._sum = 0.0

    def add_all(self, number: int, above_first: Sequence[float], total: float) -> None:
        """So many, of which the others are within the first bucket."""
        self._in_first += number - len(above_first)
        self._sum += total - sum(above_first)
        self._values += above_first

    def hand_over(self) -> None:
        if not self._values and not self._in_first:  # as with most of them, in most seconds
            return
        counts = [0] * (len(self._bounds) + 1)
        counts[0] = self._in_first
        for value in self._values:
            counts[bisect_left(self._bounds, value)] += 1
        # prometheus-client has no way to add many observations at once, which are
        # 3 us each: these two are what its `observe` advances.
        for bucket, number in zip(self._histogram._buckets, counts, strict=True):
            if number:
                bucket.inc(number)
        self._histogram._sum.inc(self._sum + sum(self._values))
        self._values.clear()
        self._in_first, self._sum = 0, 0.0


def _forget_dead_workers() -> None:
    """Remove the levels of workers that are no more; their counts stay."""
    folder = os.environ.get(FIGURES_DIR)
    for file in Path(folder).glob("gauge_live*_*.db") if folder else ():
        pid = file.stem.rpartition("_")[2]
        if pid.isdigit() and not Path("/proc", pid).exists():
            file.unlink(missing_ok=True)
