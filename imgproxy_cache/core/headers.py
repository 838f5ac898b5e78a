"""Which header fields of a request pass on to imgproxy."""

from imgproxy_cache.core.short_values import remembered_if_short

Headers = list[tuple[bytes, bytes]]
"""Field lines in the order of the wire, repeated fields apart."""

# RFC 9110 section 7.6.1; Proxy-Authenticate and Proxy-Authorization as Go's ReverseProxy has it;
# HTTP2-Settings belongs to an Upgrade.
HOP_BY_HOP = frozenset(
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
CONDITIONS_AND_RANGE = frozenset(
    {
        b"if-match",
        b"if-modified-since",
        b"if-none-match",
        b"if-range",
        b"if-unmodified-since",
        b"range",
    }
)
"""What a client may ask of an image that it knows in part or in whole (RFC 9110, 13 and 14)."""
# Bodies stay with us, and so does what announces them.
_KEPT_FROM_UPSTREAM = HOP_BY_HOP | {b"content-length", b"expect"}
_LOOKED_AT_IN_REQUESTS = _KEPT_FROM_UPSTREAM | {b"accept-encoding", b"host"}
# What no Connection field may take away: without Host there is no request.
_NOT_CONNECTION_OPTIONS = HOP_BY_HOP | {b"", b"close", b"host"}
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
                named_by_connection |= connection_options(value)
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


# No client of good will sends a long one: 256 of 64 KB would be half a gigabyte of options.
@remembered_if_short(most=256, longest=256)
def connection_options(value: bytes) -> frozenset[bytes]:
    """The end-to-end fields that a `Connection` field makes hop-by-hop."""
    options = frozenset(option.strip(b" \t") for option in value.lower().split(b","))
    return options - _NOT_CONNECTION_OPTIONS
