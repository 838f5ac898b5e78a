"""
An answer, or a signpost, as one file that describes itself: see
:mod:`~imgproxy_cache.core.described_file`.

The description has a member `kept` or `signpost`.  A file of the spool that has the former
is such a file as well, so that it can move into the disk tier as it is.  Bytes are written
as the text that they are in ISO 8859-1: readable, and none is lost.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Any

from imgproxy_cache.core.described_file import (
    UnlikeWrittenError,
    check_body,
    described_head,
    read_description,
)
from imgproxy_cache.core.kept import Kept, KeptAnswer, Lifetimes, Signpost
from imgproxy_cache.errors import KeptFileError

_KEPT, _SPOOLED = b"imgproxy-cache-kept/1", b"imgproxy-cache-spool/1"
_OF_NOTHING = sha256(b"").hexdigest()


@dataclass(frozen=True, slots=True)
class KeptHead:
    """What stands before the body in a file: `kept` without it, where it begins, and its size."""

    kept: Kept
    body_at: int
    size: int


def kept_head(kept: Kept) -> bytes:
    """What stands in the file before the body."""
    if isinstance(kept, Signpost):
        name, names = _text(kept.name), [_text(name) for name in kept.names]
        description = {
            "size": 0,
            "content_sha256": _OF_NOTHING,
            "signpost": {"name": name, "names": names},
        }
    else:
        description = {
            "size": len(kept.body),
            "content_sha256": kept.content_sha256,
            "kept": kept_description(kept),
        }
    return described_head(_KEPT, description)


def kept_description(kept: KeptAnswer) -> dict[str, Any]:
    """All of an answer but its body and what describes that."""
    return {
        "name": _text(kept.name),
        "selection": _texts(kept.selection),
        "status": kept.status,
        "fields": _texts(kept.fields),
        "etag": None if kept.etag is None else _text(kept.etag),
        "lifetimes": kept.lifetimes._asdict(),
    }


def read_kept_file(content: bytes) -> Kept:
    """
    What was written.

    Raises:
        KeptFileError: the file is not whole, or not as it was written
    """
    return whole_kept(read_kept_head(content), content)


def read_kept_head(content: bytes) -> KeptHead:
    """
    What stands before the body, of which `content` need not have all.

    Raises:
        KeptFileError: it is not whole, or not as it was written
    """
    try:
        description, body_at = read_description(content, (_KEPT, _SPOOLED))
        return KeptHead(_kept(description), body_at, _number(description["size"]))
    except UnlikeWrittenError as exc:
        raise KeptFileError(str(exc)) from exc
    except (ValueError, TypeError, AttributeError, LookupError) as exc:
        raise KeptFileError("its description is another program's") from exc


def whole_kept(head: KeptHead, content: bytes) -> Kept:
    """
    What `head` begins, with the body that has to follow it.

    Raises:
        KeptFileError: it does not
    """
    body = content[head.body_at :]
    expected = _OF_NOTHING if isinstance(head.kept, Signpost) else head.kept.content_sha256
    try:
        check_body(body, head.size, expected)
    except UnlikeWrittenError as exc:
        raise KeptFileError(str(exc)) from exc
    return head.kept if isinstance(head.kept, Signpost) else replace(head.kept, body=body)


def kept_from_description(description: Any, content_sha256: str) -> KeptAnswer:
    """
    The answer without its body.

    Raises:
        ValueError, TypeError, AttributeError, LookupError: it is not as we write it
    """
    etag = description["etag"]
    return KeptAnswer(
        name=_bytes(description["name"]),
        selection=_pairs(description["selection"]),
        status=_number(description["status"]),
        fields=_pairs(description["fields"]),
        body=b"",
        content_sha256=content_sha256,
        etag=None if etag is None else _bytes(etag),
        lifetimes=Lifetimes(**{name: float(at) for name, at in description["lifetimes"].items()}),
    )


def _kept(description: Any) -> Kept:
    if "signpost" in description:
        signpost = description["signpost"]
        return Signpost(_bytes(signpost["name"]), tuple(map(_bytes, signpost["names"])))
    content_sha256 = description["content_sha256"]
    if not isinstance(content_sha256, str):
        raise TypeError("no text")
    return kept_from_description(description["kept"], content_sha256)


def _text(value: bytes) -> str:
    return value.decode("latin-1")


def _bytes(text: str) -> bytes:
    return text.encode("latin-1")


def _texts(pairs: tuple[tuple[bytes, bytes], ...]) -> list[tuple[str, str]]:
    return [(_text(name), _text(value)) for name, value in pairs]


def _pairs(texts: list[tuple[str, str]]) -> tuple[tuple[bytes, bytes], ...]:
    return tuple((_bytes(name), _bytes(value)) for name, value in texts)


def _number(value: object) -> int:
    if type(value) is not int:
        raise TypeError("no whole number")
    return value
