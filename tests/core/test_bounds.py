"""What strangers send is not kept: what is remembered is bounded in bytes, not only in items."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable

import pytest

from imgproxy_cache.core.freshness import read_cache_control
from imgproxy_cache.core.headers import connection_options
from imgproxy_cache.core.image import image_from_answer
from imgproxy_cache.core.imgproxy_path import PathRules, read_path
from imgproxy_cache.core.media_types import media_type
from imgproxy_cache.core.policy import NotStored, StorageRules, why_not_stored
from imgproxy_cache.core.sharing import sharing_by_fields
from imgproxy_cache.core.stored import answer_from_store
from imgproxy_cache.core.variants import named_fields

VALUES = 20
MOST_BYTES_KEPT = 400_000


def _read_options(number: int) -> None:
    options = "/".join(f"a{number}:{item}" for item in range(2000))
    read_path(f"/_/{options}/plain/local:///a.jpg".encode()[: 16 * 1024], PathRules())


def _read_connection(number: int) -> None:
    connection_options(b",".join(b"a%d-%d" % (number, item) for item in range(5000)))


def _read_accept(number: int) -> None:
    accept = b"image/webp, " * 5000 + b"%d" % number
    sharing_by_fields([(b"accept", accept)], cookie_passthrough=False)


def _read_vary(number: int) -> None:
    named_fields(b"a%d" % number * 20_000)


def _judge_vary(number: int) -> None:
    fields = {
        b"content-type": b"image/jpeg",
        b"cache-control": b"max-age=3600",
        b"vary": b"a%d" % number * 20_000,
    }
    why_not = why_not_stored(
        StorageRules(),
        method="GET",
        path=read_path(b"/_/plain/local:///a.jpg", PathRules()),
        credentials=None,
        status=200,
        fields=fields,
        now=0.0,
    )
    assert why_not == NotStored.VARY


def _read_cache_control(number: int) -> None:
    read_cache_control(b'a="%b", max-age=%d' % (b"b" * 60_000, number))


def _read_content_type(number: int) -> None:
    media_type(b"image/jpeg; a=%d" % number + b"b" * 60_000)


def _read_stored(number: int) -> None:
    said = f'inline; filename="{"a" * 60_000}{number}.jpg"'
    image = image_from_answer(
        path=b"/a",
        body=b"hello",
        content_type="image/jpeg",
        cache_control="max-age=3600",
        content_disposition=said,
        at=0.0,
    )
    answer_from_store(
        image,
        path_sha256=image.path_sha256,
        name=b"name",
        stale_while_revalidate_seconds=0,
        stale_if_error_seconds=0,
    )


@pytest.mark.parametrize(
    "read",
    [
        pytest.param(_read_options, id="options of a path"),
        pytest.param(_read_connection, id="Connection"),
        pytest.param(_read_accept, id="Accept"),
        pytest.param(_read_cache_control, id="Cache-Control"),
        pytest.param(_read_vary, id="Vary"),
        pytest.param(_judge_vary, id="Vary, for the store"),
        pytest.param(_read_content_type, id="Content-Type"),
        pytest.param(_read_stored, id="fields of a stored image"),
    ],
)
def test_long_values_are_not_remembered(read: Callable[[int], None]) -> None:
    read(VALUES)
    tracemalloc.start()
    try:
        for number in range(VALUES):
            read(number)
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert kept < MOST_BYTES_KEPT
