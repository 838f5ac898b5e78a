"""Read-through: what the tiers answer, when imgproxy is asked, and what it is asked then."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest

from imgproxy_cache.errors import StoreError
from imgproxy_cache.stalls import MIN_CLIENT_BYTES_PER_SECOND
from tests.servers.upstreams import End, FakeImgproxy, Gate, head, image
from tests.servers.wired import STORE_SECONDS, WiredProxy, wired_proxy
from tests.wire import ask, connected, request

TARGET = b"/_/rs:fit:300/plain/local:///a.jpg"
BODY = bytes(range(256)) * 100
SHA256 = hashlib.sha256(BODY).hexdigest().encode()
MINUTE = (b"Server: imgproxy", b"Content-Type: image/jpeg", b"Cache-Control: max-age=60, public")

DENIED = StoreError(
    operation="put", place="memory://images", cause="denied", hint="let it write", kind="denied"
)


@pytest.fixture
async def proxy(upstream: FakeImgproxy) -> AsyncIterator[WiredProxy]:
    async with reading(upstream) as wired:
        yield wired


def reading(upstream: FakeImgproxy, **environ: str) -> AbstractAsyncContextManager[WiredProxy]:
    return wired_proxy(upstream.port, CACHE_READ_THROUGH="true", **environ)


def without_patience(
    upstream: FakeImgproxy, **environ: str
) -> AbstractAsyncContextManager[WiredProxy]:
    """What is stale is given as soon as it may be."""
    return wired_proxy(
        upstream.port,
        10.0,
        MIN_CLIENT_BYTES_PER_SECOND,
        75,
        0.0,
        CACHE_READ_THROUGH="true",
        **environ,
    )


def minute(body: bytes, *fields: bytes) -> bytes:
    """An image that is fresh for a minute."""
    return head(*MINUTE, b"Content-Length: %d" % len(body), *fields) + body


def not_modified(*fields: bytes) -> bytes:
    return head(*fields, status=b"304 Not Modified")


# Hits


async def test_second_request_is_answered_from_memory(
    proxy: WiredProxy, upstream: FakeImgproxy
) -> None:
    upstream.script(TARGET, image(BODY, b"X-Origin-Width: 640", b'ETag: "source"'))
    first = await ask(proxy.port, TARGET)
    proxy.clock.now += 30

    second = await ask(proxy.port, TARGET)

    assert (first.status, first.body, first.all(b"ETag")) == (200, BODY, [])
    assert first[b"Cache-Status"] == b"imgproxy-cache; fwd=uri-miss; stored"
    assert (second.status, second.body) == (200, BODY)
    assert second[b"Cache-Status"] == b"imgproxy-cache; hit; ttl=31535970; detail=memory"
    assert second[b"Age"] == b"30"
    assert second[b"X-Origin-Width"] == b"640"
    assert second[b"ETag"] == b'"%b"' % SHA256[:32]
    assert len(upstream.images_asked_for) == 1


async def test_known_request_gets_the_same_bytes_from_the_fast_lane(
    proxy: WiredProxy, upstream: FakeImgproxy
) -> None:
    upstream.script(TARGET, image(BODY))
    await ask(proxy.port, TARGET)
    async with connected(proxy.port) as wire:
        answers = []
        for _ in range(2):
            wire.send(request(TARGET, b"X-New: 1"))
            answers.append(await wire.answer())

    ordinary, fast = answers
    assert ordinary.body == BODY
    assert fast == ordinary
    assert proxy.hits_at_once == 1


@pytest.mark.parametrize(
    "lines",
    [
        pytest.param([b"Cache-Control: no-cache"], id="Cache-Control"),
        pytest.param([b"Cache-Control: max-age=0", b"Pragma: no-cache"], id="Pragma"),
    ],
)
async def test_clients_cannot_have_an_image_rendered_anew(
    proxy: WiredProxy, upstream: FakeImgproxy, lines: list[bytes]
) -> None:
    await ask(proxy.port, TARGET)

    answer = await ask(proxy.port, TARGET, *lines)

    assert b"hit" in answer[b"Cache-Status"]
    assert len(upstream.images_asked_for) == 1


async def test_query_and_spelling_share_one_entry(
    proxy: WiredProxy, upstream: FakeImgproxy
) -> None:
    await ask(proxy.port, TARGET)

    await ask(proxy.port, TARGET + b"?v=2")
    await ask(proxy.port, TARGET.replace(b"/_/", b"/insecure/"))

    assert len(upstream.images_asked_for) == 1


async def test_head_is_answered_from_what_is_kept(
    proxy: WiredProxy, upstream: FakeImgproxy
) -> None:
    upstream.script(TARGET, image(BODY))
    await ask(proxy.port, TARGET)

    answer = await ask(proxy.port, TARGET, method=b"HEAD")

    assert (answer.status, answer[b"Content-Length"]) == (200, b"%d" % len(BODY))
    assert b"hit" in answer[b"Cache-Status"]
    assert len(upstream.images_asked_for) == 1


async def test_head_of_what_is_not_kept_invalidates_nothing_and_fills_nothing(
    proxy: WiredProxy, upstream: FakeImgproxy
) -> None:
    answer = await ask(proxy.port, TARGET, method=b"HEAD")
    assert answer[b"Cache-Status"] == b"imgproxy-cache; fwd=method; detail=method"

    await ask(proxy.port, TARGET)

    assert len(upstream.images_asked_for) == 2


# Parts and conditions


async def test_part_of_a_kept_image(proxy: WiredProxy, upstream: FakeImgproxy) -> None:
    upstream.script(TARGET, image(BODY))
    await ask(proxy.port, TARGET)

    answer = await ask(proxy.port, TARGET, b"Range: bytes=256-511")

    assert (answer.status, answer.body) == (206, bytes(range(256)))
    assert answer[b"Content-Range"] == b"bytes 256-511/25600"


async def test_part_of_an_image_that_is_not_kept_yet_is_cut_out_of_the_whole(
    proxy: WiredProxy, upstream: FakeImgproxy
) -> None:
    upstream.script(TARGET, image(BODY))

    part = await ask(proxy.port, TARGET, b"Range: bytes=0-0", b'If-None-Match: "x"')
    whole = await ask(proxy.port, TARGET)

    assert (part.status, part.body) == (206, b"\x00")
    assert whole.body == BODY
    (received,) = upstream.images_asked_for
    assert received.all(b"range") == received.all(b"if-none-match") == []


async def test_part_of_an_image_that_another_waits_for_is_cut_out_of_that(
    proxy: WiredProxy, upstream: FakeImgproxy
) -> None:
    gate = Gate()
    upstream.script(TARGET, gate, image(BODY))

    whole = asyncio.create_task(ask(proxy.port, TARGET))
    await gate.reached.wait()
    part = asyncio.create_task(ask(proxy.port, TARGET, b"Range: bytes=1-2"))
    while len(proxy.state.tasks) < 2:
        await asyncio.sleep(0)
    gate.open.set()

    assert ((await whole).body, (await part).body) == (BODY, BODY[1:3])
    assert (await part)[b"Cache-Status"] == b"imgproxy-cache; fwd=uri-miss; collapsed; stored"
    assert len(upstream.images_asked_for) == 1


async def test_client_that_has_the_image_is_told_so(
    proxy: WiredProxy, upstream: FakeImgproxy
) -> None:
    upstream.script(TARGET, image(BODY))
    await ask(proxy.port, TARGET)
    etag = (await ask(proxy.port, TARGET))[b"ETag"]

    answer = await ask(proxy.port, TARGET, b"If-None-Match: " + etag)

    assert (answer.status, answer.body, answer[b"ETag"]) == (304, b"", etag)


async def test_part_of_an_image_that_comes_cut_is_an_error(
    proxy: WiredProxy, upstream: FakeImgproxy
) -> None:
    upstream.script(TARGET, minute(BODY)[:-1], End.CLOSE)

    answer = await ask(proxy.port, TARGET, b"Range: bytes=0-1")

    assert (answer.status, answer.is_whole) == (502, True)
    assert answer[b"Cache-Status"] == b"imgproxy-cache; fwd=uri-miss; detail=broken"


async def test_large_image_that_came_whole_is_not_asked_for_again_while_it_is_put_away(
    proxy: WiredProxy, upstream: FakeImgproxy
) -> None:
    body = bytes(7_000_000)
    upstream.script(TARGET, image(body))
    async with connected(proxy.port) as wire:
        answers = []
        for _ in range(2):
            wire.send(request(TARGET))
            answers.append(await wire.answer())

    assert [one.body for one in answers] == [body, body]
    assert answers[1][b"Cache-Status"].startswith(b"imgproxy-cache; hit; ")
    assert len(upstream.images_asked_for) == 1


# Variants


async def test_variants_are_selected_by_the_formats_that_a_client_takes(
    proxy: WiredProxy, upstream: FakeImgproxy
) -> None:
    upstream.script(TARGET, image(b"webp", b"Vary: Accept"))
    upstream.script(TARGET, image(b"jpeg", b"Vary: Accept"))
    webp, other_webp = b"Accept: image/webp,*/*", b"Accept: text/html, image/webp;q=0.8"

    first = [(await ask(proxy.port, TARGET, *lines)).body for lines in ([webp], [])]
    again = [(await ask(proxy.port, TARGET, *lines)).body for lines in ([other_webp], [])]

    assert first == again == [b"webp", b"jpeg"]
    assert len(upstream.images_asked_for) == 2


async def test_first_variant_is_new_and_the_second_another_one(
    proxy: WiredProxy, upstream: FakeImgproxy
) -> None:
    upstream.script(TARGET, image(b"webp", b"Vary: Accept"))
    upstream.script(TARGET, image(b"jpeg", b"Vary: Accept"))

    answers = [await ask(proxy.port, TARGET, *lines) for lines in ([b"Accept: image/webp"], [])]

    assert [one[b"Cache-Status"] for one in answers] == [
        b"imgproxy-cache; fwd=uri-miss; stored",
        b"imgproxy-cache; fwd=vary-miss; stored",
    ]


async def test_variants_are_selected_in_the_fast_lane_too(
    proxy: WiredProxy, upstream: FakeImgproxy
) -> None:
    upstream.script(TARGET, image(b"webp", b"Vary: Accept"))
    upstream.script(TARGET, image(b"jpeg", b"Vary: Accept"))
    bodies = []
    async with connected(proxy.port) as wire:
        for lines in ([b"Accept: image/webp"], []) * 3:
            wire.send(request(TARGET, *lines))
            bodies.append((await wire.answer()).body)

    assert bodies == [b"webp", b"jpeg"] * 3
    assert proxy.hits_at_once == 4


async def test_variants_by_what_is_none_of_imgproxys_are_not_mixed_up(
    upstream: FakeImgproxy, tmp_path: Path
) -> None:
    """As one that is elsewhere, behind a server that answers for it across origins."""
    gate = Gate()
    upstream.default = lambda received: (
        gate,
        image(received.all(b"origin")[0], b"Vary: Origin"),
    )
    origins = [b"https://%d.example" % (number % 3) for number in range(9)]
    disk = str(tmp_path / "disk")
    bodies = []
    for _ in range(2):
        async with reading(upstream, CACHE_DISK_DIR=disk) as proxy:
            asked = [
                asyncio.create_task(ask(proxy.port, TARGET, b"Origin: " + origin))
                for origin in origins
            ]
            await gate.reached.wait()
            while len(proxy.state.tasks) < len(asked) and not gate.open.is_set():
                await asyncio.sleep(0)
            gate.open.set()
            bodies.append([(await one).body for one in asked])

    assert bodies == [origins, origins]


# Stale images


async def test_stale_image_is_validated_with_imgproxys_own_etag(
    proxy: WiredProxy, upstream: FakeImgproxy
) -> None:
    upstream.script(TARGET, minute(BODY, b'ETag: W/"source"'))
    upstream.script(TARGET, not_modified(b"Cache-Control: max-age=90, public", b"X-New: 1"))
    await ask(proxy.port, TARGET)
    proxy.clock.now += 61

    validated = await ask(proxy.port, TARGET)
    proxy.clock.now += 80
    hit = await ask(proxy.port, TARGET)

    assert (validated.status, validated.body) == (200, BODY)
    assert validated[b"Cache-Status"] == (
        b"imgproxy-cache; fwd=stale; fwd-status=304; ttl=90; detail=memory"
    )
    assert upstream.images_asked_for[1].all(b"if-none-match") == [b'W/"source"']
    assert (hit.body, hit[b"Age"], hit[b"X-New"]) == (BODY, b"80", b"1")
    assert hit[b"Cache-Status"] == b"imgproxy-cache; hit; ttl=10; detail=memory"
    assert len(upstream.images_asked_for) == 2


async def test_stale_image_that_has_changed_is_replaced(
    proxy: WiredProxy, upstream: FakeImgproxy
) -> None:
    upstream.script(TARGET, minute(b"old", b'ETag: "1"'))
    upstream.script(TARGET, minute(b"new", b'ETag: "2"'))
    await ask(proxy.port, TARGET)
    proxy.clock.now += 60

    bodies = [(await ask(proxy.port, TARGET)).body for _ in range(2)]

    assert bodies == [b"new", b"new"]
    assert len(upstream.images_asked_for) == 2


async def test_stale_image_is_given_while_it_is_validated(
    proxy: WiredProxy, upstream: FakeImgproxy
) -> None:
    gate = Gate()
    lasting = b"Cache-Control: max-age=60, stale-while-revalidate=30"
    old = head(*MINUTE[:2], lasting, b"Content-Length: 3") + b"old"
    upstream.script(TARGET, old)
    upstream.script(TARGET, gate, old.replace(b"old", b"new"))
    await ask(proxy.port, TARGET)
    proxy.clock.now += 70

    stale = [await ask(proxy.port, TARGET) for _ in range(2)]
    gate.open.set()
    await proxy.until_idle()
    newer = await ask(proxy.port, TARGET)

    assert [one.body for one in stale] == [b"old", b"old"]
    assert stale[0][b"Cache-Status"] == b"imgproxy-cache; hit; ttl=-10; detail=memory"
    assert newer.body == b"new"
    assert len(upstream.images_asked_for) == 2


async def test_answer_that_something_has_not_changed_is_not_taken_for_another_version(
    proxy: WiredProxy, upstream: FakeImgproxy
) -> None:
    upstream.script(TARGET, minute(b"old", b'ETag: "1"'))
    upstream.script(TARGET, not_modified(b'ETag: "2"'))
    upstream.script(TARGET, minute(b"new", b'ETag: "2"'))
    await ask(proxy.port, TARGET)
    proxy.clock.now += 60

    answers = [await ask(proxy.port, TARGET) for _ in range(2)]

    assert [one.body for one in answers] == [b"new", b"new"]
    assert answers[0][b"Cache-Status"] == b"imgproxy-cache; fwd=stale; stored"
    conditions = [one.all(b"if-none-match") for one in upstream.images_asked_for]
    assert conditions == [[], [b'"1"'], []]


async def test_image_that_turned_out_to_be_another_version_is_not_given_while_validated_again(
    proxy: WiredProxy, upstream: FakeImgproxy
) -> None:
    lasting = b"Cache-Control: max-age=60, stale-while-revalidate=30"
    old = head(*MINUTE[:2], lasting, b"Content-Length: 3", b'ETag: "1"') + b"old"
    upstream.script(TARGET, old)
    upstream.script(TARGET, not_modified(b'ETag: "2"'))
    upstream.script(TARGET, minute(b"new", b'ETag: "2"'))
    await ask(proxy.port, TARGET)
    proxy.clock.now += 70

    bodies = []
    for _ in range(3):
        bodies.append((await ask(proxy.port, TARGET)).body)
        await proxy.until_idle()

    assert bodies == [b"old", b"new", b"new"]
    assert len(upstream.images_asked_for) == 3


@pytest.mark.parametrize(
    "failure",
    [
        pytest.param((head(b"Content-Length: 0", status=b"503 Busy"),), id="503"),
        pytest.param((head(b"Content-Length: 0", status=b"429 Too Many"),), id="429"),
        pytest.param((End.RESET,), id="reset"),
    ],
)
async def test_stale_image_is_given_when_imgproxy_fails(
    upstream: FakeImgproxy, failure: tuple[bytes | End, ...]
) -> None:
    upstream.script(TARGET, minute(BODY))
    upstream.script(TARGET, *failure)
    async with reading(upstream, CACHE_STALE_IF_ERROR_SECONDS="100") as proxy:
        await ask(proxy.port, TARGET)
        proxy.clock.now += 159
        stale = await ask(proxy.port, TARGET)
        proxy.clock.now += 1
        failed = await ask(proxy.port, TARGET)

    assert (stale.status, stale.body, stale[b"Age"]) == (200, BODY, b"159")
    assert stale[b"Cache-Status"].startswith(b"imgproxy-cache; fwd=stale; ")
    assert failed.status in (429, 502, 503)


async def test_part_of_an_image_is_cut_out_of_the_stale_one_when_imgproxys_is_cut(
    proxy: WiredProxy, upstream: FakeImgproxy
) -> None:
    upstream.script(TARGET, minute(b"old"))
    upstream.script(TARGET, minute(b"new")[:-1], End.CLOSE)
    await ask(proxy.port, TARGET)
    proxy.clock.now += 61

    stale = await ask(proxy.port, TARGET, b"Range: bytes=0-1")

    assert (stale.status, stale.body) == (206, b"ol")
    assert stale[b"Cache-Status"] == b"imgproxy-cache; fwd=stale; ttl=-1; detail=memory"


@pytest.mark.parametrize("method", [b"GET", b"HEAD"])
async def test_stale_image_is_given_when_imgproxy_hangs_and_what_comes_in_the_end_is_kept(
    upstream: FakeImgproxy, method: bytes
) -> None:
    gate = Gate()
    upstream.script(TARGET, minute(b"old"))
    upstream.script(TARGET, gate, minute(b"new"))
    async with without_patience(upstream, CACHE_STALE_IF_ERROR_SECONDS="100") as proxy:
        await ask(proxy.port, TARGET)
        proxy.clock.now += 61
        asked = asyncio.create_task(ask(proxy.port, TARGET))
        await gate.reached.wait()
        stale = [await asked, await ask(proxy.port, TARGET, method=method)]
        gate.open.set()
        await proxy.until_idle()
        newer = await ask(proxy.port, TARGET)

    assert [one.status for one in stale] == [200, 200]
    assert [one.body for one in stale] == [b"old", b"old" if method == b"GET" else b""]
    assert {one[b"Cache-Status"] for one in stale} == {
        b"imgproxy-cache; fwd=stale; ttl=-1; detail=memory"
    }
    assert [one["outcome"] for one in proxy.requests[1:3]] == ["stale-if-error"] * 2
    assert newer.body == b"new"


@pytest.mark.parametrize(
    ("directives", "seconds"),
    [
        pytest.param(b"max-age=60, must-revalidate", 61, id="it must be validated"),
        pytest.param(b"max-age=60", 160, id="it is too old"),
    ],
)
async def test_imgproxy_is_waited_for_where_what_is_stale_may_not_be_given(
    upstream: FakeImgproxy, directives: bytes, seconds: int
) -> None:
    gate = Gate()
    stale = head(*MINUTE[:2], b"Cache-Control: " + directives, b"Content-Length: 3") + b"old"
    upstream.script(TARGET, stale)
    upstream.script(TARGET, gate, minute(b"new"))
    async with without_patience(upstream, CACHE_STALE_IF_ERROR_SECONDS="100") as proxy:
        await ask(proxy.port, TARGET)
        proxy.clock.now += seconds
        asked = asyncio.create_task(ask(proxy.port, TARGET))
        await gate.reached.wait()
        gate.open.set()

        assert (await asked).body == b"new"


async def test_stale_image_that_must_be_validated_is_not_given_when_imgproxy_fails(
    upstream: FakeImgproxy,
) -> None:
    strict = b"Cache-Control: max-age=60, must-revalidate"
    upstream.script(TARGET, head(*MINUTE[:2], strict, b"Content-Length: 3") + b"old")
    upstream.script(TARGET, End.RESET)
    async with reading(upstream) as proxy:
        await ask(proxy.port, TARGET)
        proxy.clock.now += 61
        failed = await ask(proxy.port, TARGET)

    assert failed.status == 502


# What is kept nowhere


@pytest.mark.parametrize(
    ("target", "fields"),
    [
        pytest.param(TARGET, [b"Cache-Control: no-store"], id="no-store"),
        pytest.param(TARGET, [b"Cache-Control: private, max-age=60"], id="private"),
        pytest.param(TARGET, [], id="no freshness"),
        pytest.param(TARGET, [*MINUTE[2:], b"Set-Cookie: a=b"], id="cookie"),
        pytest.param(TARGET, [*MINUTE[2:], b"Vary: *"], id="Vary"),
        pytest.param(TARGET.replace(b"rs:fit:300", b"exp:9999999999"), MINUTE[2:], id="expires"),
        pytest.param(TARGET.replace(b"rs:fit:300", b"raw:1"), MINUTE[2:], id="raw"),
    ],
)
async def test_what_may_not_be_kept_is_asked_for_every_time(
    proxy: WiredProxy, upstream: FakeImgproxy, target: bytes, fields: list[bytes]
) -> None:
    upstream.script(target, head(b"Content-Type: image/jpeg", b"Content-Length: 1", *fields) + b"x")

    for _ in range(3):
        assert (await ask(proxy.port, target)).body == b"x"

    assert len(upstream.images_asked_for) == 3


async def test_image_that_was_cut_is_not_kept(proxy: WiredProxy, upstream: FakeImgproxy) -> None:
    upstream.script(TARGET, image(BODY)[:-1], End.CLOSE)
    upstream.script(TARGET, image(BODY))

    cut = await ask(proxy.port, TARGET)
    whole = await ask(proxy.port, TARGET)

    assert (cut.is_whole, whole.body) == (False, BODY)
    assert len(upstream.images_asked_for) == 2


async def test_missing_image_is_remembered_if_asked_for(upstream: FakeImgproxy) -> None:
    upstream.script(TARGET, head(b"Content-Length: 4", status=b"404 Not Found") + b"none")
    async with reading(upstream, CACHE_NEGATIVE_SECONDS="10") as proxy:
        answers = [await ask(proxy.port, TARGET) for _ in range(2)]
        proxy.clock.now += 10
        await ask(proxy.port, TARGET)

    assert [(one.status, one.body) for one in answers] == [(404, b"none")] * 2
    assert answers[1][b"Cache-Control"] == b"no-store"
    assert len(upstream.images_asked_for) == 2


async def test_image_that_is_missing_by_now_does_not_come_back_from_disk(
    upstream: FakeImgproxy, tmp_path: Path
) -> None:
    upstream.script(TARGET, minute(BODY))
    upstream.script(TARGET, head(b"Content-Length: 4", status=b"404 Not Found") + b"none")
    upstream.script(TARGET, End.RESET)
    disk = str(tmp_path / "disk")
    statuses = []
    async with reading(upstream, CACHE_NEGATIVE_SECONDS="10", CACHE_DISK_DIR=disk) as proxy:
        for seconds in (0, 61):
            proxy.clock.now += seconds
            statuses.append((await ask(proxy.port, TARGET)).status)
    async with reading(upstream, CACHE_NEGATIVE_SECONDS="10", CACHE_DISK_DIR=disk) as restarted:
        restarted.clock.now += 62
        statuses.append((await ask(restarted.port, TARGET)).status)

    assert statuses == [200, 404, 502]


# Access


async def test_cookies_bypass_the_tiers_where_imgproxy_passes_them_on(
    upstream: FakeImgproxy,
) -> None:
    async with reading(upstream, IMGPROXY_COOKIE_PASSTHROUGH="true") as proxy:
        await ask(proxy.port, TARGET)
        answer = await ask(proxy.port, TARGET, b"Cookie: me=1")

    assert answer[b"Cache-Status"] == b"imgproxy-cache; fwd=bypass; detail=cookie"
    assert len(upstream.images_asked_for) == 2


async def test_who_does_not_know_the_secret_is_answered_by_imgproxy(
    upstream: FakeImgproxy,
) -> None:
    forbidden = head(b"Content-Length: 0", status=b"403 Forbidden")
    upstream.script(TARGET, image(BODY))
    upstream.script(TARGET, forbidden)
    knows, does_not = b"Authorization: Bearer open", b"Authorization: Bearer opem"
    async with reading(upstream, IMGPROXY_SECRET="open") as proxy:
        statuses = [
            (await ask(proxy.port, TARGET, *lines)).status
            for lines in ([knows], [knows], [knows], [does_not], [], [knows])
        ]

    assert statuses == [200, 200, 200, 403, 403, 200]
    assert len(upstream.images_asked_for) == 3
    assert proxy.store.images == {}


# The bucket


async def test_image_is_read_back_from_the_store_after_a_restart(upstream: FakeImgproxy) -> None:
    upstream.script(TARGET, image(BODY, b'Content-Disposition: inline; filename="a.jpg"'))
    async with reading(upstream) as proxy:
        await ask(proxy.port, TARGET)
        await proxy.until_idle()
        images = proxy.store.images
    async with reading(upstream) as proxy:
        proxy.store.images = images
        from_store = await ask(proxy.port, TARGET)
        from_memory = await ask(proxy.port, TARGET)

    assert (from_store.status, from_store.body) == (200, BODY)
    assert from_store[b"Content-Disposition"] == b'inline; filename="a.jpg"'
    assert from_store[b"Cache-Status"] == b"imgproxy-cache; hit; ttl=31536000; detail=store"
    assert from_memory[b"Cache-Status"] == b"imgproxy-cache; hit; ttl=31536000; detail=memory"
    assert len(upstream.images_asked_for) == 1


async def test_image_is_no_younger_in_the_store_than_in_memory(
    proxy: WiredProxy, upstream: FakeImgproxy
) -> None:
    upstream.script(TARGET, image(BODY, b"Age: 3600"))
    await ask(proxy.port, TARGET)
    await proxy.until_idle()
    proxy.clock.now += 10
    from_memory = await ask(proxy.port, TARGET)
    assert proxy.read_through is not None
    proxy.read_through.forget(b"?rs:fit:300/plain/local:///a.jpg")
    from_store = await ask(proxy.port, TARGET)

    assert from_memory[b"Cache-Status"] == b"imgproxy-cache; hit; ttl=31532390; detail=memory"
    assert from_store[b"Cache-Status"] == b"imgproxy-cache; hit; ttl=31532390; detail=store"
    assert from_memory[b"Age"] == from_store[b"Age"] == b"3610"


async def test_disk_does_not_wait_for_a_store_that_fails(
    upstream: FakeImgproxy, tmp_path: Path
) -> None:
    environ = {"CACHE_DISK_DIR": str(tmp_path / "disk"), "CACHE_MEMORY_BYTES": "0"}
    async with reading(upstream, **environ) as proxy:
        proxy.store.failure = DENIED
        await ask(proxy.port, TARGET + b"1")  # whose upload finds out
        async with asyncio.timeout(STORE_SECONDS):
            while proxy.uploads.store_problem is None:
                await asyncio.sleep(0.01)
        answers = [await ask(proxy.port, TARGET) for _ in range(2)]
    async with reading(upstream, **environ) as restarted:
        answers.append(await ask(restarted.port, TARGET))

    assert [one[b"Cache-Status"] for one in answers] == [
        b"imgproxy-cache; fwd=uri-miss; stored",
        b"imgproxy-cache; hit; ttl=31536000; detail=disk",
        b"imgproxy-cache; hit; ttl=31536000; detail=disk",
    ]


async def test_short_lived_image_is_kept_in_memory_and_not_in_the_store(
    proxy: WiredProxy, upstream: FakeImgproxy
) -> None:
    upstream.script(TARGET, minute(BODY))

    answers = [await ask(proxy.port, TARGET) for _ in range(2)]
    await proxy.until_idle()

    assert answers[0][b"Cache-Status"] == b"imgproxy-cache; fwd=uri-miss; stored"
    assert b"hit" in answers[1][b"Cache-Status"]
    assert proxy.store.images == {}


# Outage


async def test_imgproxy_that_fails_is_left_alone_and_kept_images_keep_coming(
    upstream: FakeImgproxy,
) -> None:
    async with reading(upstream) as proxy:
        await ask(proxy.port, TARGET)
        busy = head(b"Content-Length: 0", status=b"503 Service Unavailable")
        upstream.default = lambda received: (busy,)
        failed = [await ask(proxy.port, TARGET + b"%d" % n) for n in range(5)]
        asked = len(upstream.images_asked_for)
        refused = await ask(proxy.port, TARGET + b"6")
        hit = await ask(proxy.port, TARGET)
        proxy.clock.now += 365 * 86_400 + 1
        stale = await ask(proxy.port, TARGET)

    assert [one.status for one in failed] == [503] * 5
    assert (refused.status, refused[b"Retry-After"]) == (503, b"1")
    assert refused[b"Cache-Status"] == b"imgproxy-cache; detail=failing"
    assert hit.status == 200
    assert stale[b"Cache-Status"] == b"imgproxy-cache; hit; ttl=-1; detail=memory"
    assert len(upstream.images_asked_for) == asked


@pytest.mark.parametrize("method", [b"HEAD", b"OPTIONS", b"POST"])
async def test_what_no_image_is_made_for_does_not_say_that_imgproxy_works(
    method: bytes, upstream: FakeImgproxy
) -> None:
    async with reading(upstream) as proxy:
        busy = head(b"Content-Length: 0", status=b"503 Service Unavailable")
        at_once = head(b"Content-Length: 0")
        upstream.default = lambda received: (
            busy if received.head.startswith(b"GET ") else at_once,
        )
        for number in range(4):
            await ask(proxy.port, TARGET + b"%d" % number)
        answered = await ask(proxy.port, TARGET, method=method)
        last_asked = await ask(proxy.port, TARGET + b"4")
        refused = await ask(proxy.port, TARGET + b"5")

    assert answered.status == 200
    assert [one.all(b"Retry-After") for one in (last_asked, refused)] == [[], [b"1"]]


async def test_health_of_imgproxy_is_asked_however_many_images_fail(
    upstream: FakeImgproxy,
) -> None:
    async with reading(upstream) as proxy:
        busy = head(b"Content-Length: 0", status=b"503 Service Unavailable")
        upstream.default = lambda received: (busy,)
        for number in range(5):
            await ask(proxy.port, TARGET + b"%d" % number)
        answers = [await ask(proxy.port, target) for target in (TARGET, b"/health", TARGET)]

    assert [one.status for one in answers] == [503, 200, 503]
    assert [one.all(b"Retry-After") for one in answers] == [[b"1"], [], [b"1"]]
