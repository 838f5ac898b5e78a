"""Open files: hits without a thread, and without waiting for a disk."""

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from imgproxy_cache.core.kept import KeptAnswer, Signpost, tier_key
from imgproxy_cache.tiers.disk_folder import DiskFolder
from imgproxy_cache.tiers.on_disk import MOST_NOW_BYTES, WARM_SECONDS, OnDisk, OpenFiles, PageCache
from tests.commands import wait_for
from tests.tiers.answers import LIFETIMES, answer
from tests.tiers.tiers import Heads, Written, disk_folder

# A whole second and a part of it.
AT = 1_770_091_506.25


@pytest.fixture
def folder(tmp_path: Path) -> DiskFolder:
    folder = disk_folder(tmp_path)
    folder.prepare()
    return folder


@pytest.fixture
def closed() -> list[int]:
    return []


@pytest.fixture
def files(closed: list[int]) -> Iterator[OpenFiles]:
    def close(descriptor: int) -> None:
        os.close(descriptor)
        closed.append(descriptor)

    files = OpenFiles(max_files=3, heads=Heads(), close=close)
    yield files
    files.close()


def add(files: OpenFiles, folder: DiskFolder, number: int, body: bytes = b"hello world") -> None:
    key = tier_key(answer(number).name)
    folder.write(key, answer(number, body))
    open_again(files, folder, number)


def open_again(files: OpenFiles, folder: DiskFolder, number: int) -> None:
    key = tier_key(answer(number).name)
    file = folder.open(key)
    assert file is not None
    files.add(key, file, AT)


def found(files: OpenFiles, number: int = 0, at: float = AT) -> OnDisk:
    one = files.find(tier_key(answer(number).name), at)
    assert isinstance(one, OnDisk)
    return one


def is_open(files: OpenFiles, number: int, at: float = AT) -> bool:
    return files.find(tier_key(answer(number).name), at) is not None


@pytest.mark.parametrize(
    "body", [b"", b"hello world", bytes(range(256)) * 4096], ids=["empty", "small", "1 MiB"]
)
def test_a_hit_is_ready_for_the_wire(files: OpenFiles, folder: DiskFolder, body: bytes) -> None:
    add(files, folder, 0, body)
    one = found(files)
    wire = Written()
    expected = []
    for way, seconds_later in (
        ("send", 0),  # read
        ("send_file", 0.5),
        ("send_file", 1),
        ("send_file", 2.5),
        ("send", 4),  # and again, after more than a second without
        ("send_file", 4.5),
        ("send", 3.5),  # the clock was set back
    ):
        assert one.give(AT + seconds_later, wire)
        head = b"HTTP/1.1 200\r\nContent-Length: %d\r\nAt: %.2f\r\n\r\n"
        expected.append((way, head % (len(body), int(AT + seconds_later)) + body))
    assert wire.written == expected
    assert one.kept_at(AT) == answer(body=body)
    assert (one.metadata, one.size) == (replace(answer(body=body), body=b""), len(body))
    assert not one.is_cold


def test_it_is_given_as_long_as_it_is_fresh(files: OpenFiles, folder: DiskFolder) -> None:
    kept = answer(lifetimes=LIFETIMES._replace(fresh_until=AT + 0.25))
    folder.write(tier_key(kept.name), kept)
    open_again(files, folder, 0)
    one, wire = found(files), Written()
    times = (AT, AT + 0.25, AT + 1, AT)
    assert [one.give(at, wire) for at in times] == [True, False, False, True]


def test_a_large_body_is_left_to_a_thread(files: OpenFiles, folder: DiskFolder) -> None:
    add(files, folder, 0, bytes(MOST_NOW_BYTES + 1))
    one, wire = found(files), Written()
    assert (one.give(AT, wire), one.kept_at(AT), one.is_cold) == (False, None, True)
    assert wire.written == []


def test_a_file_that_was_cut_is_left_to_a_thread(files: OpenFiles, folder: DiskFolder) -> None:
    add(files, folder, 0)
    (path,) = folder.path.rglob("*.kept")
    os.truncate(path, path.stat().st_size - 1)
    one, wire = found(files), Written()
    assert [one.give(AT, wire), one.give(AT, wire)] == [False, False]
    assert wire.written == []


def test_a_signpost_is_found_as_it_is(files: OpenFiles, folder: DiskFolder) -> None:
    signpost = Signpost(answer().name, (b"accept",))
    folder.write(tier_key(answer().name), signpost)
    open_again(files, folder, 0)
    assert files.find(tier_key(answer().name), AT) == signpost


def test_no_more_are_open_than_agreed(
    files: OpenFiles, folder: DiskFolder, closed: list[int]
) -> None:
    for number in range(3):
        add(files, folder, number)
    assert is_open(files, 0)
    add(files, folder, 3)
    assert [is_open(files, number) for number in range(4)] == [True, False, True, True]
    assert (len(files), len(closed)) == (3, 1)


@pytest.mark.parametrize("change", ["removed", "replaced"])
def test_what_another_worker_does_is_noticed_in_the_next_second(
    files: OpenFiles, folder: DiskFolder, change: str, closed: list[int]
) -> None:
    add(files, folder, 0)
    if change == "removed":
        folder.remove(tier_key(answer().name))
    else:
        folder.write(tier_key(answer().name), answer(body=b"later"))
    assert found(files).kept_at(AT) == answer()
    assert not is_open(files, 0, AT + 1)
    assert len(closed) == 1


def test_it_is_known_which_were_used(files: OpenFiles, folder: DiskFolder) -> None:
    for number in range(3):
        add(files, folder, number)
    assert files.take_used() == []
    for number in (0, 2, 2, 0):
        assert is_open(files, number)
    files.forget(tier_key(answer(2).name))
    assert files.take_used() == [answer(0).name]
    assert files.take_used() == []
    assert is_open(files, 0)
    assert files.take_used() == [answer(0).name]


def read(cache: PageCache, path: Path, *, is_warm: bool) -> bytes | None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        into = bytearray(5)
        return bytes(into) if cache.read(descriptor, memoryview(into), 6, is_warm=is_warm) else None
    finally:
        os.close(descriptor)


def test_the_kernel_says_what_it_has_at_hand(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"hello world")
    cache = PageCache()
    assert read(cache, path, is_warm=True) == b"world"
    with path.open("rb") as file:
        os.fsync(file.fileno())

        def is_dropped() -> bool:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            return read(cache, path, is_warm=False) is None

        # A page that the kernel is not done with stays at first, and asking once more what it has
        # at hand would have it read what it has not.
        wait_for(is_dropped)


@pytest.mark.parametrize(("is_warm", "expected"), [(True, b"world"), (False, None)])
def test_where_it_cannot_say_only_what_was_read_lately_is_read(
    tmp_path: Path, is_warm: bool, expected: bytes | None
) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"hello world")
    assert read(PageCache(can_tell=False), path, is_warm=is_warm) == expected


def test_what_was_read_lately_is_read_again_without_a_thread(
    folder: DiskFolder, tmp_path: Path
) -> None:
    folder.write(tier_key(answer().name), answer())
    file = folder.open(tier_key(answer().name))
    assert file is not None
    assert isinstance(file.head.kept, KeptAnswer)
    one = OnDisk(file, file.head.kept, PageCache(can_tell=False), Heads(), AT)
    assert one.kept_at(AT + WARM_SECONDS - 1) == answer()
    assert one.kept_at(AT + 2 * WARM_SECONDS - 2) == answer()
    assert one.kept_at(AT + 3 * WARM_SECONDS) is None
    os.close(file.descriptor)
