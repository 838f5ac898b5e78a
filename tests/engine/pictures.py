"""Pictures made and looked at with Pillow, so that libvips does not judge itself."""

from __future__ import annotations

import io
import time
from typing import Any

from PIL import Image, ImageChops, ImageStat

from imgproxy_cache.core.imgproxy_path import PathRules, read_path
from imgproxy_cache.engine.options import Options
from imgproxy_cache.engine.render import Rendered, RenderRules, render
from imgproxy_cache.engine.url_options import OptionRules, options_from_path

RULES = RenderRules()
ALLOWING_LIMITS = OptionRules(security_options_are_allowed=True)


def options(text: str) -> Options:
    """The options of a URL, such as ``rs:fit:64:64/q:50``."""
    path = read_path(f"/_/{text}/plain/local:///x".encode(), PathRules())
    assert path is not None
    return options_from_path(path, ALLOWING_LIMITS, now=time.time())


def rendered(source: bytes, text: str, rules: RenderRules = RULES) -> Rendered:
    return render(source, options(text), rules)


def opened(answer: Rendered) -> Image.Image:
    picture = Image.open(io.BytesIO(answer.body))
    assert str(picture.format).lower() == answer.format
    return picture


def encoded(picture: Image.Image, format_name: str = "PNG", **parameters: Any) -> bytes:
    file = io.BytesIO()
    picture.save(file, format_name, **parameters)
    return file.getvalue()


def difference(one: Image.Image, other: Image.Image) -> float:
    """The mean difference of the samples, of 255."""
    assert one.size == other.size
    return max(ImageStat.Stat(ImageChops.difference(one.convert("RGB"), other.convert("RGB"))).mean)
