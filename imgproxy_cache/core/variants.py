"""
Which of the answers to one path a request is for: what `Vary` makes of a request's fields.

Values are reduced to what imgproxy can tell apart, so that one image is kept once
and not once per browser.  Nothing is merged that some imgproxy, 3.30 or 4, would
answer differently.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Final

from imgproxy_cache.core.headers import Headers
from imgproxy_cache.core.kept import Selection
from imgproxy_cache.core.sharing import image_formats
from imgproxy_cache.core.short_values import remembered_if_short

MOST_NAMES: Final = 8
MOST_BYTES: Final = 512

ABSENT: Final = b" "
"""Stands for a field that was not sent: no value, its outer white space stripped, is like it."""

_TOKEN = re.compile(rb"[!#$%&'*+\-.^_`|~0-9a-z]+")
_Lines = Mapping[bytes, list[bytes]]


# What imgproxy sends never changes; sources that choose it also choose its length.
@remembered_if_short(most=256, longest=256)
def named_fields(vary: bytes) -> tuple[bytes, ...] | None:
    """
    The request's fields that an answer depends on, in lower case, sorted, each once.

    `Accept-Encoding` is none of them: imgproxy is always asked for `identity`.
    None where nothing may be reused: `Vary` says `*`, cannot be read, or names
    more than eight.

    Source: RFC 9110 section 12.5.5
    """
    names = {name.strip(b" \t") for name in vary.lower().split(b",")} - {b"", b"accept-encoding"}
    if b"*" in names or len(names) > MOST_NAMES or not all(map(_TOKEN.fullmatch, names)):
        return None
    return tuple(sorted(names))


def selection(names: tuple[bytes, ...], request_headers: Headers) -> Selection | None:
    """
    What a request says in the fields `names`, which are of :func:`named_fields`.

    Equal selections get equal answers.  `request_headers` are those that imgproxy
    is sent, names in lower case.  None where the values are too long to be kept.

    Source: RFC 9111 section 4.1
    """
    lines: dict[bytes, list[bytes]] = {}
    size = 0
    for name, value in request_headers:
        if name in names:
            lines.setdefault(name, []).append(value)
            if name != b"accept":  # of which three bits are kept
                size += len(value)
    if size > MOST_BYTES:
        return None
    return tuple((name, _READ.get(name, _combined)(name, lines)) for name in names)


def are_alike(vary: bytes, one: Headers, other: Headers) -> bool:
    """Whether two requests with these fields get the same of what varies by `vary`."""
    names = named_fields(vary)
    if names is None:
        return False
    selected = selection(names, one)
    return selected is not None and selected == selection(names, other)


def _combined(name: bytes, lines: _Lines) -> bytes:
    values = lines.get(name)
    return ABSENT if values is None else b", ".join(value.strip(b" \t") for value in values)


def _formats(name: bytes, lines: _Lines) -> bytes:
    return b"%d" % image_formats(_first(name, lines))


def _first(name: bytes, lines: _Lines) -> bytes:
    """Of several lines imgproxy reads the first (Go's Header.Get)."""
    values = lines.get(name)
    return values[0].strip(b" \t") if values else b""


# What Go's strconv.ParseFloat takes, but for infinity and what is no number: too much for a DPR.
_DIGITS = "[0-9](?:_?[0-9])*"
_HEX_DIGITS = "[0-9a-fA-F](?:_?[0-9a-fA-F])*"
_DECIMAL = re.compile(
    rf"[+-]?(?:{_DIGITS}(?:\.(?:{_DIGITS})?)?|\.{_DIGITS})(?:[eE][+-]?{_DIGITS})?".encode()
)
_HEXADECIMAL = re.compile(
    rf"[+-]?0[xX](?:_?{_HEX_DIGITS}(?:\.(?:{_HEX_DIGITS})?)?|\.{_HEX_DIGITS})"
    rf"[pP][+-]?{_DIGITS}".encode()
)
_LARGEST_DPR = 8


def _ratio(value: bytes) -> bytes:
    """A device pixel ratio as imgproxy reads it; empty where it ignores it."""
    try:
        if _DECIMAL.fullmatch(value):
            ratio = float(value)
        elif _HEXADECIMAL.fullmatch(value):
            ratio = float.fromhex(value.replace(b"_", b"").decode("ascii"))
        else:
            return b""
    except OverflowError:
        return b""
    return repr(ratio).encode("ascii") if 0 < ratio <= _LARGEST_DPR else b""


_INTEGER = re.compile(rb"([+-]?)0*([0-9]{1,19})")  # Go's strconv.Atoi, of 64 bits


def _pixels(value: bytes) -> bytes:
    """A width as imgproxy reads it, 3.30 below zero too; empty where it ignores it."""
    match = _INTEGER.fullmatch(value)
    pixels = int(value) if match else 0
    return b"%d" % pixels if pixels and -(2**63) <= pixels < 2**63 else b""


_Reading = Callable[[bytes, _Lines], bytes]


def _alone(read: Callable[[bytes], bytes]) -> _Reading:
    return lambda name, lines: read(_first(name, lines))


def _pair(
    hint: bytes, old_name: bytes, read: Callable[[bytes], bytes]
) -> Iterator[tuple[bytes, _Reading]]:
    """
    Of two names of one hint the first gets what imgproxy 3.30 takes of both, the old name
    what 4 takes: they differ where the first is there and makes no sense.
    """

    def by_3_30(name: bytes, lines: _Lines) -> bytes:
        return read(_first(hint, lines) or _first(old_name, lines))

    def by_4(name: bytes, lines: _Lines) -> bytes:
        number = read(_first(hint, lines))
        return number if number and number[:1] != b"-" else read(_first(old_name, lines))

    yield hint, by_3_30
    yield old_name, by_4


_READ: Final[Mapping[bytes, _Reading]] = MappingProxyType(
    {
        b"accept": _formats,
        **dict(_pair(b"sec-ch-dpr", b"dpr", _ratio)),
        **dict(_pair(b"sec-ch-width", b"width", _pixels)),
        # Read by imgproxy up to 3.8.
        b"viewport-width": _alone(_pixels),
    }
)
