"""A request whose path is read only when somebody needs it."""

import pytest

from imgproxy_cache.core.access import Resource
from imgproxy_cache.core.imgproxy_path import PathRules, read_path
from imgproxy_cache.core.policy import StorageRules
from imgproxy_cache.core.request import UNREAD, Request
from imgproxy_cache.core.request_fields import RequestFields, read_request_fields

RULES = StorageRules(path_rules=PathRules(prefix="/img"))
PINNED = b"/img/_/plain/local:///a.jpg@png?v=1"


def fields(accept: bytes) -> RequestFields:
    return read_request_fields(
        [(b"host", b"h"), (b"accept", accept)],
        client_ip=b"127.0.0.1",
        scheme=b"http",
        peer_is_trusted=False,
        keep_accept_encoding=False,
        cookie_passthrough=False,
    )


def request(target: bytes, accept: bytes = b"*/*", *, is_read: bool = False) -> Request:
    path = read_path(target, RULES.path_rules) if is_read else UNREAD
    return Request("GET", target, fields(accept), Resource(b"name", None), path, RULES)


@pytest.mark.parametrize(
    "target",
    [
        pytest.param(b"/img/_/w:1/plain/local:///a.jpg", id="an image"),
        pytest.param(PINNED, id="of one format"),
        pytest.param(b"/img/_/raw:1/plain/local:///a.jpg", id="raw"),
        pytest.param(b"/other/_/plain/local:///a.jpg", id="no processing path"),
    ],
)
def test_path_that_was_left_is_read_by_the_same_rules(target: bytes) -> None:
    left, read = request(target), request(target, is_read=True)
    assert left.path == read.path == read_path(target, RULES.path_rules)
    assert left.flight_key == read.flight_key


def test_flight_is_shared_by_what_the_path_leaves_open() -> None:
    webp = b"image/webp"
    negotiated = PINNED.replace(b"@png", b"")
    assert request(PINNED).flight_key == request(PINNED, webp).flight_key is not None
    assert request(negotiated).flight_key != request(negotiated, webp).flight_key
