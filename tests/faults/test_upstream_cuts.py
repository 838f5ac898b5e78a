"""imgproxy's answers break off at every place: clients see it, and nothing of them is stored."""

from collections.abc import Callable

import pytest

from tests.faults.form import short_or_long
from tests.servers.upstreams import STORABLE, End, FakeImgproxy, chunked, fake_imgproxy, head, image
from tests.servers.wired import WiredProxy, wired_proxy
from tests.wire import ask

BODY = bytes(range(256)) * 40
CUTS = short_or_long(60, 500)


def with_length(cut: int) -> tuple[bytes, End]:
    return image(BODY)[:cut], End.CLOSE


def in_chunks(cut: int) -> tuple[bytes, End]:
    return whole_in_chunks()[:cut], End.CLOSE


def reset(cut: int) -> tuple[bytes, End]:
    return image(BODY)[:cut], End.RESET


def whole_in_chunks() -> bytes:
    return chunked(*(BODY[start : start + 1000] for start in range(0, len(BODY), 1000)))


@pytest.mark.parametrize(
    ("broken", "whole"),
    [
        pytest.param(with_length, image(BODY), id="Content-Length"),
        pytest.param(in_chunks, whole_in_chunks(), id="chunked"),
        pytest.param(reset, image(BODY), id="reset"),
    ],
)
async def test_an_answer_that_broke_off_is_seen_and_not_stored(
    broken: Callable[[int], tuple[bytes, End]], whole: bytes
) -> None:
    async with fake_imgproxy() as imgproxy, wired_proxy(imgproxy.port) as proxy:
        for number in range(CUTS):
            # From the first byte to the last but one, and each of the last few.
            cut = len(whole) - 1 - number // 2 if number % 2 else len(whole) * number // CUTS
            await expect_broken(imgproxy, proxy, b"/_/rs:fit:%d:0/plain/a" % number, broken(cut))
        await proxy.until_idle()
        assert proxy.store.images == {}
        assert proxy.uploads.waiting == 0


async def expect_broken(
    imgproxy: FakeImgproxy, proxy: WiredProxy, target: bytes, script: tuple[bytes, End]
) -> None:
    imgproxy.script(target, *script)
    answer = await ask(proxy.port, target)
    if answer.status == 200:
        assert not answer.is_whole, f"{target!r}: {len(script[0])} bytes"
    else:
        assert answer.status == 502


async def test_an_answer_without_length_or_chunks_is_passed_on_and_not_stored() -> None:
    async with fake_imgproxy() as imgproxy, wired_proxy(imgproxy.port) as proxy:
        imgproxy.script(b"/_/plain/a", head(*STORABLE) + BODY, End.CLOSE)
        await ask(proxy.port, b"/_/plain/a")
        await proxy.until_idle()
        assert proxy.store.images == {}
