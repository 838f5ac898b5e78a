"""Start, stop, workers and the operator's port, of real processes."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from tests.commands import imgproxy_cache
from tests.servers.process import free_port
from tests.servers.proxy import ROOT, RunningProxy, running_proxy, started_proxy
from tests.servers.upstreams import End, FakeImgproxy, Gate, fake_imgproxy, head, image
from tests.wire import Wire, ask, connected, request

TARGET = b"/_/rs:fit:300/plain/local:///a.jpg"
BODY = bytes(range(256)) * 400
# printf %s "$TARGET" | md5sum
KEY = "a2a31c550d82d8dcf45693c3f9fb7a0a"
STOPS = [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP]


@pytest.fixture
async def imgproxy() -> AsyncIterator[FakeImgproxy]:
    async with fake_imgproxy() as fake:
        yield fake


# Start


async def test_imgproxy_that_is_not_ready_in_time_ends_the_start_with_what_to_look_at() -> None:
    port = free_port()
    async with started_proxy(
        port, HEALTH_CHECK_TIMEOUT_IN_SEC="0.5", IMGPROXY_PROMETHEUS_BIND=f":{port}"
    ) as proxy:
        assert await proxy.ended() == 1

    assert proxy.events("upstream.awaited")[0]["message"] == "Waiting for imgproxy to be ready..."
    (failed,) = proxy.events("upstream.failed")
    assert failed["level"] == "error"
    assert f"GET http://127.0.0.1:{port}/health" in failed["reason"]
    for hint in ("0.5 s", "CACHE_UPSTREAM_URL", "IMGPROXY_PATH_PREFIX", "IMGPROXY_PROMETHEUS_BIND"):
        assert hint in failed["message"]
    assert proxy.events("server.started") == []


@pytest.mark.parametrize("workers", ["1", "2"])
async def test_store_that_cannot_be_described_is_one_clear_line(
    imgproxy: FakeImgproxy, workers: str
) -> None:
    async with started_proxy(
        imgproxy.port,
        CACHE_STORE_URL="s3://images",
        AWS_CA_BUNDLE="/nowhere.pem",
        WEB_CONCURRENCY=workers,
    ) as proxy:
        assert await proxy.ended() == 1

    (line,) = [line for line in proxy.output if not line.startswith("{")]
    assert line.startswith("s3://images: open: /nowhere.pem: ")
    assert line.endswith(": fix AWS_CA_BUNDLE")
    assert proxy.events("server.logged") == []


async def test_nobody_is_let_in_before_imgproxy_is_ready(imgproxy: FakeImgproxy) -> None:
    imgproxy.is_healthy = False
    async with started_proxy(imgproxy.port) as proxy:
        await imgproxy.until_asked(b"/health", 3)
        with pytest.raises(ConnectionRefusedError):
            await ask(proxy.port, TARGET)
        imgproxy.is_healthy = True
        await proxy.wait_for("server.started")
        assert (await ask(proxy.port, TARGET)).status == 200

    assert proxy.events("upstream.ready")[0]["message"] == "imgproxy is ready"


async def test_health_is_awaited_under_the_path_prefix(imgproxy: FakeImgproxy) -> None:
    imgproxy.script(b"/health", head(b"Content-Length: 0", status=b"404 Not Found"))
    async with running_proxy(imgproxy.port, IMGPROXY_PATH_PREFIX="/images"):
        pass

    assert {one.target for one in imgproxy.received} == {b"/images/health"}


@pytest.mark.parametrize("variable", ["IMGPROXY_BIND", "CACHE_ADMIN_BIND"])
async def test_port_in_use_is_one_clear_line(imgproxy: FakeImgproxy, variable: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        async with started_proxy(imgproxy.port, **{variable: address}) as proxy:
            assert await proxy.ended() == 1

    (line,) = [line for line in proxy.output if not line.startswith("{")]
    assert f"cannot listen on {address}: " in line
    assert "in use" in line.lower()
    assert imgproxy.received == []


@pytest.mark.parametrize("any_host", ["", "[::]"])
async def test_both_families_are_listened_on_where_no_host_is_named(
    imgproxy: FakeImgproxy, any_host: str
) -> None:
    port = free_port()
    async with running_proxy(imgproxy.port, IMGPROXY_BIND=f"{any_host}:{port}"):
        for host in ("127.0.0.1", "::1"):
            async with connected(port, host=host) as wire:
                wire.send(request(TARGET))
                assert (await wire.answer()).status == 200

    forwarded = [one.all(b"x-forwarded-for") for one in imgproxy.images_asked_for]
    assert forwarded == [[b"127.0.0.1"], [b"::1"]]


async def test_ipv6_address_is_listened_on_alone(imgproxy: FakeImgproxy) -> None:
    port = free_port()
    async with running_proxy(imgproxy.port, IMGPROXY_BIND=f"[::1]:{port}"):
        async with connected(port, host="::1") as wire:
            wire.send(request(TARGET))
            assert (await wire.answer()).status == 200
        with pytest.raises(ConnectionRefusedError):
            await ask(port, TARGET)


# Stop


@pytest.mark.usefixtures("heeded_hangup")
@pytest.mark.parametrize("number", STOPS)
async def test_stop_while_imgproxy_is_awaited_exits_0(number: signal.Signals) -> None:
    async with started_proxy(free_port()) as proxy:
        await proxy.wait_for("upstream.awaited")
        assert await proxy.stop(number) == 0

    assert "Traceback" not in "\n".join(proxy.output)


@pytest.mark.usefixtures("heeded_hangup")
@pytest.mark.parametrize("number", STOPS)
async def test_stop_of_an_idle_server_exits_0(
    imgproxy: FakeImgproxy, number: signal.Signals
) -> None:
    async with running_proxy(imgproxy.port) as proxy, connected(proxy.port) as idle:
        idle.send(request(TARGET))
        await idle.answer()
        assert await proxy.stop(number) == 0
        assert await idle.rest() == b""

    (stopping,) = proxy.events("server.stopping")
    assert number.name in stopping["message"]
    assert len(proxy.events("server.stopped")) == 1
    assert proxy.events("server.logged") == []


@pytest.mark.parametrize("workers", ["1", "2"])
async def test_stop_lets_answers_in_flight_finish_and_nobody_else_in(
    imgproxy: FakeImgproxy, workers: str
) -> None:
    gate = Gate()
    whole = image(BODY)
    imgproxy.script(TARGET, whole[:5000], gate, whole[5000:])
    async with (
        running_proxy(imgproxy.port, CACHE_DRAIN_SECONDS="20", WEB_CONCURRENCY=workers) as proxy,
        connected(proxy.port) as wire,
    ):
        wire.send(request(TARGET))
        await gate.reached.wait()
        proxy.process.terminate()
        await proxy.wait_for("server.stopping")
        await _until_refused(proxy)
        gate.open.set()
        assert (await wire.answer()).body == BODY
        assert await wire.rest() == b""
        assert await proxy.ended() == 0
        assert _stored(proxy) == [KEY]


async def test_stop_lets_a_fetch_finish_whose_client_has_gone(imgproxy: FakeImgproxy) -> None:
    gate = Gate()
    whole = image(BODY)
    imgproxy.script(TARGET, whole[:5000], gate, whole[5000:])
    async with running_proxy(imgproxy.port, CACHE_DRAIN_SECONDS="20") as proxy:
        async with connected(proxy.port) as wire:
            wire.send(request(TARGET))
            await gate.reached.wait()
        await proxy.wait_for("request.served")
        proxy.process.terminate()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1):
                await proxy.wait_for("server.stopped")
        gate.open.set()
        assert await proxy.ended() == 0
        assert _stored(proxy) == [KEY]


async def test_stop_says_how_many_fetches_without_a_client_it_did_not_wait_for(
    imgproxy: FakeImgproxy,
) -> None:
    imgproxy.script(TARGET, image(BODY)[:5000], End.HANG)
    async with running_proxy(imgproxy.port, CACHE_DRAIN_SECONDS="1") as proxy:
        async with connected(proxy.port) as wire:
            wire.send(request(TARGET))
            await wire.head()
        await proxy.wait_for("request.served")
        assert await proxy.stop() == 0
        assert _stored(proxy) == []

    (abandoned,) = proxy.events("fetch.abandoned")
    assert abandoned["items"] == 1


async def _until_refused(proxy: RunningProxy) -> None:
    async with asyncio.timeout(20):
        while True:
            try:
                async with connected(proxy.port):
                    await asyncio.sleep(0.01)
            except OSError:
                return


def _stored(proxy: RunningProxy) -> list[str]:
    """The pictures in its folder; what describes them is beside, under names with a dot."""
    return sorted(path.name for path in proxy.folder.iterdir() if not path.name.startswith("."))


async def test_stop_does_not_wait_longer_than_it_may_for_imgproxy(imgproxy: FakeImgproxy) -> None:
    imgproxy.script(TARGET, image(BODY)[:5000], End.HANG)
    async with (
        running_proxy(imgproxy.port, CACHE_DRAIN_SECONDS="1") as proxy,
        connected(proxy.port) as wire,
    ):
        wire.send(request(TARGET))
        await wire.head()
        began = asyncio.get_running_loop().time()
        assert await proxy.stop() == 0
        assert asyncio.get_running_loop().time() - began < 3
        assert _stored(proxy) == []

    assert "Traceback" not in "\n".join(proxy.output)


async def test_stop_does_not_wait_longer_than_it_may_for_a_client(imgproxy: FakeImgproxy) -> None:
    imgproxy.script(TARGET, image(bytes(20_000_000)))
    async with (
        running_proxy(imgproxy.port, CACHE_DRAIN_SECONDS="1") as proxy,
        connected(proxy.port, receive_buffer_bytes=4096) as wire,
    ):
        wire.send(request(TARGET))
        await proxy.wait_for("upload.stored")
        began = asyncio.get_running_loop().time()
        assert await proxy.stop() == 0
        assert asyncio.get_running_loop().time() - began < 3

    assert "Traceback" not in "\n".join(proxy.output)


@asynccontextmanager
async def s3_that_waits() -> AsyncIterator[tuple[int, asyncio.Event, list[bytes]]]:
    """Takes every PUT once the event is set; for how a stop treats uploads, not what they are."""
    ready = asyncio.Event()
    taken: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                lines = (await reader.readuntil(b"\r\n\r\n")).lower().split(b"\r\n")
                size = next(int(line[15:]) for line in lines if line.startswith(b"content-length:"))
                await reader.readexactly(size)
                taken.append(lines[0])
                await ready.wait()
                writer.write(b'HTTP/1.1 200 OK\r\nETag: "x"\r\nContent-Length: 0\r\n\r\n')
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            writer.transport.abort()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1], ready, taken
    finally:
        server.close()


def s3_settings(port: int) -> dict[str, str]:
    return {
        "S3_BUCKET": "images",
        "S3_ENDPOINT": f"http://127.0.0.1:{port}",
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
    }


async def test_stop_waits_for_uploads_under_way_and_waiting(imgproxy: FakeImgproxy) -> None:
    async with (
        s3_that_waits() as (s3_port, ready, taken),
        running_proxy(
            imgproxy.port,
            CACHE_DRAIN_SECONDS="20",
            CACHE_UPLOAD_CONCURRENCY="2",
            **s3_settings(s3_port),
        ) as proxy,
    ):
        for number in range(6):
            assert (await ask(proxy.port, b"/_/plain/local:///%d" % number)).status == 200
        async with asyncio.timeout(20):
            while len(taken) < 2:
                await asyncio.sleep(0.01)
        proxy.process.terminate()
        await proxy.wait_for("server.stopping")
        ready.set()
        assert await proxy.ended() == 0

    assert len(taken) == 6
    assert len(proxy.events("upload.stored")) == 6
    assert proxy.events("upload.abandoned") == []


async def test_stop_abandons_uploads_that_take_too_long_and_says_so(
    imgproxy: FakeImgproxy,
) -> None:
    async with (
        s3_that_waits() as (s3_port, _, taken),
        running_proxy(
            imgproxy.port,
            CACHE_DRAIN_SECONDS="1",
            CACHE_UPLOAD_CONCURRENCY="2",
            CACHE_SPOOL_ITEMS="0",
            **s3_settings(s3_port),
        ) as proxy,
    ):
        for number in range(6):
            assert (await ask(proxy.port, b"/_/plain/local:///%d" % number)).status == 200
        began = asyncio.get_running_loop().time()
        assert await proxy.stop() == 0
        assert asyncio.get_running_loop().time() - began < 3

    assert [entry["items"] for entry in proxy.events("upload.abandoned")] == [6]
    assert len(taken) <= 2


# Workers


async def test_metrics_show_the_figures_of_all_workers(imgproxy: FakeImgproxy) -> None:
    async with running_proxy(imgproxy.port, WEB_CONCURRENCY="2") as proxy:
        await _ask_all_workers(proxy, imgproxy)
        async with asyncio.timeout(20):  # the other one hands its figures over once a second
            while (metrics := await proxy.metrics())['fetches{status="200"}'] != 2:
                await asyncio.sleep(0.05)
        assert metrics["upstream_in_use_limit"] == 200
        assert await proxy.stop() == 0


@pytest.mark.parametrize("workers", ["1", "2"])
@pytest.mark.parametrize("shared", ["", "/nowhere"])
async def test_figures_are_not_kept_where_other_programs_have_theirs(
    imgproxy: FakeImgproxy, workers: str, shared: str
) -> None:
    async with running_proxy(
        imgproxy.port, WEB_CONCURRENCY=workers, PROMETHEUS_MULTIPROC_DIR=shared
    ) as proxy:
        limit = (await proxy.metrics())["upstream_in_use_limit"]
        assert await proxy.stop() == 0

    assert limit in {100, 200}  # the other worker may not be there yet
    assert [path.name for path in ROOT.glob("*.db")] == []


def test_several_workers_that_cannot_share_their_figures_are_one_clear_line() -> None:
    settings = {
        "CACHE_STORE_URL": "file:///nowhere",
        "IMGPROXY_BIND": f"127.0.0.1:{free_port()}",
        "CACHE_ADMIN_BIND": "",
        "WEB_CONCURRENCY": "2",
    }
    done = imgproxy_cache("serve", environ=settings, before="ulimit -f 0")

    assert done.status == 1
    assert done.err.startswith("no folder for the figures of workers: ")
    assert "TMPDIR" in done.err
    assert done.err.count("\n") == 1


async def _ask_all_workers(proxy: RunningProxy, imgproxy: FakeImgproxy) -> None:
    """Each worker fetches for itself: ask until two fetches of one image are under way."""
    gate = Gate()
    imgproxy.script(TARGET, gate, image(BODY))
    asked = []
    async with asyncio.timeout(30):
        while len(imgproxy.asked_for(TARGET)) < 2:
            asked.append(asyncio.create_task(ask(proxy.port, TARGET)))
            await asyncio.sleep(0.02)
    gate.open.set()
    assert {answer.status for answer in await asyncio.gather(*asked)} == {200}


async def test_worker_that_was_killed_is_replaced(imgproxy: FakeImgproxy) -> None:
    async with running_proxy(imgproxy.port, WEB_CONCURRENCY="2") as proxy:
        await _ask_all_workers(proxy, imgproxy)
        victim = _workers(proxy)[0]
        os.kill(victim, signal.SIGKILL)
        died = await proxy.wait_for("worker.died")
        assert died["pid"] == victim
        async with asyncio.timeout(20):
            while len(_workers(proxy)) < 2 or victim in _workers(proxy):
                await asyncio.sleep(0.01)
        for number in range(20):
            assert (await ask(proxy.port, b"/_/plain/local:///%d" % number)).status == 200
        async with asyncio.timeout(20):  # the new one forgets the figures of the one that died
            while (await proxy.metrics())["upstream_in_use"] != 0:
                await asyncio.sleep(0.05)
        assert await proxy.stop() == 0


def _workers(proxy: RunningProxy) -> list[int]:
    """Its children that serve: not those that multiprocessing starts for itself."""
    return [pid for pid in proxy.children() if "spawn_main" in _command(pid)]


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except FileNotFoundError:
        return ""


@pytest.mark.usefixtures("heeded_hangup")
@pytest.mark.parametrize("number", STOPS)
async def test_stop_ends_all_workers_and_leaves_no_process_behind(
    imgproxy: FakeImgproxy, number: signal.Signals
) -> None:
    async with running_proxy(imgproxy.port, WEB_CONCURRENCY="2") as proxy:
        await _ask_all_workers(proxy, imgproxy)
        children = proxy.children()
        assert len(_workers(proxy)) == 2
        assert await proxy.stop(number) == 0
        left = [pid for pid in children if _command(pid)]

    assert left == []
    assert "Traceback" not in "\n".join(proxy.output)


async def test_stop_while_the_workers_start_exits_0(imgproxy: FakeImgproxy) -> None:
    async with started_proxy(imgproxy.port, WEB_CONCURRENCY="2") as proxy:
        await proxy.wait_for("server.started")
        assert await proxy.stop() == 0
        assert proxy.children() == []

    assert "Traceback" not in "\n".join(proxy.output)


async def test_workers_end_with_their_parent(imgproxy: FakeImgproxy) -> None:
    async with running_proxy(imgproxy.port, WEB_CONCURRENCY="2") as proxy:
        await _ask_all_workers(proxy, imgproxy)
        workers = _workers(proxy)
        proxy.process.kill()
        try:
            async with asyncio.timeout(10):
                while any("spawn_main" in _command(pid) for pid in workers):
                    await asyncio.sleep(0.01)
        finally:
            for pid in workers:
                if "spawn_main" in _command(pid):
                    os.kill(pid, signal.SIGKILL)


# The operator's port


async def test_connections_that_wait_for_a_request_keep_no_large_one(
    imgproxy: FakeImgproxy,
) -> None:
    sent = request(TARGET + b"a" * 15_000, b"A: " + b"b" * 60_000)
    async with running_proxy(imgproxy.port) as proxy, AsyncExitStack() as stack:
        before = proxy.memory_bytes()
        for _ in range(400):
            wire = await stack.enter_async_context(connected(proxy.port))
            wire.send(sent)
            assert (await wire.answer()).status == 200
        grown = proxy.memory_bytes() - before

    assert grown < 400 * 75_000  # kept, it would be 160,000 each; the first request takes 5 MB


async def test_memory_of_small_answers_is_not_given_back_and_taken_anew_all_the_time(
    imgproxy: FakeImgproxy,
) -> None:
    """A page fault each 4 KB would cost more than anything else that a request does."""
    imgproxy.default = lambda asked: (head(b"Content-Length: 30000") + bytes(30_000),)
    async with running_proxy(imgproxy.port) as proxy, AsyncExitStack() as stack:
        wires = [await stack.enter_async_context(connected(proxy.port)) for _ in range(32)]
        await _ask_all(wires)
        faults = proxy.page_faults()
        for _ in range(30):
            await _ask_all(wires)
        faults = proxy.page_faults() - faults

    assert faults < 30 * len(wires)


async def _ask_all(wires: list[Wire]) -> None:
    for number, wire in enumerate(wires):
        wire.send(request(b"/%d" % number))
    for wire in wires:
        assert len((await wire.answer()).body) == 30_000


async def test_refused_requests_are_counted_and_so_many_of_them_logged(
    imgproxy: FakeImgproxy,
) -> None:
    async with running_proxy(imgproxy.port) as proxy:
        for number in range(30):
            async with connected(proxy.port) as wire:
                wire.send(b"GET /%d?token HTTP/1.1\r\n\r\n" % number)
                assert (await wire.answer()).status == 400
        metrics = await proxy.metrics()
        assert await proxy.stop() == 0

    assert metrics['requests{outcome="bad-host"}'] == 30
    lines = proxy.events("request.refused")
    assert {name: lines[0][name] for name in ("level", "target", "status", "outcome")} == {
        "level": "info",
        "target": "/0",
        "status": 400,
        "outcome": "bad-host",
    }
    assert sum(1 + line.get("unlogged", 0) for line in lines) <= 30
    assert imgproxy.images_asked_for == []


async def test_ready_says_ok_of_each_part(imgproxy: FakeImgproxy) -> None:
    async with running_proxy(imgproxy.port) as proxy:
        answer = await proxy.admin(b"/ready")

    assert answer.status == 200
    assert json.loads(answer.body) == {
        "ready": True,
        "imgproxy": "ok",
        "store": "ok",
        "spool": "ok",
    }
    assert answer[b"Cache-Control"] == b"no-store"


async def test_ready_says_that_imgproxy_is_ill(imgproxy: FakeImgproxy) -> None:
    async with running_proxy(imgproxy.port) as proxy:
        imgproxy.is_healthy = False
        answer = await proxy.admin(b"/ready")

    assert answer.status == 503
    assert json.loads(answer.body) == {
        "ready": False,
        "imgproxy": f"GET http://127.0.0.1:{imgproxy.port}/health: answered 503",
        "store": "ok",
        "spool": "ok",
    }


async def test_ready_is_answered_while_images_take_all_connections_to_imgproxy(
    imgproxy: FakeImgproxy,
) -> None:
    gate = Gate()
    imgproxy.script(TARGET, gate, image(BODY))
    async with (
        running_proxy(imgproxy.port, CACHE_UPSTREAM_CONNECTIONS="1") as proxy,
        connected(proxy.port) as wire,
    ):
        wire.send(request(TARGET))
        await gate.reached.wait()
        answer = await proxy.admin(b"/ready")
        gate.open.set()
        await wire.answer()

    assert answer.status == 200
    assert json.loads(answer.body)["imgproxy"] == "ok"


async def test_ready_says_that_imgproxy_is_gone_and_later_that_it_is_back() -> None:
    port = free_port()
    async with _imgproxy_on(port), running_proxy(port) as proxy:
        assert (await proxy.admin(b"/ready")).status == 200
    async with running_proxy_whose_imgproxy_went(port) as proxy:
        answer = await proxy.admin(b"/ready")
        assert answer.status == 503
        assert "refused" in json.loads(answer.body)["imgproxy"].lower()
        assert (await ask(proxy.port, TARGET)).status == 502
        async with _imgproxy_on(port):
            assert (await proxy.admin(b"/ready")).status == 200
            assert (await ask(proxy.port, TARGET)).status == 200


@asynccontextmanager
async def _imgproxy_on(port: int) -> AsyncIterator[FakeImgproxy]:
    fake = FakeImgproxy()
    server = await asyncio.start_server(fake.serve, "127.0.0.1", port)
    try:
        yield fake
    finally:
        server.close()
        await fake.hang_up()


@asynccontextmanager
async def running_proxy_whose_imgproxy_went(port: int) -> AsyncIterator[RunningProxy]:
    async with started_proxy(port) as proxy:
        async with _imgproxy_on(port):
            await proxy.wait_for("server.started")
        yield proxy


async def test_ready_says_what_is_wrong_with_the_store(imgproxy: FakeImgproxy) -> None:
    async with running_proxy(
        imgproxy.port, CACHE_UPLOAD_QUEUE_ITEMS="5", **s3_settings(free_port())
    ) as proxy:
        answer = await proxy.admin(b"/ready")
        assert (await ask(proxy.port, TARGET)).status == 200  # and images are served all the same
        failed = await proxy.wait_for("store.failed")

    assert answer.status == 503
    ready = json.loads(answer.body)
    assert ready["imgproxy"] == "ok"
    assert ready["store"].startswith("s3://images: ")
    assert (failed["operation"], failed["level"]) == (f"put {KEY}", "error")


async def test_admin_port_is_the_operators_alone(imgproxy: FakeImgproxy) -> None:
    async with running_proxy(imgproxy.port) as proxy:
        assert (await proxy.admin(TARGET)).status == 404
        for path in (b"/ready", b"/metrics"):
            assert (await ask(proxy.port, path)).body == b"image of " + path


async def test_no_admin_port_is_opened_where_none_is_wanted(imgproxy: FakeImgproxy) -> None:
    async with running_proxy(imgproxy.port, CACHE_ADMIN_BIND="") as proxy:
        assert (await ask(proxy.port, TARGET)).status == 200
        with pytest.raises(ConnectionRefusedError):
            await proxy.admin(b"/ready")
        with pytest.raises(ConnectionRefusedError):
            await ask(8082, b"/ready")

    assert proxy.events("server.started")[0]["admin"] is None


async def test_help_of_each_figure_is_its_own(imgproxy: FakeImgproxy, tmp_path: Path) -> None:
    async with running_proxy(
        imgproxy.port, CACHE_READ_THROUGH="true", CACHE_DISK_DIR=str(tmp_path / "disk")
    ) as proxy:
        lines = (await proxy.admin(b"/metrics")).body.decode().splitlines()

    texts = [line.split(" ", 3)[3] for line in lines if line.startswith("# HELP ")]
    assert [text for text in texts if texts.count(text) > 1] == []


async def test_metrics_count_requests_by_outcome_and_levels_with_their_limits(
    imgproxy: FakeImgproxy,
) -> None:
    missing, cut = b"/_/plain/local:///404", b"/_/plain/local:///cut"
    imgproxy.script(missing, head(b"Content-Length: 0", status=b"404 Not Found"))
    imgproxy.script(cut, image(BODY)[:-1], End.CLOSE)
    imgproxy.script(TARGET, image(BODY))
    async with running_proxy(imgproxy.port) as proxy:
        for target in (TARGET, TARGET, missing, cut):
            await ask(proxy.port, target)
        await ask(proxy.port, TARGET, method=b"HEAD")
        await proxy.wait_for("upload.stored")
        metrics = await proxy.metrics()
        while 'uploads{result="unchanged"}' not in metrics:
            metrics = await proxy.metrics()

    assert metrics['requests{outcome="stored"}'] == 2
    assert metrics['requests{outcome="status"}'] == 1
    assert metrics['requests{outcome="method"}'] == 1
    assert metrics['requests{outcome="broken"}'] == 1
    # The same image twice is stored once.
    assert metrics['uploads{result="stored"}'] == metrics['uploads{result="unchanged"}'] == 1
    assert metrics['upload_bytes{result="stored"}'] == len(BODY)
    assert metrics["stored_age_seconds_count"] == 1
    assert metrics['fetches{status="404"}'] == 1
    assert metrics["request_seconds_count"] == 5
    limits = {name: value for name, value in metrics.items() if name.endswith("_limit")}
    assert limits["buffer_bytes_limit"] == 268435456
    assert limits["upload_queue_bytes_limit"] == 134217728
    assert limits["upstream_in_use_limit"] == 100
    assert all(name.removesuffix("_limit") in metrics for name in limits)
