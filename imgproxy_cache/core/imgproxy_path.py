"""
How imgproxy reads the target of a request.

::

    /PREFIX/SIGNATURE/name:arg:arg/name:arg/plain/SOURCE@FORMAT
    /PREFIX/SIGNATURE/name:arg:arg/BASE64/OF/SOURCE.FORMAT

Everything here is total: any bytes give an answer, in time that is linear in
their number.  Text is the target's bytes as UTF-8 with ``surrogateescape``, so
that it turns back into the same bytes.

The reading is that of imgproxy 4, which undoes more damage than 3.30 (``%3A``
in the options, a doubled slash): whatever option 3.30 would see, 4 sees too.

Source: https://docs.imgproxy.net/usage/processing
"""

from __future__ import annotations

import hmac
import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType
from typing import NamedTuple
from urllib.parse import unquote_to_bytes

Option = tuple[str, ...]
"""A name as it was written, and the arguments."""


@dataclass(frozen=True, slots=True)
class PathRules:
    """What of imgproxy's settings changes how a path is read."""

    prefix: str = ""
    """``IMGPROXY_PATH_PREFIX``"""
    separator: str = ":"
    """``IMGPROXY_ARGUMENTS_SEPARATOR``"""
    keys: tuple[tuple[bytes, bytes], ...] = ()
    """Pairs of ``IMGPROXY_KEY`` and ``IMGPROXY_SALT``, decoded; none: nothing is signed."""
    signature_size: int = 32
    """``IMGPROXY_SIGNATURE_SIZE``, bytes"""
    trusted_signatures: tuple[str, ...] = ()
    """``IMGPROXY_TRUSTED_SIGNATURES``"""
    only_presets: bool = False
    """``IMGPROXY_ONLY_PRESETS``"""
    base64_includes_filename: bool = False
    """``IMGPROXY_BASE64_URL_INCLUDES_FILENAME``"""


class ImgproxyPath(NamedTuple):
    """
    A processing path after imgproxy's repairs.

    ``format`` is the output format that the path pins, named as imgproxy names
    it (``jpeg``, not ``jpg``).  ``is_as_signed`` says that imgproxy had nothing
    to repair.
    """

    signature: str
    options: tuple[Option, ...]
    source: str
    """Still encoded, ``plain/`` and the extension included: see :func:`decode_source`."""
    extension: str | None
    is_raw: bool
    expires: bool
    format: str | None
    is_as_signed: bool
    repaired: str
    """What follows the signature, repaired: this is what imgproxy signs."""
    written: str
    """What follows the signature, as it came."""
    slash_is_doubled: bool
    """Before the signature; imgproxy 4 overlooks one slash there."""


LONG_NAMES: Mapping[str, str] = MappingProxyType(
    {
        short: long
        for long, shorts in {
            "resize": "rs",
            "size": "s",
            "resizing_type": "rt",
            "width": "w",
            "height": "h",
            "min-width": "mw",
            "min-height": "mh",
            "zoom": "z",
            "dpr": "",
            "enlarge": "el",
            "extend": "ex",
            "extend_aspect_ratio": "extend_ar exar",
            "gravity": "g",
            "crop": "c",
            "trim": "t",
            "padding": "pd",
            "auto_rotate": "ar",
            "rotate": "rot",
            "flip": "fl",
            "background": "bg",
            "blur": "bl",
            "sharpen": "sh",
            "pixelate": "pix",
            "watermark": "wm",
            "strip_metadata": "sm",
            "keep_copyright": "kcr",
            "strip_color_profile": "scp",
            "preserve_hdr": "ph",
            "enforce_thumbnail": "eth",
            "quality": "q",
            "format_quality": "fq",
            "max_bytes": "mb",
            "format": "f ext",
            "skip_processing": "skp",
            "raw": "",
            "cachebuster": "cb",
            "expires": "exp",
            "filename": "fn",
            "return_attachment": "att",
            "preset": "pr",
            "max_src_resolution": "msr",
            "max_src_file_size": "msfs",
            "max_animation_frames": "maf",
            "max_animation_frame_resolution": "mafr",
            "max_result_dimension": "mrd",
        }.items()
        for short in (long, *shorts.split())
    }
)
"""Every name that imgproxy 4 knows, to its long form."""


