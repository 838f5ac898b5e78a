"""An answer as the tiers of read-through keep it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, NewType

Selection = tuple[tuple[bytes, bytes], ...]
"""
Names and values of the request's fields that `Vary` made the answer depend on; () if none.

Values are reduced to what imgproxy can tell apart: see
:func:`~imgproxy_cache.core.variants.selection`.
"""

TierKey = NewType("TierKey", bytes)
"""What a tier finds an answer by."""


class Lifetimes(NamedTuple):
    """
    Until when an answer may be given, in seconds since the epoch.

    Behind `fresh_until` only while it is validated in the background
    (`stale_while_revalidate_until`), or when imgproxy fails (`stale_if_error_until`).
    `age` is what it had already when it came, at `received_at`.

    Source: RFC 9111 section 4.2, RFC 5861
    """

    received_at: float
    age: float
    fresh_until: float
    stale_while_revalidate_until: float
    stale_if_error_until: float


@dataclass(frozen=True, slots=True, weakref_slot=True)
class KeptAnswer:
    """
    A whole answer of imgproxy.

    `name` says what it is the answer to: the path behind the signature, so that
    all spellings of one signed path have one.  `fields` are the end-to-end
    fields as they came, without those that are made anew for each hit
    (`Accept-Ranges`, `Age`, `Content-Length`, `ETag`, `X-Request-ID`; our member of
    `Cache-Status` comes behind those that are kept).
    `etag` is imgproxy's own: the source's, good for asking imgproxy whether
    that has changed, and for nothing else.  Clients see one made of `content_sha256`.
    """

    name: bytes
    selection: Selection
    status: int
    fields: tuple[tuple[bytes, bytes], ...]
    body: bytes
    content_sha256: str
    etag: bytes | None
    lifetimes: Lifetimes


@dataclass(frozen=True, slots=True)
class Signpost:
    """Stands in the place of an answer that varies: `names` are the fields, in lower case."""

    name: bytes
    names: tuple[bytes, ...]


Kept = KeptAnswer | Signpost


def without_body(kept: KeptAnswer) -> KeptAnswer:
    """What is known of an answer whose body is elsewhere; replace() would take four times this."""
    return KeptAnswer(
        kept.name,
        kept.selection,
        kept.status,
        kept.fields,
        b"",
        kept.content_sha256,
        kept.etag,
        kept.lifetimes,
    )


def signpost_to(kept: KeptAnswer) -> Signpost:
    """What leads to an answer that has a selection."""
    return Signpost(kept.name, tuple(name for name, _ in kept.selection))


def tier_key(name: bytes, selection: Selection = ()) -> TierKey:
    """
    The key of an answer, or (without a selection) of a resource's signpost.

    Different pairs have different keys: a target has no space and no line end in it, a
    field's value no line end.
    """
    if not selection:
        return TierKey(name)
    return TierKey(b"\n".join([name, *(b"%b: %b" % field for field in selection)]))
