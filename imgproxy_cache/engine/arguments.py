"""
Values of option arguments, as strictly and as leniently as imgproxy takes them.

Every function raises InvalidUrl for what imgproxy answers with ``Invalid URL``.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from imgproxy_cache.core.imgproxy_path import base64_decoded
from imgproxy_cache.engine.errors import InvalidUrl
from imgproxy_cache.engine.options import Color, Gravity, GravityType

TRUE = frozenset({"1", "t", "T", "TRUE", "true", "True"})
FORMAT_NAMES = frozenset(
    {"jpeg", "jxl", "png", "webp", "gif", "ico", "svg", "heic", "avif", "bmp", "tiff"}
)

_INTEGER = re.compile(r"[+-]?[0-9]{1,19}", re.ASCII)
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]{1,3})?", re.ASCII)
_COLOR = re.compile(r"[0-9a-fA-F]{3}|[0-9a-fA-F]{6}", re.ASCII)
_INT64_MAX = 2**63 - 1


def at_most(count: int, name: str, arguments: Sequence[str]) -> None:
    if len(arguments) > count:
        raise InvalidUrl(f"{name} takes at most {count} arguments, not {len(arguments)}")


def single(name: str, arguments: Sequence[str]) -> str:
    """The only argument that there may be."""
    at_most(1, name, arguments)
    return arguments[0]


def boolean(text: str) -> bool:
    """Whatever is not a true value is false, nonsense included."""
    return text in TRUE


def integer(name: str, text: str, least: int = -_INT64_MAX, most: int = _INT64_MAX) -> int:
    if not _INTEGER.fullmatch(text) or not least <= int(text) <= most:
        raise InvalidUrl(f"{name} is {text!r}, which is no integer or out of its range")
    return int(text)


def number(name: str, text: str, least: float = -1e308, most: float = 1e308) -> float:
    """A finite number; imgproxy lets ``inf`` and ``nan`` in, which size nothing."""
    if not _NUMBER.fullmatch(text) or not least <= float(text) <= most:
        raise InvalidUrl(f"{name} is {text!r}, which is no number or out of its range")
    return float(text)


def positive(name: str, text: str) -> float:
    value = number(name, text)
    if value <= 0:
        raise InvalidUrl(f"{name} is {text!r}, which is not above 0")
    return value


def format_name(text: str) -> str:
    name = "jpeg" if text == "jpg" else text
    if name not in FORMAT_NAMES:
        raise InvalidUrl(f"{text!r} is no image format")
    return name


def hex_color(name: str, text: str) -> Color:
    if not _COLOR.fullmatch(text):
        raise InvalidUrl(f"{name} is {text!r}, which is no hexadecimal colour")
    digits = text if len(text) == 6 else "".join(digit * 2 for digit in text)
    return Color(*bytes.fromhex(digits))


def base64_text(name: str, text: str) -> str:
    decoded = base64_decoded(text.rstrip("="))
    if decoded is None:
        raise InvalidUrl(f"{name} is {text!r}, which is no base64url")
    return decoded.decode("utf-8", "surrogateescape")


def gravity(
    name: str, arguments: Sequence[str], before: Gravity, *, smart_is_allowed: bool = True
) -> Gravity:
    """Change a gravity; offsets that are not given stay as they were before."""
    kind = _gravity_type(name, arguments[0])
    if kind is GravityType.SMART:
        if not smart_is_allowed:
            raise InvalidUrl(f"{name} cannot be smart")
        at_most(1, name, arguments)
        return Gravity(kind)
    if kind is GravityType.FOCUS_POINT and len(arguments) != 3:
        raise InvalidUrl(f"{name} needs a focus point's two places")
    at_most(3, name, arguments)
    least, most = (0.0, 1.0) if kind is GravityType.FOCUS_POINT else (-1e308, 1e308)
    _, x, y, *_ = (*arguments, "", "")
    return Gravity(
        kind,
        number(name, x, least, most) if x else before.x,
        number(name, y, least, most) if y else before.y,
    )


def _gravity_type(name: str, text: str) -> GravityType:
    try:
        return GravityType(text)
    except ValueError as exc:
        raise InvalidUrl(f"{name} is {text!r}, which is no gravity") from exc
