"""The pool of connections to imgproxy, against one that does as it is told."""

from __future__ import annotations

import asyncio
import gc
import socket
import ssl
import warnings
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import uvloop

from imgproxy_cache.core.headers import Headers
from imgproxy_cache.errors import (
    UpstreamBroken,
    UpstreamBusy,
    UpstreamError,
    UpstreamTimedOut,
    UpstreamUnreachable,
)
from imgproxy_cache.upstream import Exchange, Upstream, first_to_accept
from imgproxy_cache.upstream.connection import Connection
from tests.servers.s3 import S3Server
from tests.servers.upstreams import (
    STORABLE,
    End,
    FakeImgproxy,
    Gate,
    Step,
    chunked,
    fake_imgproxy,
    head,
    image,
)

BODY = bytes(range(256)) * 200
SECONDS = 10.0


class Collected:
    """An answer, and the order in which it came."""

    def __init__(self) -> None:
        self.status = 0
        self.headers: Headers = []
        self.body = b""
        self.is_whole: bool | None = None
        self.error: UpstreamError | None = None
        self.calls: list[str] = []
        self.has_begun = asyncio.Event()
        self.is_over = asyncio.Event()

    def answer_began(self, status: int, headers: Headers) -> None:
        self.calls.append("began")
        self.status, self.headers = status, headers
        self.has_begun.set()

    def chunk_came(self, chunk: bytes) -> None:
        if self.calls[-1] != "chunk":
            self.calls.append("chunk")
        self.body += chunk

    def answer_ended(self, *, is_whole: bool) -> None:
        self.calls.append("ended")
        self.is_whole = is_whole
        self.is_over.set()

    def fetch_failed(self, error: UpstreamError) -> None:
        self.calls.append("failed")
        self.error = error
        self.is_over.set()


@asynccontextmanager
async def connections_to(
    port: int,
    *,
    host: str = "127.0.0.1",
    max_connections: int = 10,
    max_waiting: int = 100,
    wait_seconds: float = SECONDS,
    connect_timeout_seconds: float = SECONDS,
    read_timeout_seconds: float = SECONDS,
    max_idle_seconds: float = 8.0,
) -> AsyncIterator[Upstream]:
    async with Upstream(
        host,
        port,
        max_connections=max_connections,
        max_waiting=max_waiting,
        wait_seconds=wait_seconds,
        connect_timeout_seconds=connect_timeout_seconds,
        read_timeout_seconds=read_timeout_seconds,
        max_idle_seconds=max_idle_seconds,
    ) as upstream:
        yield upstream
        await until(lambda: upstream.in_use == 0)


@pytest.fixture
async def imgproxy() -> AsyncIterator[FakeImgproxy]:
    async with fake_imgproxy() as fake:
        yield fake


async def until(is_so: object) -> None:
    """Let the loop turn until it is so."""
    assert callable(is_so)
    async with asyncio.timeout(SECONDS):
        while not is_so():
            await asyncio.sleep(0.001)


def start(
    upstream: Upstream, target: bytes, *, method: bytes = b"GET"
) -> tuple[Collected, Exchange]:
    answer = Collected()
    request = method + b" " + target + b" HTTP/1.1\r\nhost: img.example\r\n\r\n"
    return answer, upstream.fetch(request, answer, is_head=method == b"HEAD")


async def fetched(upstream: Upstream, target: bytes, *, method: bytes = b"GET") -> Collected:
    answer, _ = start(upstream, target, method=method)
    async with asyncio.timeout(SECONDS):
        await answer.is_over.wait()
    return answer


# Reuse


async def test_connection_is_used_for_one_request_after_another(imgproxy: FakeImgproxy) -> None:
    async with connections_to(imgproxy.port) as upstream:
        for number in range(10):
            assert (await fetched(upstream, b"/%d" % number)).is_whole
            await until(lambda: upstream.in_use == 0)

    assert {one.connection for one in imgproxy.received} == {0}


