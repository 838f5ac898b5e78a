"""The flow of one request: what imgproxy is asked, what the client is told, what is stored."""

from __future__ import annotations

import hashlib
import socket
from collections.abc import AsyncIterator

import pytest

from tests.servers.upstreams import (
    STORABLE,
    End,
    FakeImgproxy,
    Gate,
    Step,
    fake_imgproxy,
    head,
    image,
)
from tests.servers.wired import WiredProxy, wired_proxy
from tests.tapes import Tape, all_tapes
from tests.wire import Fields, ask, connected, request

TARGET = b"/_/rs:fit:300/plain/local:///a.jpg"
BODY = bytes(range(256)) * 100
STORED = b"imgproxy-cache; fwd=uri-miss; stored"


@pytest.fixture
async def proxy(upstream: FakeImgproxy) -> AsyncIterator[WiredProxy]:
    async with wired_proxy(upstream.port) as wired:
        yield wired


def key(target: bytes) -> str:
    return hashlib.md5(target).hexdigest()


# What imgproxy is asked


async def test_fields_of_a_request_reach_imgproxy_in_order_and_repeated_ones_apart(
    proxy: WiredProxy, upstream: FakeImgproxy
) -> None:
    lines = [b"A: 1", b"User-Agent: Mozilla/5.0 (x; y)", b"a: 2", b"Cookie: a=b", b"A:", b"E: \xe4"]
    await ask(proxy.port, TARGET, *lines)

    assert upstream.received[0].fields == [
        (b"host", b"img.example"),
        (b"a", b"1"),
        (b"user-agent", b"Mozilla/5.0 (x; y)"),
        (b"a", b"2"),
        (b"cookie", b"a=b"),
        (b"a", b""),
        (b"e", b"\xe4"),
        (b"accept-encoding", b"identity"),
        (b"x-forwarded-for", b"127.0.0.1"),
        (b"x-forwarded-proto", b"http"),
        (b"x-forwarded-host", b"img.example"),
    ]


async def test_hop_by_hop_fields_stay_with_us(proxy: WiredProxy, upstream: FakeImgproxy) -> None:
    lines = [
        b"Connection: keep-alive, X-Mine",
        b"Keep-Alive: timeout=5",
        b"TE: trailers",
        b"Trailer: X-After",
        b"Proxy-Authorization: Basic eA==",
        b"Proxy-Connection: keep-alive",
        b"X-Mine: 1",
        b"X-Theirs: 2",
    ]
    await ask(proxy.port, TARGET, *lines)

    names = [name for name, _ in upstream.received[0].fields]
    assert names == [
        b"host",
        b"x-theirs",
        b"accept-encoding",
        b"x-forwarded-for",
        b"x-forwarded-proto",
        b"x-forwarded-host",
    ]


async def test_host_cannot_be_taken_away_by_connection(
    proxy: WiredProxy, upstream: FakeImgproxy
) -> None:
    async with connected(proxy.port) as wire:
        wire.send(request(TARGET, b"Connection: Host, close"))
        assert (await wire.answer()).status == 200

    assert upstream.received[0].all(b"host") == [b"img.example"]


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        pytest.param(TARGET, b"identity", id="an image"),
        pytest.param(b"/_/raw:1/plain/local:///a.svg", b"gzip, br", id="raw"),
        pytest.param(b"/health", b"identity", id="no image"),
    ],
)
async def test_accept_encoding_is_ours_but_for_raw(
    proxy: WiredProxy, upstream: FakeImgproxy, target: bytes, expected: bytes
) -> None:
    await ask(proxy.port, target, b"Accept-Encoding: gzip, br")
    assert upstream.received[0].all(b"accept-encoding") == [expected]


FORWARDED = [
    b"X-Forwarded-For: 203.0.113.7, 10.0.0.1",
    b"X-Forwarded-Proto: https",
    b"X-Forwarded-Host: shop.example",
]


