"""The disk tier's folder, with several processes at work, some of which are killed."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from imgproxy_cache.core.kept import tier_key
from imgproxy_cache.tiers.disk_folder import DiskFolder
from tests.tiers.answers import answer
from tests.tiers.tiers import disk_folder

BODY_BYTES = 20_000
FILE_BYTES = 6 * 4096
MAX_BYTES = 100 * FILE_BYTES

WRITER = f"""
import os, pathlib, sys
from imgproxy_cache.core.kept import tier_key
from tests.tiers.answers import answer
from tests.tiers.tiers import disk_folder

root, first, puts = pathlib.Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
folder = disk_folder(root, max_bytes={MAX_BYTES})
folder.prepare()
for n in range(first, first + puts):
    kept = answer(n, bytes([n % 256]) * {BODY_BYTES})
    folder.write(tier_key(kept.name), kept)
    os.write(1, b"%d\\n" % n)
"""
ROOT = Path(__file__).parents[2]
FAILING_CALL = ROOT / "tests" / "faults" / "failing_call.py"


def command(root: Path, first: int, number: int, *through: str) -> list[str]:
    program = [*through, WRITER] if through else ["-c", WRITER]
    return [sys.executable, *program, str(root), str(first), str(number)]


def writer(root: Path, first: int, number: int) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command(root, first, number),
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )


def whole(folder: DiskFolder, numbers: range) -> list[int]:
    """Those that are there; whatever is there is as it was written."""
    found = []
    for number in numbers:
        kept = answer(number, bytes([number % 256]) * BODY_BYTES)
        file = folder.open(tier_key(kept.name))
        if file is not None:
            os.close(file.descriptor)
            assert file.kept == kept
            found.append(number)
    return found


def expect_clean(folder: DiskFolder, numbers: range) -> list[int]:
    """After a count everything is as if nobody had been killed."""
    for _ in folder.count():
        pass
    found = whole(folder, numbers)
    files = [path for path in folder.path.rglob("*") if path.is_file()]
    assert len(files) == len(found) + 1, "the totals, and no other file"
    assert folder.room.items == len(found)
    assert folder.room.bytes == len(found) * FILE_BYTES
    return found


@pytest.fixture
def folder(tmp_path: Path) -> DiskFolder:
    folder = disk_folder(tmp_path, max_bytes=MAX_BYTES)
    folder.prepare()
    return folder


@pytest.mark.parametrize("number", [1, 2, 5])
@pytest.mark.parametrize("call", ["open", "write", "rename", "pwrite", "mkdir", "flock", "unlink"])
def test_a_process_killed_at_any_call_leaves_nothing_half_written(
    folder: DiskFolder, tmp_path: Path, call: str, number: int
) -> None:
    ended = subprocess.run(
        command(tmp_path, 0, 10, str(FAILING_CALL), call, "KILL", str(number)),
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=30,
        check=False,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    said = [int(line) for line in ended.stdout.split()]
    found = whole(folder, range(20))
    assert set(said) <= set(found), "what was written is there"
    expect_clean(folder, range(20))


def test_processes_killed_in_the_middle_of_their_puts_leave_nothing_half_written(
    folder: DiskFolder, tmp_path: Path
) -> None:
    for turn in range(5):
        with writer(tmp_path, turn * 10_000, 10_000) as process:
            assert process.stdout is not None
            for _ in range(20 + 37 * turn):
                process.stdout.readline()
            process.kill()
        for first in range(0, turn * 10_000 + 1, 10_000):
            whole(folder, range(first, first + 300))
    for _ in folder.count():
        pass
    assert list((folder.path / "new").iterdir()) == []
    assert 0 < folder.room.bytes <= MAX_BYTES


def test_several_that_write_at_once_stay_within_the_bounds(
    folder: DiskFolder, tmp_path: Path
) -> None:
    writers = [writer(tmp_path, first, 150) for first in (0, 1000, 2000)]
    written = set()
    for process in writers:
        assert process.stdout is not None
        for line in process.stdout:
            written.add(int(line))
            folder.room.look()
            assert folder.room.bytes <= MAX_BYTES
        assert process.wait(30) == 0
        process.stdout.close()
    assert len(written) == 450
    noted = folder.room.items
    found = expect_clean(folder, range(2150))
    assert noted == len(found), "nobody lost count"
    assert 80 <= len(found) <= 100


def test_what_one_process_writes_another_reads(folder: DiskFolder, tmp_path: Path) -> None:
    with writer(tmp_path, 0, 3) as process:
        assert process.stdout is not None
        for number in range(3):
            assert process.stdout.readline() == f"{number}\n"
            assert number in whole(folder, range(3))


def test_fewer_workers_find_what_more_have_left(folder: DiskFolder, tmp_path: Path) -> None:
    for first in (0, 10, 20, 30):
        with writer(tmp_path, first, 10) as process:
            assert process.wait(30) == 0
    assert whole(folder, range(40)) == list(range(40))
