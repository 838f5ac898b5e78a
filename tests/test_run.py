"""`imgproxy-cache run`, with the programs it runs: real processes, and their ends."""

import os
import socket
import subprocess
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from signal import SIGHUP, SIGINT, SIGKILL, SIGQUIT, SIGTERM, Signals

import pytest

from tests.commands import IMGPROXY_CACHE, SECONDS, Started, environment, imgproxy_cache, started
from tests.servers.engine import IMAGES, running_engine
from tests.servers.process import free_port

SERVING = '"event":"server.started"'


@pytest.fixture
def settings(tmp_path: Path) -> dict[str, str]:
    return {
        "CACHE_STORE_URL": (tmp_path / "store").as_uri(),
        "CACHE_UPSTREAM_URL": f"http://127.0.0.1:{free_port()}",
        "CACHE_ADMIN_BIND": f"127.0.0.1:{free_port()}",
        "IMGPROXY_BIND": f"127.0.0.1:{free_port()}",
        "IMGPROXY_LOCAL_FILESYSTEM_ROOT": str(IMAGES),
    }


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "output"


@contextmanager
def serving(settings: dict[str, str], output: Path) -> Iterator[Started]:
    """`imgproxy-cache run` that has answered a request."""
    with started("run", environ=settings, output=output) as run:
        run.until(SERVING)
        ask(settings, "/health")
        run.until('"event":"request.served"')
        yield run


def ask(settings: dict[str, str], path: str) -> bytes:
    url = f"http://{settings['IMGPROXY_BIND']}{path}"
    with urllib.request.urlopen(url, timeout=SECONDS) as answer:
        return bytes(answer.read())


def program(folder: Path, *lines: str) -> dict[str, str]:
    """A program to stand in for imgproxy where its end, or its words, are what matters."""
    path = folder / "imgproxy"
    path.write_text("\n".join(["#!/bin/sh", *lines, ""]))
    path.chmod(0o755)
    return {"CACHE_IMGPROXY_BIN": str(path)}


def test_photograph_is_resized_answered_and_kept(
    settings: dict[str, str], output: Path, tmp_path: Path
) -> None:
    # printf %s PATH | md5sum
    path, key = "/_/rs:fill:90:60/plain/local:///chelsea.jpg", "538c59b49772ba2778ad98ce2faf2365"
    with serving(settings, output) as run:
        body = ask(settings, path)
        run.until('"event":"upload.stored"')
        assert (tmp_path / "store" / key).read_bytes() == body


@pytest.mark.usefixtures("heeded_hangup")
@pytest.mark.parametrize("number", [SIGTERM, SIGINT, SIGQUIT, SIGHUP])
def test_stop_that_was_asked_for_ends_the_proxy_then_imgproxy_and_is_a_success(
    settings: dict[str, str], output: Path, number: Signals
) -> None:
    with serving(settings, output) as run:
        run.process.send_signal(number)
        assert run.ends() == 0
        assert run.leaves_nothing_behind()
        words = output.read_text()
        assert words.index("server.stopped") < words.index("engine.stopped")


@pytest.mark.usefixtures("ignored_hangup")
def test_what_nohup_started_outlives_its_terminal(settings: dict[str, str], output: Path) -> None:
    with serving(settings, output) as run:
        for pid in (run.child("serve"), run.process.pid):
            os.kill(pid, SIGHUP)
        assert ask(settings, "/health")
        run.process.send_signal(SIGTERM)
        assert run.ends() == 0
        assert f"{SIGTERM.name}: finishing" in output.read_text()


@pytest.mark.parametrize(
    ("victim", "name"), [("serve", "imgproxy-cache"), ("imgproxy", "imgproxy")]
)
def test_program_that_was_killed_is_named_and_the_other_stopped(
    settings: dict[str, str], output: Path, victim: str, name: str
) -> None:
    with serving(settings, output) as run:
        os.kill(run.child(victim), SIGKILL)
        assert run.ends() == 128 + SIGKILL
        assert run.says(f"imgproxy-cache run: {name} was killed by SIGKILL, stopping\n")
        assert run.leaves_nothing_behind()


def test_workers_of_a_proxy_that_was_killed_do_not_outlive_it(
    settings: dict[str, str], output: Path
) -> None:
    with serving(settings | {"WEB_CONCURRENCY": "2"}, output) as run:
        os.kill(run.child("serve"), SIGKILL)
        assert run.ends() == 128 + SIGKILL
        assert run.leaves_nothing_behind()


def test_nothing_is_left_when_run_itself_is_killed(settings: dict[str, str], output: Path) -> None:
    with serving(settings, output) as run:
        run.process.kill()
        run.ends()
        assert run.leaves_nothing_behind()


