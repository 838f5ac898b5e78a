"""What is kept of an answer, and the fields of the answers that are made of it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from http import HTTPStatus
from types import MappingProxyType
from typing import Final

from imgproxy_cache.core.answer_fields import AnswerFields
from imgproxy_cache.core.cache_status import cache_status_of_hit
from imgproxy_cache.core.freshness import current_age
from imgproxy_cache.core.headers import Headers
from imgproxy_cache.core.http_date import http_date
from imgproxy_cache.core.kept import KeptAnswer, Lifetimes, Selection
from imgproxy_cache.core.media_types import SVG, media_type

NEVER_KEPT: Final = frozenset(
    {
        # made anew for each answer
        b"accept-ranges",
        b"age",
        b"content-length",
        b"etag",
        b"x-request-id",
        # for the client that asked first alone
        b"set-cookie",
        # RFC 9111 section 3.1
        b"proxy-authentication-info",
    }
)
"""The end-to-end fields of an answer that are not kept with it."""

# What imgproxy 3.30 sends with every image, and the least that an SVG needs.
_NO_SCRIPTS: Final = (b"Content-Security-Policy", b"script-src 'none'")
# What 4 sends with every image.
_SANDBOX: Final = (
    b"Content-Security-Policy",
    b"default-src 'none'; style-src 'unsafe-inline'; img-src data:; sandbox",
)
_CONTROLS = re.compile(rb"[\x00-\x1f\x7f]")


def kept_from_answer(
    *,
    name: bytes,
    selection: Selection,
    status: int,
    fields: AnswerFields,
    body: bytes,
    content_sha256: str,
    lifetimes: Lifetimes,
) -> KeptAnswer:
    """
    What is kept of a whole answer: its end-to-end fields but for those of :data:`NEVER_KEPT`.

    imgproxy's `ETag` becomes `etag`, unless there are several.  An answer without
    a `Date` gets that of its arrival, an SVG without a Content-Security-Policy
    one that keeps its scripts from running.

    Source: RFC 9110 section 6.6.1, RFC 9111 section 3.1
    """
    kept: Headers = []
    etags: list[bytes] = []
    names: set[bytes] = set()
    for field in fields.for_clients:
        lower = field[0].lower()
        names.add(lower)
        if lower == b"etag":
            etags.append(field[1])
        if lower not in NEVER_KEPT:
            kept.append(field)
    is_svg = media_type(fields.by_name.get(b"content-type", b"")) == SVG
    if is_svg and b"content-security-policy" not in names:
        kept.append(_NO_SCRIPTS)
    if b"date" not in names:
        kept.append((b"Date", http_date(int(lifetimes.received_at))))
    return KeptAnswer(
        name=name,
        selection=selection,
        status=status,
        fields=tuple(kept),
        body=body,
        content_sha256=content_sha256,
        etag=etags[0] if len(etags) == 1 else None,
        lifetimes=lifetimes,
    )


def fields_of_stored_image(
    content_type: str,
    cache_control: str | None,
    content_disposition: str | None,
) -> tuple[tuple[bytes, bytes], ...]:
    """
    What imgproxy would have sent, but for a `Date`, with an image of which a store has kept three
    fields.

    Its two lines differ in the Content-Security-Policy: this is that of 4, which forbids
    what 3.30 forbids and more.  Neither sends `X-Content-Type-Options`.  Others may write
    to a store: what would end a line is taken out.
    """
    fields: Headers = []
    if cache_control is not None:
        fields.append((b"Cache-Control", _field_value(cache_control)))
    if content_disposition is not None:
        fields.append((b"Content-Disposition", _field_value(content_disposition)))
    fields.append(_SANDBOX)
    fields.append((b"Content-Type", _field_value(content_type)))
    fields.append((b"Server", b"imgproxy"))
    return tuple(fields)


def _field_value(text: str) -> bytes:
    return _CONTROLS.sub(b"", text.encode("latin-1", "replace"))


def hit_lines(
    kept: KeptAnswer, *, now: float, cache_status: bytes, request_id: bytes | None, size: int
) -> bytes:
    """
    The fields of an answer that is made of what is kept, as lines.

    `request_id` is the client's, if it sent one.  `size` is the body's, for `kept` comes without.
    """
    passing = passing_lines(
        kept.lifetimes, now=now, cache_status=cache_status, request_id=request_id
    )
    return lasting_lines(kept, size) + passing


class HitHeads:
    """
    Heads of whole hits from a tier, as they are written on a connection of HTTP/1.1 that stays
    open: what all hits of an answer have, and behind it what those of one second have.
    """

    def __init__(self, tier: bytes) -> None:
        self._tier = tier

    def lasting(self, kept: KeptAnswer, size: int) -> bytes:
        return b"%b\r\n%b" % (status_line(kept.status), lasting_lines(kept, size))

    def passing(self, lifetimes: Lifetimes, now: float) -> bytes:
        status = cache_status_of_hit(lifetimes, now, self._tier)
        return passing_lines(lifetimes, now=now, cache_status=status) + b"\r\n"


def lasting_lines(kept: KeptAnswer, size: int) -> bytes:
    """Those of :func:`lasting_fields`, in half the time that these take."""
    lines = [b"%b: %b\r\n" % field for field in kept.fields]
    if kept.status not in (204, 304):
        lines.append(b"Content-Length: %d\r\n" % size)
    if kept.status == 200:
        lines.append(b"ETag: %b\r\nAccept-Ranges: bytes\r\n" % entity_tag(kept))
    return b"".join(lines)


def passing_lines(
    lifetimes: Lifetimes, *, now: float, cache_status: bytes, request_id: bytes | None = None
) -> bytes:
    """Those of :func:`passing_fields`."""
    age = current_age(lifetimes, now)
    if request_id is None:
        return b"Age: %d\r\nCache-Status: %b\r\n" % (age, cache_status)
    return b"Age: %d\r\nX-Request-Id: %b\r\nCache-Status: %b\r\n" % (age, request_id, cache_status)


def lasting_fields(kept: KeptAnswer, *, size: int | None = None) -> Headers:
    """
    The fields that all answers made of `kept` have.

    `size` is the body's, where `kept` comes without it.
    """
    fields = list(kept.fields)
    if kept.status not in (204, 304):
        fields.append((b"Content-Length", b"%d" % (len(kept.body) if size is None else size)))
    if kept.status == 200:
        fields += ((b"ETag", entity_tag(kept)), (b"Accept-Ranges", b"bytes"))
    return fields


def passing_fields(
    lifetimes: Lifetimes,
    *,
    now: float,
    cache_status: bytes,
    request_id: bytes | None = None,
) -> Headers:
    """
    The fields that are of one answer, or of one second.

    `request_id` is the client's, if it sent one.
    """
    fields = [(b"Age", b"%d" % current_age(lifetimes, now))]
    if request_id is not None:
        fields.append((b"X-Request-Id", request_id))
    # Behind those of the caches before us: RFC 9211 section 2.
    fields.append((b"Cache-Status", cache_status))
    return fields


def entity_tag(kept: KeptAnswer) -> bytes:
    """Our own strong entity tag: half a hash of the content is more than enough to tell it."""
    return b'"%b"' % kept.content_sha256[:32].encode("ascii")


def status_line(status: int) -> bytes:
    """Without its end."""
    return _STATUS_LINES.get(status) or b"HTTP/1.1 %d " % status


_STATUS_LINES: Final[Mapping[int, bytes]] = MappingProxyType(
    {status: f"HTTP/1.1 {status} {status.phrase}".encode("ascii") for status in HTTPStatus}
)