def read_path(target: bytes, rules: PathRules) -> ImgproxyPath | None:
    """
    Read a request target; None if it can be no processing path.

    None are the landing page, ``/health``, and whatever is not under the prefix
    or has nothing behind its first segment.  Signature, options and source may
    still be refused by imgproxy.
    """
    text = target.partition(b"?")[0].decode("utf-8", "surrogateescape")
    start = _behind_prefix(text, rules.prefix)
    if start is None:
        return None
    # imgproxy 4 takes one slash with the prefix and one more if there is one.
    doubled = text.startswith("/", start)
    signature, _, written = text[start + doubled :].partition("/")
    if not signature or not written:
        return None

    repaired = _repaired(written)
    options, source = _options_and_source(repaired, rules)
    extension = _extension(source, rules)
    pinned = extension or options.pinned
    return ImgproxyPath(  # by position: names would cost half a microsecond
        signature,
        options.options,
        source,
        extension,
        options.is_raw,
        options.expires,
        "jpeg" if pinned == "jpg" else pinned,
        not doubled and repaired == written,
        repaired,
        written,
        doubled,
    )


def signature_is_valid(path: ImgproxyPath, rules: PathRules) -> bool:
    """
    Would imgproxy accept the signature?  Takes the same time for near and far misses.

    Source: https://docs.imgproxy.net/usage/signing_url
    """
    if not rules.keys or signature_is_trusted(path, rules):
        return True
    given = base64_decoded(path.signature)
    return given is not None and _is_signed_by_a_key(given, path.repaired, rules)


def signature_is_trusted(path: ImgproxyPath, rules: PathRules) -> bool:
    """Is it one that imgproxy accepts before any path?"""
    given = bytes_of(path.signature)
    return any(hmac.compare_digest(given, bytes_of(known)) for known in rules.trusted_signatures)


def signed_text(path: ImgproxyPath, rules: PathRules) -> str | None:
    """
    What one of the keys signed of a path, without its first slash; None if none did.

    The repaired path, or else the one that came: imgproxy 3.30 leaves a %3A
    alone.  Where imgproxy accepts the signature for one of the keys, either
    line reads the path as just this text, since it signs no other.
    """
    given = base64_decoded(path.signature)
    if given is None:
        return None
    if _is_signed_by_a_key(given, path.repaired, rules):
        return path.repaired
    is_signed_as_written = not path.slash_is_doubled and _is_signed_by_a_key(
        given, path.written, rules
    )
    return path.written if is_signed_as_written else None


def signature_spelling_is_canonical(path: ImgproxyPath, rules: PathRules) -> bool:
    """
    Is this the one spelling of a path that imgproxy accepts?

    Repairs and the spare bits of base64 let anyone make many accepted paths of
    a signed one.  True for the one that was signed; where nothing is signed, for
    a path that needs no repair.  Does not check the signature of a path that
    needs none: an answer of imgproxy has proved it.
    """
    if not rules.keys or signature_is_trusted(path, rules):
        return path.is_as_signed
    given = base64_decoded(path.signature)
    if given is None or _base64_encoded(given) != path.signature:
        return False
    # imgproxy 3.30 leaves a %3A alone, so that such a path may be what was signed.
    return path.is_as_signed or (
        not path.slash_is_doubled and _is_signed_by_a_key(given, path.written, rules)
    )


def decode_source(path: ImgproxyPath, rules: PathRules) -> str | None:
    """The source as the URL names it; None where imgproxy answers ``Invalid URL``."""
    encoded, separator = _encoded_source(path.source, rules)
    bare, _, rest = encoded.partition(separator)
    if not bare or separator in rest:
        return None
    if separator == "@":
        decoded = None if _BROKEN_ESCAPE.search(bare) else unquote_to_bytes(bytes_of(bare))
    else:
        decoded = base64_decoded(bare.rstrip("="))
    return None if decoded is None else decoded.decode("utf-8", "surrogateescape")


def base64_decoded(text: str) -> bytes | None:
    """Unpadded base64url, its spare bits ignored, as Go's ``RawURLEncoding`` reads it."""
    if len(text) % 4 == 1 or not _BASE64URL.fullmatch(text):
        return None
    return urlsafe_b64decode(text + "=" * (-len(text) % 4))


def _behind_prefix(text: str, prefix: str) -> int | None:
    if not text.startswith("/"):
        return None
    if not prefix or (text.startswith(prefix) and text.startswith("/", len(prefix))):
        return len(prefix) + 1
    # Routes see the decoded path, the prefix is cut off the raw one: an escaped
    # prefix gets through and is then taken for the signature.
    decoded = unquote_to_bytes(bytes_of(text))
    return 1 if decoded.startswith(bytes_of(prefix) + b"/") else None