@pytest.mark.parametrize(
    ("trusted", "expected"),
    [
        pytest.param("", [b"127.0.0.1", b"http", b"img.example"], id="nobody is trusted"),
        pytest.param("10.0.0.0/8", [b"127.0.0.1", b"http", b"img.example"], id="others are"),
        pytest.param(
            "10.0.0.0/8, 127.0.0.1",
            [b"203.0.113.7, 10.0.0.1, 127.0.0.1", b"https", b"shop.example"],
            id="the peer is",
        ),
    ],
)
async def test_x_forwarded_fields_are_believed_of_trusted_peers_alone(
    upstream: FakeImgproxy, trusted: str, expected: list[bytes]
) -> None:
    async with wired_proxy(upstream.port, CACHE_TRUSTED_PROXIES=trusted) as proxy:
        await ask(proxy.port, TARGET, *FORWARDED)

    received = upstream.received[0]
    names = (b"x-forwarded-for", b"x-forwarded-proto", b"x-forwarded-host")
    assert [received.all(name) for name in names] == [[value] for value in expected]


# What the client is told


async def test_fields_of_an_answer_reach_the_client_in_order_and_case(
    proxy: WiredProxy, upstream: FakeImgproxy
) -> None:
    fields = [b"X-One: 1", b"Set-Cookie: a", b"x-two: \xe4", b"Set-Cookie: b", b'ETag: W/"x"']
    upstream.script(TARGET, head(*fields, b"Content-Length: 2", b"date: once") + b"ok")
    answer = await ask(proxy.port, TARGET)

    assert answer.fields == [
        (b"X-One", b"1"),
        (b"Set-Cookie", b"a"),
        (b"x-two", b"\xe4"),
        (b"Set-Cookie", b"b"),
        (b"ETag", b'W/"x"'),
        (b"Content-Length", b"2"),
        (b"date", b"once"),
        (b"Cache-Status", b"imgproxy-cache; fwd=uri-miss; detail=set-cookie"),
        (b"Connection", b"close"),
    ]


@pytest.mark.parametrize("read_through", ["false", "true"])
async def test_answer_without_a_date_gets_that_of_its_arrival(
    upstream: FakeImgproxy, read_through: str
) -> None:
    upstream.script(TARGET, image(b"hello"))
    async with wired_proxy(upstream.port, CACHE_READ_THROUGH=read_through) as proxy:
        dates = [(await ask(proxy.port, TARGET)).all(b"Date") for _ in range(2)]

    # TZ=UTC date -d @1750000000: of the proxy's clock
    assert dates == [[b"Sun, 15 Jun 2025 15:06:40 GMT"]] * 2


async def test_hop_by_hop_fields_of_an_answer_stay_with_us(
    proxy: WiredProxy, upstream: FakeImgproxy
) -> None:
    lines = [b"Connection: close, X-Mine", b"Keep-Alive: timeout=9", b"X-Mine: 1", b"Upgrade: h2c"]
    upstream.script(TARGET, image(BODY, *lines))
    async with connected(proxy.port) as wire:
        wire.send(request(TARGET))
        answer = await wire.answer()

    names = {name for name, _ in answer.fields}
    assert names.isdisjoint({b"Connection", b"Keep-Alive", b"X-Mine", b"Upgrade"})


async def test_cache_status_comes_behind_that_of_the_cache_before_us(
    proxy: WiredProxy, upstream: FakeImgproxy
) -> None:
    upstream.script(TARGET, image(BODY, b"Cache-Status: other; hit"))
    answer = await ask(proxy.port, TARGET)

    assert answer.all(b"Cache-Status") == [b"other; hit", STORED]


@pytest.mark.parametrize(
    "status",
    [b"400 Bad", b"403 Forbidden", b"404 Not Found", b"429 Many", b"500 Oops", b"503 Busy"],
)
async def test_error_leaves_without_a_lifetime(
    proxy: WiredProxy, upstream: FakeImgproxy, status: bytes
) -> None:
    upstream.script(
        TARGET,
        head(b"Cache-Control: max-age=31536000", b"Content-Length: 3", status=status) + b"no!",
    )
    answer = await ask(proxy.port, TARGET)

    assert (answer.status, answer.body) == (int(status[:3]), b"no!")
    assert answer.all(b"Cache-Control") == [b"no-store"]
    assert answer[b"Cache-Status"] == b"imgproxy-cache; fwd=uri-miss; detail=status"


async def test_request_id_of_imgproxy_is_passed_on_to_the_one_who_asked(
    proxy: WiredProxy, upstream: FakeImgproxy
) -> None:
    upstream.script(TARGET, image(BODY, b"X-Request-Id: from-imgproxy"))
    answer = await ask(proxy.port, TARGET, b"X-Request-ID: mine")

    assert upstream.received[0].all(b"x-request-id") == [b"mine"]
    assert answer.all(b"X-Request-Id") == [b"from-imgproxy"]


