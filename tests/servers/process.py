"""A server of somebody else's, run as a process for the length of a ``with`` block."""

import random
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

PORTS = range(10_000, 32_768)
"""Below those that a system gives to whoever connects, or binds port 0."""
_KEPT: list[socket.socket] = []


def free_port() -> int:
    """
    A TCP port of 127.0.0.1 that nobody listens on, and that no other call gives.

    Not even in another process, as long as this one lives: a UDP socket says that it is taken.
    """
    while True:
        port = random.choice(PORTS)
        with socket.socket() as listener:
            taken = socket.socket(type=socket.SOCK_DGRAM)
            try:
                taken.bind(("127.0.0.1", port))
                listener.bind(("127.0.0.1", port))
            except OSError:
                taken.close()
            else:
                _KEPT.append(taken)
                return port


@contextmanager
def running(
    command: Sequence[str],
    *,
    port: int,
    env: Mapping[str, str],
    timeout_seconds: float = 20,
) -> Iterator[subprocess.Popen[bytes]]:
    """
    The process, once it listens on the port; ended when the block is left.

    Raises: RuntimeError with the last lines it printed, when it ends or stays silent instead.
    """
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(
            command, env=dict(env), stdin=subprocess.DEVNULL, stdout=output, stderr=output
        )
        try:
            if not _listens(process, port, time.monotonic() + timeout_seconds):
                output.seek(0)
                said = output.read()[-2000:].decode(errors="replace")
                raise RuntimeError(f"{Path(command[0]).name} does not listen on {port}: {said}")
            yield process
        finally:
            _stop(process)


def _listens(process: subprocess.Popen[bytes], port: int, deadline: float) -> bool:
    while process.poll() is None and time.monotonic() < deadline:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return True
        time.sleep(0.01)
    return False


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(5)
