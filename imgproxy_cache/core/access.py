"""
Who may be answered from the tiers, and with what: a hit relaxes nothing that imgproxy checks.

A target is judged once, since keys stay while the process lives; the fields of
a request each time.
"""

from __future__ import annotations

from hmac import compare_digest
from typing import NamedTuple

from imgproxy_cache.core.headers import Headers
from imgproxy_cache.core.imgproxy_path import (
    ImgproxyPath,
    PathRules,
    bytes_of,
    signature_is_trusted,
    signature_spelling_is_canonical,
    signed_text,
)
from imgproxy_cache.core.key import KeyRules, StoredName, stored_name_from_target


class Resource(NamedTuple):
    """
    What a target asks for that the tiers may answer.

    Equal names are one image to imgproxy, whichever line it is of: see
    :func:`resource_from_target`.
    """

    name: bytes
    """Without white space, as the target."""
    stored_name: StoredName | None
    """None for the spellings of a signed path under which nothing is put into a store."""


def resource_from_target(
    target: bytes, path: ImgproxyPath | None, rules: PathRules, key_rules: KeyRules
) -> Resource | None:
    """
    What a target asks for, and its path; None where imgproxy itself has to answer.

    That is where it is no processing path, asks for whatever the source sends
    (`raw`), is limited in time (`exp`), or has a signature that imgproxy would
    refuse.

    What a key has signed is named by the text that it signed: the path behind
    the signature as imgproxy reads it, for all its spellings.  Where no key
    proves how imgproxy reads a path, it is named by what was written, since 3.30
    reads a `%3A` otherwise than 4.0.  A `?`, which is in no path, keeps the two
    apart.
    """
    if path is None or path.is_raw or path.expires:
        return None
    if not rules.keys:
        return Resource(_name_as_written(path), stored_name_from_target(target, key_rules))
    if signature_is_trusted(path, rules):
        name = _name_as_written(path)
    elif (signed := signed_text(path, rules)) is not None:
        name = bytes_of(signed)
    else:
        return None
    is_stored = signature_spelling_is_canonical(path, rules)
    return Resource(name, stored_name_from_target(target, key_rules) if is_stored else None)


def may_read(request_headers: Headers, *, secret: bytes | None, cookie_passthrough: bool) -> bool:
    """
    May a request with these fields be answered from the tiers?  If not, imgproxy decides.

    `request_headers` are those that imgproxy would be sent, names in lower case.
    With a secret (`IMGPROXY_SECRET`) it has to be there, as imgproxy compares
    it: case and all, in constant time.  Without one, whoever is authorized for
    something may be meant to see something else, and so may who has cookies
    that imgproxy passes on.
    """
    authorizations = [value for name, value in request_headers if name == b"authorization"]
    if secret is None:
        is_allowed = not authorizations
    else:
        is_allowed = bool(authorizations) and all(
            is_bearer_of(value, secret) for value in authorizations
        )
    has_cookies = cookie_passthrough and any(name == b"cookie" for name, _ in request_headers)
    return is_allowed and not has_cookies


def is_bearer_of(authorization: bytes, secret: bytes) -> bool:
    """Whether a value of `Authorization` is the secret as imgproxy wants it, in constant time."""
    return compare_digest(authorization.strip(b" \t"), b"Bearer " + secret)


def _name_as_written(path: ImgproxyPath) -> bytes:
    """
    By the bytes behind the signature, which say all where it is not looked at.

    With a `:` in it imgproxy 4 takes it for an option, the signature forgotten, and
    refuses: what 3.30 answers there has a name of its own.
    """
    looked_at = path.signature if ":" in path.signature else ""
    return bytes_of(f"{looked_at}?{path.written}")
