"""When to ask a store that fails: a circuit breaker, with back-off and full jitter."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto

# One failure may be the image's own; as many in a row as this are the store's.
FAILURES_TO_OPEN = 3
FIRST_DELAY_SECONDS = 1.0
# A store that is down is asked several times a minute, one that needs an operator less often.
LONGEST_DELAY_SECONDS = 10.0
LONGEST_DELAY_UNTIL_MENDED_SECONDS = 60.0
# What does not heal by itself.
NEEDS_AN_OPERATOR = frozenset({"bucket", "credentials", "denied", "region", "tls", "clock"})


class Change(Enum):
    """What an outcome did to the breaker."""

    NONE = auto()
    OPENED = auto()
    CLOSED = auto()


@dataclass(slots=True)
class Breaker:
    """
    Closed: the store is asked freely.  Open: one probe at a time, with growing delays.

    Times are seconds on any one clock; `random` numbers are from [0, 1).
    """

    is_open: bool = False
    probe_at: float = 0.0
    failures: int = 0
    _is_probing: bool = False

    def may_ask(self, now: float) -> bool:
        """Whether to ask the store now; while open, a yes is the one probe."""
        if not self.is_open:
            return True
        if self._is_probing or now < self.probe_at:
            return False
        self._is_probing = True
        return True

    def succeeded(self) -> Change:
        was_open, self.is_open = self.is_open, False
        self.failures = 0
        self._is_probing = False
        return Change.CLOSED if was_open else Change.NONE

    def failed(self, kind: str, now: float, random: float) -> Change:
        """Count a failure of this :attr:`StoreError.kind`."""
        self.failures += 1
        was_open, was_probe = self.is_open, self._is_probing
        if not was_open and self.failures < FAILURES_TO_OPEN and kind not in NEEDS_AN_OPERATOR:
            return Change.NONE
        self.is_open = True
        if not was_open or was_probe:
            self._is_probing = False
            self.probe_at = now + delay_seconds(self.failures, kind, random)
        return Change.NONE if was_open else Change.OPENED

    def was_not_asked(self) -> None:
        """The probe could not be made."""
        self._is_probing = False

    def ask_now(self) -> None:
        """An operator has asked for it: the next probe is due."""
        self.probe_at = 0.0
        self.failures = min(self.failures, FAILURES_TO_OPEN)


def delay_seconds(failures: int, kind: str, random: float) -> float:
    """
    Exponential back-off with full jitter, after so many failures in a row.

    Source: https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/
    """
    longest = (
        LONGEST_DELAY_UNTIL_MENDED_SECONDS if kind in NEEDS_AN_OPERATOR else LONGEST_DELAY_SECONDS
    )
    return random * min(longest, FIRST_DELAY_SECONDS * 2.0 ** min(failures - 1, 20))
