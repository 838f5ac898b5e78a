"""Any ASGI application over our protocol: what it sends, and what becomes of one that fails."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send
from structlog.testing import capture_logs
from uvicorn.server import ServerState

from imgproxy_cache.protocol import ClientConnection
from tests.wire import ask

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
