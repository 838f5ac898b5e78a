"""How long a message's body is (RFC 9112 section 6)."""

from imgproxy_cache.core.headers import Headers


def content_length(headers: Headers) -> int | None:
    """
    The declared length of an answer's body in bytes; None where nothing, or no number, is declared.

    For answers that llhttp has accepted, which refuses conflicting declarations.
    """
    for name, value in headers:
        if len(name) == 14 and name.lower() == b"content-length":
            return int(value) if value.isdigit() else None
    return None


def is_close_delimited(headers: Headers) -> bool:
    """Whether only the end of the connection ends an answer's body (RFC 9112 section 6.3)."""
    return not any(name.lower() in (b"content-length", b"transfer-encoding") for name, _ in headers)


def is_coded(headers: Headers) -> bool:
    """
    Whether an answer's body has a transfer coding besides chunks, which nobody has asked for and
    nobody here takes off (RFC 9112 section 7.4).
    """
    for name, value in headers:
        if (
            len(name) == 17
            and name.lower() == b"transfer-encoding"
            and value.strip().lower() != b"chunked"
        ):
            return True
    return False


def has_body(request_headers: Headers) -> bool:
    """Whether a request brings a body; names are lower-case."""
    for name, value in request_headers:
        if name == b"content-length":
            if value != b"0":
                return True
        elif name == b"transfer-encoding":
            return True
    return False
