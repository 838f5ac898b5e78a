"""The engine as a process: its log, its limits and its end."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.servers.engine import (
    ROOT,
    RunningEngine,
    first_to_answer,
    read_answer,
    request,
    running_engine,
)
from tests.servers.source import TapeSource, tape_source

SMALL = "/_/rs:fit:32:32/plain/local:///chelsea.jpg"
SECONDS = 60.0
UNHURRIED = {"IMGPROXY_TIMEOUT": "60", "IMGPROXY_DOWNLOAD_TIMEOUT": "60"}


@pytest.fixture
def source() -> Iterator[TapeSource]:
    with tape_source() as server:
        yield server


@pytest.fixture(scope="module")
def engine() -> Iterator[RunningEngine]:
    with running_engine() as running:
        yield running


def slow(source: TapeSource, options: str = "w:8") -> str:
    return f"/_/{options}/plain/http://127.0.0.1:{source.server_port}/slow/chelsea.jpg"


def test_log_says_first_what_this_is_and_which_settings_mean_nothing() -> None:
    unknown = {"IMGPROXY_PROMETHEUS_BIND": ":1", "IMGPROXY_USE_S3": "1"}
    with running_engine(unknown) as engine:
        engine.ask(SMALL)
        started, ignored, listening, *requests = engine.log()
    assert started["event"] == "engine.started"
    assert "embedded engine" in started["message"]
    assert "Production runs imgproxy" in started["message"]
    assert ignored["event"] == "settings.ignored"
    assert ignored["names"] == "IMGPROXY_PROMETHEUS_BIND, IMGPROXY_USE_S3"
    assert listening["event"] == "engine.listening"
    assert [entry["event"] for entry in requests] == ["request.answered"]


def test_bad_settings_end_it_before_it_listens() -> None:
    finished = subprocess.run(
        [sys.executable, "-m", "imgproxy_cache.engine"],
        env={"IMGPROXY_WORKERS": "none", "IMGPROXY_TTL": "soon"},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert finished.returncode == 2
    assert finished.stdout == ""
    assert finished.stderr.splitlines() == [
        "cannot start, 2 settings to fix:",
        "  IMGPROXY_WORKERS='none': expected a whole number from 1 to 1024",
        "  IMGPROXY_TTL='soon': expected a whole number from 0",
    ]


@pytest.mark.parametrize(
    "setting",
    [
        pytest.param({"IMGPROXY_BIND": "127.0.0.1:http:"}, id="address"),
        pytest.param({"IMGPROXY_FALLBACK_IMAGE_PATH": "IMAGES/README.md"}, id="fallback image"),
    ],
)
def test_what_cannot_be_used_ends_it_with_a_line_that_names_it(setting: dict[str, str]) -> None:
    [name] = setting
    with pytest.raises(RuntimeError, match=name.removesuffix("_PATH")), running_engine(setting):
        pass


def test_option_of_the_real_imgproxy_is_named_in_the_log() -> None:
    with running_engine() as engine:
        answer = engine.ask("/_/unsharp_masking:1/plain/local:///chelsea.jpg?secret=1")
        logged = engine.wait_for("request.answered")
    assert (answer.status, answer.body) == (404, b"Invalid URL")
    assert logged["error"] == "option 'unsharp_masking': imgproxy Pro has it"
    assert logged["path"] == "/_/unsharp_masking:1/plain/local:///chelsea.jpg"


def test_landing_page_is_our_own(engine: RunningEngine) -> None:
    answer = engine.ask("/")
    assert (answer.status, answer["content-type"]) == (200, "text/html")
    assert b"embedded engine" in answer.body


def test_health_has_a_second_path_where_the_settings_name_one() -> None:
    with running_engine({"IMGPROXY_HEALTH_CHECK_PATH": "/up"}) as engine:
        assert [engine.ask(path).status for path in ("/up", "/health")] == [200, 200]


def test_request_id_is_made_where_none_was_sent(engine: RunningEngine) -> None:
    ids = {engine.ask("/health")["x-request-id"] for _ in range(2)}
    assert len(ids) == 2
    assert None not in ids


def test_one_connection_takes_one_request_after_the_other(engine: RunningEngine) -> None:
    first = request(SMALL).replace(b"Connection: close", b"Connection: keep-alive")
    with engine.send(first + request("/health")) as connection:
        received = read_answer(connection)
    assert received.status == 200
    assert received.body.endswith(b"imgproxy is running")


@pytest.mark.parametrize(
    ("target", "status"),
    [
        pytest.param("/_/rs:fit:64:64/plain/local:///100%.jpg", 400, id="broken escape"),
        pytest.param("http://evil.example/_/w:8/plain/local:///chelsea.jpg", 400, id="absolute"),
        pytest.param("/rs:fit:64:64/plain/local:///chelsea.jpg", 403, id="no signature"),
        pytest.param("/_/w:8/plain/local:///chelsea.jpg@svg", 422, id="SVG of a photograph"),
        pytest.param("/_/w:8/plain/local:///chelsea.jpg@jxl", 422, id="JPEG XL, which we have not"),
        pytest.param("/_/msr:1/plain/local:///chelsea.jpg", 403, id="a limit"),
        pytest.param("/_/w:8/plain/local:///README.md", 422, id="no image"),
        pytest.param("/_/w:8/plain/local:///chelsea.jpg#x", 404, id="a # belongs to the name"),
    ],
)
def test_odd_requests_get_imgproxys_status(engine: RunningEngine, target: str, status: int) -> None:
    assert engine.ask(target).status == status


def test_line_ends_in_a_file_name_make_no_header(engine: RunningEngine) -> None:
    name = "YQ0KU2V0LUNvb2tpZTogeD15"  # "a\r\nSet-Cookie: x=y"
    answer = engine.ask(f"/_/fn:{name}:1/w:8/plain/local:///chelsea.jpg")
    assert answer["content-disposition"] == 'inline; filename="a  Set-Cookie: x=y.jpg"'
    assert answer["set-cookie"] is None


def test_request_that_takes_too_long_is_answered_with_503(source: TapeSource) -> None:
    with running_engine({"IMGPROXY_TIMEOUT": "1"}) as engine:
        answer = engine.ask(slow(source))
    assert (answer.status, answer.body) == (503, b"Timeout")


def test_client_that_leaves_the_queue_is_forgotten(source: TapeSource) -> None:
    limits = {"IMGPROXY_WORKERS": "1", "IMGPROXY_REQUESTS_QUEUE_SIZE": "1"}
    with running_engine(UNHURRIED | limits) as engine, ExitStack() as connections:

        def send(target: str) -> socket.socket:
            return connections.enter_context(engine.send(request(target)))

        working = send(slow(source))
        assert source.waiting.acquire(timeout=SECONDS)
        rivals = [send(slow(source)), send(slow(source))]
        refused = first_to_answer(rivals)
        assert read_answer(refused).status == 429
        rivals.remove(refused)
        rivals[0].close()  # this one is in the queue, and leaves it
        with ThreadPoolExecutor(1) as waiting:
            queued = waiting.submit(first_status_but_429, engine, SMALL)
            source.release.set()
            assert read_answer(working).status == 200
            assert queued.result(SECONDS) == 200
    assert not source.waiting.acquire(blocking=False), "the source was asked for nobody"


def first_status_but_429(engine: RunningEngine, target: str) -> int:
    """Ask until there is room in the queue, then wait for the answer."""
    while (status := engine.ask(target).status) == 429:
        pass
    return status


def test_sigterm_lets_what_runs_finish(source: TapeSource) -> None:
    with running_engine(UNHURRIED) as engine, engine.send(request(slow(source))) as working:
        assert source.waiting.acquire(timeout=SECONDS)
        with ThreadPoolExecutor(1) as stopping:
            status = stopping.submit(engine.stop)
            _wait_until_refused(engine.port)
            source.release.set()
            assert read_answer(working).status == 200
            assert status.result(SECONDS) == 0
        assert engine.log()[-1]["event"] == "engine.stopped"


def test_sigterm_does_not_wait_for_a_render_that_nobody_waits_for(tmp_path: Path) -> None:
    blur = '<feGaussianBlur stdDeviation="900"/>'
    (tmp_path / "blur.svg").write_text(
        '<svg xmlns="http://www.w3.org/2000/svg" width="3000" height="3000">'
        f'<filter id="f" x="-10" y="-10" width="30" height="30">{blur * 50}</filter>'
        '<rect width="3000" height="3000" filter="url(#f)"/></svg>'
    )
    settings = {"IMGPROXY_LOCAL_FILESYSTEM_ROOT": str(tmp_path), "IMGPROXY_TIMEOUT": "1"}
    with running_engine(settings) as engine:
        assert engine.ask("/_/plain/local:///blur.svg@png").status == 503
        began = time.monotonic()
        assert engine.stop() == 0
    assert time.monotonic() - began < 10


def _wait_until_refused(port: int) -> None:
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=SECONDS).close()
        except ConnectionError:
            return


def test_raw_answer_is_cut_where_the_source_is(source: TapeSource) -> None:
    with running_engine() as engine:
        answer = engine.ask(f"/_/raw:1/plain/http://127.0.0.1:{source.server_port}/cut/chelsea.jpg")
    assert answer.status == 200
    assert len(answer.body) < int(answer["content-length"] or 0)


def test_source_that_is_not_allowed_gets_no_fallback_image() -> None:
    settings = {
        "IMGPROXY_ALLOWED_SOURCES": "local:///c",
        "IMGPROXY_FALLBACK_IMAGE_PATH": "IMAGES/cat.png",
    }
    with running_engine(settings) as engine:
        refused = engine.ask("/_/w:8/plain/local:///rocket.jpg")
        missing = engine.ask("/_/w:8/plain/local:///cats.png")
    assert (refused.status, refused.body) == (404, b"Invalid source URL")
    assert (missing.status, missing["content-type"]) == (200, "image/png")


@pytest.mark.parametrize(
    ("asked", "status", "content_range", "length"),
    [
        pytest.param("bytes=0-9", 206, "bytes 0-9/35042", 10, id="the first"),
        pytest.param("bytes=35040-", 206, "bytes 35040-35041/35042", 2, id="from there on"),
        pytest.param("bytes=-3", 206, "bytes 35039-35041/35042", 3, id="the last"),
        pytest.param("bytes=0-99999", 206, "bytes 0-35041/35042", 35042, id="more than there is"),
        pytest.param("bytes=5-1", 200, None, 35042, id="backwards"),
        pytest.param("bytes=0-1,3-4", 200, None, 35042, id="two"),
        pytest.param("lines=0-1", 200, None, 35042, id="other units"),
    ],
)
def test_part_of_a_raw_file(
    engine: RunningEngine, asked: str, status: int, content_range: str | None, length: int
) -> None:
    answer = engine.ask("/_/raw:1/plain/local:///chelsea.jpg", headers=[("Range", asked)])
    assert (answer.status, answer["content-range"]) == (status, content_range)
    assert (len(answer.body), answer["content-length"]) == (length, str(length))


@pytest.mark.slow
def test_memory_stays_flat() -> None:
    """Server and all: 2,000 renders are in test_render, 100,000 in ``make soak``."""
    targets = [
        "/_/rs:fill:64:64/plain/local:///chelsea.jpg",
        "/_/rs:fit:50:50/plain/local:///cat.png@webp",
        "/_/rs:fit:40:40/bl:1/plain/local:///rocket.jpg",
        "/_/rs:fit:40:40/plain/local:///logo.svg@png",
    ]
    with running_engine() as engine:

        def ask(number: int) -> int:
            return engine.ask(targets[number % len(targets)]).status

        with ThreadPoolExecutor(2) as clients:
            assert set(clients.map(ask, range(200))) == {200}
            before = resident_bytes(engine.process.pid)
            assert set(clients.map(ask, range(600))) == {200}
        grown = resident_bytes(engine.process.pid) - before
    assert grown < 16_000_000


def resident_bytes(pid: int) -> int:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * 4096
