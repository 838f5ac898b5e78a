"""What the header fields of a request come to, in one value that can be kept for the next."""

from __future__ import annotations

import re
from typing import NamedTuple

from imgproxy_cache.core.access import may_read
from imgproxy_cache.core.framing import has_body
from imgproxy_cache.core.headers import (
    CONDITIONS_AND_RANGE,
    Headers,
    request_headers_for_upstream,
)
from imgproxy_cache.core.policy import NotStored, why_not_by_credentials
from imgproxy_cache.core.sharing import Sharing, sharing_by_fields

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
    sharing: Sharing | None
    credentials: NotStored | None
    """Why they forbid to keep the answer."""
    for_tiers: bool
    """Read as those of a request that the tiers may answer, as far as they let it."""
    may_read: bool
    """They do."""
    conditions: Headers
    """`Range` and conditions, which are then for the tiers, and not for imgproxy."""


def read_request_fields(
    received: Headers,
    *,
    client_ip: bytes,
    scheme: bytes,
    peer_is_trusted: bool,
    keep_accept_encoding: bool,
    cookie_passthrough: bool,
    secret: bytes | None = None,
    for_tiers: bool = False,
) -> RequestFields:
    """Read the fields; names are in lower case."""
    for_upstream = request_headers_for_upstream(
        received,
        client_ip=client_ip,
        scheme=scheme,
        peer_is_trusted=peer_is_trusted,
        keep_accept_encoding=keep_accept_encoding,
    )
    tiers_may_answer = for_tiers and may_read(
        for_upstream, secret=secret, cookie_passthrough=cookie_passthrough
    )
    conditions: Headers = []
    if tiers_may_answer:
        conditions = [field for field in for_upstream if field[0] in CONDITIONS_AND_RANGE]
    if conditions:
        for_upstream = [field for field in for_upstream if field[0] not in CONDITIONS_AND_RANGE]
    return RequestFields(
        received=received,
        for_upstream=for_upstream,
        lines=b"".join([name + b": " + value + b"\r\n" for name, value in for_upstream]),
        request_id=_request_id(for_upstream),
        has_body=has_body(received),
        sharing=sharing_by_fields(for_upstream, cookie_passthrough=cookie_passthrough),
        credentials=why_not_by_credentials(
            for_upstream, secret=secret, cookie_passthrough=cookie_passthrough
        ),
        for_tiers=for_tiers,
        may_read=tiers_may_answer,
        conditions=conditions,
    )


def _request_id(headers: Headers) -> bytes | None:
    for name, value in headers:
        if name == b"x-request-id" and _REQUEST_ID.fullmatch(value):
            return value
    return None
