"""Any ASGI application over our protocol: what it sends, and what becomes of one that fails."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest
import uvicorn
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from structlog.testing import capture_logs
from uvicorn.server import ServerState

from imgproxy_cache.protocol import ClientConnection
from tests.wire import ask, connected, request

BEGINNING = {
    "type": "http.response.start",
    "status": 200,
    "headers": [(b"Content-Length", b"8"), (b"Content-Type", b"text/plain")],
}


@asynccontextmanager
async def served(app: ASGIApp) -> AsyncIterator[int]:
    """The port that it answers on."""
    config = uvicorn.Config(app, interface="asgi3", lifespan="off", log_config=None)
    config.load()
    state = ServerState()
    server = await asyncio.get_running_loop().create_server(
        lambda: ClientConnection(
            config=config,
            server_state=state,
            app_state={},
            client_stall_seconds=60,
            client_was_cut_off=lambda: None,
            request_was_refused=lambda refusal, target: None,
        ),
        "127.0.0.1",
        0,
    )
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for connection in tuple(state.connections):
            connection.transport.abort()


async def test_application_answers_in_the_messages_of_asgi() -> None:
    async def in_parts(scope: Scope, receive: Receive, send: Send) -> None:
        await send(BEGINNING)
        await send({"type": "http.response.body", "body": b"in ", "more_body": True})
        await send({"type": "http.response.body", "body": b"parts"})

    async with served(in_parts) as port:
        answer = await ask(port, b"/a")

    assert (answer.status, answer.body, answer.is_whole) == (200, b"in parts", True)
    assert answer.fields[:2] == BEGINNING["headers"]


async def test_application_that_fails_before_its_answer_is_answered_for() -> None:
    async def failing(scope: Scope, receive: Receive, send: Send) -> None:
        raise ValueError("a bug")

    with capture_logs() as logs:
        async with served(failing) as port:
            answer = await ask(port, b"/a")

    assert (answer.status, answer.body, answer.is_whole) == (500, b"internal error\n", True)
    assert answer[b"Cache-Control"] == b"no-store"
    assert [line["event"] for line in logs] == ["request.crashed"]


async def test_application_that_fails_in_its_answer_has_it_cut() -> None:
    async def failing(scope: Scope, receive: Receive, send: Send) -> None:
        await send(BEGINNING)
        await send({"type": "http.response.body", "body": b"in ", "more_body": True})
        raise ValueError("a bug")

    with capture_logs() as logs:
        async with served(failing) as port:
            answer = await ask(port, b"/a")

    assert not answer.is_whole
    assert [line["event"] for line in logs] == ["request.crashed"]


@dataclass(frozen=True)
class Seen:
    """What an application was given, and what its connection has kept of it."""

    target: bytes
    headers: list[tuple[bytes, bytes]]
    message: Message
    kept: bytes | None


async def seen_of(*requests: bytes) -> list[Seen]:
    """Of requests that come one after the other, on one connection."""
    seen: list[Seen] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        connection: ClientConnection = scope["extensions"]["imgproxy_cache"]
        kept = connection.read_alone()
        seen.append(Seen(scope["raw_path"], scope["headers"], await receive(), kept))
        await send(BEGINNING)
        await send({"type": "http.response.body", "body": b"8 bytes."})

    async with served(app) as port, connected(port) as wire:
        for sent in requests:
            wire.send(sent)
            assert (await wire.answer()).status == 200
    return seen


async def test_head_that_comes_again_is_not_parsed_again() -> None:
    sent = [request(b"/a"), request(b"/b"), request(b"/b", b"A: b"), request(b"/c")]
    seen = await seen_of(*sent)

    assert [one.target for one in seen] == [b"/a", b"/b", b"/b", b"/c"]
    assert [one.kept for one in seen] == sent
    host = (b"host", b"img.example")
    assert [one.headers for one in seen] == [[host], [host], [host, (b"a", b"b")], [host]]
    assert [one.headers is seen[0].headers for one in seen] == [True, True, False, False]
    nothing = {"type": "http.request", "body": b"", "more_body": False}
    assert [one.message for one in seen] == [nothing] * 4


@pytest.mark.parametrize(
    "sent",
    [
        pytest.param(request(b"/" + b"a" * 4096), id="a long target"),
        pytest.param(request(b"/a", b"A: " + b"b" * 4096), id="a long field"),
        pytest.param(request(b"/a", b"A:" + b" " * 4096 + b"b"), id="much white space"),
        pytest.param(request(b"/a") + b"\r\n" * 2048, id="many empty lines"),
    ],
)
async def test_long_head_is_not_kept_for_the_next_request(sent: bytes) -> None:
    first, long, again, last = await seen_of(request(b"/a"), sent, sent, request(b"/a"))
    assert again.headers is not long.headers
    assert last.headers is not first.headers


async def test_long_head_is_not_kept_while_it_is_answered() -> None:
    [seen] = await seen_of(request(b"/a") + b"\r\n" * 2048)
    assert seen.kept is None
