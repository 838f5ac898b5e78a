"""Read-through beside nginx's `proxy_cache`, for what a hit costs and a cold start takes."""

from pathlib import Path

from benchmarks import hits, hits_beside_misses, replay, store_hits
from benchmarks.machine import ALL_CORES, SERVER_CORE
from benchmarks.table import Row


async def measure(folder: Path) -> list[Row]:
    for part in ("one", "two", "misses"):
        (folder / part).mkdir()
    return [
        *await hits.measure(folder / "one", cores=SERVER_CORE, workers=1, rounds=4, name=""),
        *await hits.measure(
            folder / "two", cores=ALL_CORES, workers=2, rounds=3, name=", two workers on two cores"
        ),
        *await store_hits.measure(folder / "store"),
        *await hits_beside_misses.measure(folder / "misses"),
        *await replay.measure(folder / "replay"),
    ]
