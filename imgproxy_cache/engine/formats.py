"""Image formats: what each can hold, and how a source's first bytes tell which it is."""

from __future__ import annotations

import re
from dataclasses import dataclass

from imgproxy_cache.engine.errors import InvalidSource


@dataclass(frozen=True, slots=True)
class Format:
    """What a format that we can write can hold."""

    alpha: bool = True
    color_profile: bool = True
    quality: bool = True
    animation: bool = False
    deep_color: bool = False


SAVED: dict[str, Format] = {
    "jpeg": Format(alpha=False),
    "png": Format(quality=False, deep_color=True),
    "webp": Format(animation=True),
    "avif": Format(deep_color=True),
    "gif": Format(color_profile=False, quality=False, animation=True),
    "tiff": Format(deep_color=True),
}

# As in imgproxy: "." stands for any byte
SIGNATURES: tuple[tuple[str, re.Pattern[bytes]], ...] = (
    ("jpeg", re.compile(rb"\xff\xd8")),
    ("jxl", re.compile(rb"\xff\x0a|\x00\x00\x00\x0cJXL \r\n\x87\n")),
    ("png", re.compile(rb"\x89PNG\r\n\x1a\n")),
    ("webp", re.compile(rb"RIFF....WEBP", re.DOTALL)),
    ("gif", re.compile(rb"GIF8.a", re.DOTALL)),
    ("ico", re.compile(rb"\x00\x00\x01\x00")),
    ("heic", re.compile(rb"....ftyp(?:hei[cxms]|hev[cms]|mif1)", re.DOTALL)),
    ("avif", re.compile(rb"....ftypavif", re.DOTALL)),
    ("bmp", re.compile(rb"BM")),
    ("tiff", re.compile(rb"II\*\x00|MM\x00\*")),
    ("svg", re.compile(rb"(?:\xef\xbb\xbf)?\s*<.*?(?<=<)(?:[\w.-]+:)?svg[\s/>]", re.DOTALL)),
)
# Where an SVG may hide its root element: behind a licence, a doctype with entities...
SIGNATURE_BYTES = 32 * 1024
# One that is not closed goes to the end: without that, many of them took seconds
XML_COMMENT = re.compile(rb"<!--.*?(?:-->|\Z)", re.DOTALL)


def format_of(source: bytes) -> str:
    """
    The format of a source, whether or not we can load it.

    Raises: InvalidSource when it is none that imgproxy knows.
    """
    head = source[:SIGNATURE_BYTES]
    if head.lstrip().startswith((b"<", b"\xef\xbb\xbf<")):
        head = XML_COMMENT.sub(b"", head)
    for name, signature in SIGNATURES:
        if signature.match(head):
            return name
    raise InvalidSource("the source is no image of a known format")