# Greedy up to the last ":/" before white space, as imgproxy's own pattern.
_ONE_SLASH = re.compile(r"([^\t\n\f\r ]+):/([^/])", re.DOTALL)


def _repaired(written: str) -> str:
    """
    Undo what browsers and proxies do to a path.

    ``%3A`` in the options becomes ``:``; ``scheme:/`` in a plain source
    ``scheme://`` (``local:///``); up to two slashes at the start are dropped.
    """
    # Nearly every path needs none of this: no scheme in it has a single slash.
    may_lack_one = written.count(":/") != written.count("://")
    if not may_lack_one and "%3A" not in written and not written.startswith("/"):
        return written
    if written.startswith("plain/"):
        options, plain, source = "", "/plain/", written[6:]
    else:
        options, plain, source = written.partition("/plain/")
    if "%3A" in options:
        options = options.replace("%3A", ":")
    if plain and may_lack_one and (match := _ONE_SLASH.match(source)):
        scheme, first = match.groups()
        slashes = ":///" if scheme == "local" else "://"
        source = f"{scheme}{slashes}{first}{source[match.end() :]}"
    return f"{options}{plain}{source}".removeprefix("/").removeprefix("/")


class _Options(NamedTuple):
    """The options of a path, and what is asked of them most."""

    options: tuple[Option, ...]
    is_raw: bool
    expires: bool
    pinned: str | None


def _options_and_source(repaired: str, rules: PathRules) -> tuple[_Options, str]:
    if rules.only_presets:
        presets, _, source = repaired.partition("/")
        return _Options((("preset", *presets.split(rules.separator)),), False, False, None), source
    options = _leading_options(rules.separator).match(repaired)
    end = options.end() if options else 0
    # Long ones are a stranger's: 4,096 of 16 KB each, taken apart, would be two gigabytes.
    read = _read_options if end <= _LONGEST_REMEMBERED else _read_options.__wrapped__
    return read(repaired[:end], rules.separator), repaired[end:]


@lru_cache(maxsize=16)
def _leading_options(separator: str) -> re.Pattern[str]:
    """All segments from the start that have a separator in them, each with its slash."""
    name = rf"(?:(?!{re.escape(separator)})[^/])*+"
    if len(separator) == 1:  # as it is everywhere: a third less to do
        name = rf"[^/{re.escape(separator)}]*+"
    return re.compile(rf"(?:{name}{re.escape(separator)}[^/]*+(?:/|\Z))*+")


_LONGEST_REMEMBERED = 256


@lru_cache(maxsize=1024)
def _read_options(text: str, separator: str) -> _Options:
    """A site has millions of sources and a few dozen ways to show them."""
    options = tuple(tuple(part.split(separator)) for part in text.removesuffix("/").split("/"))
    if not text:
        options = ()
    is_raw = expires = False
    pinned = None
    for option in options:
        name = option[0]
        if name == "raw":
            is_raw = True
        elif name in ("exp", "expires"):
            expires = True
        elif name in ("f", "format", "ext"):
            pinned = option[1]
    return _Options(options, is_raw, expires, pinned)


def _extension(source: str, rules: PathRules) -> str | None:
    encoded, separator = _encoded_source(source, rules)
    if separator not in encoded:
        return None
    extension = encoded.partition(separator)[2]
    return None if separator in extension else extension or None


def _encoded_source(source: str, rules: PathRules) -> tuple[str, str]:
    """The source and its extension, and the character between the two."""
    if source.startswith("plain/"):
        return source[6:], "@"
    if rules.base64_includes_filename and "/" in source:
        source = source.rpartition("/")[0]
    return source.replace("/", ""), "."


def _is_signed_by_a_key(given: bytes, signed: str, rules: PathRules) -> bool:
    message = b"/" + bytes_of(signed)
    size = rules.signature_size
    return any(
        hmac.compare_digest(given, hmac.digest(key, salt + message, "sha256")[:size])
        for key, salt in rules.keys
    )


_BASE64URL = re.compile(r"[A-Za-z0-9_-]*", re.ASCII)
_BROKEN_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")


def _base64_encoded(value: bytes) -> str:
    return urlsafe_b64encode(value).rstrip(b"=").decode("ascii")


def bytes_of(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")