@pytest.mark.parametrize(
    ("status", "ours"),
    [
        pytest.param(3, 3, id="its own status"),
        pytest.param(0, 1, id="nobody asked it to stop"),
    ],
)
def test_status_of_the_program_that_ended_is_ours(
    settings: dict[str, str], output: Path, tmp_path: Path, status: int, ours: int
) -> None:
    imgproxy = program(tmp_path, f"exit {status}")
    with started("run", environ=settings | imgproxy, output=output) as run:
        assert run.ends() == ours
        assert run.says(f"imgproxy-cache run: imgproxy exited with status {status}, stopping\n")


def test_metrics_of_imgproxy_on_its_own_port_are_named_when_it_has_ended(
    settings: dict[str, str], output: Path, tmp_path: Path
) -> None:
    port = settings["CACHE_UPSTREAM_URL"].rpartition(":")[2]
    collision = {"IMGPROXY_PROMETHEUS_BIND": f":{port}"} | program(tmp_path, "exit 1")
    with started("run", environ=settings | collision, output=output) as run:
        assert run.ends() == 1
        assert run.says(f"imgproxy-cache run: IMGPROXY_PROMETHEUS_BIND=':{port}' takes the port")


@pytest.mark.parametrize(
    "limit",
    [
        pytest.param("-f 0", id="no folder can be written"),
        pytest.param("-n 256", id="few descriptors"),
    ],
)
def test_programs_are_started_on_a_machine_that_has_little(
    settings: dict[str, str], tmp_path: Path, limit: str
) -> None:
    imgproxy = program(tmp_path, "exit 3")
    done = imgproxy_cache("run", environ=settings | imgproxy, before=f"ulimit {limit}")
    assert "imgproxy-cache run: imgproxy exited with status 3, stopping\n" in done.err
    assert done.status == 3


def test_stop_in_the_first_moments_is_not_lost(settings: dict[str, str], output: Path) -> None:
    with started("run", environ=settings, output=output) as run:
        run.until("Waiting for imgproxy")
        run.process.terminate()
        assert run.ends() == 0
        assert run.leaves_nothing_behind()


def test_imgproxy_elsewhere_is_not_started(settings: dict[str, str], output: Path) -> None:
    # An address that is not loopback, and leads to this machine all the same.
    with running_engine() as engine:
        elsewhere = {"CACHE_UPSTREAM_URL": f"http://0.0.0.0:{engine.port}"}
        with serving(settings | elsewhere, output) as run:
            assert [command.split("\0")[3] for command in run.children] == ["serve"]
            run.process.terminate()
            assert run.ends() == 0


def test_log_lines_arrive_as_they_were_written(
    settings: dict[str, str], output: Path, tmp_path: Path
) -> None:
    imgproxy = program(
        tmp_path, r"printf '\033[1mbold\377\n'", "printf 'no end of line' >&2", "exit 1"
    )
    with started("run", environ=settings | imgproxy, output=output) as run:
        run.ends()
        assert b"\x1b[1mbold\xff\n" in output.read_bytes()
        assert b"no end of line" in output.read_bytes()


def test_stdout_may_be_a_socket_as_under_systemd(settings: dict[str, str], tmp_path: Path) -> None:
    ours, theirs = socket.socketpair()
    imgproxy = program(tmp_path, "echo from imgproxy", "exit 7")
    with ours, theirs:
        done = subprocess.run(
            [*IMGPROXY_CACHE, "run"],
            env=environment(settings | imgproxy),
            stdout=theirs.fileno(),
            stderr=subprocess.DEVNULL,
            timeout=SECONDS,
            check=False,
        )
        assert done.returncode == 7
        assert b"from imgproxy\n" in ours.recv(100_000)


@pytest.mark.parametrize("name", ["IMGPROXY_BIND", "CACHE_ADMIN_BIND", "CACHE_UPSTREAM_URL"])
def test_port_in_use_is_one_line_before_anything_starts(
    settings: dict[str, str], name: str
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        value = f"http://{address}" if name == "CACHE_UPSTREAM_URL" else address
        done = imgproxy_cache("run", environ=settings | {name: value})
    assert (done.status, done.out) == (1, "")
    hint = f"stop what listens there, or change {name}"
    assert done.err == f"cannot listen on {address}: Address already in use: {hint}\n"


def test_wrong_settings_are_told_all_at_once_and_nothing_starts() -> None:
    done = imgproxy_cache("run", environ={"CACHE_DRAIN_SECONDS": "soon"})
    assert (done.status, done.out) == (2, "")
    assert done.err == (
        "cannot start, 2 settings to fix:\n"
        "  S3_BUCKET is not set: expected a bucket name\n"
        "  CACHE_DRAIN_SECONDS='soon': expected seconds, 0 or more\n"
    )
