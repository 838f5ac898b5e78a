"""Admission: who may ask imgproxy while it fails, with the clock and the dice in hand."""

import pytest

from imgproxy_cache.errors import UpstreamFailing
from imgproxy_cache.read_through.admission import Admission


def test_a_probe_whose_source_hangs_keeps_no_other_from_finding_imgproxy_well() -> None:
    now = 100.0
    admission = Admission(clock=lambda: now, jitter=lambda: 0.0)
    for _ in range(5):
        admission.ask()
        admission.told(503, None, was_probe=False)
    hanging = admission.ask()
    with pytest.raises(UpstreamFailing):
        admission.ask()

    now += 2
    second = admission.ask()
    admission.told(200, None, was_probe=second)

    assert (hanging, second, admission.is_open) == (True, True, False)
