"""What the header fields of an answer come to: for its clients, for the decision to store it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

from imgproxy_cache.core.headers import HOP_BY_HOP, Headers, connection_options

# Those that decide about storing, or are stored with an image.
_NAMED: Final = frozenset(
    {
        b"age",
        b"cache-control",
        b"content-disposition",
        b"content-encoding",
        b"content-length",
        b"content-range",
        b"content-type",
        b"date",
        b"expires",
        b"set-cookie",
        b"vary",
    }
)
_OF_ONE_CLIENT: Final = frozenset({b"set-cookie", b"x-request-id"})
_NO_STORE: Final = (b"Cache-Control", b"no-store")


class AnswerFields(NamedTuple):
    """The fields of an answer, read once for all the clients that share it."""

    for_clients: Headers
    by_name: Mapping[bytes, bytes]
    """By lower-case name, repeated ones joined by commas; only those that decide or are stored."""

    @property
    def content_length(self) -> int | None:
        """Declared bytes of body; None where nothing, or no number, is declared."""
        value = self.by_name.get(b"content-length", b"")
        return int(value) if value.isdigit() else None


def read_answer_fields(status: int, headers: Headers) -> AnswerFields:
    """
    Read the fields of an answer as it came; names may be in any case and keep it.

    Clients get no hop-by-hop fields; 204 and 304 come without `Content-Length`,
    errors with `Cache-Control: no-store`.

    Source: RFC 9110 sections 6.4.1, 7.6.1 and 8.6
    """
    kept: Headers = []
    by_name: dict[bytes, bytes] = {}
    named_by_connection: frozenset[bytes] = frozenset()
    for field in headers:
        name = field[0].lower()
        if name in _NAMED:
            by_name[name] = by_name[name] + b", " + field[1] if name in by_name else field[1]
        elif name in HOP_BY_HOP:
            if name == b"connection":
                named_by_connection |= connection_options(field[1])
            continue
        kept.append(field)
    if status in (204, 304):
        by_name[b"content-length"] = b"0"
        named_by_connection |= {b"content-length"}
    if status >= 400:
        named_by_connection |= {b"cache-control"}
    if named_by_connection:
        kept = [field for field in kept if field[0].lower() not in named_by_connection]
    if status >= 400:
        kept.append(_NO_STORE)
    return AnswerFields(kept, by_name)


def answer_headers(
    fields: AnswerFields,
    *,
    cache_status: bytes,
    request_id: bytes | None,
    hides_etag: bool = False,
) -> Headers:
    """
    The fields of an answer as they go on to one client.

    Our `Cache-Status` comes behind those of the caches before us.  A given
    `request_id` replaces imgproxy's: clients that share a fetch do not share it,
    nor the cookies that were set for the one that asked first.  Where the tiers
    answer with an `ETag` of their own, imgproxy's, which is the source's, is hidden.

    Source: RFC 9211 section 2
    """
    kept = fields.for_clients
    if request_id is not None:
        kept = [field for field in kept if field[0].lower() not in _OF_ONE_CLIENT]
        kept.append((b"X-Request-Id", request_id))
    if hides_etag:
        kept = [field for field in kept if field[0].lower() != b"etag"]
    return [*kept, (b"Cache-Status", cache_status)]


class StoredFields(NamedTuple):
    """The header fields that are kept with an image."""

    content_type: str
    cache_control: str | None
    content_disposition: str | None


def stored_fields(fields: AnswerFields) -> StoredFields:
    """Read what is kept with an image."""
    found = fields.by_name
    cache_control = found.get(b"cache-control")
    content_disposition = found.get(b"content-disposition")
    return StoredFields(
        found.get(b"content-type", b"application/octet-stream").decode("latin-1"),
        None if cache_control is None else cache_control.decode("latin-1"),
        None if content_disposition is None else content_disposition.decode("latin-1"),
    )
