"""The fast lane: it gives what the ordinary way gives, and keeps the limits of a connection."""

from __future__ import annotations

import asyncio
import hashlib
import tempfile
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from dataclasses import replace

import pytest
import uvloop
from hypothesis import given, settings
from hypothesis import strategies as st

from imgproxy_cache.tiers.memory import Held
from tests.servers.upstreams import FakeImgproxy, Gate, Received, Script, fake_imgproxy, head, image
from tests.servers.wired import WiredProxy, wired_proxy
from tests.wire import Wire, ask, connected, request

TARGET = b"/_/rs:fit:300/plain/local:///a.jpg"
LARGE = b"/_/rs:fit:300/plain/local:///large.jpg"
SLOW = b"/_/rs:fit:300/plain/local:///slow.jpg"
BODY = bytes(range(256)) * 100
LARGE_BODY = bytes(3_000_000)


def reading(
    upstream: FakeImgproxy,
    arrival_seconds: float = 10.0,
    min_client_bytes_per_second: float = 240.0,
    keep_alive_seconds: int = 75,
    /,
    **environ: str,
) -> AbstractAsyncContextManager[WiredProxy]:
    return wired_proxy(
        upstream.port,
        arrival_seconds,
        min_client_bytes_per_second,
        keep_alive_seconds,
        CACHE_READ_THROUGH="true",
        **environ,
    )


@pytest.fixture
async def proxy(upstream: FakeImgproxy) -> AsyncIterator[WiredProxy]:
    async with reading(upstream) as wired:
        yield wired


# The same bytes


SIZES = st.sampled_from([1, 300, 65_535, 65_536, 65_537, 200_000])
LIFETIMES = st.sampled_from(
    [b"Cache-Control: max-age=31536000, public"] * 6
    + [
        b"Cache-Control: max-age=2",
        b"Cache-Control: max-age=60, s-maxage=3",
        b"Cache-Control: max-age=2, stale-while-revalidate=2",
        b"Cache-Control: max-age=2, must-revalidate",
        b"Cache-Control: no-store",
        b"Expires: Sun, 15 Jun 2025 15:06:45 GMT",  # five seconds after the clock begins
        b"X-No-Lifetime: 1",
    ]
)
KEPT_FIELDS = [
    b'ETag: "source"',
    b'ETag: W/"weak"',
    b"Last-Modified: Sat, 14 Jun 2025 00:00:00 GMT",
    b"Date: Sun, 15 Jun 2025 15:06:40 GMT",
    b"Age: 1",
    b"Vary: Accept",
    b"Vary: Accept, DPR, Width",
    b"vary: accept-encoding",
    b"Vary: User-Agent",
    b'Content-Disposition: inline; filename="a.jpg"',
    b"Content-Security-Policy: sandbox",
    b"Cache-Status: origin; hit",
    b"X-Origin-Width: 640",
    b"x-repeated: 1",
    b"x-repeated: 2",
    b"X-Empty: ",
    b"X-Latin: \xe9",
    b"X-Request-Id: imgproxys",
]
FIELDS = st.lists(
    st.sampled_from(KEPT_FIELDS * 4 + [b"Vary: *", b"Set-Cookie: a=b"]), max_size=6, unique=True
)
JPEG, SVG, PAGE = (
    b"Content-Type: image/jpeg",
    b"Content-Type: image/svg+xml",
    b"Content-Type: text/html",
)
KINDS = st.sampled_from([JPEG] * 8 + [SVG, PAGE])
STATUSES = st.sampled_from([b"200 OK"] * 8 + [b"404 Not Found", b"422 Unprocessable Entity"])
ETAG = b'"%b"' % hashlib.sha256(bytes(300)).hexdigest()[:32].encode()
PLAIN_LINES = [
    b"Accept: image/webp,*/*",
    b"Accept: image/avif,image/webp",
    b"accept: text/html",
    b"Accept-Encoding: gzip, br",
    b"Cache-Control: no-cache",
    b"Pragma: no-cache",
    b"User-Agent: one",
    b"User-Agent: another",
    b"Cookie: a=b",
    b"DPR: 2",
    b"Width: 300",
    b"Connection: keep-alive",
    b"Connection: accept, x-gone",
    b"X-Forwarded-For: 1.2.3.4",
    b"X-Request-ID: not echoed!",
    b"Expect: 100-continue",
    b"Content-Length: 0",
]
OTHER_LINES = [
    b"Authorization: Bearer open",
    b"Authorization: bearer open",
    b"Connection: range",
    b"Range: bytes=0-9",
    b"Range: bytes=-1",
    b"Range: bytes=999999999-",
    b"Range: bytes=0-0,2-2",
    b"If-None-Match: *",
    b"If-None-Match: " + ETAG,
    b"If-None-Match: W/" + ETAG + b', "b"',
    b"If-Match: " + ETAG,
    b"If-Range: " + ETAG,
    b"If-Modified-Since: Sun, 15 Jun 2025 15:06:40 GMT",
    b"X-Request-ID: mine",
]
LINES = st.lists(st.sampled_from(PLAIN_LINES), max_size=4, unique=True)
REQUESTS = st.tuples(
    st.sampled_from([b"GET"] * 8 + [b"HEAD"]),
    st.sampled_from([b"", b"", b"?v=1", b"1"]),
    st.one_of(
        LINES,
        LINES,
        LINES,
        st.lists(st.sampled_from(PLAIN_LINES + OTHER_LINES), max_size=4, unique=True),
    ),
    st.sampled_from([0, 0, 0, 0.25, 0.75, 1, 2.5, 4, 100]),
)
ANSWERS = st.tuples(STATUSES, KINDS, LIFETIMES, FIELDS, SIZES)
ENVIRONS = st.fixed_dictionaries(
    {},
    optional={
        "IMGPROXY_SECRET": st.just("open"),
        "IMGPROXY_COOKIE_PASSTHROUGH": st.just("true"),
        "CACHE_NEGATIVE_SECONDS": st.just("3"),
        "CACHE_STALE_WHILE_REVALIDATE_SECONDS": st.just("3"),
        "CACHE_TRUSTED_PROXIES": st.just("127.0.0.1"),
        "CACHE_MEMORY_BYTES": st.sampled_from(["0", "1000000"]),
    },
)
Scripted = tuple[bytes, bytes, bytes, list[bytes], int]
Asked = tuple[bytes, bytes, list[bytes], float]


