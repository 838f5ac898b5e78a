"""The log is a stream that somebody else reads, or does not."""

from __future__ import annotations

import os
import subprocess
import sys

from imgproxy_cache.log import Rationed

LOG_SOMETHING = """
import asyncio
import structlog
from imgproxy_cache.leaving import leave
from imgproxy_cache.log import configure

async def main():
    complaints = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda loop, context: complaints.append(context))
    structlog.get_logger().info("server.started")
    for _ in range(10):
        await asyncio.sleep(0)
    return len(complaints)

configure("info", "json")
leave(asyncio.run(main()))
"""


def test_log_that_nobody_reads_any_more_is_no_error() -> None:
    """Which would be logged, and would fail again: in every turn of the event loop."""
    read_end, write_end = os.pipe()
    os.close(read_end)
    try:
        ended = subprocess.run(
            [sys.executable, "-c", LOG_SOMETHING],
            stdout=write_end,
            stderr=subprocess.PIPE,
            timeout=60,
            check=False,
        )
    finally:
        os.close(write_end)

    assert (ended.returncode, ended.stderr) == (0, b"")


def test_rationed_lines_are_so_many_a_second_and_then_a_count() -> None:
    lines: list[dict[str, object]] = []
    now = 100.0
    log = Rationed(lambda event, **fields: lines.append(fields), per_second=3, clock=lambda: now)
    for at in (100.0, 100.1, 100.2, 100.3, 100.9, 101.0, 101.1, 103.5):
        now = at
        log("request.refused", at=at)

    assert lines == [
        {"at": 100.0},
        {"at": 100.1},
        {"at": 100.2},
        {"at": 101.0, "unlogged": 2},
        {"at": 101.1},
        {"at": 103.5},
    ]
