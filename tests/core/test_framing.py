"""How long a body is, by RFC 9112 section 6."""

import pytest

from imgproxy_cache.core.framing import content_length, has_body, is_close_delimited, is_coded
from imgproxy_cache.core.headers import Headers


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        pytest.param([], None, id="nothing declared"),
        pytest.param([(b"Content-Length", b"12")], 12, id="a number"),
        pytest.param([(b"content-length", b"0")], 0, id="nothing, in lower case"),
        pytest.param([(b"CONTENT-LENGTH", b"007")], 7, id="zeros first"),
        pytest.param([(b"Content-Length", b"")], None, id="empty"),
        pytest.param([(b"Content-Length", b"-1")], None, id="less than nothing"),
        pytest.param([(b"Content-Length", b"1, 1")], None, id="a list"),
        pytest.param([(b"Content-Lengthy", b"12")], None, id="another name"),
        pytest.param([(b"X", b"1"), (b"Content-Length", b"2")], 2, id="not the first field"),
    ],
)
def test_declared_length_of_an_answer(headers: Headers, expected: int | None) -> None:
    assert content_length(headers) == expected


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        pytest.param([], True, id="nothing declared"),
        pytest.param([(b"Connection", b"close")], True, id="the close announced"),
        pytest.param([(b"Content-Length", b"1")], False, id="a length"),
        pytest.param([(b"TRANSFER-ENCODING", b"chunked")], False, id="chunks"),
    ],
)
def test_answer_whose_end_only_the_connection_tells(headers: Headers, expected: bool) -> None:
    assert is_close_delimited(headers) is expected


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        pytest.param([(b"host", b"a")], False, id="nothing declared"),
        pytest.param([(b"content-length", b"0")], False, id="a body of nothing"),
        pytest.param([(b"content-length", b"1")], True, id="a length"),
        pytest.param([(b"transfer-encoding", b"chunked")], True, id="chunks"),
    ],
)
def test_request_that_brings_a_body(headers: Headers, expected: bool) -> None:
    assert has_body(headers) is expected


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        pytest.param([(b"Content-Length", b"1")], False, id="a length"),
        pytest.param([(b"Transfer-Encoding", b"chunked")], False, id="chunks"),
        pytest.param([(b"TRANSFER-ENCODING", b" Chunked ")], False, id="chunks, oddly written"),
        pytest.param([(b"Transfer-Encoding", b"gzip, chunked")], True, id="compressed"),
        pytest.param([(b"Transfer-Encoding", b"gzip")], True, id="compressed, up to the end"),
        pytest.param(
            [(b"Transfer-Encoding", b"gzip"), (b"transfer-encoding", b"chunked")],
            True,
            id="in two fields",
        ),
        pytest.param([(b"Content-Encoding", b"gzip")], False, id="the content's own coding"),
    ],
)
def test_coding_that_somebody_would_have_to_take_off(headers: Headers, expected: bool) -> None:
    assert is_coded(headers) is expected
