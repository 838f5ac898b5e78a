"""What a request is for; imgproxy 4.0.12 gave the expected values."""

from __future__ import annotations

import pytest

from imgproxy_cache.engine.routes import Route, route_of


@pytest.mark.parametrize(
    ("method", "target", "prefix", "route"),
    [
        pytest.param("GET", b"/", "", Route.LANDING, id="landing page"),
        pytest.param("GET", b"/?x", "", Route.LANDING, id="landing page with a query"),
        pytest.param("GET", b"//", "", Route.PROCESSING, id="two slashes"),
        pytest.param("GET", b"/health", "", Route.HEALTH, id="health"),
        pytest.param("GET", b"/%68ealth?x", "", Route.HEALTH, id="health, escaped"),
        pytest.param("GET", b"/ready", "", Route.HEALTH, id="health path of the settings"),
        pytest.param("GET", b"/health/", "", Route.PROCESSING, id="health is no folder"),
        pytest.param("GET", b"//health", "", Route.PROCESSING, id="health has one slash"),
        pytest.param("GET", b"/favicon.ico", "", Route.NOT_FOUND, id="favicon"),
        pytest.param("GET", b"/.well-known/x", "", Route.NOT_FOUND, id="well-known"),
        pytest.param("GET", b"/.well-known", "", Route.PROCESSING, id="not well-known"),
        pytest.param("GET", b"/nonsense", "", Route.PROCESSING, id="nonsense"),
        pytest.param("GET", b"/_/w:1/plain/a#b", "", Route.PROCESSING, id="a # is a character"),
        pytest.param("GET", b"/_/w:1/plain/\xc3\xa9", "", Route.PROCESSING, id="bytes"),
        pytest.param("GET", b"/_/w:1/plain/a?%", "", Route.PROCESSING, id="% in the query"),
        pytest.param("GET", b"/_/w:1/plain/100%", "", Route.BAD_REQUEST, id="% alone"),
        pytest.param("GET", b"/_/w:1/plain/%zz", "", Route.BAD_REQUEST, id="% and no digits"),
        pytest.param("GET", b"/a\x7f", "", Route.BAD_REQUEST, id="control character"),
        pytest.param("GET", b"http://evil/", "", Route.BAD_REQUEST, id="absolute form"),
        pytest.param("GET", b"*", "", Route.BAD_REQUEST, id="no path"),
        pytest.param("HEAD", b"/health", "", Route.OK, id="HEAD"),
        pytest.param("OPTIONS", b"/nonsense", "", Route.OK, id="OPTIONS"),
        pytest.param("POST", b"/health", "", Route.NOT_FOUND, id="POST"),
        pytest.param("DELETE", b"/", "", Route.NOT_FOUND, id="DELETE"),
        pytest.param("GET", b"/img", "/img", Route.LANDING, id="the prefix alone"),
        pytest.param("GET", b"/img/", "/img", Route.LANDING, id="the prefix and a slash"),
        pytest.param("GET", b"/img/health", "/img", Route.HEALTH, id="health with prefix"),
        pytest.param("GET", b"/health", "/img", Route.NOT_FOUND, id="health without prefix"),
        pytest.param("GET", b"/imgs/_/a", "/img", Route.NOT_FOUND, id="half a prefix"),
        pytest.param("GET", b"/%69mg/_/a", "/img", Route.PROCESSING, id="prefix, escaped"),
        pytest.param("HEAD", b"/img", "/img", Route.NOT_FOUND, id="HEAD of the prefix alone"),
        pytest.param("HEAD", b"/x", "/img", Route.NOT_FOUND, id="HEAD outside the prefix"),
    ],
)
def test_route_of_a_request(method: str, target: bytes, prefix: str, route: Route) -> None:
    assert route_of(method, target, prefix, "/ready") is route
