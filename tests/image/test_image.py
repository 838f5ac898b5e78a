"""The container, as it is built and run: `make image-test`."""

import os
import signal
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from hashlib import md5
from pathlib import Path

import pytest

from tests.image.buildah import Container, build_image, configuration, container, running
from tests.servers.process import free_port
from tests.servers.s3 import S3Server

SAMPLES = Path(__file__).parents[2] / "samples"
PATH = "/insecure/rs:fill:120:80/plain/local:///chelsea.jpg@webp"
SECONDS = 30.0
SIGNAL = 128


@pytest.fixture(scope="module")
def image() -> Iterator[str]:
    """A container of the image, for one test after the other."""
    with container(build_image()) as name:
        yield name


@pytest.fixture(scope="module")
def settings(s3: S3Server) -> dict[str, str]:
    """What an operator sets, with ports that are free on this machine."""
    return s3.environ | {
        "S3_BUCKET": s3.make_bucket("images-of-the-container"),
        "S3_ENDPOINT": s3.endpoint,
        "IMGPROXY_BIND": f"127.0.0.1:{free_port()}",
        "CACHE_UPSTREAM_URL": f"http://127.0.0.1:{free_port()}",
        "CACHE_ADMIN_BIND": f"127.0.0.1:{free_port()}",
        "IMGPROXY_LOCAL_FILESYSTEM_ROOT": "/photographs",
    }


@contextmanager
def serving(image: str, settings: dict[str, str], folder: Path) -> Iterator[Container]:
    """A container that passes imgproxy's health on."""
    with running(image, settings, folder / "output", {SAMPLES: "/photographs"}) as started:
        deadline = time.monotonic() + SECONDS
        while started.is_running() and time.monotonic() < deadline:
            with suppress(OSError):
                urllib.request.urlopen(_url(settings, "/health"), timeout=1).close()
                break
            time.sleep(0.05)
        else:
            pytest.fail(f"the container does not serve: {started.output()}")
        yield started


def test_image_says_how_it_is_to_be_run(image: str) -> None:
    found = configuration(image)
    assert (found["Entrypoint"], found["Cmd"]) == (["imgproxy-cache"], ["run"])
    assert found["User"] == "999"
    assert found["Healthcheck"]["Test"] == ["CMD", "imgproxy-cache", "check", "--health"]


def test_photograph_is_answered_as_webp_and_found_in_the_bucket(
    image: str, settings: dict[str, str], s3: S3Server, tmp_path: Path
) -> None:
    name = md5(PATH.encode()).hexdigest()
    with serving(image, settings, tmp_path) as served:
        with urllib.request.urlopen(_url(settings, PATH), timeout=SECONDS) as answer:
            body = answer.read()
            assert answer.headers["Cache-Status"] == "imgproxy-cache; fwd=uri-miss; stored"
        assert (body[:4], body[8:12]) == (b"RIFF", b"WEBP")
        deadline = time.monotonic() + SECONDS
        while '"event":"upload.stored"' not in served.output():  # a moment after it is there
            assert time.monotonic() < deadline, served.output()
            time.sleep(0.05)
        stored = s3.read(settings["S3_BUCKET"], name)
        assert (stored.body, stored.content_type) == (body, "image/webp")


def test_stopped_container_finishes_and_exits_with_0(
    image: str, settings: dict[str, str], tmp_path: Path
) -> None:
    with serving(image, settings, tmp_path) as served:
        os.kill(served.program("run").pid, signal.SIGTERM)
        assert served.wait(SECONDS) == 0
        assert served.programs() == []
        assert '"event":"server.stopped"' in served.output()


@pytest.mark.parametrize("victim", ["proxy", "imgproxy"])
def test_container_ends_with_a_status_and_the_name_of_the_program_that_was_killed(
    image: str, settings: dict[str, str], tmp_path: Path, victim: str
) -> None:
    with serving(image, settings, tmp_path) as served:
        os.kill(_pid(served, victim), signal.SIGKILL)
        assert served.wait(SECONDS) == SIGNAL + signal.SIGKILL
        assert served.programs() == []
        program = "imgproxy" if victim == "imgproxy" else "imgproxy-cache"
        said = f"imgproxy-cache run: {program} was killed by SIGKILL, stopping"
        assert said in served.output()


def test_nothing_in_it_runs_as_root_and_the_allocator_is_imgproxys_alone(
    image: str, settings: dict[str, str], tmp_path: Path
) -> None:
    with serving(image, settings | {"IMGPROXY_MALLOC": "jemalloc"}, tmp_path) as served:
        preloads = {
            each.pid: "jemalloc" in each.environ.get("LD_PRELOAD", "") for each in served.programs()
        }
        assert {each.user for each in served.programs()} == {999}
        assert [pid for pid, preloads_it in preloads.items() if preloads_it] == [
            _pid(served, "imgproxy")
        ]


def test_health_check_tells_a_container_that_serves_from_one_that_does_not(
    image: str, settings: dict[str, str], tmp_path: Path
) -> None:
    command = configuration(image)["Healthcheck"]["Test"][1:]
    with serving(image, settings, tmp_path) as served:
        assert served.execute(command, settings) == 0
        os.kill(_pid(served, "imgproxy"), signal.SIGSTOP)
        assert served.execute(command, settings) == 1


def _pid(served: Container, program: str) -> int:
    """The proxy, or what stands behind it: the engine, or imgproxy itself."""
    ours = {word: served.program(word).pid for word in ("run", "serve")}
    if program == "proxy":
        return ours["serve"]
    (imgproxy,) = {each.pid for each in served.programs()} - set(ours.values())
    return imgproxy


def _url(settings: dict[str, str], path: str) -> str:
    return f"http://{settings['IMGPROXY_BIND']}{path}"
