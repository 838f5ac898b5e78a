"""
`make bench`: one table of what imgproxy-cache costs, beside peers in the same run.

Starts everything itself, on loopback; `python -m benchmarks storing memory` runs parts of it.
"""

import asyncio
import os
import platform
import signal
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import uvloop

from benchmarks import (
    end_to_end,
    memory,
    passing,
    read_through,
    rendering,
    spooling,
    stalls,
    storing,
)
from benchmarks.machine import ALL_CORES, OTHER_CORE, load_average, processor
from benchmarks.table import Row, table
from tests.servers import build

PARTS: dict[str, Callable[[Path], Awaitable[list[Row]]]] = {
    "passing": passing.measure,
    "storing": storing.measure,
    "spooling": spooling.measure,
    "stalls": stalls.measure,
    "memory": memory.measure,
    "rendering": rendering.measure,
    "end_to_end": end_to_end.measure,
    "read_through": read_through.measure,
}
PART_SECONDS = {"read_through": 300}
OTHER_PART_SECONDS = 90


def main(names: list[str]) -> int:
    unknown = [name for name in names if name not in PARTS]
    if unknown:
        print(f"no part {', '.join(unknown)}: expected some of {', '.join(PARTS)}")
        return 2
    try:
        build.versitygw()
    except build.NotBuiltError as exc:
        print(f"the S3 server is missing: {exc}")
        return 1
    print(
        f"{len(ALL_CORES)} cores, {processor()}, Python {platform.python_version()},"
        f" load average {load_average():.1f} before the run",
        flush=True,
    )
    if len(ALL_CORES) < 2:
        print("one core only: servers share it with the load, which makes them look slower")
    os.sched_setaffinity(0, OTHER_CORE)
    started = time.monotonic()
    try:
        rows, is_complete = uvloop.run(_measured(names or list(PARTS)))
    except (asyncio.CancelledError, KeyboardInterrupt):
        print("stopped")
        return 1
    print(f"\n{table(rows)}\n\n{time.monotonic() - started:.0f} s")
    return 0 if is_complete else 1


async def _measured(names: list[str]) -> tuple[list[Row], bool]:
    task = asyncio.current_task()
    assert task is not None
    # Else what was started would outlive us.
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    rows: list[Row] = []
    is_complete = True
    for name in names:
        print(f"measuring: {name} ...", end="", flush=True)
        started = time.monotonic()
        try:
            with tempfile.TemporaryDirectory(prefix="imgproxy-cache-bench-") as folder:
                async with asyncio.timeout(PART_SECONDS.get(name, OTHER_PART_SECONDS)):
                    rows += await PARTS[name](Path(folder))
        # A part that cannot be measured leaves the others theirs.
        except Exception as exc:
            rows.append(Row(name, ours=f"not measured: {exc or type(exc).__name__}"))
            is_complete = False
        print(f" {time.monotonic() - started:.0f} s", flush=True)
    return rows, is_complete


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
