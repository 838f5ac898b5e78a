"""A kept file says itself whether it is what was written."""

import json
from dataclasses import replace
from hashlib import sha256
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imgproxy_cache.core.kept import Kept, KeptAnswer, Lifetimes, Signpost
from imgproxy_cache.core.kept_file import kept_head, read_kept_file, read_kept_head
from imgproxy_cache.errors import KeptFileError

ANSWER = KeptAnswer(
    name=b"/rs:fill:300:300/plain/https://example.com/image.jpg",
    selection=((b"accept", b"image/webp"),),
    status=200,
    fields=((b"Content-Type", b"image/webp"), (b"X-Name", b"B\xfccher \xff\x80")),
    body=b"hello world",
    # printf 'hello world' | sha256sum
    content_sha256="b94d27b9934d3e08a52e52d7da7dabfac484efe37a5380ee9088f7ace2efcde9",
    etag=b'W/"source"',
    lifetimes=Lifetimes(1_770_091_506.25, 3.5, 1_770_095_106.25, 1_770_095_166.0, 1_770_177_906.0),
)
SIGNPOST = Signpost(b"/rs:fill:300:300/plain/https://example.com/image.jpg", (b"accept", b"dpr"))

pairs = st.lists(st.tuples(st.binary(max_size=20), st.binary(max_size=20)), max_size=4).map(tuple)
times = st.floats(0, 1e11)
answers = st.builds(
    lambda body, **rest: KeptAnswer(body=body, content_sha256=sha256(body).hexdigest(), **rest),
    name=st.binary(max_size=50),
    selection=pairs,
    status=st.integers(200, 599),
    fields=pairs,
    body=st.binary(max_size=300),
    etag=st.none() | st.binary(max_size=20),
    lifetimes=st.builds(Lifetimes, times, times, times, times, times),
)
signposts = st.builds(
    Signpost, st.binary(max_size=50), st.lists(st.binary(max_size=9), max_size=4).map(tuple)
)


def file(kept: Kept) -> bytes:
    return kept_head(kept) + (b"" if isinstance(kept, Signpost) else kept.body)


BODY = ANSWER.body
FILE = file(ANSWER)


@given(kept=answers | signposts)
def test_whatever_was_written_comes_back(kept: Kept) -> None:
    assert read_kept_file(file(kept)) == kept


def test_an_operator_can_read_its_description() -> None:
    name, description, body = FILE.split(b"\n")
    assert name.startswith(b"imgproxy-cache-kept/1 ")
    assert json.loads(description) == {
        "size": 11,
        "content_sha256": ANSWER.content_sha256,
        "kept": {
            "name": "/rs:fill:300:300/plain/https://example.com/image.jpg",
            "selection": [["accept", "image/webp"]],
            "status": 200,
            "fields": [["Content-Type", "image/webp"], ["X-Name", "Bücher ÿ\x80"]],
            "etag": 'W/"source"',
            "lifetimes": {
                "received_at": 1770091506.25,
                "age": 3.5,
                "fresh_until": 1770095106.25,
                "stale_while_revalidate_until": 1770095166.0,
                "stale_if_error_until": 1770177906.0,
            },
        },
    }
    assert body == b"hello world"


def test_the_head_says_what_follows_it() -> None:
    head = read_kept_head(FILE[:-11])
    assert (head.kept, head.body_at, head.size) == (replace(ANSWER, body=b""), len(FILE) - 11, 11)


@pytest.mark.parametrize("content", [FILE, file(SIGNPOST)], ids=["answer", "signpost"])
def test_every_truncation_is_noticed(content: bytes) -> None:
    for length in range(len(content)):
        with pytest.raises(KeptFileError):
            read_kept_file(content[:length])


@given(position=st.integers(0, len(FILE) - 1), bit=st.integers(0, 7))
def test_every_flipped_bit_is_noticed(position: int, bit: int) -> None:
    damaged = bytearray(FILE)
    damaged[position] ^= 1 << bit
    with pytest.raises(KeptFileError):
        read_kept_file(bytes(damaged))


@given(content=st.binary(max_size=200), more=st.binary(min_size=1, max_size=50))
def test_anything_else_is_no_kept_file(content: bytes, more: bytes) -> None:
    for wrong in (content, FILE + more, more + FILE, bytes(len(FILE))):
        with pytest.raises(KeptFileError):
            read_kept_file(wrong)


KEPT: dict[str, Any] = json.loads(FILE.split(b"\n")[1])


@pytest.mark.parametrize(
    "description",
    [
        pytest.param([], id="no description"),
        pytest.param({}, id="empty"),
        pytest.param(KEPT | {"kept": None}, id="nothing kept"),
        pytest.param(KEPT | {"size": "11"}, id="a size that is none"),
        pytest.param(KEPT | {"size": True}, id="a size that is no number"),
        pytest.param(KEPT | {"content_sha256": None}, id="no hash"),
        pytest.param(KEPT | {"signpost": {"name": "/", "names": [1]}}, id="a name that is none"),
        *(
            pytest.param(KEPT | {"kept": KEPT["kept"] | changed}, id=name)
            for name, changed in {
                "no text": {"name": 1},
                "not ISO 8859-1": {"name": "/€"},
                "no pairs": {"fields": [["a", "b", "c"]]},
                "no status": {"status": "200"},
                "no lifetimes": {"lifetimes": {}},
                "a lifetime more": {"lifetimes": KEPT["kept"]["lifetimes"] | {"more": 1}},
                "no time": {"lifetimes": KEPT["kept"]["lifetimes"] | {"age": "old"}},
            }.items()
        ),
    ],
)
def test_a_description_that_is_not_ours_is_refused_although_its_hash_is_right(
    description: Any,
) -> None:
    fields = json.dumps(description).encode()
    digest = sha256(fields).hexdigest().encode()
    with pytest.raises(KeptFileError):
        read_kept_file(b"imgproxy-cache-kept/1 %d %b\n" % (len(fields), digest) + fields + BODY)
