"""The log is a stream that somebody else reads, or does not."""

from __future__ import annotations

import os
import subprocess
import sys

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
