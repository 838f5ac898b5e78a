"""The disk tier's folder on a real file system: whole files, bounds, and nothing foreign."""

import fcntl
import os
import stat
import subprocess
from array import array
from collections.abc import Callable, Iterable
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import pytest

from imgproxy_cache.core.kept import Kept, KeptAnswer, Signpost, tier_key
from imgproxy_cache.core.spool_file import spool_head
from imgproxy_cache.errors import FolderError, KeptFileError
from imgproxy_cache.private_folder import store_folder
from imgproxy_cache.tiers.disk_folder import DiskFolder
from tests.faults.test_disk import small_disk
from tests.spooled import spooled
from tests.tiers.answers import answer
from tests.tiers.tiers import MIB, PLACE, disk_folder

KEY = tier_key(answer().name)
BLOCK = 4096


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "disk"


@pytest.fixture
def folder(root: Path) -> DiskFolder:
    return prepared(root)


def prepared(root: Path, *, max_bytes: int = 64 * MIB, max_items: int = 10_000) -> DiskFolder:
    folder = disk_folder(root, max_bytes=max_bytes, max_items=max_items)
    folder.prepare()
    return folder


def write(folder: DiskFolder, numbers: Iterable[int], body: bytes = b"hello world") -> None:
    for number in numbers:
        assert folder.write(tier_key(answer(number).name), answer(number, body))


def read(folder: DiskFolder, number: int = 0) -> Kept | None:
    file = folder.open(tier_key(answer(number).name))
    if file is None:
        return None
    os.close(file.descriptor)
    return file.kept


def path_of(folder: DiskFolder, number: int = 0) -> Path:
    name = sha256(answer(number).name).hexdigest()
    return folder.path / name[:2] / f"{name[2:]}.kept"


def there(folder: DiskFolder, numbers: Iterable[int]) -> list[int]:
    """Those that are there; they are not used by this."""
    return [number for number in numbers if path_of(folder, number).exists()]


def use_at(folder: DiskFolder, number: int, second: int) -> None:
    os.utime(path_of(folder, number), (second, second))


def files(folder: DiskFolder) -> list[Path]:
    return [path for path in folder.path.rglob("*.kept") if not path.is_dir()]


