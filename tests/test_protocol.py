"""The wire between clients and us: what is let in, what is refused, and how answers are framed."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from datetime import timedelta
from email.utils import parsedate_to_datetime

import pytest
import uvloop
from hypothesis import given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from tests.servers.upstreams import STORABLE, End, FakeImgproxy, Gate, fake_imgproxy, head, image
from tests.servers.wired import WiredProxy, wired_proxy
from tests.wire import Wire, ask, connected, request

BODY = bytes(range(256)) * 100
HOST = b"Host: img.example"
PRINTABLE = bytes(byte for byte in range(0x21, 0x7F))


@pytest.fixture
async def proxy(upstream: FakeImgproxy) -> AsyncIterator[WiredProxy]:
    async with wired_proxy(upstream.port) as wired:
        yield wired


# The target


@pytest.mark.parametrize(
    "target",
    [
        pytest.param(b"/" + PRINTABLE, id="every printable byte"),
        pytest.param(
            b"/_/rs:fit:300/plain/https://example.com/a.jpg", id="scheme with two slashes"
        ),
        pytest.param(b"//_/plain/local:///a.jpg", id="two slashes first"),
        pytest.param(b"//evil.example/a", id="looks like an authority"),
        pytest.param(b"///", id="only slashes"),
        pytest.param(b"/", id="root"),
        pytest.param(b"/a%2Fb%2fc", id="encoded slashes in both cases"),
        pytest.param(b"/a%0Ab", id="encoded newline"),
        pytest.param(b"/a%00b", id="encoded nul"),
        pytest.param(b"/a%zz%", id="broken escapes"),
        pytest.param(b"/a%c3%a4", id="encoded UTF-8"),
        pytest.param(b"/a/../../b/./c", id="dots"),
        pytest.param(b"/..", id="dots at the root"),
        pytest.param(b"/@evil.example/a", id="at sign"),
        pytest.param(b'/a+b=c"{}|\\^`<>', id="what URLs must not have"),
        pytest.param(b"/a;b,c!d$e&f'g(h)*i", id="sub-delimiters"),
        pytest.param(b"/a#fragment", id="fragment"),
        pytest.param(b"/a?query=1&b", id="query"),
        pytest.param(b"/a?", id="empty query"),
        pytest.param(b"/a?b?c#d", id="question marks"),
        pytest.param(b"/a?#", id="query and fragment, both empty"),
        pytest.param(b"/" + b"a" * (16 * 1024 - 1), id="16 KB"),
    ],
)
async def test_target_reaches_imgproxy_to_the_byte(
    proxy: WiredProxy, upstream: FakeImgproxy, target: bytes
) -> None:
    answer = await ask(proxy.port, target)

    assert answer.body == b"image of " + target
    assert [one.line for one in upstream.received] == [b"GET " + target + b" HTTP/1.1"]


@pytest.mark.parametrize("byte", range(0x21, 0x7F), ids=lambda byte: f"0x{byte:02x}")
async def test_printable_byte_is_the_same_wherever_it_stands(
    proxy: WiredProxy, upstream: FakeImgproxy, byte: int
) -> None:
    char = bytes([byte])
    targets = [b"/" + char, b"/" + char + b"/b", b"/b/" + char * 3, b"/b%" + char, b"/b?" + char]
    async with connected(proxy.port) as wire:
        for target in targets:
            wire.send(request(target))
            assert (await wire.answer()).status == 200

    assert [one.target for one in upstream.received] == targets


@pytest.mark.parametrize("cut", [1, 4, 5, 20, 29, 30, 31, 32, 33, 60, 61])
async def test_target_that_comes_in_pieces_is_put_together(
    proxy: WiredProxy, upstream: FakeImgproxy, cut: int
) -> None:
    whole = request(b"/_/plain/local:///a//b%2Fc")
    async with connected(proxy.port) as wire:
        wire.send(whole[:cut])
        await wire.flush()
        await asyncio.sleep(0.01)  # two reads of the server, not one
        wire.send(whole[cut:])
        assert (await wire.answer()).status == 200

    assert upstream.received[0].target == b"/_/plain/local:///a//b%2Fc"


@pytest.mark.parametrize(
    "line",
    [
        pytest.param(b"GET http://evil.example/p HTTP/1.1", id="absolute form"),
        pytest.param(b"GET HTTP://127.0.0.1:8081/p HTTP/1.1", id="absolute form of our imgproxy"),
        pytest.param(b"GET https://evil.example HTTP/1.1", id="absolute form, no path"),
        pytest.param(b"GET p HTTP/1.1", id="no slash first"),
        pytest.param(b"GET @evil.example/p HTTP/1.1", id="at sign first"),
        pytest.param(b"GET ?p HTTP/1.1", id="query alone"),
        pytest.param(b"GET #p HTTP/1.1", id="fragment alone"),
        pytest.param(b"OPTIONS * HTTP/1.1", id="asterisk form"),
        pytest.param(b"GET * HTTP/1.1", id="asterisk in a GET"),
        pytest.param(b"CONNECT evil.example:443 HTTP/1.1", id="authority form"),
        pytest.param(b"CONNECT /p HTTP/1.1", id="CONNECT to a path"),
        pytest.param(b"GET /\xc3\xa4 HTTP/1.1", id="UTF-8"),
        pytest.param(b"GET /a\x80 HTTP/1.1", id="byte over 127"),
        pytest.param(b"GET /a\xff?b HTTP/1.1", id="0xff"),
        pytest.param(b"GET /a?\xe4 HTTP/1.1", id="Latin-1 in the query"),
        pytest.param(b"GET /a b HTTP/1.1", id="space"),
        pytest.param(b"GET /a\tb HTTP/1.1", id="tab"),
        pytest.param(b"GET /a\x00b HTTP/1.1", id="nul"),
        pytest.param(b"GET /a\x7f HTTP/1.1", id="delete"),
        pytest.param(b"GET /a", id="HTTP/0.9"),
        pytest.param(b"GET /a HTTP/0.9", id="HTTP/0.9 by name"),
        pytest.param(b"GET /a HTTP/2.0", id="HTTP/2.0"),
        pytest.param(b"G\xcbT /a HTTP/1.1", id="no token for a method"),
        pytest.param(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", id="TLS"),
        pytest.param(b"PRI * HTTP/2.0", id="HTTP/2 preface"),
    ],
)
async def test_what_is_no_path_is_refused_and_imgproxy_not_asked(
    proxy: WiredProxy, upstream: FakeImgproxy, line: bytes
) -> None:
    async with connected(proxy.port) as wire:
        wire.send(line + b"\r\n" + HOST + b"\r\n\r\n")
        answer = await wire.answer()

        assert answer.status == 400
        assert answer[b"Cache-Control"] == b"no-store"
        assert answer[b"Connection"] == b"close"
        assert parsedate_to_datetime(answer[b"Date"].decode()).utcoffset() == timedelta(0)
        assert await wire.rest() == b""
    assert upstream.raw == {}


@pytest.mark.parametrize(
    "lines",
    [
        pytest.param([], id="none"),
        pytest.param([HOST, HOST], id="two that are equal"),
        pytest.param([HOST, b"hOST: other.example"], id="two that differ"),
        pytest.param([HOST, b"A: b", b"Host:"], id="two, one of them empty"),
        pytest.param([b"Host : img.example"], id="space before the colon"),
        pytest.param([HOST, b" folded: x"], id="a folded line"),
        pytest.param([HOST, b"Content-Length: 1", b"Content-Length: 2"], id="two lengths"),
        pytest.param(
            [HOST, b"Content-Length: 1", b"Transfer-Encoding: chunked"], id="length and chunked"
        ),
        pytest.param([HOST, b"Content-Length: -1"], id="a negative length"),
        pytest.param([HOST, b"Content-Length: 99999999999999999999999"], id="an endless length"),
        pytest.param([HOST, b"Transfer-Encoding: gzip"], id="a coding that nothing ends"),
        pytest.param([HOST, b"A: b\x00c"], id="nul in a value"),
        pytest.param([HOST, b"A b: c"], id="space in a name"),
        pytest.param([HOST, b"nothing"], id="no colon"),
    ],
)
async def test_head_that_can_be_read_in_two_ways_is_refused(
    proxy: WiredProxy, upstream: FakeImgproxy, lines: list[bytes]
) -> None:
    async with connected(proxy.port) as wire:
        wire.send(b"\r\n".join([b"GET /a HTTP/1.1", *lines, b"", b""]))
        assert (await wire.answer()).status == 400
        assert await wire.rest() == b""
    assert upstream.raw == {}


@pytest.mark.parametrize("lines", [b"\r\n", b"\r\n\r\n\r\n"])
async def test_empty_lines_before_a_request_are_ignored(proxy: WiredProxy, lines: bytes) -> None:
    """RFC 9112 section 2.2."""
    async with connected(proxy.port) as wire:
        for number in range(3):
            wire.send(lines)
            await wire.flush()
            await asyncio.sleep(0.01)  # a read of their own
            wire.send(request(b"/%d" % number))
            assert (await wire.answer()).body == b"image of /%d" % number


async def test_http_1_0_request_is_answered_and_its_connection_closed(
    proxy: WiredProxy, upstream: FakeImgproxy
) -> None:
    async with connected(proxy.port) as wire:
        wire.send(b"GET /a HTTP/1.0\r\n" + HOST + b"\r\n\r\n")
        answer = await wire.answer()
        assert await wire.rest() == b""

    assert (answer.status, answer.body) == (200, b"image of /a")
    assert upstream.received[0].line == b"GET /a HTTP/1.1"


async def test_http_1_0_client_gets_no_interim_answer_whatever_it_expects(
    proxy: WiredProxy,
) -> None:
    async with connected(proxy.port) as wire:
        lines = b"Expect: 100-continue\r\nContent-Length: 3\r\n"
        wire.send(b"POST /a HTTP/1.0\r\n" + HOST + b"\r\n" + lines + b"\r\nabc")
        assert (await wire.head())[0] == 200


async def test_http_1_0_client_gets_a_body_of_unknown_length_without_chunks(
    proxy: WiredProxy, upstream: FakeImgproxy
) -> None:
    body = b"5\r\nhello\r\n0\r\n\r\n"
    upstream.script(b"/a", head(*STORABLE, b"Transfer-Encoding: chunked") + body)
    async with connected(proxy.port) as wire:
        wire.send(b"GET /a HTTP/1.0\r\n" + HOST + b"\r\n\r\n")
        answer = await wire.answer()

    assert answer.all(b"Transfer-Encoding") == []
    assert answer.body == b"hello"


async def test_http_1_0_client_does_not_take_half_a_body_of_unknown_length_for_the_whole(
    proxy: WiredProxy, upstream: FakeImgproxy
) -> None:
    upstream.script(
        b"/a", head(*STORABLE, b"Transfer-Encoding: chunked") + b"5\r\nhello\r\n", End.CLOSE
    )
    async with connected(proxy.port) as wire:
        wire.send(b"GET /a HTTP/1.0\r\n" + HOST + b"\r\n\r\n")
        await wire.head()
        assert await wire.some(5) == b"hello"
        with pytest.raises(ConnectionResetError):
            await wire.some(1)


# Limits of a head


@pytest.mark.parametrize(
    ("head_bytes", "status"),
    [
        pytest.param(b"GET /" + b"a" * 16 * 1024 + b" HTTP/1.1\r\n", 414, id="target over 16 KB"),
        pytest.param(b"GET /" + b"a" * 500_000, 414, id="target without an end"),
        pytest.param(
            b"GET /a HTTP/1.1\r\n" + HOST + b"\r\nA: " + b"b" * 64 * 1024 + b"\r\n\r\n",
            431,
            id="field over 64 KB",
        ),
        pytest.param(
            b"GET /a HTTP/1.1\r\n" + HOST + b"\r\nA: " + b"b" * 500_000,
            431,
            id="field without an end",
        ),
        pytest.param(
            b"GET /a HTTP/1.1\r\n" + HOST + b"\r\n" + b"c" * 500_000,
            431,
            id="field name without an end",
        ),
        pytest.param(
            b"GET /a HTTP/1.1\r\n" + HOST + b"\r\n" + b"A: b\r\n" * 100 + b"\r\n",
            431,
            id="101 fields",
        ),
        pytest.param(
            b"GET /a HTTP/1.1\r\n" + HOST + (b"\r\nA: " + b"b" * 1000) * 66 + b"\r\n\r\n",
            431,
            id="66 KB in 67 fields",
        ),
    ],
)
async def test_head_over_a_limit_is_refused(
    proxy: WiredProxy, upstream: FakeImgproxy, head_bytes: bytes, status: int
) -> None:
    async with connected(proxy.port) as wire:
        wire.send(head_bytes)
        assert (await wire.answer()).status == status
    assert upstream.raw == {}


@pytest.mark.parametrize(
    "lines",
    [
        pytest.param([b"A: b"] * 99, id="100 fields"),
        pytest.param([b"A: " + b"b" * 60_000], id="60 KB in one field"),
    ],
)
async def test_head_just_under_a_limit_passes(
    proxy: WiredProxy, upstream: FakeImgproxy, lines: list[bytes]
) -> None:
    async with connected(proxy.port) as wire:
        wire.send(request(b"/a", *lines))
        assert (await wire.answer()).status == 200

    assert len(upstream.received[0].all(b"a")) == len(lines)


async def test_head_under_the_limit_passes_in_however_many_pieces_it_comes(
    proxy: WiredProxy,
) -> None:
    whole = request(b"/a", *[b"A: " + b"b" * 990] * 60)
    async with connected(proxy.port) as wire:
        for start in range(0, len(whole), 1000):
            wire.send(whole[start : start + 1000])
            await wire.flush()
            await asyncio.sleep(0)
        assert (await wire.answer()).status == 200


async def test_each_request_of_a_connection_has_the_limits_for_itself(proxy: WiredProxy) -> None:
    async with connected(proxy.port) as wire:
        for number in range(5):
            wire.send(request(b"/%d" % number, *[b"A: " + b"b" * 600] * 90))
            assert (await wire.answer()).status == 200


async def test_target_has_its_limit_behind_another_request(proxy: WiredProxy) -> None:
    async with connected(proxy.port) as wire:
        for size, status in ((9, 200), (16 * 1024, 200), (9, 200), (16 * 1024 + 1, 414)):
            wire.send(request(b"/" + b"a" * (size - 1)))
            assert (await wire.answer()).status == status


# What is told of refused requests


@pytest.mark.parametrize(
    ("sent", "outcome", "target"),
    [
        pytest.param(b"\x16\x03\x01\x02", "bad-request", b"", id="TLS"),
        pytest.param(b"GET p?q HTTP/1.1\r\n\r\n", "bad-request", b"", id="no slash first"),
        pytest.param(
            b"GET http://evil.example/p HTTP/1.1\r\n" + HOST + b"\r\n\r\n",
            "bad-target",
            b"http://evil.example/p",
            id="absolute form",
        ),
        pytest.param(b"GET /a?b HTTP/1.1\r\n\r\n", "bad-host", b"/a?b", id="no Host"),
        pytest.param(
            b"GET /" + b"a" * 40_000, "target-too-long", b"/" + b"a" * 16383, id="long target"
        ),
        pytest.param(
            b"GET /a HTTP/1.1\r\n" + b"A: b\r\n" * 102, "head-too-large", b"/a", id="102 fields"
        ),
        pytest.param(b"GET /a HTTP/1.1\r\nHost", "slow-request", b"/a", id="half a head"),
        pytest.param(
            b"POST /a HTTP/1.1\r\n" + HOST + b"\r\nContent-Length: 9\r\n\r\nbody",
            "slow-request",
            b"/a",
            id="half a body",
        ),
        pytest.param(
            b"POST /a HTTP/1.1\r\n" + HOST + b"\r\nTransfer-Encoding: chunked\r\n\r\nno",
            "bad-request",
            b"/a",
            id="no chunk",
        ),
        pytest.param(
            b"POST /a HTTP/1.1\r\n" + HOST + b"\r\nTransfer-Encoding: chunked\r\n\r\n"
            b"10001\r\n" + bytes(65537) + b"\r\nno",
            "bad-request",
            b"/a",
            id="no chunk after too many bytes",
        ),
        pytest.param(
            b"POST /a HTTP/1.1\r\n" + HOST + b"\r\nTransfer-Encoding: chunked\r\n"
            b"Expect: 100-continue\r\n\r\nno",
            "bad-request",
            b"/a",
            id="no chunk, of one that was to wait for 100",
        ),
    ],
)
async def test_refused_request_is_told_of_once(
    upstream: FakeImgproxy, sent: bytes, outcome: str, target: bytes
) -> None:
    async with wired_proxy(upstream.port, 0.2) as proxy:
        with capture_logs() as logged:
            async with connected(proxy.port) as wire:
                wire.send(sent)
                assert (await wire.answer()).status >= 400
            await proxy.until_idle()

        assert logged == []  # of a crash, for one
        told = [(refusal.outcome, of) for refusal, of in proxy.refusals]
        assert (told, proxy.requests) == ([(outcome, target)], [])


async def test_request_that_is_refused_by_the_proxy_is_told_of_by_it_alone(
    proxy: WiredProxy,
) -> None:
    lines = (b"Transfer-Encoding: chunked",)
    body = b"10001\r\n%b\r\n" % bytes(65537)
    async with connected(proxy.port) as wire:
        wire.send(request(b"/a", *lines, method=b"POST") + body)
        assert (await wire.answer()).status == 413
        wire.send(b"no chunk")
        await wire.rest()
    await proxy.until_idle()

    assert [one["outcome"] for one in proxy.requests] == ["body-too-large"]
    assert proxy.refusals == []


# Time limits


@pytest.mark.parametrize(
    "begun",
    [
        pytest.param(b"G", id="method"),
        pytest.param(b"GET /a", id="target"),
        pytest.param(b"GET /a HTTP/1.1\r\nHost: img", id="field"),
        pytest.param(b"GET /a HTTP/1.1\r\n" + HOST + b"\r\n", id="all but the last line"),
        pytest.param(
            b"POST /a HTTP/1.1\r\n" + HOST + b"\r\nContent-Length: 9\r\n\r\nbody", id="body"
        ),
        pytest.param(
            b"POST /a HTTP/1.1\r\n" + HOST + b"\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nab",
            id="chunk",
        ),
    ],
)
async def test_request_that_does_not_arrive_in_time_is_refused(
    upstream: FakeImgproxy, begun: bytes
) -> None:
    async with (
        wired_proxy(upstream.port, 0.2) as proxy,
        connected(proxy.port) as wire,
    ):
        wire.send(begun)
        answer = await wire.answer()
        assert (answer.status, answer[b"Connection"]) == (408, b"close")
        wire.send_eof()
        assert await wire.rest() == b""
    assert upstream.raw == {}


async def test_slow_head_that_keeps_coming_is_refused(upstream: FakeImgproxy) -> None:
    async with (
        wired_proxy(upstream.port, 0.3) as proxy,
        connected(proxy.port) as wire,
    ):
        wire.send(b"GET /a HTTP/1.1\r\n" + HOST + b"\r\nA: ")
        answering = asyncio.create_task(wire.answer())
        while not answering.done():
            wire.send(b"b")
            await asyncio.sleep(0.02)
        assert (await answering).status == 408
    assert upstream.raw == {}


async def test_connection_without_a_request_is_closed_without_a_word(
    upstream: FakeImgproxy,
) -> None:
    async with (
        wired_proxy(upstream.port, 0.2) as proxy,
        connected(proxy.port) as wire,
    ):
        assert await wire.rest() == b""


async def test_request_that_arrived_may_wait_longer_for_its_answer(upstream: FakeImgproxy) -> None:
    gate = Gate()
    upstream.script(b"/a", gate, image(BODY))
    async with (
        wired_proxy(upstream.port, 0.1) as proxy,
        connected(proxy.port) as wire,
    ):
        wire.send(request(b"/a"))
        await gate.reached.wait()
        await asyncio.sleep(0.3)  # three times the limit
        gate.open.set()
        assert (await wire.answer()).body == BODY


async def test_connection_may_stay_idle_between_requests_longer_than_a_request_may_take(
    upstream: FakeImgproxy,
) -> None:
    async with (
        wired_proxy(upstream.port, 0.1) as proxy,
        connected(proxy.port) as wire,
    ):
        for body in (b"", b"x" * 60_000, b""):
            wire.send(request(b"/a", b"Content-Length: %d" % len(body), method=b"POST") + body)
            assert (await wire.answer()).status == 200
            await asyncio.sleep(0.3)


async def test_client_that_takes_no_byte_is_cut_off_and_counted(upstream: FakeImgproxy) -> None:
    upstream.script(b"/a", image(bytes(20_000_000)))
    async with (
        wired_proxy(upstream.port, CACHE_CLIENT_STALL_SECONDS="0.3") as proxy,
        connected(proxy.port, receive_buffer_bytes=4096) as wire,
    ):
        wire.send(request(b"/a"))
        await wire.head()
        await proxy.until_idle()

        assert len(await wire.rest()) < 20_000_000
        assert b"imgproxy_cache_clients_cut_off_total 1.0" in proxy.metrics.text()
        assert proxy.buffer.used == 0


async def test_slow_client_that_takes_a_little_now_and_then_is_not_cut_off(
    upstream: FakeImgproxy,
) -> None:
    body = bytes(3_000_000)
    upstream.script(b"/a", image(body))
    async with (
        wired_proxy(upstream.port, CACHE_CLIENT_STALL_SECONDS="0.8") as proxy,
        connected(proxy.port, receive_buffer_bytes=65536) as wire,
    ):
        wire.send(request(b"/a"))
        status, _ = await wire.head()
        taken = 0
        while taken < len(body):
            taken += len(await wire.some(min(300_000, len(body) - taken)))
            await asyncio.sleep(0.1)

    assert (status, taken) == (200, len(body))


async def _sip(wire: Wire, size: int, times: int) -> None:
    for _ in range(times):
        await wire.some(size)
        await asyncio.sleep(0.02)


async def test_client_that_only_ever_takes_a_little_is_cut_off(upstream: FakeImgproxy) -> None:
    """For whom a byte a minute is enough can hold a connection and its memory for ever."""
    upstream.script(b"/a", image(bytes(20_000_000)))
    async with (
        wired_proxy(upstream.port, 10.0, 50_000_000.0, CACHE_CLIENT_STALL_SECONDS="0.4") as proxy,
        connected(proxy.port, receive_buffer_bytes=65536) as wire,
    ):
        wire.send(request(b"/a"))
        await wire.head()
        with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
            await _sip(wire, 20_000, times=1000)
        await proxy.until_idle()

        assert b"imgproxy_cache_clients_cut_off_total 1.0" in proxy.metrics.text()
        assert proxy.buffer.used == 0


async def test_slow_client_is_not_cut_off_while_the_system_still_has_much_for_it(
    upstream: FakeImgproxy,
) -> None:
    """What the client takes then is not seen in our own buffer: not for minutes, at this speed."""
    upstream.script(b"/a", image(bytes(20_000_000)))
    async with (
        wired_proxy(upstream.port, CACHE_CLIENT_STALL_SECONDS="0.8") as proxy,
        connected(proxy.port, receive_buffer_bytes=4096) as wire,
    ):
        wire.send(request(b"/a"))
        await wire.head()
        await _sip(wire, 4096, times=60)

        assert b"imgproxy_cache_clients_cut_off_total 0.0" in proxy.metrics.text()


# Connections that carry several requests


async def test_requests_on_one_connection_are_answered_in_turn(
    proxy: WiredProxy, upstream: FakeImgproxy
) -> None:
    async with connected(proxy.port) as wire:
        for number in range(20):
            wire.send(request(b"/%d" % number))
            answer = await wire.answer()
            assert (answer.body, answer.all(b"Connection")) == (b"image of /%d" % number, [])


LINES = st.lists(
    st.sampled_from(
        [
            b"Accept: image/webp,*/*",
            b"A: b",
            b"a:c",
            b"Content-Length: 0",
            b"Content-Length: 4",
            b"Transfer-Encoding: chunked",
            b"Expect: 100-continue",
            b"Connection: close",
            b"Connection: upgrade",
            b"Upgrade: h2c",
            b"Host: other.example",
            b"X-Forwarded-For: 1.2.3.4",
            b"A: " + b"b" * 5000,
        ]
    ),
    max_size=3,
)
STARTS = st.sampled_from([b"GET "] * 9 + [b"HEAD ", b"POST ", b"GET  ", b"\r\nGET ", b"GETS ", b""])
TARGETS = st.one_of(
    st.sampled_from(
        [
            b"/a",
            b"//a/../b?c#d",
            b"/a HTTP/1.1\r\nHost: img.example\r\n\r\nGET /b",
            b"/a HTTP/1.1\r\nB: c",
            b"http://evil.example/a",
            b"/" + b"a" * (16 * 1024 - 1),
            b"/" + b"a" * (16 * 1024),
            b"*",
            b"",
        ]
    ),
    st.binary(max_size=3).map(lambda target: b"/" + target),
)
BODIES = [b"body", b"\r\n\r\n", b"0\r\n\r\n"]
ENDS = st.sampled_from([b""] * 6 + [b"\r\n", request(b"/b"), *BODIES])
# Long enough for what was sent to be read alone, most often.
READ_SECONDS = 0.005


@settings(max_examples=150)
@given(
    lines=LINES,
    body=st.sampled_from(BODIES),
    others=st.none() | LINES,
    start=STARTS,
    target=TARGETS,
    end=ENDS,
)
def test_what_is_sent_is_read_the_same_whatever_came_before(
    lines: list[bytes],
    body: bytes,
    others: list[bytes] | None,
    start: bytes,
    target: bytes,
    end: bytes,
) -> None:
    """Be it a request or none, with the head of the one before or another."""
    before = request(b"/before", *lines)
    if any(line.startswith((b"Content-Length: 4", b"Transfer")) for line in lines):
        before += body
    sent = start + target + request(b"", *(lines if others is None else others))[4:] + end

    async def run() -> None:
        async with fake_imgproxy() as first, fake_imgproxy() as second:
            async with wired_proxy(first.port) as alone, connected(alone.port) as wire:
                expected = await _all_that_comes_back(wire, sent)
            async with wired_proxy(second.port) as behind, connected(behind.port) as wire:
                wire.send(before)
                if (await wire.answer()).all(b"Connection"):
                    return
                assert await _all_that_comes_back(wire, sent) == expected
            asked = [one.head for one in second.received if one.target != b"/before"]
            assert asked == [one.head for one in first.received]

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run())


async def _all_that_comes_back(wire: Wire, sent: bytes) -> bytes:
    """Byte by byte, but for what is of one answer alone."""
    wire.send(sent)
    await asyncio.sleep(READ_SECONDS)
    wire.send(request(b"/last", b"Connection: close"))
    return re.sub(rb"(Date|X-Request-ID): [^\r]*\r\n", b"", await wire.rest())


async def test_pipelined_requests_are_answered_in_their_order(
    proxy: WiredProxy, upstream: FakeImgproxy
) -> None:
    slow = Gate()
    upstream.script(b"/0", slow, image(b"image of /0"))
    async with connected(proxy.port) as wire:
        wire.send(b"".join(request(b"/%d" % number) for number in range(10)))
        await slow.reached.wait()
        slow.open.set()
        bodies = [(await wire.answer()).body for _ in range(10)]

    assert bodies == [b"image of /%d" % number for number in range(10)]


@pytest.mark.parametrize("size", [3, 64 * 1024])
async def test_pipelined_body_has_its_time_when_its_turn_comes(
    upstream: FakeImgproxy, size: int
) -> None:
    """Until then nothing is read, and it cannot come."""
    slow, still = Gate(), Gate()
    upstream.script(b"/0", slow, image(b"image of /0"))
    upstream.script(b"/1", still, image(b"image of /1"))
    post = request(b"/2", b"Content-Length: %d" % size, method=b"POST")
    async with wired_proxy(upstream.port, 0.2) as proxy, connected(proxy.port) as wire:
        wire.send(request(b"/0") + request(b"/1") + post)
        await slow.reached.wait()
        wire.send(bytes(size))
        await asyncio.sleep(0.5)  # more than twice what a request may take
        slow.open.set()
        await still.reached.wait()
        await asyncio.sleep(0.5)
        still.open.set()
        answers = [await wire.answer() for _ in range(3)]

    assert [answer.body for answer in answers] == [b"image of /%d" % n for n in range(3)]


@pytest.mark.parametrize("owed", [1, 2])
async def test_pipelined_body_that_does_not_come_is_refused_after_the_answers_owed(
    upstream: FakeImgproxy, owed: int
) -> None:
    post = request(b"/p", b"Content-Length: 3", method=b"POST")
    async with wired_proxy(upstream.port, 0.2) as proxy, connected(proxy.port) as wire:
        wire.send(b"".join(request(b"/%d" % number) for number in range(owed)) + post + b"ab")
        answers = [await wire.answer() for _ in range(owed + 1)]
        wire.send_eof()
        assert await wire.rest() == b""

    assert [answer.status for answer in answers] == [200] * owed + [408]
    assert b"/p" not in [one.target for one in upstream.received]


@pytest.mark.parametrize(
    "bad",
    [
        pytest.param(b"GET http://evil.example/ HTTP/1.1\r\n" + HOST + b"\r\n\r\n", id="target"),
        pytest.param(b"\x00\x01\x02", id="no HTTP"),
        pytest.param(
            b"POST /p HTTP/1.1\r\n" + HOST + b"\r\nTransfer-Encoding: chunked\r\n\r\nno chunk",
            id="body",
        ),
    ],
)
@pytest.mark.parametrize("owed", [1, 2, 3])
async def test_answers_owed_come_before_the_refusal_of_what_follows(
    proxy: WiredProxy, upstream: FakeImgproxy, owed: int, bad: bytes
) -> None:
    slow = Gate()
    upstream.script(b"/0", slow, image(b"image of /0"))
    async with connected(proxy.port) as wire:
        wire.send(b"".join(request(b"/%d" % number) for number in range(owed)) + bad)
        await slow.reached.wait()
        slow.open.set()
        answers = [await wire.answer() for _ in range(owed + 1)]
        assert await wire.rest() == b""

    assert [answer.status for answer in answers] == [200] * owed + [400]
    assert [answer.body for answer in answers[:owed]] == [
        b"image of /%d" % number for number in range(owed)
    ]


async def test_answers_that_a_client_does_not_take_are_not_piled_up(
    upstream: FakeImgproxy,
) -> None:
    upstream.default = lambda asked: (image(bytes(50_000)),)
    async with (
        wired_proxy(upstream.port, CACHE_CLIENT_STALL_SECONDS="0.5") as proxy,
        connected(proxy.port, receive_buffer_bytes=4096) as wire,
    ):
        wire.send(b"".join(request(b"/%d" % number) for number in range(400)))
        await upstream.until_asked(b"/0")
        await proxy.until_idle()  # when it has been cut off

    assert len(upstream.received) < 200  # some megabytes are in the hands of the system


@pytest.mark.parametrize("served", [0, 1, 3])
async def test_client_that_hangs_up_with_requests_in_its_pipeline_is_forgotten(
    proxy: WiredProxy, upstream: FakeImgproxy, served: int
) -> None:
    slow = Gate()
    last = b"/%d" % served
    upstream.script(last, slow, image(b"image of " + last))
    async with connected(proxy.port) as wire:
        wire.send(b"".join(request(b"/%d" % number) for number in range(5)))
        await slow.reached.wait()
        wire.hang_up()
    slow.open.set()
    await proxy.until_idle()
    async with asyncio.timeout(5):
        while proxy.state.connections:
            await asyncio.sleep(0)

    assert [one.target for one in upstream.received] == [b"/%d" % n for n in range(served + 1)]


async def test_client_may_close_its_half_after_the_request(proxy: WiredProxy) -> None:
    """nc and old scripts do so; uvicorn takes it for a hang-up, and so do we: no answer is owed."""
    async with connected(proxy.port) as wire:
        wire.send(request(b"/a"))
        await wire.answer()
        wire.send_eof()
        assert await wire.rest() == b""


async def test_connection_close_in_a_request_is_kept_to(proxy: WiredProxy) -> None:
    async with connected(proxy.port) as wire:
        wire.send(request(b"/a", b"Connection: close") + request(b"/b"))
        answer = await wire.answer()
        assert (answer.body, answer[b"Connection"]) == (b"image of /a", b"close")
        assert await wire.rest() == b""


# Bodies of requests


@pytest.mark.parametrize("method", [b"POST", b"PUT", b"PATCH", b"DELETE", b"GET", b"HEAD"])
async def test_body_of_a_request_stays_with_us(
    proxy: WiredProxy, upstream: FakeImgproxy, method: bytes
) -> None:
    body = b"GET /smuggled HTTP/1.1\r\nHost: img.example\r\n\r\n"
    async with connected(proxy.port) as wire:
        for number in range(3):
            target = b"/%d" % number
            wire.send(request(target, b"Content-Length: %d" % len(body), method=method) + body)
            assert (await wire.answer(method=method)).status == 200
            wire.send(request(b"/between"))
            assert (await wire.answer()).body == b"image of /between"

    assert b"smuggled" not in b"".join(upstream.raw.values())
    assert [one.all(b"content-length") for one in upstream.received] == [[]] * 6
    assert {one.connection for one in upstream.received} <= {0, 1}


@pytest.mark.parametrize(
    "coded",
    [
        pytest.param(b"0\r\n\r\n", id="empty"),
        pytest.param(b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n", id="two chunks"),
        pytest.param(b"3;name=value\r\nabc\r\n0\r\n\r\n", id="chunk extension"),
        pytest.param(b"3\r\nabc\r\n0\r\nX-Trailer: 1\r\nHost: evil\r\n\r\n", id="trailers"),
        pytest.param(b"%x\r\n%b\r\n0\r\n\r\n" % (65536, bytes(65536)), id="64 KB"),
    ],
)
async def test_chunked_body_is_read_away_and_its_trailers_are_no_fields(
    proxy: WiredProxy, upstream: FakeImgproxy, coded: bytes
) -> None:
    async with connected(proxy.port) as wire:
        wire.send(request(b"/a", b"Transfer-Encoding: chunked", method=b"POST") + coded)
        assert (await wire.answer()).status == 200
        wire.send(request(b"/b"))
        assert (await wire.answer()).body == b"image of /b"

    assert [one.line for one in upstream.received] == [
        b"POST /a HTTP/1.1",
        b"GET /b HTTP/1.1",
    ]
    (posted, _) = upstream.received
    assert (posted.all(b"host"), posted.all(b"x-trailer")) == ([b"img.example"], [])
    assert posted.all(b"transfer-encoding") == []


async def test_body_of_64_kilobytes_is_taken(proxy: WiredProxy) -> None:
    body = bytes(64 * 1024)
    length = b"Content-Length: %d" % len(body)
    answer = await ask(proxy.port, b"/a", length, method=b"POST", body=body)
    assert answer.status == 200


@pytest.mark.parametrize(
    ("line", "body"),
    [
        pytest.param(b"Content-Length: 65537", b"", id="announced"),
        pytest.param(b"Content-Length: 65537", bytes(65537), id="announced and sent"),
        pytest.param(b"Content-Length: 99999999999", b"", id="announced, absurd"),
        pytest.param(
            b"Transfer-Encoding: chunked", b"10001\r\n%b\r\n0\r\n\r\n" % bytes(65537), id="chunked"
        ),
        pytest.param(
            b"Transfer-Encoding: chunked", b"1\r\nx\r\n" * 65537 + b"0\r\n\r\n", id="tiny chunks"
        ),
    ],
)
async def test_larger_body_is_refused_and_imgproxy_not_asked(
    proxy: WiredProxy, upstream: FakeImgproxy, line: bytes, body: bytes
) -> None:
    async with connected(proxy.port) as wire:
        wire.send(request(b"/a", line, method=b"POST") + body)
        answer = await wire.answer()

    assert answer.status == 413
    assert answer[b"Cache-Control"] == b"no-store"
    assert upstream.raw == {}


@pytest.mark.parametrize(
    "endless",
    [
        pytest.param(b"ffffffff\r\n", id="chunk"),
        pytest.param(b"1;", id="chunk extension"),
        pytest.param(b"0\r\nTrailer: ", id="trailer"),
        pytest.param(b"0\r\n", id="trailer name"),
    ],
)
async def test_body_without_an_end_is_broken_off(
    proxy: WiredProxy, upstream: FakeImgproxy, endless: bytes
) -> None:
    async with connected(proxy.port) as wire:
        wire.send(request(b"/a", b"Transfer-Encoding: chunked", method=b"POST") + endless)
        with pytest.raises(ConnectionError):
            await wire.pour(b"a" * 100_000, times=100)
    await proxy.until_idle()
    assert upstream.raw == {}


async def test_client_that_goes_in_the_middle_of_its_body_costs_imgproxy_nothing(
    proxy: WiredProxy, upstream: FakeImgproxy
) -> None:
    await ask(proxy.port, b"/warm")
    async with connected(proxy.port) as wire:
        wire.send(request(b"/a", b"Content-Length: 10", b"Expect: 100-continue") + b"abc")
        assert (await wire.head())[0] == 100
        wire.hang_up()
    while proxy.state.connections or proxy.state.tasks:
        await asyncio.sleep(0)

    assert [one.target for one in upstream.received] == [b"/warm"]


async def test_client_that_expects_100_continue_gets_it(
    proxy: WiredProxy, upstream: FakeImgproxy
) -> None:
    lines = (b"Content-Length: 3", b"Expect: 100-continue")
    async with connected(proxy.port) as wire:
        wire.send(request(b"/a", *lines, method=b"POST"))
        assert await wire.head() == (100, [])
        wire.send(b"abc")
        assert (await wire.answer()).status == 200

    assert upstream.received[0].all(b"expect") == []


async def test_client_whose_body_would_be_too_large_is_told_before_it_sends_it(
    proxy: WiredProxy,
) -> None:
    lines = (b"Content-Length: 100000", b"Expect: 100-continue")
    async with connected(proxy.port) as wire:
        wire.send(request(b"/a", *lines, method=b"POST"))
        assert (await wire.head())[0] == 413


@pytest.mark.parametrize("upgrade", [b"websocket", b"h2c", b"TLS/1.0"])
@pytest.mark.parametrize("body", [b"", b"hello"])
async def test_upgrade_is_not_asked_for_and_the_request_answered(
    proxy: WiredProxy, upstream: FakeImgproxy, upgrade: bytes, body: bytes
) -> None:
    lines = [b"Connection: Upgrade", b"Upgrade: " + upgrade, b"Sec-WebSocket-Key: x"]
    if body:
        lines.append(b"Content-Length: %d" % len(body))
    async with connected(proxy.port) as wire:
        wire.send(request(b"/a", *lines) + body)
        answer = await wire.answer()

    assert (answer.status, answer.body) == (200, b"image of /a")
    assert upstream.received[0].all(b"upgrade") == []


# Framing of answers


@pytest.mark.parametrize(
    "method", [b"GET", b"HEAD", b"OPTIONS", b"POST", b"PUT", b"DELETE", b"PATCH"]
)
async def test_every_method_passes(
    proxy: WiredProxy, upstream: FakeImgproxy, method: bytes
) -> None:
    upstream.script(b"/a", head(b"Content-Length: 0", status=b"404 Not Found"))
    answer = await ask(proxy.port, b"/a", method=method)

    assert answer.status == 404
    assert upstream.received[0].line == method + b" /a HTTP/1.1"


async def test_head_keeps_the_length_that_imgproxy_declares(
    proxy: WiredProxy, upstream: FakeImgproxy
) -> None:
    upstream.script(b"/a", head(*STORABLE, b"Content-Length: 12345"))
    async with connected(proxy.port) as wire:
        for _ in range(3):
            wire.send(request(b"/a", method=b"HEAD"))
            answer = await wire.answer(method=b"HEAD")
            assert (answer.status, answer[b"Content-Length"]) == (200, b"12345")
        wire.send(request(b"/b"))
        assert (await wire.answer()).body == b"image of /b"


@pytest.mark.parametrize("status", [b"204 No Content", b"304 Not Modified"])
async def test_answer_that_cannot_have_a_body_has_none(
    proxy: WiredProxy, upstream: FakeImgproxy, status: bytes
) -> None:
    upstream.script(b"/a", head(b'ETag: "x"', status=status))
    async with connected(proxy.port) as wire:
        wire.send(request(b"/a"))
        answer = await wire.answer()
        assert (answer.status, answer[b"ETag"]) == (int(status[:3]), b'"x"')
        assert answer.all(b"Content-Length") == answer.all(b"Transfer-Encoding") == []
        wire.send(request(b"/b"))
        assert (await wire.answer()).body == b"image of /b"


async def test_body_of_unknown_length_reaches_the_client_in_chunks_as_it_comes(
    proxy: WiredProxy, upstream: FakeImgproxy
) -> None:
    gate = Gate()
    upstream.script(
        b"/a",
        head(*STORABLE, b"Transfer-Encoding: chunked") + b"5\r\nfirst\r\n",
        gate,
        b"6\r\nsecond\r\n0\r\n\r\n",
    )
    async with connected(proxy.port) as wire:
        wire.send(request(b"/a"))
        _, fields = await wire.head()
        assert await wire.some(10) == b"5\r\nfirst\r\n"
        gate.open.set()
        assert await wire.some(16) == b"6\r\nsecond\r\n0\r\n\r\n"

    assert (b"Transfer-Encoding", b"chunked") in fields


@pytest.mark.parametrize("status", [b"299 Odd", b"451 Law", b"599 Odd", b"600 Odd", b"999 Denied"])
async def test_status_that_nobody_knows_is_passed_on(
    proxy: WiredProxy, upstream: FakeImgproxy, status: bytes
) -> None:
    upstream.script(b"/a", head(b"Content-Length: 2", status=status) + b"no")
    answer = await ask(proxy.port, b"/a")

    assert (answer.status, answer.body) == (int(status[:3]), b"no")


async def test_answer_cut_by_imgproxy_is_cut_for_the_client(
    proxy: WiredProxy, upstream: FakeImgproxy
) -> None:
    upstream.script(b"/a", image(BODY)[:-1], End.CLOSE)
    answer = await ask(proxy.port, b"/a")

    assert (answer.status, answer.is_whole) == (200, False)
