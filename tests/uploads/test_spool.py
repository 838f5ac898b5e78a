"""The spool on a real file system: whole files, safe folders, and processes that die."""

import errno
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from imgproxy_cache.errors import SpoolError, SpoolFileError
from imgproxy_cache.private_folder import store_folder
from imgproxy_cache.uploads.spool import MOST_QUARANTINED, Spool, open_spool, read_spooled
from imgproxy_cache.uploads.spool_folder import (
    ask_for_retry,
    notes,
    quarantined,
    spooled_files,
)
from tests.spooled import NOW, spooled

PLACE = "s3://images/processed"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "spool"


@pytest.fixture
def spool(root: Path) -> Iterator[Spool]:
    spool = open_spool(root, PLACE, sync=True)
    yield spool
    spool.close()


def names(root: Path) -> list[str]:
    return sorted(path.name for path in root.rglob("*") if path.is_file() and path.name != ".lock")


def test_what_was_written_is_read_and_removed(spool: Spool, root: Path) -> None:
    images = [spooled(1), spooled(2, b"another")]
    files, failure = spool.write(images)
    assert failure is None
    assert [read_spooled(file) for file in files] == images
    assert [file.accepted_at for file in files] == [NOW + 1, NOW + 2]
    assert [file.size for file in files] == [file.path.stat().st_size for file in files]
    assert list(spooled_files(store_folder(root, PLACE))) == files
    for file in files:
        spool.remove(file)
        spool.remove(file)
    assert names(root) == []


def test_trying_the_disk_leaves_nothing_on_it(spool: Spool, root: Path) -> None:
    spool.try_to_write(100_000)
    assert names(root) == []
    (folder,) = root.glob("*/worker-*")
    folder.rename(root / "elsewhere")
    with pytest.raises(FileNotFoundError):
        spool.try_to_write(1)


def test_folders_and_files_are_for_nobody_else(spool: Spool, root: Path) -> None:
    spool.write([spooled()])
    modes = {path: path.stat().st_mode & 0o777 for path in (root, *root.rglob("*"))}
    assert {mode for path, mode in modes.items() if path.is_dir()} == {0o700}
    assert {mode for path, mode in modes.items() if path.is_file()} == {0o600}


def test_a_folder_that_was_open_to_others_is_closed(root: Path) -> None:
    root.mkdir(mode=0o755)
    open_spool(root, PLACE, sync=True).close()
    assert root.stat().st_mode & 0o777 == 0o700


def test_each_store_has_a_folder_of_its_own(root: Path) -> None:
    places = [
        "s3://images",
        "s3://images/a-b",
        "s3://images/a/b",
        "gs://images",
        "file:///" + "x" * 500,
    ]
    assert len({store_folder(root, place) for place in places}) == len(places)
    spools = [open_spool(root, place, sync=False) for place in places]
    spools[0].write([spooled()])
    spools[0].close()
    assert [list(spool.adopt()) for spool in spools[1:]] == [[], [], [], []]
    for spool in spools[1:]:
        spool.close()


