"""Images into S3 over connections of our own: which are used again, and what may go wrong."""

import asyncio
import socket
import time
import weakref
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace

import pytest

from imgproxy_cache.core.image import Image
from imgproxy_cache.core.key import Key
from imgproxy_cache.core.location import S3Location
from imgproxy_cache.errors import StoreError
from imgproxy_cache.stores import Store, open_store
from imgproxy_cache.stores.s3_writer import first_to_accept
from tests.servers.process import free_port
from tests.servers.s3 import S3Server
from tests.stores.images import KEY, PICTURE, picture
from tests.stores.scripted import HANG_UP, OK, Scripted, scripted


@pytest.fixture
def location(no_cloud: pytest.MonkeyPatch) -> S3Location:
    """A bucket of a server that is still to be named."""
    no_cloud.setenv("AWS_ACCESS_KEY_ID", "key")
    no_cloud.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    return S3Location("images", "processed", "", "auto")


def at(location: S3Location, server: Scripted) -> S3Location:
    return replace(location, endpoint=f"http://127.0.0.1:{server.port}")


async def put(store: Store, image: Image = PICTURE) -> None:
    await asyncio.to_thread(store.put, KEY, image)


async def failure_of_put(location: S3Location, image: Image = PICTURE) -> StoreError:
    async with open_store(location) as store:
        with pytest.raises(StoreError) as caught:
            await put(store, image)
    return caught.value


async def test_bytes_that_are_not_those_that_were_hashed_are_refused_by_the_server(
    s3: S3Server, no_cloud: pytest.MonkeyPatch
) -> None:
    for name, value in s3.environ.items():
        no_cloud.setenv(name, value)
    bucket = s3.make_bucket("images-damaged-on-their-way")
    there = S3Location(bucket, "", s3.endpoint, "auto")
    error = await failure_of_put(there, PICTURE._replace(body=PICTURE.body[:-1] + b"!"))
    assert "XAmzContentSHA256Mismatch" in error.cause
    assert s3.names(bucket) == []


async def test_a_connection_is_used_again(location: S3Location) -> None:
    async with scripted(OK) as server, open_store(at(location, server)) as store:
        for _ in range(5):
            await put(store)
        assert (len(server.heads), server.connections) == (5, 1)


async def test_one_that_the_server_has_closed_meanwhile_is_replaced(location: S3Location) -> None:
    async with scripted(OK, HANG_UP, OK) as server, open_store(at(location, server)) as store:
        await put(store)
        await put(store)
        assert (len(server.heads), server.connections) == (3, 2)


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(OK.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"), id="said so"),
        pytest.param(OK + OK, id="a second answer"),
        pytest.param(OK + b"SSH-2.0-x\r\n", id="no HTTP behind it"),
        pytest.param(b"HTTP/1.1 200 OK\r\n\r\n", id="no length"),
    ],
)
async def test_one_that_cannot_be_used_again_is_not(location: S3Location, answer: bytes) -> None:
    hangs_up = b"Content-Length" not in answer
    async with (
        scripted(answer, hangs_up=hangs_up) as server,
        open_store(at(location, server)) as store,
    ):
        await put(store)
        await put(store)
        assert (len(server.heads), server.connections) == (2, 2)


