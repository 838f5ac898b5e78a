"""Answers made of what a store has kept: whole values, and all that a store may hold instead."""

import pytest

from imgproxy_cache.core.image import Image
from imgproxy_cache.core.kept import KeptAnswer, Lifetimes
from imgproxy_cache.core.stored import answer_from_store
from imgproxy_cache.errors import StoredImageError

STORED_AT = 1_795_221_245.0  # date -u -d 2026-11-21T00:34:05Z +%s
IMAGE = Image(
    body=b"hello",
    content_type="image/jpeg",
    cache_control="max-age=3600, public",
    content_disposition='inline; filename="a.jpg"',
    # printf /a | sha256sum, printf hello | sha256sum
    path_sha256="6a50dc8584134c7de537c0052ff6d236bf874355e050c90523e0c5ff2a543a28",
    content_sha256="2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824",
    stored_at="2026-11-21T00:34:05Z",
)
ANSWER = KeptAnswer(
    name=b"name",
    selection=(),
    status=200,
    fields=(
        (b"Cache-Control", b"max-age=3600, public"),
        (b"Content-Disposition", b'inline; filename="a.jpg"'),
        (
            b"Content-Security-Policy",
            b"default-src 'none'; style-src 'unsafe-inline'; img-src data:; sandbox",
        ),
        (b"Content-Type", b"image/jpeg"),
        (b"Server", b"imgproxy"),
        (b"Date", b"Sat, 21 Nov 2026 00:34:05 GMT"),
    ),
    body=b"hello",
    content_sha256=IMAGE.content_sha256,
    etag=None,
    lifetimes=Lifetimes(
        received_at=STORED_AT,
        age=0,
        fresh_until=STORED_AT + 3600,
        stale_while_revalidate_until=STORED_AT + 3610,
        stale_if_error_until=STORED_AT + 3700,
    ),
)


def answer(image: Image) -> KeptAnswer | None:
    return answer_from_store(
        image,
        path_sha256=IMAGE.path_sha256,
        name=b"name",
        stale_while_revalidate_seconds=10,
        stale_if_error_seconds=100,
    )


def test_an_image_answers_as_imgproxy_did_and_is_as_old_as_it_is() -> None:
    assert answer(IMAGE) == ANSWER


@pytest.mark.parametrize(
    ("cache_control", "windows"),
    [
        pytest.param("max-age=60", (60, 70, 160), id="the operator's windows"),
        pytest.param(
            "max-age=60, stale-while-revalidate=1, stale-if-error=2", (60, 61, 62), id="its own"
        ),
        pytest.param("max-age=60, must-revalidate", (60, 60, 60), id="never stale"),
        pytest.param("max-age=9, s-maxage=60", (60, 60, 60), id="s-maxage"),
    ],
)
def test_how_long_it_lasts(cache_control: str, windows: tuple[int, int, int]) -> None:
    found = answer(IMAGE._replace(cache_control=cache_control))
    assert found is not None
    fresh, while_revalidate, if_error = windows
    assert found.lifetimes == Lifetimes(
        received_at=STORED_AT,
        age=0,
        fresh_until=STORED_AT + fresh,
        stale_while_revalidate_until=STORED_AT + while_revalidate,
        stale_if_error_until=STORED_AT + if_error,
    )


@pytest.mark.parametrize(
    "cache_control",
    [None, "", "public", "max-age=0", "no-store, max-age=60", "private, max-age=60", "=", "\u20ac"],
)
def test_what_does_not_say_how_long_it_lasts_is_no_answer(cache_control: str | None) -> None:
    assert answer(IMAGE._replace(cache_control=cache_control)) is None


@pytest.mark.parametrize(
    "content_type",
    ["image/webp", "image/svg+xml", "IMAGE/JPEG", "image/png; charset=binary"],
)
def test_whatever_imgproxy_sends_as_an_image_is_one(content_type: str) -> None:
    found = answer(IMAGE._replace(content_type=content_type))
    assert found is not None
    assert dict(found.fields)[b"Content-Type"] == content_type.encode()
    assert b"sandbox" in dict(found.fields)[b"Content-Security-Policy"]


@pytest.mark.parametrize("length", [10, 10_000])
def test_fields_of_any_length_are_given(length: int) -> None:
    said = f'inline; filename="{"a" * length}.jpg"'
    found = [answer(IMAGE._replace(content_disposition=said)) for _ in range(2)]
    assert [dict(one.fields)[b"Content-Disposition"] for one in found if one] == [said.encode()] * 2


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        pytest.param({"body": b"hell"}, "its 4 bytes are not those that were stored", id="cut off"),
        pytest.param({"body": b"hallo"}, "its 5 bytes are not those", id="changed"),
        pytest.param({"body": b""}, "its 0 bytes are not those", id="empty"),
        pytest.param({"path_sha256": IMAGE.content_sha256}, "of another path", id="another path"),
        pytest.param({"path_sha256": ""}, "another program", id="no hash of the path"),
        pytest.param({"content_sha256": ""}, "another program", id="no hash of the content"),
        pytest.param({"content_type": "text/html"}, "'text/html'", id="a page"),
        pytest.param({"content_type": ""}, "its type is no image's: ''", id="no type"),
        pytest.param({"content_type": "image/\u20ac"}, "no image's", id="no ASCII"),
        pytest.param({"stored_at": ""}, "is no time: ''", id="no time"),
        pytest.param({"stored_at": "yesterday"}, "is no time: 'yesterday'", id="another time"),
    ],
)
def test_what_was_not_put_there_is_no_answer(changed: dict[str, str], why: str) -> None:
    with pytest.raises(StoredImageError, match=why):
        answer(IMAGE._replace(**changed))  # type: ignore[arg-type]
