"""What a request is for."""

from __future__ import annotations

import re
from enum import Enum, auto
from urllib.parse import unquote_to_bytes


class Route(Enum):
    BAD_REQUEST = auto()
    NOT_FOUND = auto()
    OK = auto()
    """HEAD and OPTIONS, which prove nothing and cost nothing."""
    LANDING = auto()
    HEALTH = auto()
    PROCESSING = auto()


_BROKEN_ESCAPE = re.compile(rb"%(?![0-9A-Fa-f]{2})")
_CONTROL = re.compile(rb"[\x00-\x20\x7f]")


def route_of(method: str, target: bytes, prefix: str, health_path: str) -> Route:
    """
    Find what a request is for, by the decoded path as imgproxy does.

    ``health_path`` is one beside ``/health``.  A target that is no path, or not
    well-formed, is a bad request; imgproxy also takes absolute ones, and finds
    no image in them.
    """
    raw_path = target.partition(b"?")[0]
    if not raw_path.startswith(b"/") or _BROKEN_ESCAPE.search(raw_path) or _CONTROL.search(target):
        return Route.BAD_REQUEST
    path = unquote_to_bytes(raw_path).decode("utf-8", "surrogateescape")
    if not path.startswith(prefix + "/"):
        return Route.LANDING if path == prefix and method == "GET" else Route.NOT_FOUND
    if method in ("HEAD", "OPTIONS"):
        return Route.OK
    return (
        _get_route(path.removeprefix(prefix), health_path) if method == "GET" else Route.NOT_FOUND
    )


def _get_route(path: str, health_path: str) -> Route:
    if path == "/":
        return Route.LANDING
    if path in ("/health", health_path):
        return Route.HEALTH
    if path == "/favicon.ico" or path.startswith("/.well-known/"):
        return Route.NOT_FOUND
    return Route.PROCESSING
