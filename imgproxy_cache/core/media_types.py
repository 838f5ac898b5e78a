"""The images that are kept, by what `Content-Type` calls them."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from imgproxy_cache.core.short_values import remembered_if_short

SVG: Final = b"image/svg+xml"

_ICON_TYPES = frozenset({b"image/x-icon", b"image/vnd.microsoft.icon"})
_HEIF_TYPES = frozenset({b"image/heic", b"image/heif"})  # imgproxy says image/heif for both
TYPES_OF_FORMAT: Final[Mapping[str, frozenset[bytes]]] = MappingProxyType(
    {
        "jpeg": frozenset({b"image/jpeg"}),
        "png": frozenset({b"image/png"}),
        "webp": frozenset({b"image/webp"}),
        "avif": frozenset({b"image/avif"}),
        "gif": frozenset({b"image/gif"}),
        "jxl": frozenset({b"image/jxl"}),
        "heic": _HEIF_TYPES,
        "heif": _HEIF_TYPES,
        "tiff": frozenset({b"image/tiff"}),
        "bmp": frozenset({b"image/bmp"}),
        "ico": _ICON_TYPES,
        "svg": frozenset({SVG}),
    }
)
"""By imgproxy's name of the format that a path pins."""
IMAGE_TYPES: Final[frozenset[bytes]] = frozenset().union(*TYPES_OF_FORMAT.values())


@remembered_if_short(most=256, longest=128)
def media_type(content_type: bytes) -> bytes:
    """A `Content-Type` without its parameters, in lower case."""
    return content_type.partition(b";")[0].strip(b" \t").lower()
