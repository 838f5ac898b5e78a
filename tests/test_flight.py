"""Fetches belong to the cache: who shares one, who it survives, and what memory it may take."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import pytest

from imgproxy_cache.protocol import ClientConnection
from tests.servers.upstreams import (
    STORABLE,
    End,
    FakeImgproxy,
    Gate,
    Script,
    Step,
    chunked,
    head,
    image,
)
from tests.servers.wired import WiredProxy, wired_proxy
from tests.wire import Answer, Wire, ask, connected, request

TARGET = b"/_/rs:fit:300/plain/local:///a.jpg"
BODY = bytes(range(256)) * 400
LARGE = bytes(20_000_000)


@pytest.fixture
async def proxy(upstream: FakeImgproxy) -> AsyncIterator[WiredProxy]:
    async with wired_proxy(upstream.port) as wired:
        yield wired


def key(target: bytes) -> str:
    return hashlib.md5(target).hexdigest()


async def until_served(proxy: WiredProxy, number: int) -> None:
    """Wait until so many requests are under way, and each has found its flight."""
    async with asyncio.timeout(20):
        while len(proxy.state.tasks) < number:
            await asyncio.sleep(0.001)
    await asyncio.sleep(0)


async def asked_together(
    proxy: WiredProxy, gate: Gate, requests: list[bytes], *, method: bytes = b"GET"
) -> list[Answer]:
    """The answers to requests that are all under way before imgproxy answers the first."""
    async with AsyncExitStack() as stack:
        wires = [await stack.enter_async_context(connected(proxy.port)) for _ in requests]
        for wire, asked in zip(wires, requests, strict=True):
            wire.send(asked)
        await until_served(proxy, len(requests))
        gate.open.set()
        return list(await asyncio.gather(*(wire.answer(method=method) for wire in wires)))


# Sharing


async def test_two_hundred_clients_on_one_cold_url_make_one_request(
    proxy: WiredProxy, upstream: FakeImgproxy
) -> None:
    gate = Gate()
    upstream.script(TARGET, gate, image(BODY, b"X-Request-Id: imgproxys-own"))
    requests = [request(TARGET, b"X-Request-Id: client-%d" % n) for n in range(200)]
    answers = await asked_together(proxy, gate, requests)

    assert len(upstream.received) == 1
    assert {(answer.status, answer.body) for answer in answers} == {(200, BODY)}
    statuses = [answer[b"Cache-Status"] for answer in answers]
    assert statuses.count(b"imgproxy-cache; fwd=uri-miss; stored") == 1
    assert statuses.count(b"imgproxy-cache; fwd=uri-miss; collapsed; stored") == 199
    # The one whose request went to imgproxy has imgproxy's word for it.
    ids = [answer[b"X-Request-Id"] for answer in answers]
    assert sum(given == b"client-%d" % n for n, given in enumerate(ids)) == 199
    assert (await proxy.store.until_stored(key(TARGET))).body == BODY


async def test_clients_that_share_a_fetch_and_sent_no_request_id_get_one_each(
    proxy: WiredProxy, upstream: FakeImgproxy
) -> None:
    gate = Gate()
    upstream.script(TARGET, gate, image(BODY, b"X-Request-Id: imgproxys-own"))
    answers = await asked_together(proxy, gate, [request(TARGET)] * 5)

    assert len({answer[b"X-Request-Id"] for answer in answers}) == 5


async def test_client_that_comes_in_the_middle_of_a_body_gets_all_of_it(
    proxy: WiredProxy, upstream: FakeImgproxy
) -> None:
    gate = Gate()
    whole = image(BODY)
    upstream.script(TARGET, whole[:60_000], gate, whole[60_000:])
    async with connected(proxy.port) as first, connected(proxy.port) as second:
        first.send(request(TARGET))
        await first.head()
        await first.some(10_000)
        second.send(request(TARGET))
        await second.head()
        begun = await second.some(10_000)
        gate.open.set()
        rest = await second.some(len(BODY) - 10_000)

    assert begun + rest == BODY
    assert len(upstream.received) == 1


async def test_client_that_comes_after_the_end_is_fetched_for_anew(
    proxy: WiredProxy, upstream: FakeImgproxy
) -> None:
    for _ in range(3):
        assert (await ask(proxy.port, TARGET)).status == 200

    assert len(upstream.received) == 3


SHARED = [
    pytest.param(b"User-Agent: a", b"User-Agent: b", id="user agents"),
    pytest.param(b"Cookie: a=1", b"Cookie: a=2", id="cookies that are not passed on"),
    pytest.param(b"Accept: image/webp", b"Accept: text/html,image/webp,*/*;q=0.8", id="Accept"),
    pytest.param(b"Accept-Encoding: gzip", b"Accept-Encoding: br", id="Accept-Encoding"),
    pytest.param(b"Cache-Control: no-cache", b"Pragma: no-cache", id="a reload"),
    pytest.param(b"X-Forwarded-For: 1.2.3.4", b"Forwarded: for=1.2.3.5", id="forwarded"),
]
NOT_SHARED = [
    pytest.param(b"Accept: image/webp", b"Accept: image/avif", id="formats"),
    pytest.param(b"Accept: image/webp", b"Accept: image/webp, image/avif", id="more formats"),
    pytest.param(b"Accept: image/jxl", b"Accept: */*", id="a format or none"),
    pytest.param(b"Width: 100", b"Width: 200", id="Width"),
    pytest.param(b"DPR: 1", b"DPR: 2", id="DPR"),
    pytest.param(b"Sec-CH-Width: 100", b"X: y", id="Sec-CH-Width"),
    pytest.param(b"Sec-CH-DPR: 1", b"X: y", id="Sec-CH-DPR"),
    pytest.param(b"Authorization: Bearer a", b"Authorization: Bearer b", id="Authorization"),
    pytest.param(b"Authorization: Bearer a", b"X: y", id="Authorization or none"),
    pytest.param(b"Range: bytes=0-9", b"Range: bytes=0-9", id="Range, the same"),
    pytest.param(b'If-None-Match: "a"', b'If-None-Match: "a"', id="If-None-Match, the same"),
    pytest.param(
        b"If-Modified-Since: Wed, 21 Oct 2015 07:28:00 GMT",
        b"If-Modified-Since: Wed, 21 Oct 2015 07:28:00 GMT",
        id="If-Modified-Since, the same",
    ),
]


async def _fetches_for(
    proxy: WiredProxy, upstream: FakeImgproxy, one: bytes, other: bytes, *, target: bytes = TARGET
) -> int:
    gate = Gate()
    upstream.script(target, gate, image(BODY))
    await asked_together(proxy, gate, [request(target, one), request(target, other)])
    return len(upstream.received)


@pytest.mark.parametrize(("one", "other"), SHARED)
async def test_requests_share_a_fetch_although_they_differ_in(
    proxy: WiredProxy, upstream: FakeImgproxy, one: bytes, other: bytes
) -> None:
    assert await _fetches_for(proxy, upstream, one, other) == 1


@pytest.mark.parametrize(("one", "other"), NOT_SHARED)
async def test_requests_do_not_share_a_fetch_that_may_be_answered_otherwise_for(
    proxy: WiredProxy, upstream: FakeImgproxy, one: bytes, other: bytes
) -> None:
    assert await _fetches_for(proxy, upstream, one, other) == 2


async def test_accept_keeps_nobody_from_a_fetch_where_the_path_says_the_format(
    proxy: WiredProxy, upstream: FakeImgproxy
) -> None:
    target = TARGET + b"@webp"
    chrome, curl = b"Accept: image/avif,image/webp,*/*", b"Accept: */*"
    assert await _fetches_for(proxy, upstream, chrome, curl, target=target) == 1


async def test_requests_with_cookies_do_not_share_a_fetch_where_imgproxy_passes_them_on(
    upstream: FakeImgproxy,
) -> None:
    async with wired_proxy(upstream.port, IMGPROXY_COOKIE_PASSTHROUGH="true") as proxy:
        assert await _fetches_for(proxy, upstream, b"Cookie: a=1", b"Cookie: a=1") == 2


async def test_raw_requests_do_not_share_a_fetch(proxy: WiredProxy, upstream: FakeImgproxy) -> None:
    target = b"/_/raw:1/plain/local:///a.jpg"
    assert await _fetches_for(proxy, upstream, b"X: y", b"X: y", target=target) == 2


@pytest.mark.parametrize("method", [b"HEAD", b"POST", b"OPTIONS"])
async def test_only_get_shares_a_fetch(
    proxy: WiredProxy, upstream: FakeImgproxy, method: bytes
) -> None:
    gate = Gate()
    upstream.script(TARGET, gate, head(b"Content-Length: 0"))
    await asked_together(proxy, gate, [request(TARGET, method=method)] * 2, method=method)
    assert len(upstream.received) == 2


async def test_queries_that_differ_are_fetched_apart_and_stored_under_one_key(
    proxy: WiredProxy, upstream: FakeImgproxy
) -> None:
    gate = Gate()
    targets = [TARGET + b"?1", TARGET + b"?2"]
    for target in targets:
        upstream.script(target, gate, image(BODY))
    answers = await asked_together(proxy, gate, [request(target) for target in targets])
    await proxy.until_idle()

    assert [answer.status for answer in answers] == [200, 200]
    assert len(upstream.received) == 2
    assert list(proxy.store.images) == [key(TARGET)]


# Clients that go


@pytest.mark.parametrize("sent", [0, 40, 100, 200, 5000, len(image(BODY)) - 1])
async def test_image_the_client_did_not_wait_for_is_stored_anyway(
    proxy: WiredProxy, upstream: FakeImgproxy, sent: int
) -> None:
    gate = Gate()
    whole = image(BODY)
    upstream.script(TARGET, whole[:sent], gate, whole[sent:])
    async with connected(proxy.port) as wire:
        wire.send(request(TARGET))
        await gate.reached.wait()
        wire.hang_up()
    async with asyncio.timeout(20):
        while proxy.state.connections:
            await asyncio.sleep(0.001)
    gate.open.set()

    assert (await proxy.store.until_stored(key(TARGET))).body == BODY
    await proxy.until_idle()
    assert proxy.buffer.used == 0
    assert [(entry["outcome"], entry["status"]) for entry in proxy.requests] in (
        [("client-gone", 0)],
        [("client-gone", 200)],
    )


async def test_client_that_joins_after_the_first_has_gone_is_served_by_the_same_fetch(
    proxy: WiredProxy, upstream: FakeImgproxy
) -> None:
    gate = Gate()
    upstream.script(TARGET, gate, image(BODY))
    async with connected(proxy.port) as first, connected(proxy.port) as second:
        first.send(request(TARGET))
        await gate.reached.wait()
        first.hang_up()
        second.send(request(TARGET))
        await until_served(proxy, 1)
        async with asyncio.timeout(20):
            while len(proxy.state.connections) > 1:
                await asyncio.sleep(0.001)
        gate.open.set()
        assert (await second.answer()).body == BODY

    assert len(upstream.received) == 1


async def test_request_that_waits_for_a_connection_is_dropped_with_its_last_client(
    upstream: FakeImgproxy,
) -> None:
    gate = Gate()
    upstream.script(b"/busy", gate, image(BODY))
    async with (
        wired_proxy(upstream.port, CACHE_UPSTREAM_CONNECTIONS="1") as proxy,
        connected(proxy.port) as busy,
        connected(proxy.port) as first,
        connected(proxy.port) as second,
    ):
        busy.send(request(b"/busy"))
        await gate.reached.wait()
        for wire in (first, second):
            wire.send(request(TARGET))
        await until_served(proxy, 3)
        assert proxy.upstream.waiting == 1
        first.hang_up()
        await _until_connections(proxy, 2)
        assert proxy.upstream.waiting == 1
        second.hang_up()
        await _until_connections(proxy, 1)
        assert proxy.upstream.waiting == 0
        gate.open.set()
        assert (await busy.answer()).body == BODY

    assert upstream.asked_for(TARGET) == []


async def test_request_that_waits_for_memory_is_dropped_with_its_last_client(
    upstream: FakeImgproxy,
) -> None:
    upstream.script(b"/large", image(LARGE))
    async with (
        wired_proxy(upstream.port, CACHE_BUFFER_BYTES="20000000") as proxy,
        connected(proxy.port, receive_buffer_bytes=4096) as slow,
        connected(proxy.port) as client,
    ):
        slow.send(request(b"/large"))
        await slow.head()
        client.send(request(TARGET))
        await until_served(proxy, 2)
        assert proxy.buffer.waiting == 1
        client.hang_up()
        await _until_connections(proxy, 1)
        assert proxy.buffer.waiting == 0
        slow.hang_up()
        await proxy.until_idle()
        assert proxy.buffer.used == 0

    assert upstream.asked_for(TARGET) == []


async def _until_connections(proxy: WiredProxy, number: int) -> None:
    async with asyncio.timeout(20):
        while len(proxy.state.connections) != number or len(proxy.state.tasks) != number:
            await asyncio.sleep(0.001)


# Fetches that fail


@pytest.mark.parametrize("end", [End.CLOSE, End.RESET])
@pytest.mark.parametrize(("warm", "requests"), [(False, 1), (True, 2)])
async def test_failure_before_the_first_byte_is_told_to_all_after_one_retry_at_most(
    upstream: FakeImgproxy, end: End, warm: bool, requests: int
) -> None:
    gate = Gate()
    upstream.script(TARGET, gate, end)
    async with wired_proxy(upstream.port) as proxy:
        if warm:
            await ask(proxy.port, b"/warm")
        answers = await asked_together(proxy, gate, [request(TARGET)] * 20)

    assert {answer.status for answer in answers} == {502}
    assert {answer[b"Cache-Control"] for answer in answers} == {b"no-store"}
    assert len(upstream.asked_for(TARGET)) == requests


async def test_retry_that_succeeds_serves_all(upstream: FakeImgproxy) -> None:
    gate = Gate()
    upstream.script(TARGET, gate, End.CLOSE)
    upstream.script(TARGET, image(BODY))
    async with wired_proxy(upstream.port) as proxy:
        await ask(proxy.port, b"/warm")
        answers = await asked_together(proxy, gate, [request(TARGET)] * 20)

    assert {(answer.status, answer.body) for answer in answers} == {(200, BODY)}
    assert len(upstream.asked_for(TARGET)) == 2


@pytest.mark.parametrize("whole", [image(BODY), chunked(BODY[:50_000], BODY[50_000:])])
@pytest.mark.parametrize("end", [End.CLOSE, End.RESET])
async def test_body_that_breaks_off_breaks_off_for_all_and_is_not_stored(
    proxy: WiredProxy, upstream: FakeImgproxy, whole: bytes, end: End
) -> None:
    gate = Gate()
    upstream.script(TARGET, whole[:60_000], gate, end)
    upstream.script(TARGET, image(BODY))
    answers = await asked_together(proxy, gate, [request(TARGET)] * 20)
    await proxy.until_idle()

    assert {(answer.status, answer.is_whole) for answer in answers} == {(200, False)}
    assert all(BODY.startswith(answer.body) for answer in answers)
    assert proxy.store.images == {}
    assert (await ask(proxy.port, TARGET)).body == BODY  # and it hinders no later one


@pytest.mark.parametrize("end", [End.CLOSE, End.RESET])
@pytest.mark.parametrize("framing", ["length", "chunked"])
@pytest.mark.parametrize("offset", [0, 1, 2, 3, 1000, 50_000, 102_000, 102_399])
async def test_body_cut_at_any_offset_is_seen_as_cut_and_not_stored(
    proxy: WiredProxy, upstream: FakeImgproxy, offset: int, framing: str, end: End
) -> None:
    if framing == "length":
        whole = image(BODY)
        start = len(whole) - len(BODY)
    else:
        whole = chunked(BODY)
        start = whole.index(b"\r\n\r\n") + 4 + len(b"%x\r\n" % len(BODY))
    upstream.script(TARGET, whole[: start + offset], end)
    answer = await ask(proxy.port, TARGET)
    await proxy.until_idle()

    assert (answer.status, answer.is_whole) in ((200, False), (502, True))
    assert answer.status == 502 or BODY.startswith(answer.body)
    assert proxy.store.images == {}


async def test_body_that_only_the_connections_end_ends_is_passed_on_and_not_stored(
    proxy: WiredProxy, upstream: FakeImgproxy
) -> None:
    upstream.script(TARGET, head(*STORABLE) + BODY, End.CLOSE)
    answer = await ask(proxy.port, TARGET)
    await proxy.until_idle()

    assert (answer.status, answer.body) == (200, BODY)
    assert proxy.store.images == {}
    assert b'uploads_total{result="refused_incomplete"} 1.0' in proxy.metrics.text()


# Speed and memory


async def test_head_reaches_the_client_before_the_body_has_begun(
    proxy: WiredProxy, upstream: FakeImgproxy
) -> None:
    gate = Gate()
    whole = image(BODY)
    upstream.script(TARGET, whole[: -len(BODY)], gate, BODY)
    async with connected(proxy.port) as wire:
        wire.send(request(TARGET))
        assert (await wire.head())[0] == 200
        gate.open.set()
        assert await wire.some(len(BODY)) == BODY


async def test_bytes_reach_the_client_as_they_come(
    proxy: WiredProxy, upstream: FakeImgproxy
) -> None:
    gates = [Gate() for _ in range(5)]
    steps: list[Step] = [head(*STORABLE, b"Content-Length: 5")]
    for gate in gates:
        steps += [gate, b"x"]
    upstream.script(TARGET, *steps)
    async with connected(proxy.port) as wire:
        wire.send(request(TARGET))
        await wire.head()
        for gate in gates:
            gate.open.set()
            assert await wire.some(1) == b"x"


async def test_slow_client_does_not_slow_the_reading_of_imgproxy(
    proxy: WiredProxy, upstream: FakeImgproxy
) -> None:
    upstream.script(TARGET, image(LARGE))
    async with connected(proxy.port, receive_buffer_bytes=4096) as slow:
        slow.send(request(TARGET))
        await upstream.until(lambda self: self.written.get(TARGET) == 1)
        assert (await proxy.store.until_stored(key(TARGET))).body == LARGE
        assert proxy.buffer.used == len(LARGE)
        assert (await slow.answer()).body == LARGE
        await proxy.until_idle()
        assert proxy.buffer.used == 0


async def test_slow_client_does_not_slow_another_on_the_same_fetch(
    proxy: WiredProxy, upstream: FakeImgproxy
) -> None:
    gate = Gate()
    upstream.script(TARGET, gate, image(LARGE))
    async with (
        connected(proxy.port, receive_buffer_bytes=4096) as slow,
        connected(proxy.port) as fast,
    ):
        for wire in (slow, fast):
            wire.send(request(TARGET))
        await until_served(proxy, 2)
        gate.open.set()
        assert (await fast.answer()).body == LARGE
        slow.hang_up()

    assert len(upstream.received) == 1


async def test_image_that_finds_no_memory_waits_for_it(upstream: FakeImgproxy) -> None:
    upstream.script(b"/large", image(LARGE))
    upstream.script(TARGET, image(BODY * 50))
    async with (
        wired_proxy(upstream.port, CACHE_BUFFER_BYTES="21000000") as proxy,
        connected(proxy.port, receive_buffer_bytes=4096) as slow,
        connected(proxy.port) as client,
    ):
        slow.send(request(b"/large"))
        await upstream.until(lambda self: self.written.get(b"/large") == 1)
        client.send(request(TARGET))
        await upstream.until_asked(TARGET)
        async with asyncio.timeout(20):
            while not proxy.buffer.waiting:
                await asyncio.sleep(0.001)
        assert (await slow.answer()).body == LARGE
        assert (await client.answer()).body == BODY * 50
        await proxy.until_idle()
        assert proxy.buffer.used == 0


@pytest.mark.parametrize("buffer_bytes", ["20000000", "21000000"], ids=["full", "nearly full"])
async def test_image_that_waited_too_long_for_memory_is_refused(
    upstream: FakeImgproxy, buffer_bytes: str
) -> None:
    upstream.script(b"/large", image(LARGE))
    upstream.script(TARGET, image(BODY * 50))
    async with (
        wired_proxy(
            upstream.port, CACHE_BUFFER_BYTES=buffer_bytes, CACHE_UPSTREAM_WAIT_SECONDS="0.2"
        ) as proxy,
        connected(proxy.port, receive_buffer_bytes=4096) as slow,
    ):
        slow.send(request(b"/large"))
        await upstream.until(lambda self: self.written.get(b"/large") == 1)
        answer = await ask(proxy.port, TARGET)
        assert (answer.status, answer[b"Retry-After"]) == (503, b"1")
        assert answer[b"Cache-Control"] == b"no-store"
        assert proxy.buffer.used == len(LARGE)
        slow.hang_up()
        await proxy.until_idle()
        assert (await ask(proxy.port, TARGET)).body == BODY * 50
        await proxy.until_idle()
        assert proxy.buffer.used == 0


@pytest.mark.parametrize(
    ("object_bytes", "buffer_bytes"),
    [
        pytest.param("100000", "100000000", id="larger than an object may be"),
        pytest.param("100000000", "1000000", id="larger than all of the buffer"),
    ],
)
async def test_image_that_is_too_large_flows_through_and_is_not_stored(
    upstream: FakeImgproxy, object_bytes: str, buffer_bytes: str
) -> None:
    upstream.script(TARGET, image(LARGE))
    async with (
        wired_proxy(
            upstream.port, CACHE_MAX_OBJECT_BYTES=object_bytes, CACHE_BUFFER_BYTES=buffer_bytes
        ) as proxy,
        connected(proxy.port, receive_buffer_bytes=4096) as slow,
    ):
        slow.send(request(TARGET))
        _, fields = await slow.head()
        assert (b"Cache-Status", b"imgproxy-cache; fwd=uri-miss; detail=too-large") in fields
        await asyncio.sleep(0.2)  # time enough to read all of it, if it were read
        assert upstream.written == {}
        assert proxy.buffer.used == 0
        assert await slow.some(len(LARGE)) == LARGE
        await proxy.until_idle()

    assert proxy.store.images == {}


async def test_stream_goes_at_the_pace_of_its_slowest_client_until_that_has_gone(
    upstream: FakeImgproxy,
) -> None:
    gate = Gate()
    upstream.script(TARGET, gate, image(LARGE))
    async with (
        wired_proxy(upstream.port, CACHE_MAX_OBJECT_BYTES="100000") as proxy,
        connected(proxy.port, receive_buffer_bytes=4096) as slow,
        connected(proxy.port) as fast,
    ):
        for wire in (slow, fast):
            wire.send(request(TARGET))
        await until_served(proxy, 2)
        gate.open.set()
        await slow.head()
        await fast.head()
        reading = asyncio.create_task(fast.some(len(LARGE)))
        await asyncio.sleep(0.2)
        assert not reading.done()
        slow.hang_up()
        assert await reading == LARGE
        await proxy.until_idle()

    assert len(upstream.received) == 1
    assert {entry["outcome"] for entry in proxy.requests} == {"client-gone", "too-large"}


@asynccontextmanager
async def behind_with_a_stream(
    upstream: FakeImgproxy,
) -> AsyncIterator[tuple[WiredProxy, Wire]]:
    """A proxy, and a client that has taken next to nothing of a stream but its head."""
    upstream.script(TARGET, image(LARGE))
    async with (
        wired_proxy(upstream.port, CACHE_MAX_OBJECT_BYTES="100000") as proxy,
        connected(proxy.port, receive_buffer_bytes=4096) as slow,
    ):
        slow.send(request(TARGET))
        await slow.head()
        yield proxy, slow


async def test_newcomer_who_would_miss_the_beginning_of_a_stream_gets_a_fetch_of_its_own(
    upstream: FakeImgproxy,
) -> None:
    async with behind_with_a_stream(upstream) as (proxy, slow):
        await slow.some(1_000_000)
        assert (await ask(proxy.port, TARGET)).body == LARGE
        slow.hang_up()

    assert len(upstream.received) == 2


async def test_stream_that_nobody_takes_any_more_is_given_up(upstream: FakeImgproxy) -> None:
    async with behind_with_a_stream(upstream) as (proxy, slow):
        slow.hang_up()
        await upstream.until(lambda self: self.open_connections == 0)
        await proxy.until_idle()

    assert upstream.written == {}


async def test_client_that_goes_while_it_is_behind_with_a_stream_is_counted_as_gone(
    upstream: FakeImgproxy,
) -> None:
    async with behind_with_a_stream(upstream) as (proxy, slow):
        (client,) = proxy.state.connections
        assert isinstance(client, ClientConnection)
        async with asyncio.timeout(20):
            while not client.flow.write_paused:
                await asyncio.sleep(0.001)
        slow.hang_up()
        await proxy.until_idle()

    assert [entry["outcome"] for entry in proxy.requests] == ["client-gone"]


@pytest.mark.parametrize("times", [1, 5])
async def test_stream_whose_client_had_gone_before_it_began_leaves_no_slot_behind(
    upstream: FakeImgproxy, times: int
) -> None:
    gate = Gate()
    upstream.script(TARGET, gate, image(BODY))
    async with wired_proxy(
        upstream.port, CACHE_MAX_OBJECT_BYTES="1000", CACHE_UPSTREAM_CONNECTIONS="1"
    ) as proxy:
        for _ in range(times):
            async with connected(proxy.port) as wire:
                wire.send(request(TARGET))
                await gate.reached.wait()
                wire.hang_up()
                await _until_connections(proxy, 0)
                gate.open.set()
                await proxy.until_idle()
                gate.open.clear()
                gate.reached.clear()
        assert (await ask(proxy.port, b"/other")).body == b"image of /other"


async def test_image_of_unknown_length_is_buffered_and_stored(
    proxy: WiredProxy, upstream: FakeImgproxy
) -> None:
    upstream.script(TARGET, chunked(*[LARGE[:100_000]] * 100))
    async with connected(proxy.port, receive_buffer_bytes=4096) as slow:
        slow.send(request(TARGET))
        await slow.head()
        assert (await proxy.store.until_stored(key(TARGET))).body == bytes(10_000_000)
        assert proxy.buffer.used == 10_000_000
        slow.hang_up()
        await proxy.until_idle()
        assert proxy.buffer.used == 0


@pytest.mark.parametrize(
    ("object_bytes", "buffer_bytes"),
    [
        pytest.param("300000", "100000000", id="too large"),
        pytest.param("100000000", "300000", id="no memory"),
    ],
)
async def test_image_of_unknown_length_that_grows_too_large_flows_on_and_is_not_stored(
    upstream: FakeImgproxy, object_bytes: str, buffer_bytes: str
) -> None:
    upstream.script(TARGET, chunked(*[LARGE[:50_000]] * 400))
    async with (
        wired_proxy(
            upstream.port, CACHE_MAX_OBJECT_BYTES=object_bytes, CACHE_BUFFER_BYTES=buffer_bytes
        ) as proxy,
        connected(proxy.port, receive_buffer_bytes=4096) as slow,
    ):
        slow.send(request(TARGET))
        await asyncio.sleep(0.2)
        assert upstream.written == {}
        assert proxy.buffer.used <= 300_000
        answer = await slow.answer()
        assert (answer.body, answer.is_whole) == (LARGE, True)
        await proxy.until_idle()
        assert proxy.buffer.used == 0

    assert proxy.store.images == {}


SCRIPTS: list[Script] = [
    (image(BODY),),
    (chunked(BODY[:50_000], BODY[50_000:]),),
    (image(BODY)[:50_000], End.CLOSE),
    (image(BODY)[:50_000], End.RESET),
    (End.CLOSE,),
    (image(LARGE[:3_000_000]),),
    (chunked(*[LARGE[:100_000]] * 20),),
    (head(b"Content-Length: 3", status=b"404 Not Found") + b"no!",),
]


async def test_nothing_is_left_behind_by_clients_of_every_kind(upstream: FakeImgproxy) -> None:
    """Shared and own fetches, small and large, whole and cut; some clients wait, others go."""
    for number, steps in enumerate(SCRIPTS):
        upstream.script(b"/_/plain/%d" % number, *steps)
    async with wired_proxy(
        upstream.port,
        CACHE_BUFFER_BYTES="4000000",
        CACHE_MAX_OBJECT_BYTES="2500000",
        CACHE_UPSTREAM_CONNECTIONS="5",
        CACHE_UPSTREAM_WAIT_SECONDS="5",
    ) as proxy:
        await asyncio.gather(*(_visit(proxy.port, number) for number in range(300)))
        await proxy.until_idle()

        assert proxy.buffer.used == 0
        assert proxy.buffer.waiting == proxy.upstream.waiting == 0
        assert proxy.upstream.open_connections <= 5
        answers = [await ask(proxy.port, b"/fine/%d" % number) for number in range(100)]
        assert [answer.status for answer in answers] == [200] * 100


async def _visit(port: int, number: int) -> None:
    """A client: every third goes before its answer, every third in the middle of it."""
    async with connected(port, receive_buffer_bytes=4096 if number % 2 else None) as wire:
        wire.send(request(b"/_/plain/%d" % (number % len(SCRIPTS))))
        if number % 3 == 0:
            await asyncio.sleep(0.001 * (number % 7))
            wire.hang_up()
        elif number % 3 == 1:
            await _some(wire)
        else:
            await wire.answer()


async def _some(wire: Wire) -> None:
    await wire.head()
    wire.hang_up()
