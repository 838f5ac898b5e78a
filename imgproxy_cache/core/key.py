"""From the bytes of a request to the name of its object: frozen for good."""

from dataclasses import dataclass
from functools import lru_cache
from hashlib import md5, sha256
from typing import NamedTuple, NewType

Key = NewType("Key", str)
"""The cache key: 32 lower-case hexadecimal digits."""


class StoredName(NamedTuple):
    """What a store has the image of a path under, and what proves that it is of this path."""

    key: Key
    path_sha256: str


@dataclass(frozen=True, slots=True)
class KeyRules:
    """What of the settings decides about keys: as it stands here, they are the frozen ones."""

    with_signature: bool = True
    """False: `CACHE_KEY_SIGNATURE=exclude`"""
    prefix: bytes = b""
    """`IMGPROXY_PATH_PREFIX`, which says where the signature is"""


_FROZEN = KeyRules()


def key_from_target(target: bytes, rules: KeyRules = _FROZEN) -> Key:
    """
    MD5 of the request target up to its first `?`, bytes exactly as on the wire.

    Nothing is decoded and nothing normalised: `%2F` and `/`, `//` and `/` make
    different keys, and a `#` stays.  Rules that leave the signature out do so
    before: see :func:`identity_from_target`, of which this is the MD5.
    """
    return key_from_identity(identity_from_target(target, rules))


# A fill asks three times within milliseconds, each 1 us, or 8 where others share the processor;
# of the longest targets these are 4 MB.
@lru_cache(maxsize=256)
def key_from_identity(identity: bytes) -> Key:
    """The key of what :func:`identity_from_target` has made of a target."""
    return Key(md5(identity, usedforsecurity=False).hexdigest())


def identity_from_target(target: bytes, rules: KeyRules = _FROZEN) -> bytes:
    """
    What key and `path-sha256` of an object are made of: the path, whole or without its signature.

    Without its signature `/PREFIX/SIGNATURE/REST` is `/PREFIX/REST`, both as they
    came, so that another key or salt changes no object's name.  What has no
    signature, since imgproxy would not look for one there, stays as it is.
    """
    path = path_from_target(target)
    return path if rules.with_signature else _without_signature(path, rules.prefix)


def stored_name_from_target(target: bytes, rules: KeyRules = _FROZEN) -> StoredName:
    """Both hashes of what :func:`identity_from_target` makes of a target."""
    identity = identity_from_target(target, rules)
    return StoredName(key_from_identity(identity), sha256(identity).hexdigest())


def path_from_target(target: bytes) -> bytes:
    """Cut the query, which imgproxy ignores, off a request target."""
    return target.partition(b"?")[0]


def object_name(folder: str, key: Key) -> str:
    """Name the object of a key: exactly one slash after the folder, none without one."""
    folder = folder.strip("/")
    return f"{folder}/{key}" if folder else key


def _without_signature(path: bytes, prefix: bytes) -> bytes:
    before = prefix + b"/"
    if not path.startswith(before):
        return path
    # imgproxy 4 overlooks a second slash here.
    signature, _, rest = path[len(before) :].removeprefix(b"/").partition(b"/")
    return before + rest if signature and rest else path
