"""Asking imgproxy whether what is kept is still good, and what its answer changes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from imgproxy_cache.core.answer_fields import AnswerFields
from imgproxy_cache.core.headers import Headers
from imgproxy_cache.core.hit import NEVER_KEPT
from imgproxy_cache.core.http_date import http_date
from imgproxy_cache.core.kept import KeptAnswer, Lifetimes
from imgproxy_cache.core.variants import named_fields

# RFC 5861 section 4, and 429: imgproxy's own queue is full.
_OUTAGES: Final = frozenset({429, 500, 502, 503, 504})
# By these it was decided to keep the body, which stays the same (RFC 9111 section 3.2).
_NOT_UPDATED: Final = NEVER_KEPT | {b"content-encoding", b"content-range", b"content-type"}


def is_outage(status: int) -> bool:
    """Whether an answer of imgproxy is a failure that what is stale may stand in for."""
    return status in _OUTAGES


def validation_fields(kept: KeptAnswer) -> Headers:
    """
    What asks imgproxy for an answer only if it is another; empty where nothing can.

    imgproxy 4 asks the source in turn: the validators are the source's.

    Source: RFC 9111 section 4.3.1
    """
    fields: Headers = []
    if kept.etag is not None:
        fields.append((b"if-none-match", kept.etag))
    modified = _values(b"last-modified", kept.fields)
    if len(modified) == 1:
        fields.append((b"if-modified-since", modified[0]))
    return fields


def confirms(kept: KeptAnswer, fields: AnswerFields) -> bool:
    """
    Whether a 304 with these fields is about what is kept.

    It is not where it names another version of the source, or other request fields that
    the answer depends on: imgproxy's settings have changed, and what is kept may be an
    image for everyone that by now is one of several.

    Source: RFC 9111 section 4.3.4
    """
    vary = b", ".join(_values(b"vary", fields.for_clients))
    if vary and named_fields(vary) != named_fields(b", ".join(_values(b"vary", kept.fields))):
        return False
    etags = _values(b"etag", fields.for_clients)
    if etags:
        return kept.etag is not None and _opaque(etags[0]) == _opaque(kept.etag)
    modified = _values(b"last-modified", fields.for_clients)
    return not modified or modified == _values(b"last-modified", kept.fields)


def updated_fields(
    kept: KeptAnswer, fields: AnswerFields, received_at: float
) -> Mapping[bytes, bytes]:
    """
    What is kept by lower-case name, repeated fields joined by commas, as a 304 with
    these fields updates it: for :func:`~imgproxy_cache.core.freshness.lifetimes`.
    """
    joined: dict[bytes, bytes] = {}
    for name, value in _updated(kept, fields, received_at):
        lower = name.lower()
        joined[lower] = joined[lower] + b", " + value if lower in joined else value
    if b"age" in fields.by_name:
        joined[b"age"] = fields.by_name[b"age"]
    return joined


def freshened(kept: KeptAnswer, fields: AnswerFields, lifetimes: Lifetimes) -> KeptAnswer:
    """
    What is kept, after a 304 with these fields that :func:`confirms` it.

    `lifetimes` are those of :func:`updated_fields`.

    Source: RFC 9111 sections 3.2 and 4.3.4
    """
    etags = _values(b"etag", fields.for_clients)
    return replace(
        kept,
        fields=tuple(_updated(kept, fields, lifetimes.received_at)),
        etag=etags[0] if len(etags) == 1 else kept.etag,
        lifetimes=lifetimes,
    )


def _updated(kept: KeptAnswer, fields: AnswerFields, received_at: float) -> Headers:
    new = [field for field in fields.for_clients if field[0].lower() not in _NOT_UPDATED]
    if b"date" not in fields.by_name:  # RFC 9110 section 6.6.1
        new.append((b"Date", http_date(int(received_at))))
    replaced = {name.lower() for name, _ in new}
    return [*(field for field in kept.fields if field[0].lower() not in replaced), *new]


def _values(wanted: bytes, fields: Headers | tuple[tuple[bytes, bytes], ...]) -> list[bytes]:
    return [value for name, value in fields if name.lower() == wanted]


def _opaque(etag: bytes) -> bytes:
    return etag.removeprefix(b"W/")