# imgproxy in trouble


async def test_imgproxy_that_is_not_there_makes_502() -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        async with wired_proxy(nobody.getsockname()[1]) as proxy:
            answer = await ask(proxy.port, TARGET, b"X-Request-ID: mine")

    assert answer.status == 502
    assert answer.body.startswith(b"imgproxy cannot be reached: ")
    assert answer.body.count(b"\n") == 1
    assert answer[b"Content-Type"] == b"text/plain; charset=utf-8"
    assert answer[b"Cache-Control"] == b"no-store"
    assert answer[b"X-Request-ID"] == b"mine"
    assert answer[b"Cache-Status"].startswith(b"imgproxy-cache; fwd=uri-miss; detail=")


@pytest.mark.parametrize(
    "steps",
    [
        pytest.param((End.CLOSE,), id="closed"),
        pytest.param((End.RESET,), id="reset"),
        pytest.param((b"HTTP/1.1 200 OK\r\nConte", End.CLOSE), id="closed in its head"),
        pytest.param((b"hello, this is no HTTP\r\n\r\n",), id="garbage"),
    ],
)
async def test_imgproxy_that_breaks_off_before_its_answer_makes_502(
    proxy: WiredProxy, upstream: FakeImgproxy, steps: tuple[Step, ...]
) -> None:
    upstream.script(TARGET, *steps)
    answer = await ask(proxy.port, TARGET)

    assert (answer.status, answer[b"Cache-Control"]) == (502, b"no-store")
    assert answer.body.startswith(b"imgproxy gave no answer: it ")


async def test_imgproxy_that_does_not_answer_in_time_makes_504(upstream: FakeImgproxy) -> None:
    upstream.script(TARGET, End.HANG)
    async with wired_proxy(upstream.port, CACHE_UPSTREAM_READ_TIMEOUT_SECONDS="0.2") as proxy:
        answer = await ask(proxy.port, TARGET)

    assert (answer.status, answer[b"Cache-Control"]) == (504, b"no-store")
    assert answer.body == b"imgproxy did not answer in time: it sent nothing for 0.2 s\n"


async def test_imgproxy_that_stalls_in_a_body_breaks_the_answer_off(
    upstream: FakeImgproxy,
) -> None:
    upstream.script(TARGET, image(BODY)[:-1], End.HANG)
    async with wired_proxy(upstream.port, CACHE_UPSTREAM_READ_TIMEOUT_SECONDS="0.2") as proxy:
        answer = await ask(proxy.port, TARGET)
        await proxy.until_idle()

    assert (answer.status, answer.is_whole) == (200, False)
    assert proxy.store.images == {}


async def test_imgproxy_that_has_no_connection_free_makes_503(upstream: FakeImgproxy) -> None:
    gate = Gate()
    upstream.script(b"/busy", gate, image(BODY))
    async with (
        wired_proxy(
            upstream.port, CACHE_UPSTREAM_CONNECTIONS="1", CACHE_UPSTREAM_WAIT_SECONDS="0.1"
        ) as proxy,
        connected(proxy.port) as busy,
    ):
        busy.send(request(b"/busy"))
        await gate.reached.wait()
        answer = await ask(proxy.port, TARGET)
        gate.open.set()
        assert (await busy.answer()).body == BODY

    assert (answer.status, answer[b"Retry-After"], answer[b"Cache-Control"]) == (
        503,
        b"1",
        b"no-store",
    )
    assert upstream.asked_for(TARGET) == []


async def test_connection_of_a_client_survives_an_error_of_imgproxy(
    proxy: WiredProxy, upstream: FakeImgproxy
) -> None:
    upstream.script(TARGET, End.CLOSE)
    async with connected(proxy.port) as wire:
        for _ in range(3):
            wire.send(request(TARGET))
            assert (await wire.answer()).status == 502
            wire.send(request(b"/fine"))
            assert (await wire.answer()).body == b"image of /fine"


# What is stored