@settings(max_examples=50)
@given(
    environ=ENVIRONS,
    scripted=st.tuples(ANSWERS, ANSWERS),
    asked=st.lists(REQUESTS, min_size=1, max_size=8),
)
def test_fast_lane_and_ordinary_way_give_the_same_bytes(
    environ: dict[str, str], scripted: tuple[Scripted, Scripted], asked: list[Asked]
) -> None:
    """
    Two proxies are asked the same: the second has no fast lane, since it logs every hit.

    Each request comes three times, so that the fast lane learns of the second, and answers the
    third; and one at the end that it surely answers.
    """
    secret = [b"Authorization: Bearer open"] if "IMGPROXY_SECRET" in environ else []

    async def run(folder: str) -> None:
        async with fake_imgproxy() as first, fake_imgproxy() as second:
            first.default = second.default = lambda received: _scripted(received, scripted)
            async with (
                reading(first, CACHE_DISK_DIR=f"{folder}/1", **environ) as fast,
                reading(
                    second, CACHE_DISK_DIR=f"{folder}/2", CACHE_LOG_LEVEL="debug", **environ
                ) as ordinary,
                connected(fast.port) as one,
                connected(ordinary.port) as other,
            ):
                for method, suffix, lines, seconds in [*asked, (b"GET", b"9", [], 0)]:
                    for proxy in (fast, ordinary):
                        proxy.clock.now += seconds
                    sent = request(TARGET + suffix, *secret, *lines, method=method)
                    came = await _answers(fast, one, sent)
                    assert came == await _answers(ordinary, other, sent)
                tier = b"disk" if environ.get("CACHE_MEMORY_BYTES") == "0" else b"memory"
                assert b"; hit; ttl=31536000; detail=" + tier in came[-1]
                assert fast.hits_at_once > ordinary.hits_at_once == 0
                assert [r.head for r in first.received] == [r.head for r in second.received]

    with (
        tempfile.TemporaryDirectory() as folder,
        asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
    ):
        runner.run(run(folder))


