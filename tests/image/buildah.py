"""
The container image, built and run by buildah: without a daemon, as root, on this machine.

``python -m tests.image.buildah`` builds it; with IMAGE_BUILT=yes it is then tested as it is.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
WORK = ROOT / ".dev/image"
DEBIAN, STAND_IN, IMAGE = (
    f"localhost/imgproxy-cache-{name}" for name in ("debian", "stand-in", "under-test")
)
BUILDAH = [
    "buildah",
    *("--root", str(WORK / "storage"), "--runroot", str(WORK / "run"), "--storage-driver", "vfs"),
]


def build_image() -> str:
    """
    Build the Dockerfile, and return the image's name.

    On the image that IMGPROXY_IMAGE names, where a registry can be reached; else on a stand-in
    that is made here (a Debian from its mirror with the embedded engine: about two minutes).
    """
    if os.environ.get("IMAGE_BUILT") == "yes":
        return IMAGE
    base = os.environ.get("IMGPROXY_IMAGE")
    if base is None:
        base = STAND_IN
        _make_debian()
        _build("the stand-in for imgproxy's image", STAND_IN, "tests/image/stand-in.Dockerfile")
    _build(f"the image on {base}", IMAGE, "Dockerfile", "--build-arg", f"IMGPROXY={base}")
    return IMAGE


def configuration(name: str) -> dict[str, Any]:
    """What an image, or a container of it, says about how it is to be run, as Docker reads it."""
    found = _buildah("inspect", name)
    return dict(json.loads(found)["Docker"]["config"])


@dataclass(frozen=True, slots=True)
class Program:
    """A process in a container, which shares this machine's process table."""

    pid: int
    arguments: tuple[str, ...]
    environ: Mapping[str, str]
    user: int


class Container:
    """A running container."""

    def __init__(self, name: str, process: subprocess.Popen[bytes], output: Path) -> None:
        self.name = name
        self._process = process
        self._output = output

    def programs(self) -> list[Program]:
        """What runs in it, without buildah's own processes."""
        found = (_program(pid) for pid in _descendants(self._process.pid))
        return [each for each in found if each and "buildah" not in each.arguments[0]]

    def program(self, word: str) -> Program:
        """The one program that has this argument."""
        (found,) = (each for each in self.programs() if word in each.arguments)
        return found

    def execute(self, command: Sequence[str], environ: Mapping[str, str]) -> int:
        """Run one more command in it, as `docker exec` does; its exit status."""
        return subprocess.run([*_run_in(self.name, environ), *command], check=False).returncode

    def wait(self, seconds: float) -> int:
        """The container's exit status, once it has ended."""
        return self._process.wait(seconds)

    def is_running(self) -> bool:
        return self._process.poll() is None

    def output(self) -> str:
        return self._output.read_text(errors="replace")


@contextmanager
def container(image: str) -> Iterator[str]:
    """A container of the image, which nothing runs in yet (one copy of the image: 10 seconds)."""
    name = _buildah("from", "--pull-never", image).strip()
    try:
        yield name
    finally:
        _buildah("rm", name)


@contextmanager
def running(
    name: str, environ: Mapping[str, str], output: Path, folders: Mapping[Path, str]
) -> Iterator[Container]:
    """
    A container that does what `docker run` would: the image's entrypoint and command.

    `folders` of this machine are seen in it, read-only, by other names.
    """
    found = configuration(name)
    volumes = [f"--volume={folder}:{seen}:ro" for folder, seen in folders.items()]
    with output.open("wb") as log:
        process = subprocess.Popen(
            [*_run_in(name, environ, *volumes), *found["Entrypoint"], *found["Cmd"]],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    container = Container(name, process, output)
    try:
        yield container
    finally:
        for left in container.programs():
            os.kill(left.pid, signal.SIGKILL)
        process.wait(20)


def _run_in(name: str, environ: Mapping[str, str], *options: str) -> list[str]:
    variables = [f"--env={variable}={value}" for variable, value in environ.items()]
    return [*BUILDAH, "run", "--isolation", "chroot", *variables, *options, name, "--"]


def _make_debian() -> None:
    if (
        subprocess.run([*BUILDAH, "inspect", DEBIAN], capture_output=True, check=False).returncode
        == 0
    ):
        return
    tree = WORK / "debian"
    shutil.rmtree(tree, ignore_errors=True)
    tree.parent.mkdir(parents=True, exist_ok=True)
    _run("making a Debian (30 s)", ["debootstrap", "--variant=minbase", "bookworm", str(tree)])
    name = _buildah("from", "scratch").strip()
    _buildah("copy", "-q", name, str(tree), "/")
    _buildah("commit", "-q", "--rm", name, DEBIAN)
    shutil.rmtree(tree)


def _build(what: str, image: str, dockerfile: str, *options: str) -> None:
    command = [*BUILDAH, "bud", "--isolation", "chroot", "--format", "docker", "--pull-never"]
    if "IMGPROXY_IMAGE" in os.environ:
        command.remove("--pull-never")
    command += [*_network_of_this_machine(), *options, "--tag", image, "--file", dockerfile, "."]
    _run(f"building {what}", command)


def _network_of_this_machine() -> list[str]:
    """What lets apt and pip in a build reach what they reach here, the Dockerfile unchanged."""
    options = []
    certificates = Path("/etc/ssl/certs/ca-certificates.crt")
    if certificates.exists():
        configuration = WORK / "pip.conf"
        lines = ["[global]", f"cert = /run/certs/{certificates.name}"]
        if index := os.environ.get("PIP_INDEX_URL"):
            lines.append(f"index-url = {index}")
        configuration.write_text("\n".join([*lines, ""]))
        options += ["--volume", f"{certificates.parent}:/run/certs:ro"]
        options += ["--volume", f"{configuration}:/etc/pip.conf:ro"]
    apt = Path("/etc/apt/apt.conf.d")
    return options + (["--volume", f"{apt}:{apt}:ro"] if apt.exists() else [])


def _buildah(*arguments: str) -> str:
    return subprocess.run(
        [*BUILDAH, *arguments], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout


def _run(doing: str, command: list[str]) -> None:
    sys.stderr.write(f"{doing} ...\n")
    started = time.monotonic()
    done = subprocess.run(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    if done.returncode != 0:
        raise RuntimeError(f"{doing} failed:\n{done.stdout[-5000:]}")
    sys.stderr.write(f"{doing} took {time.monotonic() - started:.0f} s\n")


def _descendants(pid: int) -> Iterator[int]:
    # A child belongs to the thread that made it, and buildah has many.
    for thread in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(FileNotFoundError):
            for child in thread.read_text().split():
                yield int(child)
                yield from _descendants(int(child))


def _program(pid: int) -> Program | None:
    folder = Path(f"/proc/{pid}")
    try:
        arguments = (folder / "cmdline").read_bytes().decode().rstrip("\0").split("\0")
        environ = (folder / "environ").read_bytes().decode().split("\0")
        user = folder.stat().st_uid
    except FileNotFoundError:
        return None
    pairs = dict(item.split("=", 1) for item in environ if "=" in item)
    return Program(pid, tuple(arguments), pairs, user) if arguments != [""] else None


if __name__ == "__main__":
    print(build_image())  # noqa: T201