async def test_stored_image_is_the_body_with_the_fields_that_belong_to_it(
    proxy: WiredProxy, upstream: FakeImgproxy
) -> None:
    disposition = b'Content-Disposition: inline; filename="a.jpg"'
    upstream.script(TARGET + b"?query", image(BODY, disposition, b"ETag: x", b"X-Request-Id: y"))
    answer = await ask(proxy.port, TARGET + b"?query")
    stored = await proxy.store.until_stored(key(TARGET))

    assert answer[b"Cache-Status"] == STORED
    assert stored.body == answer.body == BODY
    assert stored.content_type == "image/jpeg"
    assert stored.cache_control == "max-age=31536000, public"
    assert stored.content_disposition == 'inline; filename="a.jpg"'
    assert stored.path_sha256 == hashlib.sha256(TARGET).hexdigest()
    assert stored.content_sha256 == hashlib.sha256(BODY).hexdigest()


async def test_head_does_not_overwrite_an_image_with_nothing(
    proxy: WiredProxy, upstream: FakeImgproxy
) -> None:
    upstream.script(TARGET, image(BODY))
    upstream.script(TARGET, head(*STORABLE, b"Content-Length: 0"))
    await ask(proxy.port, TARGET)
    answer = await ask(proxy.port, TARGET, method=b"HEAD")
    await proxy.until_idle()

    assert answer[b"Cache-Status"] == b"imgproxy-cache; fwd=method; detail=method"
    assert proxy.store.images[key(TARGET)].body == BODY


async def test_body_of_nothing_is_not_stored(proxy: WiredProxy, upstream: FakeImgproxy) -> None:
    upstream.script(TARGET, head(*STORABLE, b"Transfer-Encoding: chunked") + b"0\r\n\r\n")
    answer = await ask(proxy.port, TARGET)
    await proxy.until_idle()

    assert (answer.status, answer.body, answer.is_whole) == (200, b"", True)
    assert proxy.store.images == {}


# Every recorded answer of imgproxy

HOP_BY_HOP = {b"connection", b"keep-alive", b"transfer-encoding", b"trailer", b"upgrade"}
OF_OUR_FRAMING = {b"connection", b"transfer-encoding"}


def _script(tape: Tape) -> tuple[Step, ...]:
    lines = [name + b": " + value for name, value in tape.headers]
    names = {name.lower() for name, _ in tape.headers}
    start = head(*lines, status=b"%d Recorded" % tape.status)
    if b"transfer-encoding" in names:
        return (start + b"%x\r\n%b\r\n0\r\n\r\n" % (len(tape.body), tape.body),)
    if tape.method == "HEAD" or tape.status in (204, 304) or b"content-length" in names:
        return (start + tape.body,)
    return (start + tape.body, End.CLOSE)


def _expected_fields(tape: Tape) -> Fields:
    dropped = set(HOP_BY_HOP)
    if tape.status in (204, 304):
        dropped.add(b"content-length")
    ours = [(b"Cache-Control", b"no-store")] if tape.status >= 400 else []
    if tape.status >= 400:
        dropped.add(b"cache-control")
    if tape.expected == "stored":
        cache_status = STORED
    else:
        forwarded = b"method" if tape.expected == "method" else b"uri-miss"
        detail = tape.expected.encode()
        cache_status = b"imgproxy-cache; fwd=%b; detail=%b" % (forwarded, detail)
    kept = [field for field in tape.headers if field[0].lower() not in dropped]
    return [*kept, *ours, (b"Cache-Status", cache_status)]


@pytest.mark.parametrize("tape", all_tapes(), ids=str)
async def test_recorded_answer_passes_and_is_stored_if_its_verdict_says_so(tape: Tape) -> None:
    method = tape.method.encode()
    async with fake_imgproxy() as upstream:
        upstream.default = lambda received: _script(tape)
        if tape.target.endswith(b"/health"):
            upstream.script(tape.target, *_script(tape))
        async with wired_proxy(upstream.port, **tape.env) as proxy, connected(proxy.port) as wire:
            lines = [name + b": " + value for name, value in tape.request_headers]
            wire.send(b"\r\n".join([method + b" " + tape.target + b" HTTP/1.1", *lines, b"", b""]))
            answer = await wire.answer(method=method)
            await proxy.until_idle()

    assert upstream.received[0].line == method + b" " + tape.target + b" HTTP/1.1"
    assert (answer.status, answer.body, answer.is_whole) == (tape.status, tape.body, True)
    kept = [field for field in answer.fields if field[0].lower() not in OF_OUR_FRAMING]
    assert kept == _expected_fields(tape)
    stored = {name: stored.body for name, stored in proxy.store.images.items()}
    path = tape.target.split(b"?")[0]
    assert stored == ({key(path): tape.body} if tape.expected == "stored" else {})