async def test_what_the_server_says_meanwhile_is_no_answer(location: S3Location) -> None:
    async with scripted(OK) as server, open_store(at(location, server)) as store:
        await put(store)
        server.say(b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n\r\n")
        await put(store)
        assert (len(server.heads), server.connections) == (2, 2)


async def test_an_answer_may_be_preceded_by_others(location: S3Location) -> None:
    early = b"HTTP/1.1 103 Early Hints\r\n\r\n"
    async with scripted(early + OK) as server, open_store(at(location, server)) as store:
        await put(store)
        await put(store)
        assert server.connections == 1


@pytest.mark.parametrize(
    ("answer", "kind", "cause"),
    [
        pytest.param(
            HANG_UP, "unreachable", "it closed the connection before its answer", id="nothing"
        ),
        pytest.param(
            b"HTTP/1.1 200 OK\r\nContent-",
            "unreachable",
            "it closed the connection in the middle of its answer",
            id="half a head",
        ),
        pytest.param(b"SSH-2.0-x\r\n", "unreachable", "it sent what is not HTTP: ", id="no HTTP"),
        pytest.param(
            b"HTTP/1.1 500 Oops\r\nContent-Length: 200000\r\n\r\n" + b"<" * 200_000,
            "busy",
            "answered 500 Internal Server Error",
            id="much to say",
        ),
    ],
)
async def test_what_is_no_answer_is_a_failure(
    location: S3Location, answer: bytes, kind: str, cause: str
) -> None:
    async with scripted(answer, hangs_up=True) as server:
        error = await failure_of_put(at(location, server))
        assert len(server.heads) == 1, "on a fresh connection nothing is tried twice"
    assert error.kind == kind
    assert error.cause.startswith(f"http://127.0.0.1:{server.port}: {cause}")
    assert error.operation == f"put processed/{KEY}"


@pytest.mark.usefixtures("no_collector")
@pytest.mark.parametrize("listens", [False, True], ids=["nobody listens", "an error is answered"])
async def test_a_failure_that_is_forgotten_holds_no_image_until_the_collector_comes(
    location: S3Location, listens: bool
) -> None:
    def failure(operation: Callable[[Key, Image], object]) -> weakref.ref[StoreError]:
        try:
            operation(KEY, PICTURE)
        except StoreError as exc:  # whose traceback leads to the image
            return weakref.ref(exc)
        raise AssertionError

    async with scripted(b"HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n") as server:
        there = at(location, server)
        if not listens:
            there = replace(location, endpoint=f"http://127.0.0.1:{free_port()}")
        async with open_store(there) as store:
            for operation in (store.put, store.create):
                assert (await asyncio.to_thread(failure, operation))() is None


async def test_who_is_refused_before_all_was_read_is_told_why(location: S3Location) -> None:
    said = b"<Error><Code>EntityTooLarge</Code></Error>"
    answer = b"HTTP/1.1 400 Bad Request\r\nContent-Length: %d\r\n\r\n%b" % (len(said), said)
    async with scripted(answer, reads_bodies=False, hangs_up=True) as server:
        error = await failure_of_put(at(location, server), picture(bytes(20_000_000)))
    assert error.kind in ("too-large", "unreachable"), "a reset may overtake the answer"


def test_of_several_addresses_those_that_are_down_leave_time_for_the_next() -> None:
    with ExitStack() as stack:
        silent, refusing, listening = (stack.enter_context(socket.socket()) for _ in range(3))
        for one in (silent, refusing, listening):
            one.bind(("127.0.0.1", 0))
        silent.listen(0)
        listening.listen()
        for _ in range(2):  # nobody accepts: the queue is full
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(silent.getsockname())
        addresses = [one.getsockname() for one in (silent, refusing, silent, listening, silent)]
        found = stack.enter_context(first_to_accept(addresses, time.monotonic() + 0.5))
        assert found.getpeername() == listening.getsockname()
        with pytest.raises(ConnectionRefusedError):
            first_to_accept(addresses[:2], time.monotonic() + 0.5)
        with pytest.raises(TimeoutError):
            first_to_accept(addresses[1:3], time.monotonic() + 0.5)


@pytest.mark.usefixtures("no_collector")
def test_an_address_that_refuses_holds_nothing_of_who_asked_when_the_next_accepts() -> None:
    class Asked:
        pass

    def connect(addresses: list[tuple[str, int]]) -> weakref.ref[Asked]:
        asked = Asked()  # as the image is, in a frame of who calls
        first_to_accept(addresses, time.monotonic() + 5).close()
        return weakref.ref(asked)

    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        assert connect([("127.0.0.1", free_port()), listening.getsockname()])() is None


async def test_a_large_image_is_sent_whole(s3: S3Server, no_cloud: pytest.MonkeyPatch) -> None:
    for name, value in s3.environ.items():
        no_cloud.setenv(name, value)
    bucket = s3.make_bucket("images-that-are-large")
    image = picture(bytes(range(256)) * 50_000)
    async with open_store(S3Location(bucket, "", s3.endpoint, "auto")) as store:
        await put(store, image)
        assert await asyncio.to_thread(store.get, KEY) == image


@pytest.mark.parametrize("key", ["../../elsewhere", "c9009a400f110797b2710ce2a5bd60a4/", "", "C9"])
async def test_what_is_no_key_leads_nowhere(location: S3Location, key: str) -> None:
    async with scripted(OK) as server, open_store(at(location, server)) as store:
        for operation in (store.create, store.put):
            with pytest.raises(StoreError, match="no key"):
                await asyncio.to_thread(operation, Key(key), PICTURE)
        assert server.connections == 0
