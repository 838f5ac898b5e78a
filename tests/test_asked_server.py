"""The end of a server."""

import asyncio

import uvicorn
from starlette.responses import PlainTextResponse

from imgproxy_cache.asked_server import AskedServer


async def test_it_ends_when_it_is_asked_and_not_when_it_looks_next() -> None:
    server = AskedServer(uvicorn.Config(PlainTextResponse("hello")))
    serving = asyncio.create_task(server.main_loop())
    await asyncio.sleep(0)
    assert not serving.done()
    server.stop()
    for _ in range(5):  # turns of the event loop
        await asyncio.sleep(0)
    assert serving.done()


async def test_one_that_was_asked_before_it_began_ends_at_once() -> None:
    server = AskedServer(uvicorn.Config(PlainTextResponse("hello")))
    server.stop()
    await server.main_loop()
    assert server.should_exit
