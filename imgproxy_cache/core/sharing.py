"""Which requests may share one fetch."""

from collections.abc import Hashable
from typing import NamedTuple

from imgproxy_cache.core.headers import CONDITIONS_AND_RANGE, Headers
from imgproxy_cache.core.imgproxy_path import ImgproxyPath
from imgproxy_cache.core.short_values import remembered_if_short

# Viewport-Width is read by imgproxy up to 3.8.
_CHANGES_THE_ANSWER = frozenset(
    {
        b"authorization",
        b"dpr",
        b"sec-ch-dpr",
        b"sec-ch-viewport-width",
        b"sec-ch-width",
        b"viewport-width",
        b"width",
    }
)


class Sharing(NamedTuple):
    """What of a request's fields imgproxy's answer may depend on."""

    formats: int
    """Of `Accept`: see :func:`image_formats`."""
    others: tuple[bytes, ...]


def sharing_by_fields(headers: Headers, *, cookie_passthrough: bool) -> Sharing | None:
    """
    What two requests' fields have in common that may share a fetch; None for one that must not.

    `headers` are those that imgproxy is sent, names in lower case: a field that
    the client's `Connection` takes away must not choose the flight.
    """
    formats = -1
    parts: list[bytes] = []
    for name, value in headers:
        if name == b"accept":
            # Go's Header.Get: of several lines imgproxy reads the first.
            if formats < 0:
                formats = image_formats(value)
        elif name in _CHANGES_THE_ANSWER:
            parts += (name, value)
        elif name in CONDITIONS_AND_RANGE or (name == b"cookie" and cookie_passthrough):
            return None
    return Sharing(max(formats, 0), tuple(parts))


def flight_key(
    method: str,
    target: bytes,
    path: ImgproxyPath | None,
    by_fields: Sharing | None,
    *,
    accept_is_ignored: bool,
) -> Hashable | None:
    """
    What two requests have in common that may share one fetch; None for one that must not.

    `by_fields` is of :func:`sharing_by_fields`, `accept_is_ignored` of
    :func:`~imgproxy_cache.core.policy.accept_is_ignored`.  Equal keys mean that nothing in
    the requests can make imgproxy's answers differ.
    """
    if by_fields is None or method != "GET" or path is None or path.is_raw:
        return None
    return target, by_fields.others if accept_is_ignored else by_fields


@remembered_if_short(most=1024, longest=512)
def image_formats(accept: bytes) -> int:
    """
    What imgproxy reads in `Accept`: a bit for each format that it may choose.

    Nothing else in it matters to imgproxy than these three, case included.
    """
    return (
        (b"image/webp" in accept) | (b"image/avif" in accept) << 1 | (b"image/jxl" in accept) << 2
    )
