"""What the header fields of a request come to, in one value that can be kept for the next."""

from __future__ import annotations

import re
from collections.abc import Hashable
from typing import NamedTuple

from imgproxy_cache.core.framing import has_body
from imgproxy_cache.core.headers import Headers, request_headers_for_upstream
from imgproxy_cache.core.sharing import sharing_by_fields

_REQUEST_ID = re.compile(rb"[A-Za-z0-9_-]+")  # what imgproxy echoes


class RequestFields(NamedTuple):
    """
    The fields of a request, and all that is decided by them alone.

    A browser's requests for the images of a page have equal fields: what was
    worked out for one serves the others on the same connection, for a fifth of
    a request's cost.
    """

    received: Headers
    for_upstream: Headers
    lines: bytes
    """Those for imgproxy, as they are written."""
    request_id: bytes | None
    has_body: bool
    sharing: Hashable | None


def read_request_fields(
    received: Headers,
    *,
    client_ip: bytes,
    scheme: bytes,
    peer_is_trusted: bool,
    keep_accept_encoding: bool,
    cookie_passthrough: bool,
) -> RequestFields:
    """Read the fields; names are in lower case."""
    for_upstream = request_headers_for_upstream(
        received,
        client_ip=client_ip,
        scheme=scheme,
        peer_is_trusted=peer_is_trusted,
        keep_accept_encoding=keep_accept_encoding,
    )
    return RequestFields(
        received=received,
        for_upstream=for_upstream,
        lines=b"".join([name + b": " + value + b"\r\n" for name, value in for_upstream]),
        request_id=_request_id(for_upstream),
        has_body=has_body(received),
        sharing=sharing_by_fields(for_upstream, cookie_passthrough=cookie_passthrough),
    )


def _request_id(headers: Headers) -> bytes | None:
    for name, value in headers:
        if name == b"x-request-id" and _REQUEST_ID.fullmatch(value):
            return value
    return None