def _scripted(received: Received, scripted: tuple[Scripted, Scripted]) -> Script:
    if received.target.endswith(b"9"):
        return (image(BODY),)
    status, kind, lifetime, fields, size = scripted[received.target.endswith(b"1")]
    if received.all(b"if-none-match") == [b'"source"']:
        return (head(lifetime, status=b"304 Not Modified"),)
    answer = head(kind, lifetime, b"Content-Length: %d" % size, *fields, status=status)
    return (answer if received.line.startswith(b"HEAD ") else answer + bytes(size),)


async def _answers(proxy: WiredProxy, wire: Wire, asked: bytes) -> list[bytes]:
    """What comes back for the same request three times, byte by byte."""
    came = []
    for _ in range(3):
        wire.send(asked)
        answer = await wire.head_bytes()
        has_no_body = asked.startswith(b"HEAD ") or answer.startswith(b"HTTP/1.1 304 ")
        _, _, length = answer.lower().partition(b"\r\ncontent-length: ")
        size = 0 if has_no_body else int(length.partition(b"\r\n")[0])
        came.append(answer + await wire.some(size))
        await proxy.until_idle()
        if proxy.read_through is not None and proxy.read_through.disk is not None:
            await proxy.read_through.disk.settle()
    return came


@pytest.mark.parametrize("change", ["removed", "replaced"])
async def test_what_is_no_longer_in_memory_is_not_given(
    proxy: WiredProxy, upstream: FakeImgproxy, change: str
) -> None:
    assert proxy.read_through is not None
    memory = proxy.read_through.memory
    async with connected(proxy.port) as wire:
        await _known(proxy, wire, TARGET)
        await proxy.until_idle()
        proxy.store.images.clear()
        upstream.script(TARGET, image(b"later"))
        key = proxy.read_through.known_key(TARGET)
        assert key is not None
        held = memory.find(key)
        assert isinstance(held, Held)
        memory.remove(key)
        if change == "replaced":
            memory.put(key, replace(held.kept, body=b"later"))
        hits = proxy.hits_at_once
        wire.send(request(TARGET))
        answer = await wire.answer()

    assert answer.body == b"later"
    assert proxy.hits_at_once - hits == (change == "replaced")


async def test_hits_at_once_are_hits_of_their_tier(proxy: WiredProxy) -> None:
    assert proxy.read_through is not None
    memory = proxy.read_through.memory
    async with connected(proxy.port) as wire:
        await _known(proxy, wire, TARGET)
        hits, at_once = memory.counts.hits, proxy.hits_at_once
        for _ in range(5):
            wire.send(request(TARGET))
            await wire.answer()

    assert (memory.counts.hits - hits, proxy.hits_at_once - at_once) == (5, 5)


# The limits of a connection


async def _known(proxy: WiredProxy, wire: Wire, *targets: bytes) -> None:
    """Have these answered by the fast lane, on this connection."""
    for target in targets:
        before = proxy.hits_at_once
        for _ in range(3):
            wire.send(request(target))
            assert (await wire.answer()).status == 200
        assert proxy.hits_at_once > before


async def test_known_request_that_comes_in_two_reads_is_answered(proxy: WiredProxy) -> None:
    async with connected(proxy.port) as wire:
        await _known(proxy, wire, TARGET)
        wire.send(request(TARGET)[:20])
        await wire.flush()
        async with connected(proxy.port) as other:  # by then the first half has been read
            await _known(proxy, other, TARGET + b"2")
        hits = proxy.hits_at_once
        wire.send(request(TARGET)[20:] + request(TARGET))
        answers = [await wire.answer() for _ in range(2)]
        wire.send(request(TARGET))
        answers.append(await wire.answer())

    assert [one.body for one in answers] == [b"image of " + TARGET] * 3
    assert proxy.hits_at_once == hits + 1


async def test_known_requests_in_one_read_are_answered_in_their_order(proxy: WiredProxy) -> None:
    targets = [TARGET + b"%d" % number for number in (1, 2, 3)]
    async with connected(proxy.port) as wire:
        await _known(proxy, wire, *targets)
        wire.send(b"".join(request(target) for target in targets))
        answers = [await wire.answer() for _ in targets]

    assert [one.body for one in answers] == [b"image of " + target for target in targets]


