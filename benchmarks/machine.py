"""The machine's cores, and what a process has taken of it so far.  Linux only: reads /proc."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ALL_CORES = frozenset(os.sched_getaffinity(0))
# The server that is measured has a core to itself; everything that serves the measurement has
# the other one.  With a single core the two share it.
SERVER_CORE = frozenset([min(ALL_CORES)])
OTHER_CORE = frozenset([max(ALL_CORES)])


@contextmanager
def pinned(cores: frozenset[int]) -> Iterator[None]:
    """Keeps this thread, and the processes that it starts meanwhile, on these cores."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def cpu_seconds(pid: int) -> float:
    """CPU time of all threads of the process, the ended ones included."""
    # The clock of another process, to the nanosecond: /proc/PID/stat has steps of 10 ms.
    # Source: clock_getcpuclockid(3), and CPUCLOCK_SCHED in Linux's posix-timers.h.
    return time.clock_gettime((~pid << 3) | 2)


def cpu_seconds_of_all(pid: int) -> float:
    """CPU time of the process and of all that it has started and that still run."""
    return cpu_seconds(pid) + sum(map(cpu_seconds_of_all, _children(pid)))


def resident_megabytes(pid: int) -> float:
    """Memory that the process has now."""
    return _status(pid, "VmRSS") / 1024


def peak_megabytes(pid: int) -> float:
    """The most memory that the process ever had."""
    return _status(pid, "VmHWM") / 1024


def open_descriptors(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def load_average() -> float:
    return os.getloadavg()[0]


def processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return "unknown processor"


def _children(pid: int) -> list[int]:
    """Of all its threads."""
    files = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(child) for file in files for child in file.read_text().split()]


def _status(pid: int, name: str) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1])
    raise ValueError(f"process {pid} has no {name}: it has ended")
