"""Whether the store works, what it last said if not, and what the log says of that."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass

import structlog

from imgproxy_cache.core.breaker import Breaker, Change, Permission
from imgproxy_cache.errors import StoreError

log = structlog.get_logger()

SUMMARY_SECONDS = 60.0
MOST_REASONS = 10


@dataclass(slots=True)
class Reason:
    """Why uploads failed: so many of them, lately at that time (seconds since the epoch)."""

    text: str
    count: int
    last_at: float


class Outages:
    """
    The breaker, and its voice: a line at each change, and a summary a minute.

    `levels` says how much waits; `jitter` gives numbers from [0, 1).
    """

    def __init__(self, levels: Callable[[], dict[str, float]], jitter: Callable[[], float]) -> None:
        self._levels = levels
        self._jitter = jitter
        self._breaker = Breaker()
        self._problem = ""
        self._reasons: dict[str, Reason] = {}
        self._retried = 0
        self._said_at = float("-inf")

    @property
    def problem(self) -> str | None:
        """Why nothing is uploaded at the moment; None if the store works."""
        return self._problem if self._breaker.is_open else None

    @property
    def is_open(self) -> bool:
        return self._breaker.is_open

    @property
    def probe_at(self) -> float:
        """When the store is asked again, on the clock of :func:`time.monotonic`."""
        return self._breaker.probe_at

    def permission(self) -> Permission:
        return self._breaker.permission(time.monotonic())

    def may_ask(self) -> bool:
        return self._breaker.may_ask(time.monotonic())

    def probe_told_nothing(self) -> None:
        """The probe has ended, if it did not tell before."""
        self._breaker.told_nothing(was_probe=True)

    def ask_now(self) -> None:
        self._breaker.ask_now()

    def succeeded(self) -> bool:
        """Whether the store is back with this."""
        if self._breaker.succeeded() is not Change.CLOSED:
            return False
        log.info("store.recovered", message="storing again", **self._levels())
        return True

    def failed(self, error: StoreError, *, was_probe: bool) -> bool:
        """Whether the store is down with this."""
        self._note(error)
        change = self._breaker.failed(
            error.kind, time.monotonic(), self._jitter(), was_probe=was_probe
        )
        if change is Change.OPENED:
            self._say(
                "store.failed",
                message=f"{error}; images are kept until it is back",
                place=error.place,
                operation=error.operation,
                cause=error.cause,
                hint=error.hint,
                kind=error.kind,
            )
            return True
        if not self._breaker.is_open:
            self._retried += 1
        self.summarise()
        return False

    def summarise(self) -> None:
        """Say what goes on, unless something was said in the last minute."""
        if time.monotonic() - self._said_at < SUMMARY_SECONDS:
            return
        if self._breaker.is_open:
            self._say("store.awaited", message=self._problem)
        elif self._retried:
            self._say("upload.retried", message=self._problem, times=self._retried)
            self._retried = 0

    def reasons(self) -> list[dict[str, object]]:
        """The last failures, the latest first."""
        latest = sorted(self._reasons.values(), key=lambda reason: -reason.last_at)
        return [asdict(reason) for reason in latest]

    def _note(self, error: StoreError) -> None:
        self._problem = str(error)
        text = ": ".join(part for part in (error.place, error.cause, error.hint) if part)
        reason = self._reasons.pop(text, None) or Reason(text, 0, 0)
        reason.count += 1
        reason.last_at = time.time()
        self._reasons[text] = reason
        if len(self._reasons) > MOST_REASONS:
            del self._reasons[next(iter(self._reasons))]

    def _say(self, event: str, **fields: object) -> None:
        self._said_at = time.monotonic()
        say = log.error if event == "store.failed" else log.warning
        say(event, **fields, **self._levels())
