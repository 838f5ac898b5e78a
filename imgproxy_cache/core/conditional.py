"""A request for an image that is kept: the whole of it, a part, or that it has not changed."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final, NamedTuple

from imgproxy_cache.core.headers import CONDITIONS_AND_RANGE, Headers
from imgproxy_cache.core.hit import entity_tag, lasting_fields, passing_fields
from imgproxy_cache.core.http_date import http_date, read_http_date
from imgproxy_cache.core.kept import KeptAnswer

# RFC 9110 section 15.4.5; Cache-Status is of the caches before us.
_OF_NOT_MODIFIED: Final = frozenset(
    {
        b"cache-control",
        b"cache-status",
        b"content-location",
        b"date",
        b"etag",
        b"expires",
        b"vary",
    }
)
_OF_REFUSALS: Final = frozenset({b"cache-status", b"vary"})
# Without these a script of another origin is told nothing of an answer, not even its status.
_CORS: Final = b"access-control-"


class Reply(NamedTuple):
    """An answer: its body is that of what is kept from `start` up to, but not with, `end`."""

    status: int
    fields: Headers
    start: int
    end: int


def reply(
    kept: KeptAnswer,
    request_headers: Headers,
    *,
    method: str,
    now: float,
    cache_status: bytes,
    request_id: bytes | None = None,
    size: int | None = None,
) -> Reply:
    """
    How a `GET` or `HEAD` is answered from what is kept.

    Names of `request_headers` are in lower case, `request_id` is the client's, if it sent one,
    and `size` that of the body, where `kept` comes without it.  Of several ranges none is taken:
    the whole image is an answer to them too, and one that cannot be abused.

    Source: RFC 9110 sections 13.2.2 and 14.2
    """
    whole = len(kept.body) if size is None else size
    asked = _asked(request_headers)
    status, start, end = _status_and_part(kept, asked, method, whole, now)
    passing = passing_fields(
        kept.lifetimes, now=now, cache_status=cache_status, request_id=request_id
    )
    if status == 304:
        fields = _only(_OF_NOT_MODIFIED, lasting_fields(kept)) + passing
    elif status in (412, 416):
        fields = _fields_of_refusal(kept, status, whole, now)
        fields += [field for field in passing if field[0] != b"Age"]  # it is made just now
    else:
        fields = lasting_fields(kept, size=end - start)
        if status == 206:
            fields.append((b"Content-Range", b"bytes %d-%d/%d" % (start, end - 1, whole)))
        fields += passing
    return Reply(status, fields, start, end) if method == "GET" else Reply(status, fields, 0, 0)


_Asked = Mapping[bytes, bytes]


def _asked(request_headers: Headers) -> _Asked:
    asked: dict[bytes, bytes] = {}
    for name, value in request_headers:
        if name in CONDITIONS_AND_RANGE:
            said = value.strip(b" \t")
            asked[name] = asked[name] + b", " + said if name in asked else said
    return asked


def _status_and_part(
    kept: KeptAnswer, asked: _Asked, method: str, size: int, now: float
) -> tuple[int, int, int]:
    # RFC 9110 section 13.2.1: what is no success without conditions is none with them.
    if not asked or kept.status != 200:
        return kept.status, 0, size
    status = _status_by_conditions(kept, asked, now)
    if status != 200:
        return status, 0, 0
    part = None
    if method == "GET" and b"range" in asked and _range_applies(kept, asked, now):
        part = _part(asked[b"range"], size)
    if part is None:
        return 200, 0, size
    start, end = part
    return (206, start, end) if start < end else (416, 0, 0)


def _status_by_conditions(kept: KeptAnswer, asked: _Asked, now: float) -> int:
    """200, 304 or 412, in the order of RFC 9110 section 13.2.2."""
    etag = entity_tag(kept)
    if b"if-match" in asked:
        if not _lists(asked[b"if-match"], etag, weak_too=False):
            return 412
    elif b"if-unmodified-since" in asked:
        unmodified_since = read_http_date(asked[b"if-unmodified-since"], now)
        modified = _date(kept, b"last-modified", now)
        # Section 13.1.4: what is no date, or has none to be compared with, is ignored.
        if unmodified_since is not None and modified is not None and modified > unmodified_since:
            return 412
    if b"if-none-match" in asked:
        return 304 if _lists(asked[b"if-none-match"], etag, weak_too=True) else 200
    if b"if-modified-since" in asked:
        modified_since = read_http_date(asked[b"if-modified-since"], now)
        if modified_since is not None and _last_change(kept, now) <= modified_since:
            return 304
    return 200


def _lists(value: bytes, etag: bytes, *, weak_too: bool) -> bool:
    """
    Whether a list of entity tags has ours in it.

    No tag has a quote inside, so that nowhere in a list, but as one of it, stands
    ours with its quotes.
    """
    if value == b"*":
        return True
    return etag in (value if weak_too else value.replace(b"W/" + etag, b" "))


def _last_change(kept: KeptAnswer, now: float) -> float:
    """When the image changed, as far as we know (RFC 9111 section 4.3.2)."""
    for name in (b"last-modified", b"date"):
        changed = _date(kept, name, now)
        if changed is not None:
            return changed
    return kept.lifetimes.received_at


def _date(kept: KeptAnswer, wanted: bytes, now: float) -> int | None:
    values = [value for name, value in kept.fields if name.lower() == wanted]
    return read_http_date(values[0], now) if len(values) == 1 else None


def _range_applies(kept: KeptAnswer, asked: _Asked, now: float) -> bool:
    """
    Whether the client's part is of this very image (RFC 9110 section 13.1.5).

    `Last-Modified` is the source's: variants share it, so that it proves nothing
    where there are some.  Elsewhere it must have been over for a second when the
    answer was made (section 8.8.2.2).
    """
    value = asked.get(b"if-range")
    if value is None:
        return True
    if value == entity_tag(kept):
        return True
    said = read_http_date(value, now)
    made, modified = _date(kept, b"date", now), _date(kept, b"last-modified", now)
    if said is None or made is None or modified is None or kept.selection:
        return False
    return said == modified < made


_POSITIONS = re.compile(rb"([0-9]*)-([0-9]*)")


def _part(value: bytes, size: int) -> tuple[int, int] | None:
    """
    The one range that is asked for, from its start up to, but not with, its end.

    None for anything else than one range of bytes; without a byte in it where
    the image has none of them.
    """
    unit, _, ranges = value.partition(b"=")
    wanted = [one for part in ranges.split(b",") if (one := part.strip(b" \t"))]
    match = _POSITIONS.fullmatch(wanted[0]) if len(wanted) == 1 else None
    if match is None or unit.lower() != b"bytes":
        return None
    first, last = match.groups()
    if not first:
        return (max(0, size - _number(last)), size) if last else None
    start = _number(first)
    if not last:
        return start, size
    end = _number(last) + 1
    return (start, min(end, size)) if start < end else None


def _number(digits: bytes) -> int:
    # Twenty digits are farther than any image; int() of thousands of them would raise.
    return int(digits) if len(digits) < 20 else int(digits.lstrip(b"0")[:20] or b"0")


def _fields_of_refusal(kept: KeptAnswer, status: int, size: int, now: float) -> Headers:
    fields = _only(_OF_REFUSALS, list(kept.fields))
    fields.append((b"Content-Length", b"0"))
    fields.append((b"Cache-Control", b"no-store"))
    fields.append((b"Date", http_date(int(now))))
    if status == 416:
        fields.append((b"Content-Range", b"bytes */%d" % size))
    return fields


def _only(names: frozenset[bytes], fields: Headers) -> Headers:
    return [
        field for field in fields if (name := field[0].lower()) in names or name.startswith(_CORS)
    ]