def test_a_link_in_place_of_a_folder_is_refused(root: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    root.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(SpoolError, match="is a link"):
        open_spool(root, PLACE, sync=True)
    root.unlink()
    root.mkdir()
    store_folder(root, PLACE).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(SpoolError, match="is a link"):
        open_spool(root, PLACE, sync=True)
    assert list((tmp_path / "elsewhere").iterdir()) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give folders to others")
def test_a_folder_of_another_user_is_refused(root: Path) -> None:
    root.mkdir()
    os.chown(root, 12345, 12345)
    with pytest.raises(SpoolError, match="belongs to user 12345, we run as 0"):
        open_spool(root, PLACE, sync=True)


def test_a_link_in_place_of_a_file_is_not_followed(spool: Spool, tmp_path: Path) -> None:
    ((file,), _) = spool.write([spooled()])
    secret = tmp_path / "secret"
    file.path.rename(secret)
    file.path.symlink_to(secret)
    with pytest.raises(OSError, match="symbolic") as caught:
        read_spooled(file)
    assert caught.value.errno == errno.ELOOP


def test_a_file_under_another_images_name_is_refused(spool: Spool) -> None:
    (one, other), _ = spool.write([spooled(1), spooled(2)])
    one.path.replace(other.path)
    with pytest.raises(SpoolFileError, match="its name is another image's"):
        read_spooled(other)


def test_what_a_process_has_left_is_taken_over_oldest_first(root: Path) -> None:
    before = open_spool(root, PLACE, sync=True)
    before.write([spooled(3), spooled(1), spooled(2)])
    before.close()
    after = open_spool(root, PLACE, sync=True)
    adopted = list(after.adopt())
    assert [read_spooled(file) for file in adopted] == [spooled(1), spooled(2), spooled(3)]
    assert list(after.adopt()) == []
    after.close()


def test_what_a_living_process_has_is_left_alone(spool: Spool, root: Path) -> None:
    files, _ = spool.write([spooled()])
    other = open_spool(root, PLACE, sync=True)
    assert list(other.adopt()) == []
    other.close()
    assert read_spooled(files[0]) == spooled()


def test_half_written_files_are_removed_and_others_left(root: Path) -> None:
    before = open_spool(root, PLACE, sync=True)
    ((file,), _) = before.write([spooled()])
    file.path.with_suffix(".part").write_bytes(b"half")
    stranger = file.path.with_name("README")
    stranger.write_text("not ours")
    before.close()
    after = open_spool(root, PLACE, sync=True)
    assert [read_spooled(file) for file in after.adopt()] == [spooled()]
    assert not file.path.with_suffix(".part").exists()
    assert stranger.read_text() == "not ours"
    after.close()


def test_an_empty_spool_leaves_no_folder_behind(root: Path) -> None:
    spool = open_spool(root, PLACE, sync=True)
    spool.note("{}")
    spool.close()
    assert [path.name for path in store_folder(root, PLACE).iterdir()] == [".lock"]


HOLDER = """
import sys, pathlib
from imgproxy_cache.uploads.spool import open_spool
from tests.spooled import spooled
spool = open_spool(pathlib.Path(sys.argv[1]), sys.argv[2], sync=True)
spool.write([spooled(n) for n in range(5)])
print("ready", flush=True)
sys.stdin.read()
"""

ADOPTER = """
import sys, pathlib
from imgproxy_cache.uploads.spool import open_spool
spool = open_spool(pathlib.Path(sys.argv[1]), sys.argv[2], sync=True)
sys.stdin.read(1)
for file in spool.adopt():
    print(file.path.name, flush=True)
sys.stdin.read()
"""


def program(code: str, root: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", code, str(root), PLACE],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def test_the_files_of_a_process_that_was_killed_are_taken_over(spool: Spool, root: Path) -> None:
    with program(HOLDER, root) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "ready\n"
        assert list(spool.adopt()) == []
        holder.kill()
        holder.wait(10)
    assert [read_spooled(file) for file in spool.adopt()] == [spooled(n) for n in range(5)]


def test_of_several_that_take_over_each_file_goes_to_one(root: Path) -> None:
    before = open_spool(root, PLACE, sync=False)
    before.write([spooled(n) for n in range(300)])
    before.close()
    adopters = [program(ADOPTER, root) for _ in range(4)]
    said = []
    for adopter in adopters:
        assert adopter.stdin is not None
        adopter.stdin.write("g")
        adopter.stdin.flush()
    for adopter in adopters:
        out, _ = adopter.communicate(timeout=20)
        said += out.split()
    # One that ended first may have been adopted from by another.
    assert set(said) == {file.path.name for file in spooled_files(store_folder(root, PLACE))}
    assert len(set(said)) == 300


def test_a_damaged_file_is_set_aside_with_the_reason(spool: Spool, root: Path) -> None:
    ((file,), _) = spool.write([spooled()])
    spool.quarantine(file, "the image is damaged")
    ((found, reason),) = quarantined(store_folder(root, PLACE))
    assert (found.key, reason) == (file.key, "the image is damaged")
    assert list(spooled_files(store_folder(root, PLACE))) == []


def test_no_more_is_kept_aside_than_agreed(spool: Spool, root: Path) -> None:
    aside = store_folder(root, PLACE) / "quarantine"
    aside.mkdir()
    for number in range(MOST_QUARANTINED):
        (aside / f"{number:019d}-{number:032x}.image").write_text("")
        (aside / f"{number:019d}-{number:032x}.reason").write_text("damaged")
    ((file,), _) = spool.write([spooled()])
    spool.quarantine(file, "damaged")
    kept = [found.path.name for found, _ in quarantined(store_folder(root, PLACE))]
    assert len(kept) == MOST_QUARANTINED
    assert (kept[0][:19], kept[-1]) == (f"{1:019d}", file.path.name)
    assert len(list(aside.glob("*.reason"))) == MOST_QUARANTINED


def test_word_is_left_for_operators(spool: Spool, root: Path) -> None:
    spool.note("first")
    spool.note("second")
    assert list(notes(store_folder(root, PLACE))) == ["second"]


def test_a_retry_is_asked_of_a_living_process_only(root: Path) -> None:
    spool = open_spool(root, PLACE, sync=True)
    spool.write([spooled()])
    assert spool.retry_was_asked_at() == 0
    assert ask_for_retry(store_folder(root, PLACE))
    assert spool.retry_was_asked_at() > 0
    spool.close()
    assert not ask_for_retry(store_folder(root, PLACE))


def test_a_disk_that_takes_no_more_keeps_what_it_took(
    spool: Spool, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fsync, calls = os.fsync, [0]

    def failing_fsync(descriptor: int) -> None:
        calls[0] += 1
        if calls[0] == 2:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", failing_fsync)
    files, failure = spool.write([spooled(1), spooled(2), spooled(3)])
    assert isinstance(failure, OSError)
    assert failure.errno == errno.EIO
    assert [read_spooled(file) for file in files] == [spooled(1)]
    assert len(names(root)) == 1, "nothing half-written is left"


def test_nothing_is_safe_when_the_folder_cannot_be_synced(
    spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing_fsync(descriptor: int) -> None:
        if Path(f"/proc/self/fd/{descriptor}").is_dir():
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "fsync", failing_fsync)
    files, failure = spool.write([spooled(1)])
    assert (files, isinstance(failure, OSError)) == ([], True)


def test_without_syncing_no_fsync_is_paid(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_fsync(descriptor: int) -> None:
        raise AssertionError("fsync")

    monkeypatch.setattr(os, "fsync", no_fsync)
    spool = open_spool(root, PLACE, sync=False)
    files, failure = spool.write([spooled(1)])
    assert failure is None
    assert read_spooled(files[0]) == spooled(1)
    spool.close()


def test_a_folder_that_cannot_be_made_says_which_and_why(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SpoolError, match=r"file.*: Not a directory: fix CACHE_SPOOL_DIR"):
        open_spool(tmp_path / "file" / "spool", PLACE, sync=True)
