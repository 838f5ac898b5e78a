"""
Requests that repeat the head of one before, byte for byte, but for the target.

A browser sends the same lines with each request for the images of a page.  A parser makes of the
same lines the same, so that what was made of them once need not be made again.
"""

from __future__ import annotations

import re

_GET = b"GET "
_HTTP = b" HTTP/1.1\r\n"
_END = b"\r\n\r\n"
# What llhttp takes for a target as well: no byte that could end it.
_path_of_get = re.compile(rb"GET (/[!-~]*)").fullmatch


def lines_behind_target(request: bytes) -> bytes | None:
    """
    What follows the target, in the bytes of a GET of HTTP/1.1 that end with its head.

    For bytes that are one request and nothing else.
    """
    lines = request[request.find(b" ", len(_GET)) :]
    is_plain = request.startswith(_GET) and lines.startswith(_HTTP) and lines.endswith(_END)
    return lines if is_plain else None


def target_before(lines: bytes, request: bytes) -> bytes | None:
    """
    The target of a request like the one with these lines behind its target; None for any other.

    It is a path of printable ASCII, and nothing else is in these bytes.
    """
    if not request.endswith(lines):
        return None
    found = _path_of_get(request, 0, len(request) - len(lines))
    return None if found is None else found[1]