def expect_true_totals(folder: DiskFolder) -> None:
    """What is noted is what is there, in whole blocks."""
    folder.room.look()
    sizes = [-(-path.lstat().st_size // BLOCK) * BLOCK for path in files(folder)]
    assert (folder.room.items, folder.room.bytes) == (len(sizes), sum(sizes))


def count(folder: DiskFolder) -> None:
    for _ in folder.count():
        pass


def test_a_file_lies_where_its_key_says_and_is_ours_alone(folder: DiskFolder, root: Path) -> None:
    write(folder, [0])
    # printf %s /rs:fit:0:0/plain/local:///image.jpg | sha256sum
    digest = "5171871fbeef7ccf7285791373ccb4064d6590b47ece43a086b535f9b3112e77"
    path = store_folder(root, PLACE) / digest[:2] / f"{digest[2:]}.kept"
    modes = {stat.S_IMODE(found.stat().st_mode) for found in (root, *path.parents[:2], folder.path)}
    assert (modes, stat.S_IMODE(path.stat().st_mode)) == ({0o700}, 0o600)


def test_it_survives_a_restart(root: Path) -> None:
    write(prepared(root), range(5))
    again = prepared(root)
    assert [read(again, number) for number in range(6)] == [*map(answer, range(5)), None]
    expect_true_totals(again)


def test_another_stores_answers_are_not_ours(folder: DiskFolder, root: Path) -> None:
    write(folder, [0])
    other = disk_folder(root, "s3://other")
    other.prepare()
    assert read(other) is None
    assert other.room.items == 0


def test_nothing_half_written_lies_around(folder: DiskFolder) -> None:
    write(folder, range(5))
    assert list((folder.path / "new").iterdir()) == []


def swap(content: bytes, at: int) -> bytes:
    return content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def damage_body(path: Path) -> None:
    path.write_bytes(swap(path.read_bytes(), -1))


def damage_description(path: Path) -> None:
    path.write_bytes(swap(path.read_bytes(), 200))


def make_foreign(path: Path) -> None:
    path.write_bytes(b"\x89PNG\r\n\x1a\n" * 1000)


def exchange(path: Path) -> None:
    """Somebody else's answer, whole."""
    folder = prepared(path.parents[2])
    write(folder, [1])
    path_of(folder, 1).rename(path)


def make_link(path: Path) -> None:
    outside = path.parents[3] / "outside"
    path.rename(outside)
    path.symlink_to(outside)


def make_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def make_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()
    (path / "file").write_text("")


def make_huge(path: Path) -> None:
    os.truncate(path, 65 * MIB)


@pytest.mark.parametrize(
    "damage",
    [
        cut,
        empty,
        damage_body,
        damage_description,
        make_foreign,
        exchange,
        make_link,
        make_pipe,
        make_folder,
        make_huge,
    ],
)
def test_what_is_not_as_it_was_written_is_removed(
    folder: DiskFolder, damage: Callable[[Path], None]
) -> None:
    write(folder, [0])
    damage(path_of(folder))
    with pytest.raises(KeptFileError):
        folder.open(KEY)
    assert not os.path.lexists(path_of(folder))
    assert read(folder) is None
    write(folder, [0])
    assert read(folder) == answer()
    count(folder)
    expect_true_totals(folder)


def test_a_disk_that_can_only_be_read_goes_on_giving(tmp_path: Path) -> None:
    """As Linux leaves one on which it has found damage (`errors=remount-ro`)."""
    with small_disk(tmp_path / "disk") as disk:
        folder = prepared(disk / "tier")
        write(folder, [0, 1])
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        with pytest.raises(OSError, match="Read-only"):
            folder.write(KEY, answer())
        assert [read(folder, number) for number in range(3)] == [answer(0), answer(1), None]


def test_what_is_damaged_and_cannot_be_removed_does_not_stay_open(folder: DiskFolder) -> None:
    write(folder, [0])
    damage_body(path_of(folder))
    (folder.path / "totals").unlink()
    (folder.path / "totals").mkdir()
    descriptors = Path("/proc/self/fd")
    before = set(descriptors.iterdir())
    with pytest.raises(IsADirectoryError):
        folder.open(KEY)
    assert set(descriptors.iterdir()) == before


@pytest.mark.parametrize("damage", [make_link, make_pipe, make_folder, make_foreign])
def test_what_lies_in_the_place_of_a_file_gives_way_to_it(
    folder: DiskFolder, damage: Callable[[Path], None]
) -> None:
    write(folder, [0])
    damage(path_of(folder))
    write(folder, [0])
    assert read(folder) == answer()


def test_what_a_link_points_to_is_left_alone(folder: DiskFolder, tmp_path: Path) -> None:
    write(folder, [0])
    make_link(path_of(folder))
    before = (tmp_path / "outside").read_bytes()
    folder.used(KEY)
    write(folder, [0])
    assert (tmp_path / "outside").read_bytes() == before


@pytest.mark.parametrize(
    "work",
    [
        pytest.param(lambda folder: write(folder, [0]), id="write"),
        pytest.param(lambda folder: folder.remove(KEY), id="remove"),
        pytest.param(count, id="count"),
    ],
)
def test_a_link_in_the_place_of_a_folder_leads_nowhere(
    folder: DiskFolder, tmp_path: Path, work: Callable[[DiskFolder], None]
) -> None:
    write(folder, [0])
    outside, inside = tmp_path / "outside", path_of(folder).parent
    inside.rename(outside)
    inside.symlink_to(outside)
    work(folder)
    assert not inside.is_symlink()
    assert [path.name for path in outside.iterdir()] == [path_of(folder).name]


def test_a_link_in_the_place_of_the_store_is_refused(root: Path, tmp_path: Path) -> None:
    root.mkdir()
    (tmp_path / "elsewhere").mkdir()
    store_folder(root, PLACE).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(FolderError, match="is a link or no folder: set CACHE_DISK_DIR to a folder"):
        disk_folder(root).prepare()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_another_users_folder_is_refused(root: Path) -> None:
    root.mkdir()
    os.chown(root, 4242, 4242)
    with pytest.raises(FolderError, match="belongs to user 4242"):
        disk_folder(root).prepare()


@pytest.mark.parametrize(
    ("used", "gone"),
    [
        pytest.param([], [0, 1], id="the longest unused go first"),
        pytest.param([0], [1, 2], id="not what was used lately"),
        pytest.param([1, 0], [2, 3], id="nor two of these"),
    ],
)
def test_room_is_made_by_removing_the_longest_unused(
    root: Path, used: list[int], gone: list[int]
) -> None:
    folder = prepared(root, max_bytes=10 * BLOCK)
    for number in range(10):
        write(folder, [number])
        use_at(folder, number, 1000 + number)
    for number in used:
        assert read(folder, number) == answer(number)
    write(folder, [10, 11])
    assert sorted(set(range(12)) - set(there(folder, range(12)))) == gone
    assert folder.room.evictions == 2
    expect_true_totals(folder)


def test_use_by_one_process_counts_for_another(root: Path) -> None:
    folder, other = (prepared(root, max_bytes=10 * BLOCK) for _ in range(2))
    for number in range(10):
        write(folder, [number])
        use_at(folder, number, 1000 + number)
    other.used(KEY)
    write(folder, [10])
    assert there(folder, (0, 1)) == [0]


def test_of_many_some_more_are_removed_at_once(root: Path) -> None:
    folder = prepared(root, max_items=1000)
    for number in range(1000):
        write(folder, [number])
        use_at(folder, number, 1000 + number)
    write(folder, [1000])
    left = there(folder, range(1001))
    assert left == list(range(1001 - len(left), 1001)), "the oldest"
    assert 980 <= len(left) < 990, "room for some, not for one"


def test_a_file_that_takes_the_place_of_another_is_counted_once(folder: DiskFolder) -> None:
    write(folder, [0, 1])
    write(folder, [0], b"x" * 3 * BLOCK)
    expect_true_totals(folder)
    write(folder, [0])
    expect_true_totals(folder)
    folder.remove(KEY)
    folder.remove(KEY)
    expect_true_totals(folder)
    assert folder.room.items == 1


def test_what_takes_more_than_an_eighth_is_not_taken(root: Path) -> None:
    folder = prepared(root, max_bytes=16 * BLOCK)
    assert not folder.write(KEY, answer(body=bytes(2 * BLOCK)))
    assert folder.write(KEY, answer(body=bytes(BLOCK)))


def damage_totals(content: bytes) -> list[bytes]:
    huge = array("q", content)
    huge[int(sha256(answer().name).hexdigest()[:2], 16) * 2] = 1 << 60
    less = array("q", (-(1 << 40) for _ in range(512)))
    return [b"", content[:-1], bytes(len(content)), huge.tobytes(), less.tobytes()]


@pytest.mark.parametrize("number", range(5), ids=["empty", "cut", "nothing", "huge", "negative"])
def test_wrong_totals_cost_no_file_and_are_put_right(root: Path, number: int) -> None:
    folder = prepared(root, max_bytes=100 * BLOCK)
    write(folder, range(50))
    totals = folder.path / "totals"
    totals.write_bytes(damage_totals(totals.read_bytes())[number])
    write(folder, [50])
    assert there(folder, range(51)) == list(range(51))
    count(folder)
    expect_true_totals(folder)


def test_what_is_too_much_after_a_restart_with_less_room_goes(root: Path) -> None:
    folder = prepared(root)
    for number in range(100):
        write(folder, [number])
        use_at(folder, number, 1000 + number)
    less = prepared(root, max_bytes=20 * BLOCK)
    count(less)
    assert there(less, range(100)) == list(range(80, 100))
    expect_true_totals(less)


def test_one_process_counts_while_the_others_go_on(root: Path) -> None:
    folder, other = prepared(root), prepared(root)
    write(folder, range(10))
    counting = folder.count()
    next(counting)
    assert list(other.count()) == [], "somebody does already"
    write(other, range(10, 20))
    assert read(other, 3) == answer(3)
    for _ in counting:
        pass
    expect_true_totals(folder)
    assert len(list(other.count())) == 256


def test_what_writers_that_died_have_left_is_removed_and_nothing_else(folder: DiskFolder) -> None:
    dead, living = (folder.path / "new" / f"{name}.part" for name in ("dead", "living"))
    dead.write_text("half an image")
    with living.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        count(folder)
        assert list((folder.path / "new").iterdir()) == [living]


def spool_file(folder: Path, kept: KeptAnswer | None, body: bytes = b"hello world") -> Path:
    """As the spool has it."""
    image, _ = spooled(0, body)
    image = replace(image, kept=kept)
    path = folder / "spooled.image"
    path.write_bytes(spool_head(image) + body)
    return path


def test_a_file_of_the_spool_moves_here(folder: DiskFolder, tmp_path: Path) -> None:
    path = spool_file(tmp_path, replace(answer(), body=b""))
    number = path.stat().st_ino
    assert folder.take_over(path, KEY)
    assert (path_of(folder).stat().st_ino, path.exists()) == (number, False)
    assert read(folder) == answer()
    expect_true_totals(folder)


def test_a_file_of_a_spool_on_another_disk_is_copied(root: Path, tmp_path: Path) -> None:
    folder = prepared(root)
    with small_disk(tmp_path / "small") as disk:
        path = spool_file(disk, replace(answer(), body=b""))
        assert folder.take_over(path, KEY)
        assert not path.exists()
    assert read(folder) == answer()
    expect_true_totals(folder)


def test_a_file_of_the_spool_was_used_when_it_came(root: Path, tmp_path: Path) -> None:
    folder = prepared(root, max_items=3)
    for number in (1, 2, 3):
        write(folder, [number])
        use_at(folder, number, 1_000_000 + number)
    path = spool_file(tmp_path, replace(answer(), body=b""))
    os.utime(path, (1000, 1000))
    folder.take_over(path, KEY)
    write(folder, [4])
    assert there(folder, range(5)) == [0, 3, 4]


KEPT = replace(answer(), body=b"")


def received(kept: KeptAnswer, seconds: float) -> KeptAnswer:
    """So many seconds later than it was."""
    at = kept.lifetimes.received_at + seconds
    return replace(kept, lifetimes=kept.lifetimes._replace(received_at=at))


@pytest.mark.parametrize(
    ("there", "is_moved"),
    [
        pytest.param(received(answer(0, b"another"), 0.001), False, id="received later"),
        pytest.param(answer(0, b"another"), True, id="at the same time"),
        pytest.param(received(answer(0, b"another"), -1), True, id="before"),
        pytest.param(Signpost(KEPT.name, (b"accept",)), True, id="a signpost"),
    ],
)
def test_a_file_of_the_spool_takes_no_later_answers_place(
    folder: DiskFolder, tmp_path: Path, there: Kept, is_moved: bool
) -> None:
    folder.write(KEY, there)
    path = spool_file(tmp_path, KEPT)
    assert folder.take_over(path, KEY) is is_moved
    assert path.exists() is not is_moved
    assert read(folder) == (answer() if is_moved else there)
    expect_true_totals(folder)


def test_a_file_of_a_spool_on_another_disk_takes_no_later_answers_place(root: Path) -> None:
    folder = prepared(root)
    later = received(answer(0, b"another"), 1)
    folder.write(KEY, later)
    with small_disk(root.with_name("small")) as disk:
        path = spool_file(disk, KEPT)
        assert not folder.take_over(path, KEY)
    assert read(folder) == later
    assert list((folder.path / "new").iterdir()) == []


@pytest.mark.parametrize("is_folder", [True, False])
def test_what_is_no_answer_is_in_no_files_way(
    folder: DiskFolder, tmp_path: Path, is_folder: bool
) -> None:
    there = path_of(folder)
    there.parent.mkdir()
    if is_folder:
        there.mkdir()
    else:
        os.mkfifo(there)
    assert folder.take_over(spool_file(tmp_path, KEPT), KEY)
    assert read(folder) == answer()


@pytest.mark.parametrize(
    ("kept", "body"),
    [
        pytest.param(None, b"hello world", id="as without read-through"),
        pytest.param(replace(KEPT, name=b"/other"), b"hello world", id="another's"),
        pytest.param(
            replace(KEPT, selection=((b"accept", b"image/webp"),)), b"hello world", id="a variant"
        ),
        pytest.param(KEPT, bytes(9 * MIB), id="too large"),
    ],
)
def test_a_file_that_may_not_be_kept_stays_in_the_spool(
    folder: DiskFolder, tmp_path: Path, kept: KeptAnswer | None, body: bytes
) -> None:
    path = spool_file(tmp_path, kept, body)
    assert not folder.take_over(path, KEY)
    assert path.exists()
    assert files(folder) == []


def test_a_signpost_is_a_file_as_well(folder: DiskFolder) -> None:
    signpost = Signpost(answer().name, (b"accept",))
    folder.write(KEY, signpost)
    assert read(folder) == signpost
