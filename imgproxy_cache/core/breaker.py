"""
When to ask a store, or imgproxy, that fails: a circuit breaker, with back-off and full jitter.

The libraries for back-off (stamina, tenacity) call one thing again until it works.  Here
thousands of images wait for one store, and which of them is tried next is another's decision.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto
from math import inf

# One failure may be the image's own; as many in a row as this are the store's.
FAILURES_TO_OPEN = 3
FIRST_DELAY_SECONDS = 1.0
# A store that is down is asked several times a minute, one that needs an operator less often.
LONGEST_DELAY_SECONDS = 10.0
LONGEST_DELAY_UNTIL_MENDED_SECONDS = 60.0
# What does not heal by itself.
NEEDS_AN_OPERATOR = frozenset({"bucket", "credentials", "denied", "region", "tls", "clock"})
# What says nothing of the store, only of the image.
OF_THE_IMAGE = frozenset({"too-large", "fields", "bug"})


class Permission(Enum):
    """Whether the store may be asked; who was told AS_PROBE has to tell what came of it."""

    NO = auto()
    FREELY = auto()
    AS_PROBE = auto()


class Change(Enum):
    """What an outcome did to the breaker."""

    NONE = auto()
    OPENED = auto()
    CLOSED = auto()


@dataclass(slots=True)
class Breaker:
    """
    Closed: the store is asked freely.  Open: one probe at a time, with growing delays; one that
    has told nothing after `probe_seconds` is no longer waited for.

    Times are seconds on any one clock; `random` numbers are from [0, 1).
    """

    failures_to_open: int = FAILURES_TO_OPEN
    longest_delay_seconds: float = LONGEST_DELAY_SECONDS
    probe_seconds: float = inf
    is_open: bool = False
    probe_at: float = 0.0
    failures: int = 0
    _is_probing: bool = False
    _probe_over_at: float = 0.0

    def may_ask(self, now: float) -> bool:
        """Whether :meth:`permission` would be given."""
        if not self.is_open:
            return True
        return now >= (self._probe_over_at if self._is_probing else self.probe_at)

    def permission(self, now: float) -> Permission:
        """Ask whether to ask the store now."""
        if not self.is_open:
            return Permission.FREELY
        if not self.may_ask(now):
            return Permission.NO
        self._is_probing = True
        self._probe_over_at = now + self.probe_seconds
        return Permission.AS_PROBE

    def succeeded(self) -> Change:
        """The store took an image, be it the probe or one that began before."""
        was_open, self.is_open = self.is_open, False
        self.failures = 0
        self._is_probing = False
        return Change.CLOSED if was_open else Change.NONE

    def failed(self, kind: str, now: float, random: float, *, was_probe: bool) -> Change:
        """Count a failure of this :attr:`StoreError.kind`."""
        if kind in OF_THE_IMAGE:
            self.told_nothing(was_probe=was_probe)
            return Change.NONE
        if self.is_open and not was_probe:
            return Change.NONE  # it began before the store was known to be down
        self.failures += 1
        self._is_probing = False
        if (
            self.failures < self.failures_to_open
            and kind not in NEEDS_AN_OPERATOR
            and not self.is_open
        ):
            return Change.NONE
        was_open, self.is_open = self.is_open, True
        self.probe_at = now + delay_seconds(
            self.failures, kind, random, longest=self.longest_delay_seconds
        )
        return Change.NONE if was_open else Change.OPENED

    def told_nothing(self, *, was_probe: bool) -> None:
        """The store was not asked in the end, or its answer was about the image alone."""
        if was_probe:
            self._is_probing = False

    def ask_now(self) -> None:
        """An operator says that it is mended: the next probe is due, and soon the one after."""
        self.probe_at = 0.0
        self.failures = min(self.failures, self.failures_to_open)


def delay_seconds(
    failures: int, kind: str, random: float, *, longest: float = LONGEST_DELAY_SECONDS
) -> float:
    """
    Exponential back-off with full jitter, after so many failures in a row.

    Source: https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/
    """
    if kind in NEEDS_AN_OPERATOR:
        longest = LONGEST_DELAY_UNTIL_MENDED_SECONDS
    return random * min(longest, FIRST_DELAY_SECONDS * 2.0 ** min(failures - 1, 20))
