"""Is imgproxy well, and if not, what is said of it."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from imgproxy_cache.health import ImgproxyHealth
from imgproxy_cache.upstream import Upstream
from tests.servers.upstreams import (
    End,
    FakeImgproxy,
    Gate,
    Step,
    fake_imgproxy,
    head,
)


@asynccontextmanager
async def health_of(
    port: int, *, path: str = "/health", timeout_seconds: float = 5.0
) -> AsyncIterator[ImgproxyHealth]:
    async with Upstream(
        "127.0.0.1",
        port,
        max_connections=2,
        max_waiting=10,
        wait_seconds=5,
        connect_timeout_seconds=5,
        read_timeout_seconds=5,
    ) as upstream:
        url = "http://127.0.0.1:8081"
        yield ImgproxyHealth(upstream, url, path, timeout_seconds=timeout_seconds)


@pytest.fixture
async def imgproxy() -> AsyncIterator[FakeImgproxy]:
    async with fake_imgproxy() as fake:
        yield fake


async def test_imgproxy_that_answers_is_well(imgproxy: FakeImgproxy) -> None:
    async with health_of(imgproxy.port) as health:
        assert await health.why_not_ready() is None


async def test_imgproxy_behind_a_server_of_another_name_is_well(imgproxy: FakeImgproxy) -> None:
    imgproxy.script(b"/health", head(b"Server: nginx", b"Content-Length: 0"))
    async with health_of(imgproxy.port) as health:
        assert await health.why_not_ready() is None


async def test_health_is_asked_under_the_path_prefix(imgproxy: FakeImgproxy) -> None:
    async with health_of(imgproxy.port, path="/images/health") as health:
        assert await health.why_not_ready() is None

    assert imgproxy.received[0].line == b"GET /images/health HTTP/1.1"


@pytest.mark.parametrize(
    ("steps", "reason"),
    [
        pytest.param(
            (head(b"Content-Length: 0", status=b"500 Oops"),),
            "GET http://127.0.0.1:8081/health: answered 500",
            id="an error",
        ),
        pytest.param(
            (head(b"Content-Length: 0", status=b"404 Not Found"),),
            "GET http://127.0.0.1:8081/health: answered 404",
            id="another prefix",
        ),
        pytest.param(
            (End.CLOSE,),
            "GET http://127.0.0.1:8081/health: closed the connection in the middle of its answer",
            id="closed",
        ),
    ],
)
async def test_reason_says_what_came_instead(
    imgproxy: FakeImgproxy, steps: tuple[Step, ...], reason: str
) -> None:
    imgproxy.script(b"/health", *steps)
    async with health_of(imgproxy.port) as health:
        assert await health.why_not_ready() == reason


async def test_reason_says_that_nobody_listens() -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        async with health_of(nobody.getsockname()[1]) as health:
            reason = await health.why_not_ready()

    assert reason is not None
    assert "refused" in reason.lower()


async def test_reason_says_that_no_answer_came_in_time(imgproxy: FakeImgproxy) -> None:
    imgproxy.script(b"/health", End.HANG)
    async with health_of(imgproxy.port, timeout_seconds=0.1) as health:
        reason = await health.why_not_ready()

    assert reason == "GET http://127.0.0.1:8081/health: no answer in 0.1 s"


async def test_imgproxy_is_waited_for_until_it_is_well(imgproxy: FakeImgproxy) -> None:
    imgproxy.script(b"/health", head(b"Content-Length: 0", status=b"503 Busy"))
    imgproxy.script(b"/health", End.CLOSE)
    imgproxy.script(b"/health", head(b"Server: imgproxy", b"Content-Length: 0"))
    async with health_of(imgproxy.port) as health:
        assert await health.wait(20) is None

    assert len(imgproxy.received) >= 3


async def test_wait_that_was_too_short_says_the_latest_reason(imgproxy: FakeImgproxy) -> None:
    imgproxy.script(b"/health", head(b"Content-Length: 0", status=b"503 Busy"))
    async with health_of(imgproxy.port) as health:
        reason = await health.wait(0.3)

    assert reason == "GET http://127.0.0.1:8081/health: answered 503"


async def test_wait_that_ends_while_imgproxy_is_being_asked_says_why_the_time_was_up(
    imgproxy: FakeImgproxy,
) -> None:
    gate = Gate()
    imgproxy.script(b"/health", gate)
    async with health_of(imgproxy.port) as health:
        waiting = asyncio.create_task(health.wait(0.2))
        await gate.reached.wait()
        assert await waiting is not None
