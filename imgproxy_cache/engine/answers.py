"""
The header fields of an answer, as imgproxy 4 sets them.

Values in, values out: ``now`` is Unix time.
"""

from __future__ import annotations

import mimetypes
import re
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from types import MappingProxyType
from urllib.parse import unquote, urlsplit

from imgproxy_cache.engine.options import Options
from imgproxy_cache.engine.render import Rendered
from imgproxy_cache.engine.settings import AnswerRules, FallbackRules
from imgproxy_cache.engine.sources import Headers

CONTENT_SECURITY_POLICY = b"default-src 'none'; style-src 'unsafe-inline'; img-src data:; sandbox"
CONTENT_TYPES: Mapping[str, str] = MappingProxyType(
    {"heic": "image/heif", "ico": "image/x-icon", "svg": "image/svg+xml"}
)
EXTENSIONS: Mapping[str, str] = MappingProxyType({"jpeg": ".jpg"})
PASSED_ON_FROM_RAW = frozenset(
    {
        b"content-type",
        b"content-encoding",
        b"content-range",
        b"accept-ranges",
        b"last-modified",
        b"etag",
    }
)


@dataclass(frozen=True, slots=True)
class Answer:
    """What is sent, but for the fields that every answer has."""

    status: int
    headers: Headers
    body: bytes


def first(headers: Headers, name: bytes) -> str | None:
    """The first field of a lower-case name."""
    for field, value in headers:
        if field.lower() == name:
            return value.decode("latin-1")
    return None


def image_headers(
    rendered: Rendered,
    *,
    url: str,
    options: Options,
    source: Headers,
    source_bytes: int,
    rules: AnswerRules,
) -> Headers:
    """What belongs to an image, but for how long it may be kept."""
    name = rendered.format
    disposition = content_disposition(url, options, extension=EXTENSIONS.get(name, f".{name}"))
    headers = [
        (b"Content-Type", CONTENT_TYPES.get(name, f"image/{name}").encode()),
        (b"Content-Disposition", disposition),
        *validators(source, rules),
        *canonical(url, rules),
        *vary(rules),
    ]
    if rules.debug:
        sizes = {
            b"X-Origin-Content-Length": source_bytes,
            b"X-Origin-Width": rendered.source_width,
            b"X-Origin-Height": rendered.source_height,
            b"X-Result-Width": rendered.width,
            b"X-Result-Height": rendered.height,
        }
        headers += [(name, b"%d" % size) for name, size in sizes.items()]
    return headers


def validators(source: Headers, rules: AnswerRules) -> Headers:
    """The source's own, whatever was made of it."""
    etag = first(source, b"etag") if rules.etag else None
    modified = first(source, b"last-modified") if rules.last_modified else None
    headers = [(b"Etag", etag.encode("latin-1"))] if etag else []
    if modified and _date_seconds(modified) is not None:
        headers.append((b"Last-Modified", modified.encode("latin-1")))
    return headers


def vary(rules: AnswerRules) -> Headers:
    return [(b"Vary", b"Accept")] if rules.auto_formats else []


def canonical(url: str, rules: AnswerRules) -> Headers:
    if not rules.canonical or not url.startswith(("http://", "https://")):
        return []
    return [(b"Link", _field(f'<{url}>; rel="canonical"'))]


def cache_control(
    status: int,
    *,
    expires: int,
    source: Headers,
    rules: AnswerRules,
    now: float,
    fallback: FallbackRules | None = None,
) -> Headers:
    """
    How long an answer may be kept.

    A lifetime of the fallback image or of the URL itself wins, then errors have
    none, then the source's where it is passed on, then the settings'.
    """
    ttl = rules.ttl_seconds
    lifetime = fallback.ttl_seconds if fallback and fallback.ttl_seconds else None
    if expires:
        left = max(0, int(expires - now))
        lifetime = min(ttl, left) if lifetime is None else min(lifetime, left)
    if lifetime:
        return _max_age(lifetime)
    if status >= 400:
        return []
    if rules.cache_control_passthrough:
        if theirs := first(source, b"cache-control"):
            return [(b"Cache-Control", theirs.encode("latin-1"))]
        end = None if fallback else _date_seconds(first(source, b"expires") or "")
        if end is not None and int(end - now) > 0:
            return _max_age(int(end - now))
    return _max_age(ttl) if ttl else [(b"Cache-Control", b"no-cache")]


def content_disposition(
    url: str, options: Options, *, extension: str = "", content_type: str = ""
) -> bytes:
    """Name the file after the option, else after the URL."""
    stem, dot, ending = url.rpartition("/")[2].rpartition(".")
    if not dot:
        stem, ending = ending, ""
    own_extension = f"{dot}{ending}"
    if not extension and not own_extension and content_type:
        known = mimetypes.guess_all_extensions(content_type.partition(";")[0].strip())
        own_extension = min(known, default="")
    stem = (options.filename or stem or "image").replace('"', "%22")
    kind = "attachment" if options.return_attachment else "inline"
    return _field(f'{kind}; filename="{stem}{extension or own_extension}"')


def raw_headers(
    status: int, source: Headers, *, url: str, options: Options, rules: AnswerRules
) -> Headers:
    """What of a source's answer is passed on with ``raw``."""
    headers = [field for field in source if field[0].lower() in PASSED_ON_FROM_RAW]
    headers += canonical(url, rules)
    if length := first(source, b"content-length"):
        headers.append((b"Content-Length", length.encode("latin-1")))
    if 200 <= status < 300:
        kind = first(source, b"content-type") or ""
        path = unquote(urlsplit(url).path) if url.startswith(("http://", "https://")) else url
        disposition = content_disposition(path, options, content_type=kind)
        headers.append((b"Content-Disposition", disposition))
    return headers


def _max_age(seconds: int) -> Headers:
    return [(b"Cache-Control", b"max-age=%d, public" % seconds)]


def _date_seconds(text: str) -> float | None:
    try:
        return parsedate_to_datetime(text).timestamp()
    except ValueError:
        return None


_CONTROL = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")


def _field(text: str) -> bytes:
    """A field's value: line ends, and other control characters with them, become spaces."""
    return _CONTROL.sub(b" ", text.encode("utf-8", "surrogateescape"))
