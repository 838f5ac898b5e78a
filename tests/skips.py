"""With ``CI=true`` a skipped test is a failed one, but for those that need a real imgproxy."""

from collections.abc import Generator

import pytest

from tests.servers.build import is_ci

ALLOWED = "no imgproxy is installed"
"""What the reason of the one skip that CI knows has to say."""


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    reason = str(report.longrepr)
    if is_ci() and report.skipped and not hasattr(report, "wasxfail") and ALLOWED not in reason:
        report.outcome = "failed"
        report.longrepr = f"skipped, which CI does not allow: {reason}"
    return report
