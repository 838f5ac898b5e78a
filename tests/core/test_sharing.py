"""Who may wait for whose fetch."""

from collections.abc import Hashable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imgproxy_cache.core.headers import Headers
from imgproxy_cache.core.imgproxy_path import PathRules, read_path
from imgproxy_cache.core.sharing import flight_key, sharing_by_fields

IMAGE = b"/_/rs:fit:64:64/plain/local:///chelsea.jpg"
CHROME = (b"accept", b"image/avif,image/webp,image/apng,image/svg+xml,image/*,*/*;q=0.8")


def key(
    headers: Headers | None = None,
    *,
    method: str = "GET",
    target: bytes = IMAGE,
    cookie_passthrough: bool = False,
    accept_is_ignored: bool = False,
) -> Hashable | None:
    fields = [(b"host", b"img.example"), *(headers or [])]
    by_fields = sharing_by_fields(fields, cookie_passthrough=cookie_passthrough)
    path = read_path(target, PathRules())
    return flight_key(method, target, path, by_fields, accept_is_ignored=accept_is_ignored)


@pytest.mark.parametrize(
    "headers",
    [
        pytest.param([(b"accept", b"*/*")], id="Accept without a format of imgproxy"),
        pytest.param([(b"accept", b"IMAGE/WEBP")], id="imgproxy minds the case"),
        pytest.param(
            [(b"accept", b"*/*"), (b"accept", b"image/webp")], id="imgproxy reads the first Accept"
        ),
        pytest.param([(b"user-agent", b"curl/8")], id="User-Agent"),
        pytest.param([(b"x-request-id", b"a")], id="X-Request-ID"),
        pytest.param([(b"x-forwarded-for", b"192.0.2.1")], id="X-Forwarded-For"),
        pytest.param([(b"cookie", b"a=b")], id="cookies that imgproxy does not pass on"),
        pytest.param([(b"origin", b"https://example.com")], id="Origin"),
    ],
)
def test_request_shares_with_one_that_differs_in_what_imgproxy_ignores(headers: Headers) -> None:
    assert key(headers) == key()


@pytest.mark.parametrize(
    ("one", "other"),
    [
        pytest.param([CHROME], [], id="formats or none"),
        pytest.param([CHROME], [(b"accept", b"image/webp")], id="AVIF and WebP, or WebP"),
        pytest.param([(b"accept", b"image/jxl")], [(b"accept", b"image/avif")], id="JXL or AVIF"),
        pytest.param([(b"dpr", b"2")], [], id="DPR or none"),
        pytest.param([(b"dpr", b"2")], [(b"dpr", b"3")], id="DPR"),
        pytest.param([(b"dpr", b"2")], [(b"width", b"2")], id="DPR or Width"),
        pytest.param([(b"sec-ch-dpr", b"2")], [], id="Sec-CH-DPR"),
        pytest.param([(b"sec-ch-width", b"40")], [], id="Sec-CH-Width"),
        pytest.param([(b"viewport-width", b"40")], [], id="Viewport-Width"),
        pytest.param([(b"authorization", b"Bearer a")], [], id="authorized or not"),
        pytest.param(
            [(b"authorization", b"Bearer a")],
            [(b"authorization", b"Bearer b")],
            id="authorized otherwise",
        ),
    ],
)
def test_request_does_not_share_with_one_that_may_be_answered_otherwise(
    one: Headers, other: Headers
) -> None:
    assert key(one) is not None
    assert key(other) is not None
    assert key(one) != key(other)


def test_request_shares_with_any_accept_where_imgproxy_ignores_it() -> None:
    plain = key(accept_is_ignored=True)
    assert key([CHROME], accept_is_ignored=True) == plain
    assert key([CHROME, (b"dpr", b"2")], accept_is_ignored=True) not in (None, plain)
    assert key([CHROME, (b"range", b"bytes=0-1")], accept_is_ignored=True) is None


@pytest.mark.parametrize(
    "target",
    [
        IMAGE + b"?v=1",
        IMAGE.replace(b":", b"%3A", 1),
        IMAGE.replace(b"/rs", b"//rs"),
    ],
    ids=bytes.decode,
)
def test_request_shares_only_with_the_same_bytes(target: bytes) -> None:
    assert key(target=target) != key()


@pytest.mark.parametrize(
    "name",
    [
        b"range",
        b"if-none-match",
        b"if-modified-since",
        b"if-match",
        b"if-unmodified-since",
        b"if-range",
    ],
    ids=bytes.decode,
)
def test_range_or_conditional_request_is_never_shared(name: bytes) -> None:
    assert key([(name, b"x")]) is None


def test_request_with_cookies_is_not_shared_where_imgproxy_passes_them_on() -> None:
    assert key([(b"cookie", b"a=b")], cookie_passthrough=True) is None
    assert key([], cookie_passthrough=True) == key()


@pytest.mark.parametrize("method", ["HEAD", "POST", "OPTIONS", "get"])
def test_only_get_is_shared(method: str) -> None:
    assert key(method=method) is None


@pytest.mark.parametrize(
    "target",
    [b"/_/raw:1/plain/local:///a.jpg", b"/_/raw%3A1/plain/local:///a.jpg", b"/health", b"/"],
    ids=bytes.decode,
)
def test_raw_and_what_is_no_image_is_never_shared(target: bytes) -> None:
    assert key(target=target) is None


@given(
    st.lists(
        st.tuples(
            st.sampled_from([b"accept", b"dpr", b"width", b"cookie", b"range", b"authorization"]),
            st.binary(max_size=30),
        )
    )
)
def test_any_headers_make_a_key_that_can_be_looked_up(headers: Headers) -> None:
    hash(key(headers))
