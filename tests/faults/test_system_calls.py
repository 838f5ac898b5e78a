"""Killed, or failed by the disk, at each system call of the spool: recovery is clean."""

import itertools
import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from imgproxy_cache.core.key import Key
from imgproxy_cache.private_folder import store_folder
from imgproxy_cache.uploads.spool import open_spool, read_spooled
from imgproxy_cache.uploads.spool_folder import quarantined
from tests.faults.form import IS_LONG
from tests.spooled import spooled

PROGRAM = """
import os, pathlib, sys
from imgproxy_cache.uploads.spool import open_spool, read_spooled
from tests.spooled import spooled

def say(what, key):
    os.write(1, f"{what} {key}\\n".encode())

root = pathlib.Path(sys.argv[1])
spool = open_spool(root, "s3://images", sync=True)
for file in spool.adopt():
    say("safe", file.key)
images = [spooled(number, bytes([number]) * 20_000) for number in range(3)]
files, failure = spool.write(images)
for file in files:
    say("safe", file.key)
if failure is not None:
    say("failed", failure.errno)
    sys.exit(3)
say("leaving", files[0].key)
spool.remove(files[0])
say("leaving", files[1].key)
spool.quarantine(files[1], "for a test")
spool.note("{}")
spool.close()
"""
SYSCALLS = ("mkdir", "rename", "unlink", "rmdir", "fsync", "flock", "write", "writev")
IMAGES = {spooled(number)[0].key: number for number in range(10)}


def has_strace() -> bool:
    """Is it installed, and may we trace?"""
    with suppress(FileNotFoundError):
        return subprocess.run(["strace", "-o", "/dev/null", "true"], check=False).returncode == 0
    return False


# What Python calls is failed at once; strace, which sees every call, makes a process twice as dear.
WITH_STRACE = IS_LONG and has_strace()


def failed_at(
    root: Path, syscall: str, fault: str, number: int, program: str = PROGRAM
) -> subprocess.CompletedProcess[str]:
    """A program, killed at (or refused) the so-manieth of these system calls."""
    if WITH_STRACE:
        injection = "signal=KILL" if fault == "KILL" else f"error={fault}"
        command = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", f"trace={syscall}"]
        command += ["-e", f"inject={syscall}:{injection}:when={number}"]
        command += [sys.executable, "-Bc", program]
    else:
        faults = Path(__file__).with_name("failing_call.py")
        command = [sys.executable, "-B", str(faults), syscall, fault, str(number), program]
    return subprocess.run(
        [*command, str(root)],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
    )


def recovered(root: Path) -> set[Key]:
    """What the next process finds, each read whole; what is set aside was meant to be."""
    spool = open_spool(root, "s3://images", sync=True)
    found = set()
    for file in spool.adopt():
        image, body = read_spooled(file)
        assert body == bytes([IMAGES[image.key]]) * 20_000
        found.add(image.key)
    folder = store_folder(root, "s3://images")
    aside = {file.key for file, reason in quarantined(folder)}
    spool.close()
    left = [path.name for path in root.rglob("*") if path.suffix == ".part"]
    assert left == [], "nothing half-written stays"
    return found | aside


def said(output: str, word: str) -> set[Key]:
    lines = (line.split() for line in output.splitlines())
    return {Key(line[1]) for line in lines if line[0] == word}


@pytest.mark.parametrize("syscall", [call for call in SYSCALLS if call != "rmdir"])
def test_killed_at_any_system_call_of_the_spool_what_was_safe_is_whole(
    tmp_path: Path, syscall: str
) -> None:
    for number in itertools.count(1):
        root = tmp_path / str(number)
        done = failed_at(root, syscall, "KILL", number)
        if done.returncode == 0:
            break
        assert done.returncode == -signal.SIGKILL, done.stderr
        safe = said(done.stdout, "safe") - said(done.stdout, "leaving")
        assert safe <= recovered(root), f"killed at call {number}"
    assert number > 1, "the spool makes this call"


@pytest.mark.parametrize("syscall", SYSCALLS)
def test_killed_at_any_system_call_while_it_takes_over_nothing_is_lost(
    tmp_path: Path, syscall: str
) -> None:
    left = [spooled(number, bytes([number]) * 20_000) for number in (7, 8)]
    for number in itertools.count(1):
        root = tmp_path / str(number)
        before = open_spool(root, "s3://images", sync=True)
        before.write(left)
        before.close()
        done = failed_at(root, syscall, "KILL", number)
        if done.returncode == 0:
            break
        assert {image.key for image, _ in left} <= recovered(root), f"killed at call {number}"


@pytest.mark.parametrize("error", ["EIO", "ENOSPC"])
@pytest.mark.parametrize("syscall", ["mkdir", "rename", "fsync", "writev"])
def test_a_disk_that_fails_at_any_system_call_keeps_what_it_took(
    tmp_path: Path, syscall: str, error: str
) -> None:
    for number in itertools.count(1):
        root = tmp_path / str(number)
        done = failed_at(root, syscall, error, number)
        safe = said(done.stdout, "safe") - said(done.stdout, "leaving")
        assert safe <= recovered(root), f"failed at call {number}"
        if done.returncode == 0:
            break