@pytest.mark.parametrize(
    "steps",
    [
        pytest.param((chunked(b"abc", b"de"),), id="chunked"),
        pytest.param((image(b""),), id="empty"),
        pytest.param((head(status=b"204 No Content"),), id="204"),
        pytest.param((head(b"Content-Length: 99", status=b"304 Not Modified"),), id="304"),
        pytest.param((head(status=b"100 Continue") + image(BODY),), id="after 100"),
        pytest.param(
            (head(b"Link: </a>", status=b"103 Early Hints") * 3 + image(BODY),), id="after 103"
        ),
    ],
)
async def test_connection_is_free_again_after(
    imgproxy: FakeImgproxy, steps: tuple[Step, ...]
) -> None:
    imgproxy.script(b"/a", *steps)
    async with connections_to(imgproxy.port) as upstream:
        assert (await fetched(upstream, b"/a")).is_whole
        await until(lambda: upstream.in_use == 0)
        assert (await fetched(upstream, b"/b")).body == b"image of /b"

    assert {one.connection for one in imgproxy.received} == {0}


@pytest.mark.parametrize(
    "steps",
    [
        pytest.param((image(BODY, b"Connection: close"),), id="Connection: close"),
        pytest.param((image(BODY), End.CLOSE), id="closed after the answer"),
        pytest.param((image(BODY) + b"stray",), id="stray bytes"),
        pytest.param((image(BODY) + image(b"evil"),), id="a second answer"),
        pytest.param((image(BODY) + b"\r\n" + image(b"evil"),), id="a second one, later"),
        pytest.param((image(BODY).replace(b"1.1", b"1.0", 1),), id="HTTP/1.0"),
    ],
)
async def test_connection_is_not_used_again_after(
    imgproxy: FakeImgproxy, steps: tuple[Step, ...]
) -> None:
    imgproxy.script(b"/a", *steps)
    async with connections_to(imgproxy.port) as upstream:
        answer = await fetched(upstream, b"/a")
        assert (answer.status, answer.body, answer.is_whole) == (200, BODY, True)
        await until(lambda: upstream.in_use == 0)
        assert (await fetched(upstream, b"/b")).body == b"image of /b"

    assert [one.connection for one in imgproxy.received] == [0, 1]


async def test_connection_that_speaks_without_being_asked_is_closed(
    imgproxy: FakeImgproxy,
) -> None:
    late = Gate()
    imgproxy.script(b"/a", image(BODY), late, image(b"evil"))
    async with connections_to(imgproxy.port) as upstream:
        await fetched(upstream, b"/a")
        late.open.set()
        await until(lambda: upstream.open_connections == 0)
        assert (await fetched(upstream, b"/b")).body == b"image of /b"


async def test_head_leaves_the_connection_ready_whatever_length_is_declared(
    imgproxy: FakeImgproxy,
) -> None:
    imgproxy.script(b"/a", head(*STORABLE, b"Content-Length: 12345"))
    async with connections_to(imgproxy.port) as upstream:
        for _ in range(3):
            answer = await fetched(upstream, b"/a", method=b"HEAD")
            assert (answer.status, answer.body, answer.is_whole) == (200, b"", True)
            await until(lambda: upstream.in_use == 0)
        assert (await fetched(upstream, b"/b")).body == b"image of /b"

    assert {one.connection for one in imgproxy.received} == {0}


@pytest.mark.parametrize("body", [b"x", image(b"evil"), BODY])
async def test_body_where_none_can_be_does_not_reach_the_next_request(
    imgproxy: FakeImgproxy, body: bytes
) -> None:
    imgproxy.script(b"/a", head(*STORABLE, b"Content-Length: %d" % len(body)) + body)
    async with connections_to(imgproxy.port) as upstream:
        answer = await fetched(upstream, b"/a", method=b"HEAD")
        assert answer.body == b""
        await until(lambda: upstream.in_use == 0)
        assert (await fetched(upstream, b"/b")).body == b"image of /b"

    assert [one.connection for one in imgproxy.received] == [0, 1]


