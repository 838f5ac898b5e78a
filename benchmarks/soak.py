"""``make soak``: does the embedded engine's memory stay flat over 100,000 renders?"""

from __future__ import annotations

import itertools
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.servers.engine import RunningEngine, running_engine

RENDERS = 100_000
ROUND = 5_000
CLIENTS = 4
# Threads and allocators take a while to reach their size; after that nothing may be added.
WARM_UP_ROUNDS = 2
MOST_GROWTH_BYTES = 24_000_000

TARGETS = tuple(
    f"/_/{options}/plain/local:///{source}"
    for options, source in itertools.product(
        ("rs:fill:64:64", "rs:fit:120:120/bl:1", "rs:fit:40:40/q:60"),
        ("chelsea.jpg", "cat.png@webp", "coffee.webp", "rocket.jpg@png", "logo.svg@png"),
    )
)


def main() -> int:
    with running_engine({"IMGPROXY_WORKERS": "2"}) as engine, ThreadPoolExecutor(CLIENTS) as pool:
        first = 0
        for number in range(RENDERS // ROUND):
            _render_a_round(engine, pool)
            resident = _resident_bytes(engine.process.pid)
            if number == WARM_UP_ROUNDS:
                first = resident
            print(f"{(number + 1) * ROUND:>7} renders  {resident / 1e6:6.1f} MB", flush=True)
        grown = resident - first
    print(f"grown by {grown / 1e6:.1f} MB after the first {(WARM_UP_ROUNDS + 1) * ROUND}")
    return 0 if grown <= MOST_GROWTH_BYTES else 1


def _render_a_round(engine: RunningEngine, pool: ThreadPoolExecutor) -> None:
    def ask(number: int) -> int:
        return engine.ask(TARGETS[number % len(TARGETS)]).status

    statuses = set(pool.map(ask, range(ROUND)))
    if statuses != {200}:
        raise RuntimeError(f"the engine answered {sorted(statuses)}")


def _resident_bytes(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096


if __name__ == "__main__":
    sys.exit(main())
