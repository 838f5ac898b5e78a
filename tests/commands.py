"""`imgproxy-cache` as a process, in an environment that holds nothing but what a test says."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from signal import SIGKILL

SECONDS = 60.0
IMGPROXY_CACHE = [sys.executable, "-m", "imgproxy_cache"]


@dataclass(frozen=True, slots=True)
class Finished:
    status: int
    out: str
    err: str


def imgproxy_cache(
    *arguments: str, environ: Mapping[str, str] | None = None, before: str = ""
) -> Finished:
    """Run a command to its end; the shell does what is to be done `before`, such as `ulimit`."""
    done = subprocess.run(
        ["sh", "-c", f'{before}\nexec "$@"', "sh", *IMGPROXY_CACHE, *arguments],
        env=environment(environ),
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    return Finished(done.returncode, done.stdout, done.stderr)


@dataclass(slots=True)
class Started:
    """A command that goes on, with its output in a file and its children."""

    process: subprocess.Popen[bytes]
    output: Path
    children: dict[str, int]

    def says(self, words: str) -> bool:
        return words in self.output.read_text(errors="replace")

    def until(self, *words: str) -> None:
        """Wait until all this has been said."""
        wait_for(lambda: all(map(self.says, words)) or self.process.poll() is not None)
        assert all(map(self.says, words)), self.output.read_text(errors="replace")
        for pid in descendants(self.process.pid):
            self.children[Path(f"/proc/{pid}/cmdline").read_bytes().decode()] = pid

    def child(self, word: str) -> int:
        """The process that was started with this argument."""
        (pid,) = (pid for command, pid in self.children.items() if word in command.split("\0"))
        return pid

    def ends(self) -> int:
        """The exit status, once it has ended."""
        return self.process.wait(SECONDS)

    def leaves_nothing_behind(self) -> bool:
        wait_for(lambda: not any(map(is_running, self.children.values())))
        return True


@contextmanager
def started(
    *arguments: str,
    environ: Mapping[str, str],
    output: Path,
    program: Sequence[str] = IMGPROXY_CACHE,
) -> Iterator[Started]:
    """Run a command for the length of the block."""
    with output.open("wb") as log:
        process = subprocess.Popen(
            [*program, *arguments],
            env=environment(environ),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    command = Started(process, output, {})
    try:
        yield command
    finally:
        left = [process.pid, *descendants(process.pid), *command.children.values()]
        for pid in left:
            with suppress(ProcessLookupError):
                os.kill(pid, SIGKILL)
        process.wait(SECONDS)


def environment(settings: Mapping[str, str] | None) -> dict[str, str]:
    bare = {"PATH": os.environ["PATH"], "COLUMNS": "100", "AWS_EC2_METADATA_DISABLED": "true"}
    return bare | dict(settings or {})


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline, "it took too long"
        time.sleep(0.01)


def is_running(pid: int) -> bool:
    """Whether there is such a process; a zombie is none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] != "Z"
    except FileNotFoundError:
        return False


def descendants(pid: int) -> Iterator[int]:
    # A child belongs to the thread that made it.
    for thread in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(FileNotFoundError):
            for child in thread.read_text().split():
                yield int(child)
                yield from descendants(int(child))
