"""Which header fields pass, in both directions, and which stay with a stored image."""

from dataclasses import dataclass
from functools import lru_cache

Headers = list[tuple[bytes, bytes]]
"""Field lines in the order of the wire, repeated fields apart."""

# RFC 9110 section 7.6.1; Proxy-Authenticate and Proxy-Authorization as Go's ReverseProxy has it;
# HTTP2-Settings belongs to an Upgrade.
_HOP_BY_HOP = frozenset(
    {
        b"connection",
        b"http2-settings",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    }
)
# Bodies stay with us, and so does what announces them.
_KEPT_FROM_UPSTREAM = _HOP_BY_HOP | {b"content-length", b"expect"}
_LOOKED_AT_IN_REQUESTS = _KEPT_FROM_UPSTREAM | {b"accept-encoding", b"host"}
# What no Connection field may take away: without Host there is no request.
_NOT_CONNECTION_OPTIONS = _HOP_BY_HOP | {b"", b"close", b"host"}
_NONE: frozenset[bytes] = frozenset()


def request_headers_for_upstream(
    headers: Headers,
    *,
    client_ip: bytes,
    scheme: bytes,
    peer_is_trusted: bool,
    keep_accept_encoding: bool,
) -> Headers:
    """
    The fields of a request as they go on to imgproxy.

    Field names are lower-case, as uvicorn hands them over.  Removed are
    hop-by-hop fields, those that `Connection` names, and what describes a body.
    `Accept-Encoding` becomes `identity` unless it is kept, so that bodies are
    the image itself.  `X-Forwarded-*` are ours; those of a trusted peer are
    kept, with `client_ip` (the peer's address) added to `X-Forwarded-For`.

    Source: RFC 9110 section 7.6.1
    """
    kept: Headers = []
    forwarded: dict[bytes, bytes] = {}
    named_by_connection = _NONE
    host = b""
    for field in headers:
        name, value = field
        if name in _LOOKED_AT_IN_REQUESTS:
            if name == b"host":
                host = value
                kept.append(field)
            elif name == b"connection":
                named_by_connection |= _connection_options(value)
            elif name == b"accept-encoding" and keep_accept_encoding:
                kept.append(field)
        elif not name.startswith(b"x-forwarded-"):
            kept.append(field)
        elif peer_is_trusted:
            forwarded[name] = forwarded[name] + b", " + value if name in forwarded else value
    if named_by_connection:
        kept = [field for field in kept if field[0] not in named_by_connection]
    if not keep_accept_encoding:
        kept.append((b"accept-encoding", b"identity"))
    return kept + _forwarded_fields(forwarded, client_ip, scheme, host)


def _forwarded_fields(
    believed: dict[bytes, bytes], client_ip: bytes, scheme: bytes, host: bytes
) -> Headers:
    if not believed:
        return [
            (b"x-forwarded-for", client_ip),
            (b"x-forwarded-proto", scheme),
            (b"x-forwarded-host", host),
        ]
    before = believed.get(b"x-forwarded-for")
    ours = {
        b"x-forwarded-for": before + b", " + client_ip if before else client_ip,
        b"x-forwarded-proto": believed.get(b"x-forwarded-proto", scheme),
        b"x-forwarded-host": believed.get(b"x-forwarded-host", host),
    }
    return list((believed | ours).items())


def answer_headers(
    headers: Headers, *, status: int, cache_status: bytes, request_id: bytes | None
) -> Headers:
    """
    The fields of an answer as they go on to the client.

    Names may be in any case and keep it.  Hop-by-hop fields are removed and our
    `Cache-Status` comes behind those of the caches before us.  Errors leave with
    `Cache-Control: no-store`; 204 and 304 without `Content-Length`.  A given
    `request_id` replaces imgproxy's: clients that share a fetch do not share it.

    Source: RFC 9110 sections 6.4.1 and 7.6.1, RFC 9211 section 2
    """
    removed = _removed_from_answer(status, request_id is not None)
    kept: Headers = []
    named_by_connection = _NONE
    for field in headers:
        name = field[0].lower()
        if name not in removed:
            kept.append(field)
        elif name == b"connection":
            named_by_connection |= _connection_options(field[1])
    if named_by_connection:
        kept = [field for field in kept if field[0].lower() not in named_by_connection]
    if request_id is not None:
        kept.append((b"X-Request-Id", request_id))
    if status >= 400:
        kept.append((b"Cache-Control", b"no-store"))
    kept.append((b"Cache-Status", cache_status))
    return kept


@lru_cache(maxsize=256)
def _removed_from_answer(status: int, has_request_id: bool) -> frozenset[bytes]:
    removed = set(_HOP_BY_HOP)
    if status in (204, 304):
        removed.add(b"content-length")
    if status >= 400:
        removed.add(b"cache-control")
    if has_request_id:
        removed.add(b"x-request-id")
    return frozenset(removed)


@lru_cache(maxsize=256)
def _connection_options(value: bytes) -> frozenset[bytes]:
    """The end-to-end fields that a `Connection` field makes hop-by-hop."""
    options = frozenset(option.strip(b" \t") for option in value.lower().split(b","))
    return options - _NOT_CONNECTION_OPTIONS


@dataclass(frozen=True, slots=True)
class StoredFields:
    """The header fields that are kept with an image."""

    content_type: str
    cache_control: str | None
    content_disposition: str | None


def stored_fields(headers: Headers) -> StoredFields:
    """Read what is kept with an image; a repeated field's values are joined by commas."""
    found: dict[bytes, str] = {}
    for field in headers:
        name = field[0].lower()
        if name in (b"content-type", b"cache-control", b"content-disposition"):
            value = field[1].decode("latin-1")
            found[name] = f"{found[name]}, {value}" if name in found else value
    return StoredFields(
        content_type=found.get(b"content-type", "application/octet-stream"),
        cache_control=found.get(b"cache-control"),
        content_disposition=found.get(b"content-disposition"),
    )
