"""A spool file says itself whether it is what was written."""

import json
from dataclasses import asdict, replace
from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imgproxy_cache.core.kept import KeptAnswer, Lifetimes
from imgproxy_cache.core.kept_file import read_kept_file
from imgproxy_cache.core.key import Key
from imgproxy_cache.core.spool_file import SpooledImage, read_spool_file, spool_head
from imgproxy_cache.errors import KeptFileError, SpoolFileError

BODY = b"hello world"
IMAGE = SpooledImage(
    key=Key("c9009a400f110797b2710ce2a5bd60a4"),  # printf %s PATH | md5sum
    path="/resize:fill:300:300/plain/https://example.com/image.jpg",
    content_type="image/jpeg",
    cache_control="max-age=31536000, public",
    content_disposition='inline; filename="Bücher.jpg"',
    size=11,
    # printf 'hello world' | sha256sum
    content_sha256="b94d27b9934d3e08a52e52d7da7dabfac484efe37a5380ee9088f7ace2efcde9",
    accepted_at=1_770_091_506.25,
)
FILE = spool_head(IMAGE) + BODY
DESCRIPTION = {name: value for name, value in asdict(IMAGE).items() if name != "kept"}

KEPT = KeptAnswer(
    name=b"/resize:fill:300:300/plain/https://example.com/image.jpg",
    selection=((b"accept", b"image/webp"),),
    status=200,
    fields=((b"Content-Type", b"image/jpeg"), (b"X-Name", b"B\xfccher \xff\x80")),
    body=b"",
    content_sha256=IMAGE.content_sha256,
    etag=b'"source"',
    lifetimes=Lifetimes(1_770_091_506.25, 0.0, 1_770_095_106.25, 1e10, 1e11),
)

# As written by the version before files had `kept`.
OLDER_FILE = (
    b"imgproxy-cache-spool/1 378 b37eb24941e248b37badd95994599af1b2262beb5556851bff98e728a74faa89\n"
    b'{"key": "c9009a400f110797b2710ce2a5bd60a4",'
    b' "path": "/resize:fill:300:300/plain/https://example.com/image.jpg",'
    b' "content_type": "image/jpeg", "cache_control": "max-age=31536000, public",'
    b' "content_disposition": "inline; filename=\\"B\\u00fccher.jpg\\"", "size": 11,'
    b' "content_sha256": "b94d27b9934d3e08a52e52d7da7dabfac484efe37a5380ee9088f7ace2efcde9",'
    b' "accepted_at": 1770091506.25}\nhello world'
)


def test_what_was_written_comes_back() -> None:
    assert read_spool_file(FILE) == (IMAGE, BODY)


def test_an_operator_can_read_its_description() -> None:
    name, description, body = FILE.split(b"\n")
    assert name.startswith(b"imgproxy-cache-spool/1 ")
    assert json.loads(description) == DESCRIPTION
    assert body == BODY


def test_an_older_file_is_read_and_still_written_so() -> None:
    assert read_spool_file(OLDER_FILE) == (IMAGE, BODY)
    assert spool_head(IMAGE) + BODY == OLDER_FILE


def test_a_file_that_says_how_to_keep_its_image_is_a_kept_file_as_well() -> None:
    image = replace(IMAGE, kept=KEPT)
    file = spool_head(image) + BODY
    assert read_spool_file(file) == (image, BODY)
    assert read_kept_file(file) == replace(KEPT, body=BODY)


def test_a_file_that_does_not_say_it_is_none() -> None:
    with pytest.raises(KeptFileError):
        read_kept_file(FILE)


@given(
    body=st.binary(max_size=300),
    content_type=st.text(max_size=20),
    cache_control=st.none() | st.text(max_size=20),
    accepted_at=st.floats(0, 1e10),
)
def test_whatever_was_written_comes_back(
    body: bytes, content_type: str, cache_control: str | None, accepted_at: float
) -> None:
    image = replace(
        IMAGE,
        content_type=content_type,
        cache_control=cache_control,
        accepted_at=accepted_at,
        size=len(body),
        content_sha256=sha256(body).hexdigest(),
    )
    assert read_spool_file(spool_head(image) + body) == (image, body)


@pytest.mark.parametrize("length", range(len(FILE)))
def test_every_truncation_is_noticed(length: int) -> None:
    with pytest.raises(SpoolFileError):
        read_spool_file(FILE[:length])


@given(position=st.integers(0, len(FILE) - 1), bit=st.integers(0, 7))
def test_every_flipped_bit_is_noticed(position: int, bit: int) -> None:
    damaged = bytearray(FILE)
    damaged[position] ^= 1 << bit
    with pytest.raises(SpoolFileError):
        read_spool_file(bytes(damaged))


@given(content=st.binary(max_size=200), more=st.binary(min_size=1, max_size=50))
def test_anything_else_is_no_spool_file(content: bytes, more: bytes) -> None:
    for wrong in (content, FILE + more, more + FILE, bytes(len(FILE))):
        with pytest.raises(SpoolFileError):
            read_spool_file(wrong)


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param(b"[]", id="no description"),
        pytest.param(b"{}", id="empty"),
        pytest.param(b"\xff", id="no JSON"),
        pytest.param(json.dumps(DESCRIPTION | {"more": 1}).encode(), id="a field more"),
        pytest.param(json.dumps(DESCRIPTION | {"kept": {}}).encode(), id="nothing kept"),
        pytest.param(json.dumps(DESCRIPTION | {"path": None}).encode(), id="no path"),
        pytest.param(json.dumps(DESCRIPTION | {"path": "/ä"}).encode(), id="no ASCII path"),
        pytest.param(json.dumps(DESCRIPTION | {"path": "/other"}).encode(), id="another path"),
    ],
)
def test_a_description_that_is_not_ours_is_refused_although_its_hash_is_right(
    fields: bytes,
) -> None:
    head = b"imgproxy-cache-spool/1 %d %b\n" % (
        len(fields),
        sha256(fields).hexdigest().encode(),
    )
    with pytest.raises(SpoolFileError):
        read_spool_file(head + fields + BODY)