async def test_known_request_behind_one_that_waits_for_imgproxy_has_to_wait(
    proxy: WiredProxy, upstream: FakeImgproxy
) -> None:
    gate = Gate()
    upstream.script(SLOW, gate, image(b"slow"))
    async with connected(proxy.port) as wire:
        await _known(proxy, wire, TARGET)
        wire.send(request(SLOW))
        await gate.reached.wait()
        wire.send(request(TARGET))
        await ask(proxy.port, TARGET + b"2")  # by then it has been read
        gate.open.set()
        answers = [await wire.answer() for _ in range(2)]

    assert [one.body for one in answers] == [b"slow", b"image of " + TARGET]


@pytest.mark.parametrize(
    ("refused", "status"),
    [
        pytest.param(request(b"/" + b"a" * (16 * 1024)), 414, id="target over 16 KB"),
        pytest.param(
            request(TARGET, *[b"X-%d: %b" % (n, b"x" * 8000) for n in range(9)]),
            431,
            id="fields over 64 KB",
        ),
        pytest.param(request(TARGET, *[b"X: 1"] * 100), 431, id="over 100 fields"),
        pytest.param(request(TARGET, b"Host: other"), 400, id="two hosts"),
        pytest.param(request(TARGET).replace(b"Host", b"Hast"), 400, id="no host"),
        pytest.param(request(TARGET).replace(b"1.1", b"2.0"), 400, id="HTTP/2.0"),
        pytest.param(request(b"http://img.example" + TARGET), 400, id="absolute form"),
        pytest.param(request(TARGET, b"X : 1"), 400, id="space before a colon"),
    ],
)
async def test_what_is_refused_is_refused_again_and_behind_known_requests_too(
    proxy: WiredProxy, refused: bytes, status: int
) -> None:
    for _ in range(2):
        async with connected(proxy.port) as wire:
            await _known(proxy, wire, TARGET)
            hits = proxy.hits_at_once
            wire.send(refused)
            assert (await wire.answer()).status == status
            assert await wire.rest() == b""

    assert len(proxy.refusals) == 2
    assert proxy.hits_at_once == hits


@pytest.mark.parametrize(
    "closing",
    [
        pytest.param(request(TARGET, b"Connection: close"), id="Connection: close"),
        pytest.param(request(TARGET).replace(b"HTTP/1.1", b"HTTP/1.0"), id="HTTP/1.0"),
        pytest.param(
            request(TARGET, b"Connection: keep-alive").replace(b"HTTP/1.1", b"HTTP/1.0"),
            id="HTTP/1.0 that would keep it alive",
        ),
        pytest.param(request(TARGET, b"Connection: Upgrade", b"Upgrade: websocket"), id="Upgrade"),
    ],
)
async def test_connection_is_closed_as_often_as_that_is_asked_for(
    proxy: WiredProxy, closing: bytes
) -> None:
    for _ in range(3):
        async with connected(proxy.port) as wire:
            wire.send(closing)
            answer = await wire.answer()
            assert (answer.body, answer[b"Connection"]) == (b"image of " + TARGET, b"close")
            assert await wire.rest() == b""

    assert proxy.hits_at_once == 0


async def test_head_behind_a_hit_has_its_time_to_arrive_and_no_more(
    upstream: FakeImgproxy,
) -> None:
    async with reading(upstream, 0.3) as proxy, connected(proxy.port) as wire:
        await _known(proxy, wire, TARGET)
        wire.send(request(TARGET)[:-2])
        answer = await wire.answer()

        assert answer.status == 408
        assert await wire.rest() == b""


async def test_hit_stops_the_clock_of_a_new_connection(upstream: FakeImgproxy) -> None:
    async with reading(upstream, 0.3) as proxy:
        async with connected(proxy.port) as wire:
            await _known(proxy, wire, TARGET)
        async with connected(proxy.port) as wire:
            for _ in range(2):
                wire.send(request(TARGET))
                assert (await wire.answer()).status == 200
                await asyncio.sleep(0.5)  # longer than a head may take, were one under way


async def test_connection_that_only_had_hits_at_once_is_closed_when_it_is_idle(
    upstream: FakeImgproxy,
) -> None:
    async with reading(upstream, 10.0, 240.0, 1) as proxy:
        async with connected(proxy.port) as wire:
            await _known(proxy, wire, TARGET)
        async with connected(proxy.port) as wire:
            hits = proxy.hits_at_once
            wire.send(request(TARGET))
            assert (await wire.answer()).status == 200
            assert await wire.rest() == b""

        assert proxy.hits_at_once == hits + 1
        assert proxy.state.connections == set()


