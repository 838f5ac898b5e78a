"""The names of objects are frozen: every value here comes from `printf %s PATH | md5sum`."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imgproxy_cache.core.imgproxy_path import PathRules, read_path
from imgproxy_cache.core.key import (
    Key,
    KeyRules,
    identity_from_target,
    key_from_target,
    object_name,
    path_from_target,
    stored_name_from_target,
)

WITHOUT_SIGNATURE = KeyRules(with_signature=False)


@pytest.mark.parametrize(
    ("target", "key"),
    [
        pytest.param(
            b"/_/rs:fill:1160:532:1/g:ce/wm:0.5:soea:10:10:0.2/aHR0cHM6Ly93d3cuem9vcGx1cy5jby51ay9t"
            b"YWdhemluZS93cC1jb250ZW50L3VwbG9hZHMvMjAyMS8wMS9zdHJpcGVkLWdyZXkta2l0dGVuLTc2OHg1MTIuanBn",
            "f245f88252712c73d1d62b78a427869f",
            id="base64 source",
        ),
        pytest.param(
            b"/resize:fill:300:300/plain/https://example.com/image.jpg",
            "c9009a400f110797b2710ce2a5bd60a4",
            id="plain source",
        ),
        pytest.param(
            b"/resize:fill:300:300/plain/https://example.com/image.jpg?v=2?3",
            "c9009a400f110797b2710ce2a5bd60a4",
            id="the query does not count",
        ),
        pytest.param(b"/", "6666cd76f96956469e7be39d750cc7d9", id="root"),
        pytest.param(b"/a%2Fb", "c1445456e2bc8084f3d5df80faf140fb", id="escaped slash"),
        pytest.param(
            b"/a%2fb", "6fc243694f4556e79fd38615f671d83b", id="escaped slash in lower case"
        ),
        pytest.param(b"/a/b", "aee31d71a4dce5fe24481547cc863476", id="slash"),
        pytest.param(b"//a/b", "7d1112b96909c386e34b2342f2c905e5", id="two slashes"),
        pytest.param(b"/a#b", "23c657c051342ce937a7b991e8f0cd55", id="a # stays"),
        pytest.param(b"/a%3Fb", "53c27899390f6bd7009dfc1f7ce9a739", id="an escaped ? is no query"),
        pytest.param(b"/\xc3\xa4", "78de071cb3a53374e3f7343235a4d2a1", id="bytes outside ASCII"),
    ],
)
def test_key_is_the_md5_of_the_raw_path(target: bytes, key: str) -> None:
    assert key_from_target(target) == key
    assert identity_from_target(target) == path_from_target(target)


@pytest.mark.parametrize(
    ("target", "prefix", "identity", "key"),
    [
        pytest.param(
            b"/UBvB3AHg7ERZt7NEJ8U8o5UJGhRXuWS30gejv_-ngfU/rs:fill:300:300/aHR0.webp?x",
            b"",
            b"/rs:fill:300:300/aHR0.webp",
            "9a21aec5dfd95b48bb5399ca66db20d1",
            id="signed",
        ),
        pytest.param(
            b"/img/S/plain/local:///a.jpg",
            b"/img",
            b"/img/plain/local:///a.jpg",
            "09d30436fbaf518bc29eaf8fe8a1c258",
            id="prefix stays",
        ),
        pytest.param(
            b"//S/w:1/aGk",
            b"",
            b"/w:1/aGk",
            "90006261e7dc2f68ff0e2ee971bff20a",
            id="a doubled slash before it",
        ),
        pytest.param(
            b"/S//w:1/aGk",
            b"",
            b"//w:1/aGk",
            "86a43c4d145fe7ee4aa8b7221ab5affb",
            id="a doubled slash behind it",
        ),
        pytest.param(
            b"/S/w%3A1/aGk#b",
            b"",
            b"/w%3A1/aGk#b",
            "6489dca35be537082b04a537cbff312a",
            id="nothing is repaired",
        ),
        pytest.param(
            b"/S/\xff",
            b"",
            b"/\xff",
            "eb48085e1ed9e58e309f8f427b6f749b",
            id="bytes that are no text",
        ),
        pytest.param(
            b"/health", b"", b"/health", "febd9bd9f76478774376fc8d7baa5052", id="one segment"
        ),
        pytest.param(
            b"/S/?w:1", b"", b"/S/", "30ef3580bfefd2590e64e57e0ef6d6f2", id="nothing behind it"
        ),
        pytest.param(b"/", b"", b"/", "6666cd76f96956469e7be39d750cc7d9", id="root"),
        pytest.param(
            b"///S/w:1", b"", b"///S/w:1", "3f240ecaebd79ca6c4f415243b73a136", id="three slashes"
        ),
        pytest.param(
            b"/S/w:1/aGk",
            b"/img",
            b"/S/w:1/aGk",
            "1a4a116228f2f874d6b5d3f655d23b1b",
            id="outside the prefix",
        ),
        pytest.param(
            b"/%69mg/w:1/a",
            b"/img",
            b"/%69mg/w:1/a",
            "6dc175f27e82f5015515a3cb8bf7b27c",
            id="escaped prefix",
        ),
    ],
)
def test_key_without_signature(target: bytes, prefix: bytes, identity: bytes, key: str) -> None:
    rules = KeyRules(with_signature=False, prefix=prefix)
    assert identity_from_target(target, rules) == identity
    assert key_from_target(target, rules) == key


def test_another_signature_is_the_same_key_only_where_it_is_left_out() -> None:
    one, other = b"/one/w:1/aGk", b"/other/w:1/aGk"
    assert key_from_target(one) != key_from_target(other)
    assert key_from_target(one, WITHOUT_SIGNATURE) == key_from_target(other, WITHOUT_SIGNATURE)


@given(
    target=st.lists(
        st.sampled_from([b"/", b"//", b"/img", b"S", b"w:1", b"%69", b"?", b"\xff"])
    ).map(b"".join),
    prefix=st.sampled_from(["", "/img"]),
)
def test_key_without_signature_is_of_what_imgproxy_reads(target: bytes, prefix: str) -> None:
    """Two paths of one key differ in their signatures alone, and imgproxy reads the rest."""
    path = read_path(target, PathRules(prefix=prefix))
    before = prefix.encode()
    identity = identity_from_target(target, KeyRules(with_signature=False, prefix=before))
    if path is None or not target.startswith(before + b"/"):
        assert identity == path_from_target(target)
    else:
        assert identity == before + b"/" + path.written.encode("utf-8", "surrogateescape")


def test_stored_name_has_both_hashes_of_the_same_bytes() -> None:
    # printf /a/w:1/b | md5sum, and sha256sum; the same of /w:1/b
    assert stored_name_from_target(b"/a/w:1/b?x") == (
        "2636ba0dc060fba45bf41f0416602ee6",
        "1379f20f35b28034682ef8f92cedfa13a158e289b7b8ff4cd6caebc962c63ce1",
    )
    assert stored_name_from_target(b"/a/w:1/b?x", WITHOUT_SIGNATURE) == (
        "91aac8da1278882255dea582ebe3157b",
        "817fdd3e5892fbb62055568b775f6668eedb7ab7001b30ea9e8c4281ea8a8576",
    )


@given(path=st.binary().filter(lambda path: b"?" not in path), query=st.binary())
def test_query_never_changes_the_key(path: bytes, query: bytes) -> None:
    assert path_from_target(path + b"?" + query) == path
    assert key_from_target(path + b"?" + query) == key_from_target(path)


@pytest.mark.parametrize(
    ("folder", "name"),
    [
        pytest.param("", "f245", id="no folder"),
        pytest.param("processed", "processed/f245", id="folder"),
        pytest.param("processed/", "processed/f245", id="folder with a slash"),
        pytest.param("images/processed", "images/processed/f245", id="folder in a folder"),
    ],
)
def test_object_name_has_one_slash_after_its_folder(folder: str, name: str) -> None:
    assert object_name(folder, Key("f245")) == name
