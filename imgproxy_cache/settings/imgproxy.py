"""What we read of imgproxy's own settings: how paths are read, and what may be stored."""

from dataclasses import dataclass

from imgproxy_cache.core.imgproxy_path import PathRules
from imgproxy_cache.core.printable import fits_a_target
from imgproxy_cache.settings.environment import Environment

_FALLBACK_IMAGE = tuple(f"IMGPROXY_FALLBACK_IMAGE_{kind}" for kind in ("DATA", "PATH", "URL"))
_AUTO_FORMATS = tuple(
    f"IMGPROXY_{name}" for name in ("AUTO_WEBP", "AUTO_AVIF", "AUTO_JXL", "ENABLE_WEBP_DETECTION")
)
_DEFAULT_TTL_SECONDS = 31_536_000


@dataclass(frozen=True, slots=True)
class FallbackRules:
    """How fallback images are told from others: see :class:`StorageRules`."""

    max_age: int | None = None
    is_unmarked: bool = False


def read_path_rules(env: Environment) -> PathRules:
    """How imgproxy reads a path."""
    return PathRules(
        prefix=read_path_prefix(env),
        separator=env.text("IMGPROXY_ARGUMENTS_SEPARATOR") or ":",
        keys=_keys(env),
        signature_size=env.number(
            "IMGPROXY_SIGNATURE_SIZE", 32, at_least=1, at_most=32, unit="bytes"
        ),
        trusted_signatures=tuple(env.items("IMGPROXY_TRUSTED_SIGNATURES")),
        only_presets=env.flag("IMGPROXY_ONLY_PRESETS"),
        base64_includes_filename=env.flag("IMGPROXY_BASE64_URL_INCLUDES_FILENAME"),
    )


def read_path_prefix(env: Environment) -> str:
    """
    As imgproxy reads it: one slash in front, none at the end.

    It compares the path as it came, which has no other characters: no image has another prefix.
    """
    path = (env.text("IMGPROXY_PATH_PREFIX") or "").partition("?")[0].partition("#")[0]
    path = path.removesuffix("/")
    if not fits_a_target(path):
        env.reject("IMGPROXY_PATH_PREFIX", "printable ASCII without blanks")
    return path if not path or path.startswith("/") else f"/{path}"


def read_fallback_rules(env: Environment) -> FallbackRules:
    """
    How to tell a fallback image, which imgproxy answers as any other.

    By a status of its own (0 is that of the error), or by a lifetime that other
    images do not have.
    """
    status = env.number("IMGPROXY_FALLBACK_IMAGE_HTTP_CODE", 200, at_least=0, at_most=599)
    max_age = env.number("IMGPROXY_FALLBACK_IMAGE_TTL", 0, at_least=0, unit="seconds")
    usual = env.number("IMGPROXY_TTL", _DEFAULT_TTL_SECONDS, at_least=0, unit="seconds")
    if env.first_of(_FALLBACK_IMAGE) is None or status != 200:
        return FallbackRules()
    if max_age in (0, usual):
        return FallbackRules(is_unmarked=True)
    return FallbackRules(max_age=max_age)


def are_formats_enforced(env: Environment) -> bool:
    """May imgproxy answer with another format than the path says?"""
    names = env.names("IMGPROXY_ENFORCE_")
    return True in [env.flag(name) for name in names]  # each is read, so that each is checked


def are_settings_hidden(env: Environment) -> bool:
    """May imgproxy have settings from a place that we do not see?"""
    return bool(env.names("IMGPROXY_ENV_"))


def auto_formats(env: Environment) -> list[str]:
    """The settings that make imgproxy choose the format by `Accept`."""
    return [name for name in _AUTO_FORMATS if env.text(name) and env.flag(name)]


def _keys(env: Environment) -> tuple[tuple[bytes, bytes], ...]:
    found = len(env.problems)
    keys, salts = env.hex_items("IMGPROXY_KEY"), env.hex_items("IMGPROXY_SALT")
    # The other half may be among the hidden settings, which read-through cannot do without.
    may_be_hidden = are_settings_hidden(env) and not env.flag("CACHE_READ_THROUGH")
    if len(keys) != len(salts) and len(env.problems) == found and not may_be_hidden:
        count = len(env.items("IMGPROXY_KEY"))
        expected = f"as many salts as IMGPROXY_KEY has keys, {count}"
        if env.text("IMGPROXY_SALT") is None:
            env.require("IMGPROXY_SALT", expected)
        else:
            env.reject_secret("IMGPROXY_SALT", expected)
    return tuple(zip(keys, salts, strict=True)) if len(keys) == len(salts) else ()
