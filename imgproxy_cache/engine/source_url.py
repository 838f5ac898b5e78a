"""Which source a path names, after the settings' replacements and base URL."""

from __future__ import annotations

import re
from functools import partial

from imgproxy_cache.core.imgproxy_path import ImgproxyPath, decode_source
from imgproxy_cache.engine.errors import InvalidUrl
from imgproxy_cache.engine.settings import Settings

_REFERENCE = re.compile(r"\$(?:\$|(?P<bare>\w+)|\{(?P<braced>\w+)\})", re.ASCII)


def source_url(path: ImgproxyPath, settings: Settings) -> str:
    """
    Give the source's URL.

    Raises: InvalidUrl.
    """
    url = decode_source(path, settings.path)
    if url is None:
        raise InvalidUrl("the source is missing, or its encoding is broken")
    for pattern, replacement in settings.url_replacements:
        url = pattern.sub(partial(_expanded, replacement), url)
    return url if url.startswith(settings.base_url) else settings.base_url + url


def _expanded(replacement: str, match: re.Match[str]) -> str:
    """``$1`` and ``${1}`` are what the wildcards were, ``$$`` is a dollar, as in Go."""

    def group(reference: re.Match[str]) -> str:
        name = reference["bare"] or reference["braced"]
        if name is None:
            return "$"
        is_group = name.isdigit() and int(name) <= len(match.groups())
        return match[int(name)] if is_group else ""

    return _REFERENCE.sub(group, replacement)
