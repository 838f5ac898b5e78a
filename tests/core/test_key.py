"""The names of objects are frozen: every value here comes from `printf %s PATH | md5sum`."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imgproxy_cache.core.key import Key, key_from_target, object_name, path_from_target


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
