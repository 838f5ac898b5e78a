"""From the bytes of a request to the name of its object: frozen for good."""

from hashlib import md5
from typing import NewType

Key = NewType("Key", str)
"""The cache key: 32 lower-case hexadecimal digits."""


def key_from_target(target: bytes) -> Key:
    """
    MD5 of the request target up to its first `?`, bytes exactly as on the wire.

    Nothing is decoded and nothing normalised: `%2F` and `/`, `//` and `/` make
    different keys, and a `#` stays.
    """
    return Key(md5(path_from_target(target), usedforsecurity=False).hexdigest())


def path_from_target(target: bytes) -> bytes:
    """Cut the query, which imgproxy ignores, off a request target."""
    return target.partition(b"?")[0]


def object_name(folder: str, key: Key) -> str:
    """Name the object of a key: exactly one slash after the folder, none without one."""
    folder = folder.strip("/")
    return f"{folder}/{key}" if folder else key