async def test_connection_is_not_idle_while_its_client_still_reads_a_large_hit(
    upstream: FakeImgproxy,
) -> None:
    upstream.script(LARGE, image(LARGE_BODY))
    async with reading(upstream, 10.0, 240.0, 1) as proxy:
        async with connected(proxy.port) as wire:
            await _known(proxy, wire, LARGE)
        async with connected(proxy.port, receive_buffer_bytes=65536) as wire:
            wire.send(request(LARGE))
            _, _ = await wire.head()
            await asyncio.sleep(1.5)  # longer than it may be idle
            assert len(await wire.some(len(LARGE_BODY))) == len(LARGE_BODY)
            wire.send(request(TARGET))
            assert (await wire.answer()).status == 200


async def test_connection_is_idle_if_its_client_takes_nothing_of_what_the_system_has_for_it(
    upstream: FakeImgproxy,
) -> None:
    upstream.script(TARGET, image(bytes(100_000)))
    async with reading(upstream, 10.0, 240.0, 1) as proxy:
        async with connected(proxy.port) as wire:
            await _known(proxy, wire, TARGET)
        async with connected(proxy.port, receive_buffer_bytes=4096) as wire:
            wire.send(request(TARGET) * 5)  # more than this client takes unread
            await wire.head()
            async with asyncio.timeout(20):
                while proxy.state.connections:
                    await asyncio.sleep(0.01)


async def test_client_that_takes_nothing_of_a_large_hit_is_cut_off(
    upstream: FakeImgproxy,
) -> None:
    upstream.script(LARGE, image(LARGE_BODY))
    async with reading(upstream, CACHE_CLIENT_STALL_SECONDS="0.3") as proxy:
        async with connected(proxy.port) as wire:
            await _known(proxy, wire, LARGE)
        hits = proxy.hits_at_once
        async with connected(proxy.port, receive_buffer_bytes=4096) as wire:
            wire.send(request(LARGE))
            await wire.head()
            async with asyncio.timeout(20):
                while proxy.state.connections:
                    await asyncio.sleep(0.01)
            assert len(await wire.rest()) < len(LARGE_BODY)

        assert proxy.hits_at_once == hits + 1
        assert b"imgproxy_cache_clients_cut_off_total 1.0" in proxy.metrics.text()


async def test_hits_that_a_client_does_not_take_are_not_piled_up(upstream: FakeImgproxy) -> None:
    upstream.script(TARGET, image(BODY))
    async with reading(upstream, CACHE_CLIENT_STALL_SECONDS="0.5") as proxy:
        async with connected(proxy.port) as wire:
            await _known(proxy, wire, TARGET)
        async with connected(proxy.port, receive_buffer_bytes=4096) as wire:
            for _ in range(2000):  # one read each, 50 MB of answers
                wire.send(request(TARGET))
                await wire.flush()
                await asyncio.sleep(0)
            (connection,) = proxy.state.connections
            assert connection.transport.get_write_buffer_size() < 1_000_000
            await proxy.until_idle()  # when it has been cut off

        assert proxy.hits_at_once + len(proxy.requests) < 1000  # megabytes are with the system


@pytest.mark.parametrize(
    ("line", "start"),
    [
        pytest.param(b"X-Request-ID: mine", 0, id="whole"),
        pytest.param(b"Range: bytes=1-", 1, id="part"),
    ],
)
async def test_client_that_reads_a_large_hit_slowly_gets_no_copy_of_it(
    upstream: FakeImgproxy, line: bytes, start: int
) -> None:
    body = bytes(range(256)) * 120_000
    upstream.script(LARGE, image(body))
    async with reading(upstream, CACHE_MEMORY_BYTES="1000000000") as proxy:
        await ask(proxy.port, LARGE)
        async with connected(proxy.port, receive_buffer_bytes=65536) as wire:
            wire.send(request(LARGE, line))
            await wire.head()
            await ask(proxy.port, TARGET)  # by then all is written that shall be
            sizes = [one.transport.get_write_buffer_size() for one in proxy.state.connections]
            assert max(sizes) < 1_000_000
            assert await wire.some(len(body) - start) == body[start:]
