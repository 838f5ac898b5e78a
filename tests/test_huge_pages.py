"""Pages of 2 MB, as far as this kernel has them."""

import mmap
from pathlib import Path

from imgproxy_cache.huge_pages import HUGE_PAGE_BYTES, MADV_COLLAPSE, gather_in_huge_pages


def test_what_fills_them_is_moved_as_it_is() -> None:
    objects = [number.to_bytes(400) for number in range(40_000)]
    before = kilobytes("AnonHugePages")
    gathered = gather_in_huge_pages()
    assert gathered * HUGE_PAGE_BYTES // 1024 >= kilobytes("AnonHugePages") - before
    assert gathered > 0 or not kernel_has_them()
    assert [int.from_bytes(each) for each in objects] == list(range(40_000))


def test_what_is_nearly_empty_stays_and_takes_no_more() -> None:
    with mmap.mmap(-1, 64 * HUGE_PAGE_BYTES, flags=mmap.MAP_PRIVATE) as nearly_empty:
        for start in range(0, len(nearly_empty), HUGE_PAGE_BYTES):
            nearly_empty[start] = 1
        before = kilobytes("Rss")
        gather_in_huge_pages()
        assert kilobytes("Rss") - before < 32 * HUGE_PAGE_BYTES // 1024


def kilobytes(what: str) -> int:
    """Of all memory of ours."""
    for line in Path("/proc/self/smaps_rollup").read_text().splitlines():
        if line.startswith(f"{what}:"):
            return int(line.split()[1])
    raise LookupError(what)


def kernel_has_them() -> bool:
    with mmap.mmap(-1, 4 * HUGE_PAGE_BYTES, flags=mmap.MAP_PRIVATE) as memory:
        memory[:] = bytes(len(memory))
        try:
            memory.madvise(MADV_COLLAPSE)
        except OSError:
            return False
        return "[never]" not in Path("/sys/kernel/mm/transparent_hugepage/enabled").read_text()