async def test_connection_that_was_idle_too_long_is_closed(imgproxy: FakeImgproxy) -> None:
    async with connections_to(
        imgproxy.port, max_idle_seconds=0.1, read_timeout_seconds=0.4
    ) as upstream:
        await fetched(upstream, b"/a")
        assert upstream.open_connections == 1
        await until(lambda: upstream.open_connections == 0)
        await imgproxy.until(lambda self: self.open_connections == 0)


# Retry


@pytest.mark.parametrize("end", [End.CLOSE, End.RESET])
async def test_request_that_met_a_closing_connection_is_sent_once_more(
    imgproxy: FakeImgproxy, end: End
) -> None:
    imgproxy.script(b"/b", end)
    imgproxy.script(b"/b", image(BODY))
    async with connections_to(imgproxy.port) as upstream:
        await fetched(upstream, b"/a")
        await until(lambda: upstream.in_use == 0)
        answer = await fetched(upstream, b"/b")

    assert (answer.body, answer.calls) == (BODY, ["began", "chunk", "ended"])
    assert [(one.target, one.connection) for one in imgproxy.received] == [
        (b"/a", 0),
        (b"/b", 0),
        (b"/b", 1),
    ]


@pytest.mark.parametrize("end", [End.CLOSE, End.RESET])
async def test_request_is_not_sent_a_third_time(imgproxy: FakeImgproxy, end: End) -> None:
    imgproxy.script(b"/b", end)
    async with connections_to(imgproxy.port) as upstream:
        for target in (b"/0", b"/1", b"/2"):
            await fetched(upstream, target)
        answer = await fetched(upstream, b"/b")

    assert isinstance(answer.error, UpstreamBroken)
    assert len(imgproxy.asked_for(b"/b")) == 2


@pytest.mark.parametrize("end", [End.CLOSE, End.RESET])
async def test_request_on_a_fresh_connection_is_sent_only_once(
    imgproxy: FakeImgproxy, end: End
) -> None:
    imgproxy.script(b"/b", end)
    async with connections_to(imgproxy.port) as upstream:
        answer = await fetched(upstream, b"/b")

    assert isinstance(answer.error, UpstreamBroken)
    assert len(imgproxy.asked_for(b"/b")) == 1


