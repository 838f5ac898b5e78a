"""URLs of sources, read as Go's net/http reads them."""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass
from urllib.parse import quote, unquote_to_bytes

from imgproxy_cache.engine.errors import SourceUnreachable

MOST_PORT = 65535
DEFAULT_PORTS = {"http": 80, "https": 443}
URL = re.compile(
    r"""(?P<scheme>https?)://
        (?:(?P<user>[^/?#]*)@)?
        (?P<host>\[[0-9a-f:.]+(?:%25[\w.~-]+)?\]|[^\s/?#@:\[\]%\\^`{|}<>"]+)
        (?::(?P<port>[0-9]{0,5}))?
        (?P<path>/[^?#]*)?(?P<query>\?[^#]*)?(?:\#.*)?""",
    re.VERBOSE | re.IGNORECASE,
)
CONTROL = re.compile(r"[\x00-\x1f\x7f]")
BROKEN_ESCAPE = re.compile(r"%(?![0-9a-fA-F]{2})")
# What is left as it is written; the rest is escaped
PATH_SAFE = "%/:@!$&'()*+,;=~[]"
QUERY_SAFE = PATH_SAFE + '?\\^`{|}<>"#'


@dataclass(frozen=True, slots=True)
class HttpUrl:
    scheme: str
    host: str
    """A name or an address, without brackets."""
    port: int
    authority: bytes
    """What ``Host`` says."""
    target: bytes
    authorization: bytes | None


def http_url(text: str) -> HttpUrl:
    """
    Read a URL.

    Raises: SourceUnreachable for what is none.
    """
    parts = URL.fullmatch(text)
    try:
        if parts and not CONTROL.search(text) and not BROKEN_ESCAPE.search(parts["path"] or ""):
            return _from_parts(parts)
    except (UnicodeError, ValueError) as exc:
        raise SourceUnreachable(f"{text!r}: {exc}") from exc
    raise SourceUnreachable(f"{text!r} is no http or https URL")


def _from_parts(parts: re.Match[str]) -> HttpUrl:
    scheme = parts["scheme"].lower()
    port = int(parts["port"] or DEFAULT_PORTS[scheme])
    if port > MOST_PORT:
        raise ValueError(f"no port is {port}")
    host = parts["host"].lower()
    host = host if host.isascii() else host.encode("idna").decode()
    return HttpUrl(
        scheme=scheme,
        host=host.strip("[]").replace("%25", "%"),
        port=port,
        authority=(host if port == DEFAULT_PORTS[scheme] else f"{host}:{port}").encode(),
        target=_quoted(parts["path"] or "/", PATH_SAFE) + _quoted(parts["query"] or "", QUERY_SAFE),
        authorization=_basic(parts["user"]) if parts["user"] is not None else None,
    )


def _quoted(text: str, safe: str) -> bytes:
    # Bytes that are no UTF-8 are kept in strings as lone surrogates: PEP 383
    return quote(text, safe, errors="surrogateescape").encode()


def _basic(user: str) -> bytes:
    """Source: RFC 7617 section 2."""
    name, _, password = user.partition(":")
    return b"Basic " + base64.b64encode(unquote_to_bytes(name) + b":" + unquote_to_bytes(password))
