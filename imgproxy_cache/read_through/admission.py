"""Whether imgproxy may be asked: not while it fails, but for a probe now and then."""

from __future__ import annotations

import time
from collections.abc import Callable
from random import random

import structlog

from imgproxy_cache.core.breaker import Breaker, Change, Permission
from imgproxy_cache.errors import UpstreamBusy, UpstreamError, UpstreamFailing

log = structlog.get_logger()

# 503 is also what one image gets whose source hangs: the next four are other images' most often.
FAILURES_TO_OPEN = 5
# What says that imgproxy cannot cope.
OVERLOADED = frozenset({429, 503})
# imgproxy is near, and restarts within a second or two.
LONGEST_PAUSE_SECONDS = 2.0
# A probe may be for the one image whose source hangs, and then takes a minute.
PROBE_SECONDS = 2.0


class Admission:
    """
    A circuit breaker before imgproxy.

    It opens after five failures in a row (no answer, or one that says that imgproxy
    cannot cope), and then :meth:`ask` raises at once.  `clock` counts seconds.
    """

    def __init__(
        self,
        *,
        clock: Callable[[], float] = time.monotonic,
        jitter: Callable[[], float] = random,
    ) -> None:
        self._breaker = Breaker(
            failures_to_open=FAILURES_TO_OPEN,
            longest_delay_seconds=LONGEST_PAUSE_SECONDS,
            probe_seconds=PROBE_SECONDS,
        )
        self._clock = clock
        self._jitter = jitter

    @property
    def is_open(self) -> bool:
        return self._breaker.is_open

    def ask(self) -> bool:
        """
        Take leave to ask imgproxy; True for a probe, whose outcome has to be told.

        Raises:
            UpstreamFailing: it failed too often just now
        """
        permission = self._breaker.permission(self._clock())
        if permission is Permission.NO:
            raise UpstreamFailing("failed several times in a row, and is left alone for a moment")
        return permission is Permission.AS_PROBE

    def told(self, status: int, error: UpstreamError | None, *, was_probe: bool) -> None:
        """What came of it: a status, or an error, or (0 and None) it was not asked in the end."""
        if status and status not in OVERLOADED:
            if self._breaker.succeeded() is Change.CLOSED:
                log.info("upstream.recovered", message="imgproxy answers again")
        elif not status and (error is None or isinstance(error, UpstreamBusy)):
            self._breaker.told_nothing(was_probe=was_probe)
        else:
            change = self._breaker.failed(
                "unreachable", self._clock(), self._jitter(), was_probe=was_probe
            )
            if change is Change.OPENED:
                log.warning(
                    "upstream.paused",
                    message="only kept images are given until imgproxy answers again",
                    cause=f"answered {status}" if status else str(error),
                )