@pytest.mark.parametrize("first", [b"H", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 100 Continue\r\n\r\n"])
async def test_request_whose_answer_had_begun_is_not_sent_again(
    imgproxy: FakeImgproxy, first: bytes
) -> None:
    imgproxy.script(b"/b", first, End.CLOSE)
    async with connections_to(imgproxy.port) as upstream:
        await fetched(upstream, b"/a")
        await until(lambda: upstream.in_use == 0)
        answer = await fetched(upstream, b"/b")

    assert isinstance(answer.error, UpstreamBroken)
    assert len(imgproxy.asked_for(b"/b")) == 1


async def test_connection_whose_request_was_given_up_before_it_was_sent_counts_as_reused(
    imgproxy: FakeImgproxy,
) -> None:
    imgproxy.script(b"/b", End.CLOSE)
    imgproxy.script(b"/b", image(BODY))
    async with connections_to(imgproxy.port) as upstream:
        _, exchange = start(upstream, b"/a")
        exchange.abandon()
        await until(lambda: upstream.in_use == 0)
        assert upstream.open_connections == 1
        answer = await fetched(upstream, b"/b")

    assert answer.body == BODY
    assert [one.target for one in imgproxy.received] == [b"/b", b"/b"]


async def test_connection_that_was_just_made_is_not_taken_for_an_idle_one(
    imgproxy: FakeImgproxy,
) -> None:
    async with connections_to(imgproxy.port) as upstream:
        transport, connection = await asyncio.get_running_loop().create_connection(
            lambda: Connection(upstream), "127.0.0.1", imgproxy.port
        )
        now = asyncio.get_running_loop().time()
        connection.check_time(now, max_idle_seconds=8, read_timeout_seconds=60)
        assert not transport.is_closing()


# Answers that break


WHOLE_ANSWERS = {
    "length": image(BODY),
    "chunked": chunked(*[BODY[start : start + 5000] for start in range(0, len(BODY), 5000)]),
}


@pytest.mark.parametrize("end", [End.CLOSE, End.RESET])
@pytest.mark.parametrize("framing", WHOLE_ANSWERS)
@pytest.mark.parametrize("part", [0.0001, 0.001, 0.002, 0.003, 0.01, 0.3, 0.5, 0.9, 0.999, 0.99999])
async def test_answer_cut_anywhere_is_broken(
    imgproxy: FakeImgproxy, part: float, framing: str, end: End
) -> None:
    whole = WHOLE_ANSWERS[framing]
    imgproxy.script(b"/a", whole[: max(1, int(len(whole) * part))], end)
    async with connections_to(imgproxy.port) as upstream:
        answer = await fetched(upstream, b"/a")

    assert isinstance(answer.error, UpstreamBroken)
    assert answer.is_whole is None
    assert BODY.startswith(answer.body)


async def test_answer_without_its_last_byte_is_broken(imgproxy: FakeImgproxy) -> None:
    async with connections_to(imgproxy.port) as upstream:
        for number, whole in enumerate(WHOLE_ANSWERS.values()):
            imgproxy.script(b"/%d" % number, whole[:-1], End.CLOSE)
            answer = await fetched(upstream, b"/%d" % number)
            assert isinstance(answer.error, UpstreamBroken)


async def test_answer_that_ends_with_the_connection_is_never_proved_whole(
    imgproxy: FakeImgproxy,
) -> None:
    imgproxy.script(b"/a", head(*STORABLE) + BODY, End.CLOSE)
    async with connections_to(imgproxy.port) as upstream:
        answer = await fetched(upstream, b"/a")

    assert (answer.body, answer.is_whole, answer.error) == (BODY, False, None)


async def test_answer_that_should_end_with_the_connection_and_is_reset_is_broken(
    imgproxy: FakeImgproxy,
) -> None:
    gate = Gate()
    imgproxy.script(b"/a", head(*STORABLE) + BODY, gate, End.RESET)
    async with connections_to(imgproxy.port) as upstream:
        answer, _ = start(upstream, b"/a")
        await answer.has_begun.wait()
        gate.open.set()
        await answer.is_over.wait()

    assert isinstance(answer.error, UpstreamBroken)


@pytest.mark.parametrize(
    "said",
    [
        pytest.param(b"hello\r\n\r\n", id="no status line"),
        pytest.param(b"HTTP/1.1 xyz\r\n\r\n", id="no number"),
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n", id="no length"),
        pytest.param(
            b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab", id="two lengths"
        ),
        pytest.param(
            b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            id="length and chunked",
        ),
        pytest.param(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", id="no chunk size"
        ),
        pytest.param(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n",
            id="compressed on its way",
        ),
        pytest.param(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
            id="another protocol",
        ),
        pytest.param(b"HTTP/1.1 200 OK\r\nA: b\x00c\r\n\r\n", id="nul in a field"),
        pytest.param(b"\x16\x03\x01\x02", id="TLS"),
    ],
)
async def test_answer_that_is_not_http_is_broken(imgproxy: FakeImgproxy, said: bytes) -> None:
    imgproxy.script(b"/a", said, End.HANG)
    async with connections_to(imgproxy.port) as upstream:
        answer = await fetched(upstream, b"/a")
        assert isinstance(answer.error, UpstreamBroken)
        await until(lambda: upstream.open_connections == 0)
        assert (await fetched(upstream, b"/b")).body == b"image of /b"


# Time


async def test_imgproxy_that_is_not_there_is_unreachable(unused_port: int) -> None:
    async with connections_to(unused_port) as upstream:
        answer = await fetched(upstream, b"/a")

    assert isinstance(answer.error, UpstreamUnreachable)
    assert "refused" in str(answer.error).lower()


async def test_imgproxy_whose_name_can_be_none_is_unreachable(unused_port: int) -> None:
    async with connections_to(unused_port, host="imgproxy..internal") as upstream:
        answer = await fetched(upstream, b"/a")

    assert isinstance(answer.error, UpstreamUnreachable)
    assert "imgproxy..internal" in str(answer.error)


@pytest.fixture
def unused_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


async def test_imgproxy_that_accepts_no_connection_has_timed_out() -> None:
    with socket.socket() as listener, socket.socket() as first, socket.socket() as second:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for filler in (first, second):  # nobody accepts: the queue is full
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
        port = listener.getsockname()[1]
        async with connections_to(port, connect_timeout_seconds=0.2) as upstream:
            answer = await fetched(upstream, b"/a")

    assert isinstance(answer.error, UpstreamTimedOut)


async def test_of_several_addresses_those_that_are_down_leave_time_for_the_next() -> None:
    asked: list[str] = []

    async def dial(address: str) -> str:
        asked.append(address)
        if address == "silent":
            await asyncio.Event().wait()
        if address == "refuses":
            raise ConnectionRefusedError
        return address

    addresses = ["silent", "refuses", "silent", "accepts", "silent"]
    assert await first_to_accept(dial, addresses, seconds=0.2) == "accepts"
    assert asked == addresses[:4]
    with pytest.raises(ConnectionRefusedError):
        await first_to_accept(dial, ["silent", "refuses"], seconds=0.2)
    with pytest.raises(TimeoutError):
        await first_to_accept(dial, ["refuses", "silent"], seconds=0.2)


@pytest.mark.parametrize(
    "said",
    [
        pytest.param(b"", id="before the answer"),
        pytest.param(b"HTTP/1.1 200", id="in the status line"),
        pytest.param(image(BODY)[:-1], id="before the last byte"),
        pytest.param(head(*STORABLE, b"Transfer-Encoding: chunked"), id="before the first chunk"),
    ],
)
async def test_imgproxy_that_goes_silent_has_timed_out(imgproxy: FakeImgproxy, said: bytes) -> None:
    imgproxy.script(b"/a", said, End.HANG)
    async with connections_to(imgproxy.port, read_timeout_seconds=0.2) as upstream:
        answer = await fetched(upstream, b"/a")

        assert isinstance(answer.error, UpstreamTimedOut)
        await imgproxy.until(lambda self: self.open_connections == 0)


async def test_slow_answer_that_keeps_coming_is_waited_for(imgproxy: FakeImgproxy) -> None:
    gates = [Gate() for _ in range(4)]
    pieces = [BODY[start : start + 12800] for start in range(0, len(BODY), 12800)]
    first, *others = pieces
    steps: list[Step] = [head(*STORABLE, b"Content-Length: %d" % len(BODY)) + first]
    for gate, piece in zip(gates, others, strict=False):
        steps += [gate, piece]
    imgproxy.script(b"/a", *steps)
    async with connections_to(imgproxy.port, read_timeout_seconds=1.0) as upstream:
        answer, _ = start(upstream, b"/a")
        for gate in gates[: len(others)]:
            await gate.reached.wait()
            await asyncio.sleep(0.4)  # all of it takes longer than the limit
            gate.open.set()
        await answer.is_over.wait()

    assert (answer.body, answer.is_whole) == (BODY, True)


async def test_pause_of_ours_is_not_silence_of_imgproxy(imgproxy: FakeImgproxy) -> None:
    gate = Gate()
    imgproxy.script(b"/a", image(BODY)[:-1], gate, BODY[-1:])
    async with connections_to(imgproxy.port, read_timeout_seconds=0.2) as upstream:
        answer, exchange = start(upstream, b"/a")
        await answer.has_begun.wait()
        exchange.pause()
        await asyncio.sleep(0.5)
        exchange.resume()
        gate.open.set()
        await answer.is_over.wait()

    assert (answer.body, answer.is_whole) == (BODY, True)


# How many at once


async def test_no_more_requests_are_at_imgproxy_than_allowed(imgproxy: FakeImgproxy) -> None:
    gates = [Gate() for _ in range(6)]
    for number, gate in enumerate(gates):
        imgproxy.script(b"/%d" % number, gate, image(BODY))
    async with connections_to(imgproxy.port, max_connections=2) as upstream:
        answers = [start(upstream, b"/%d" % number)[0] for number in range(6)]
        for number, gate in enumerate(gates):
            await gate.reached.wait()
            assert upstream.in_use == 2 or number >= 4
            assert upstream.waiting == max(0, 4 - number)
            gate.open.set()
            await answers[number].is_over.wait()

    assert [answer.is_whole for answer in answers] == [True] * 6
    assert sorted(one.target for one in imgproxy.received) == [b"/%d" % n for n in range(6)]


async def test_request_that_waited_too_long_for_a_connection_is_told_so(
    imgproxy: FakeImgproxy,
) -> None:
    gate = Gate()
    imgproxy.script(b"/a", gate, image(BODY))
    async with connections_to(imgproxy.port, max_connections=1, wait_seconds=0.1) as upstream:
        first, _ = start(upstream, b"/a")
        second = await fetched(upstream, b"/b")
        assert isinstance(second.error, UpstreamBusy)
        gate.open.set()
        await first.is_over.wait()

    assert first.is_whole
    assert imgproxy.asked_for(b"/b") == []


async def test_request_beyond_those_that_may_wait_is_told_at_once(imgproxy: FakeImgproxy) -> None:
    gate = Gate()
    imgproxy.script(b"/a", gate, image(BODY))
    async with connections_to(imgproxy.port, max_connections=1, max_waiting=1) as upstream:
        first, _ = start(upstream, b"/a")
        second, _ = start(upstream, b"/b")
        third = await fetched(upstream, b"/c")
        assert isinstance(third.error, UpstreamBusy)
        gate.open.set()
        for answer in (first, second):
            await answer.is_over.wait()

    assert (first.is_whole, second.is_whole) == (True, True)


@pytest.mark.parametrize("end", [End.CLOSE, End.RESET, b"garbage\r\n\r\n"])
async def test_slot_of_a_broken_request_goes_to_the_next_that_waits(
    imgproxy: FakeImgproxy, end: Step
) -> None:
    for target in (b"/0", b"/1", b"/2"):
        imgproxy.script(target, end)
    async with connections_to(imgproxy.port, max_connections=1) as upstream:
        answers = [start(upstream, b"/%d" % number)[0] for number in range(4)]
        await answers[3].is_over.wait()

    assert [type(answer.error) for answer in answers[:3]] == [UpstreamBroken] * 3
    assert answers[3].body == b"image of /3"


# Giving up


async def test_request_given_up_while_it_waits_is_never_sent(imgproxy: FakeImgproxy) -> None:
    gate = Gate()
    imgproxy.script(b"/a", gate, image(BODY))
    async with connections_to(imgproxy.port, max_connections=1) as upstream:
        first, _ = start(upstream, b"/a")
        second, exchange = start(upstream, b"/b")
        exchange.abandon()
        assert upstream.waiting == 0
        gate.open.set()
        await first.is_over.wait()

    assert second.calls == []
    assert imgproxy.asked_for(b"/b") == []


async def test_request_given_up_at_imgproxy_closes_its_connection(imgproxy: FakeImgproxy) -> None:
    imgproxy.script(b"/a", image(BODY)[:-1], End.HANG)
    async with connections_to(imgproxy.port) as upstream:
        answer, exchange = start(upstream, b"/a")
        await answer.has_begun.wait()
        exchange.abandon()
        await imgproxy.until(lambda self: self.open_connections == 0)
        assert upstream.open_connections == 0

    assert answer.calls[-1] != "failed"


class GivesUp(Collected):
    """Abandons its exchange as soon as the answer begins."""

    exchange: Exchange

    def answer_began(self, status: int, headers: Headers) -> None:
        super().answer_began(status, headers)
        self.exchange.abandon()


@pytest.mark.parametrize(
    "whole", [image(BODY), chunked(BODY), image(b""), image(BODY) + image(BODY)]
)
async def test_request_given_up_when_its_answer_begins_gives_its_slot_back(
    imgproxy: FakeImgproxy, whole: bytes
) -> None:
    imgproxy.script(b"/a", whole)
    async with connections_to(imgproxy.port, max_connections=1) as upstream:
        for _ in range(3):
            answer = GivesUp()
            request = b"GET /a HTTP/1.1\r\nhost: img.example\r\n\r\n"
            answer.exchange = upstream.fetch(request, answer)
            await answer.has_begun.wait()
            await until(lambda: upstream.in_use == 0)
        assert (await fetched(upstream, b"/b")).body == b"image of /b"

    assert answer.calls == ["began"]


async def test_resuming_an_answer_that_is_over_does_not_resume_the_next_one(
    imgproxy: FakeImgproxy,
) -> None:
    gate = Gate()
    imgproxy.script(b"/b", head(*STORABLE, b"Content-Length: 10"), gate, b"0123456789")
    async with connections_to(imgproxy.port, max_connections=1) as upstream:
        first, first_exchange = start(upstream, b"/a")
        await first.is_over.wait()
        await until(lambda: upstream.in_use == 0)
        second, exchange = start(upstream, b"/b")
        await second.has_begun.wait()
        exchange.pause()
        first_exchange.resume()
        gate.open.set()
        await imgproxy.until(lambda self: self.written.get(b"/b") == 1)
        await asyncio.sleep(0.05)
        assert second.body == b""
        exchange.resume()
        await second.is_over.wait()

    assert second.body == b"0123456789"


async def test_no_slot_is_missing_after_every_kind_of_end(imgproxy: FakeImgproxy) -> None:
    """Every way to end, at random moments: in the end no slot and no connection is missing."""
    endings: list[tuple[Step, ...]] = [
        (image(BODY),),
        (chunked(b"a", b"b"),),
        (image(BODY)[:100], End.CLOSE),
        (image(BODY)[:-1], End.RESET),
        (End.CLOSE,),
        (b"garbage\r\n\r\n",),
        (image(BODY) + b"stray",),
    ]
    for number, steps in enumerate(endings):
        imgproxy.script(b"/%d" % number, *steps)
    async with connections_to(imgproxy.port, max_connections=5, max_waiting=1000) as upstream:
        started = [start(upstream, b"/%d" % (n % len(endings))) for n in range(700)]
        for turn, (_, exchange) in enumerate(started):
            if turn % 3 == 0:
                await asyncio.sleep(0)
                exchange.abandon()
        await until(lambda: upstream.in_use == 0 and upstream.waiting == 0)
        for _ in range(20):
            assert (await fetched(upstream, b"/fine")).is_whole

    assert all(len(answer.calls) <= 3 for answer, _ in started)


def test_no_connection_over_tls_that_is_made_at_the_end_is_left_open(s3_tls: S3Server) -> None:
    """It comes in any of many moments; uvloop warns of each (and its loop may end with EBUSY)."""

    async def connect_and_end(seconds: float) -> None:
        async with Upstream(
            "127.0.0.1",
            s3_tls.port,
            max_connections=30,
            max_waiting=0,
            wait_seconds=SECONDS,
            connect_timeout_seconds=SECONDS,
            read_timeout_seconds=SECONDS,
            tls=ssl.create_default_context(cafile=s3_tls.ca_bundle),
        ) as upstream:
            for _ in range(30):
                upstream.fetch(b"GET / HTTP/1.1\r\nHost: s3\r\n\r\n", Collected()).abandon()
            await asyncio.sleep(seconds)

    gc.collect()  # what other tests have left
    with warnings.catch_warnings(record=True) as left_open:
        warnings.simplefilter("always")
        for number in range(20):
            uvloop.run(connect_and_end(number * 0.005))
        gc.collect()
    assert [str(warning.message) for warning in left_open] == []
