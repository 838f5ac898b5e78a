"""A request target as people may read it."""

import re

_USER_PART = re.compile(r"(:/{1,2})(?!/)[^/@]*@")


def printable_target(target: bytes) -> str:
    """
    The path of a target, for the log: without its query, and without user and password of a source.

    A format behind an `@` stays: it follows a slash.
    """
    text = target.partition(b"?")[0].decode("ascii", "backslashreplace")
    return _USER_PART.sub(r"\1***@", text) if "@" in text else text
