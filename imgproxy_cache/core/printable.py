"""What can be printed: a request target for people, a text in a header field."""

import re

_USER_PART = re.compile(r"(:/{1,2})(?!/)[^/@]*@")


def printable_target(target: bytes) -> str:
    """
    The path of a target, for the log: without its query, and without user and password of a source.

    A format behind an `@` stays: it follows a slash.
    """
    text = target.partition(b"?")[0].decode("ascii", "backslashreplace")
    return _USER_PART.sub(r"\1***@", text) if "@" in text else text


def fits_a_header(text: str) -> bool:
    """Whether a field's value may be this text: stores sign and keep ASCII alone."""
    return text.isascii() and text.isprintable()


def fits_a_target(text: str) -> bool:
    """Whether this may be in a request target, which has no blanks either (RFC 9112 section 3)."""
    return fits_a_header(text) and " " not in text
