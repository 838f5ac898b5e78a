"""What the engine takes from ``IMGPROXY_*``, with imgproxy 4's names, defaults and meanings."""

from __future__ import annotations

import os
import re
from base64 import b64decode
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from imgproxy_cache.core.imgproxy_path import PathRules
from imgproxy_cache.engine.environment import Environment
from imgproxy_cache.engine.formats import SAVED
from imgproxy_cache.engine.options import DEFAULT_FORMAT_QUALITY, Limits, Options
from imgproxy_cache.engine.render import PREFERRED_FORMATS, RenderRules
from imgproxy_cache.engine.save import EncoderRules
from imgproxy_cache.engine.sources import SourceRules
from imgproxy_cache.engine.url_options import OptionRules, presets_from_lines
from imgproxy_cache.errors import SettingsError

YEAR_SECONDS = 31_536_000
MODERN_FORMATS = ("webp", "avif", "jxl")
WEBP_PRESETS = ("default", "photo", "picture", "drawing", "icon", "text")
LOG_FORMATS = ("pretty", "structured", "json", "gcp")


@dataclass(frozen=True, slots=True)
class ServerRules:
    """Where to listen, and how much to do at once."""

    network: str
    bind: str
    workers: int
    queue_size: int
    """Requests that may wait for a worker; 0: any number."""
    timeout_seconds: int
    keep_alive_seconds: int
    graceful_stop_seconds: int
    log_level: str
    log_format: str


@dataclass(frozen=True, slots=True)
class FallbackRules:
    """The image that is answered where there is no source, if one of the first three is set."""

    data: bytes
    path: Path | None
    url: str
    status: int
    """0: the status of the error."""
    ttl_seconds: int
    """0: that of any image."""


@dataclass(frozen=True, slots=True)
class AnswerRules:
    """What an answer carries beside the image."""

    ttl_seconds: int
    cache_control_passthrough: bool
    canonical: bool
    debug: bool
    etag: bool
    last_modified: bool
    allow_origin: str
    auto_formats: frozenset[str]
    enforce_formats: frozenset[str]


@dataclass(frozen=True, slots=True)
class Settings:
    server: ServerRules
    path: PathRules
    health_path: str
    """``IMGPROXY_HEALTH_CHECK_PATH``, beside ``/health``."""
    secret: str
    options: OptionRules
    base_url: str
    url_replacements: tuple[tuple[re.Pattern[str], str], ...]
    sources: SourceRules
    render: RenderRules
    answers: AnswerRules
    fallback: FallbackRules
    unknown: tuple[str, ...]
    """Names of ``IMGPROXY_*`` that are set and that the engine does not know."""


def settings_from_environ(environ: Mapping[str, str]) -> Settings:
    """
    Read the settings of a process.

    Raises: SettingsError with every problem there is.
    """
    env = Environment(environ)
    path = _path_rules(env)
    server = _server_rules(env)
    options = _option_rules(env, path.separator)
    sources = _source_rules(env)
    render = _render_rules(env)
    answers = _answer_rules(env)
    fallback = _fallback_rules(env)
    health_path = env.text("IMGPROXY_HEALTH_CHECK_PATH")
    secret = env.text("IMGPROXY_SECRET")
    base_url = env.text("IMGPROXY_BASE_URL")
    replacements = env.replacements("IMGPROXY_URL_REPLACEMENTS")
    if env.problems:
        raise SettingsError(env.problems)
    return Settings(
        server=server,
        path=path,
        health_path=health_path,
        secret=secret,
        options=options,
        base_url=base_url,
        url_replacements=replacements,
        sources=sources,
        render=render,
        answers=answers,
        fallback=fallback,
        unknown=tuple(
            sorted(
                name
                for name, value in environ.items()
                if name.startswith("IMGPROXY_") and value and name not in env.names
            )
        ),
    )


def _server_rules(env: Environment) -> ServerRules:
    port = env.integer("PORT", 8080, most=65535)
    return ServerRules(
        network=env.choice("IMGPROXY_NETWORK", "tcp", ("tcp", "tcp4", "tcp6", "unix")),
        bind=env.text("IMGPROXY_BIND", f":{port}"),
        workers=env.integer("IMGPROXY_WORKERS", 2 * len(os.sched_getaffinity(0)), 1, 1024),
        queue_size=env.integer("IMGPROXY_REQUESTS_QUEUE_SIZE", 0),
        timeout_seconds=env.integer("IMGPROXY_TIMEOUT", 10, 1),
        keep_alive_seconds=env.integer("IMGPROXY_KEEP_ALIVE_TIMEOUT", 10),
        graceful_stop_seconds=env.integer("IMGPROXY_GRACEFUL_STOP_TIMEOUT", 20),
        log_level=env.choice(
            "IMGPROXY_LOG_LEVEL", "info", ("debug", "info", "warn", "warning", "error", "critical")
        ),
        log_format=env.choice("IMGPROXY_LOG_FORMAT", "pretty", LOG_FORMATS),
    )


def _path_rules(env: Environment) -> PathRules:
    keys, salts = env.secrets("IMGPROXY_KEY"), env.secrets("IMGPROXY_SALT")
    if len(keys) != len(salts):
        env.problems.append(
            f"IMGPROXY_KEY, IMGPROXY_SALT: {len(keys)} keys and {len(salts)} salts: "
            "expected as many of both"
        )
    return PathRules(
        prefix=env.text("IMGPROXY_PATH_PREFIX"),
        separator=env.text("IMGPROXY_ARGUMENTS_SEPARATOR", ":"),
        keys=tuple(zip(keys, salts, strict=False)),
        signature_size=env.integer("IMGPROXY_SIGNATURE_SIZE", 32, 1, 32),
        trusted_signatures=env.texts("IMGPROXY_TRUSTED_SIGNATURES"),
        only_presets=env.flag("IMGPROXY_ONLY_PRESETS"),
        base64_includes_filename=env.flag("IMGPROXY_BASE64_URL_INCLUDES_FILENAME"),
    )


def _option_rules(env: Environment, separator: str) -> OptionRules:
    lines = env.texts("IMGPROXY_PRESETS", env.text("IMGPROXY_PRESETS_SEPARATOR", ","))
    lines += env.lines("IMGPROXY_PRESETS_PATH")
    allowed = env.flag("IMGPROXY_ALLOW_SECURITY_OPTIONS")
    presets, problems = presets_from_lines(lines, separator, security_options_are_allowed=allowed)
    env.problems += [f"IMGPROXY_PRESETS: {problem}" for problem in problems]
    return OptionRules(
        defaults=_default_options(env),
        presets=presets,
        allowed=frozenset(env.texts("IMGPROXY_ALLOWED_PROCESSING_OPTIONS")),
        security_options_are_allowed=allowed,
        has_watermark=any(
            env.is_set(f"IMGPROXY_WATERMARK_{source}") for source in ("DATA", "PATH", "URL")
        ),
    )


def _default_options(env: Environment) -> Options:
    return Options(
        auto_rotate=env.flag("IMGPROXY_AUTO_ROTATE", default=True),
        strip_metadata=env.flag("IMGPROXY_STRIP_METADATA", default=True),
        keep_copyright=env.flag("IMGPROXY_KEEP_COPYRIGHT", default=True),
        strip_color_profile=env.flag("IMGPROXY_STRIP_COLOR_PROFILE", default=True),
        preserve_hdr=env.flag("IMGPROXY_PRESERVE_HDR"),
        enforce_thumbnail=env.flag("IMGPROXY_ENFORCE_THUMBNAIL"),
        default_quality=env.integer("IMGPROXY_QUALITY", 80, 1, 100),
        default_format_quality={
            **DEFAULT_FORMAT_QUALITY,
            **env.qualities("IMGPROXY_FORMAT_QUALITY"),
        },
        skip_processing=frozenset(env.formats("IMGPROXY_SKIP_PROCESSING_FORMATS", ())),
        limits=Limits(
            src_resolution=env.megapixels("IMGPROXY_MAX_SRC_RESOLUTION", 50_000_000, least=1),
            src_file_size=env.integer("IMGPROXY_MAX_SRC_FILE_SIZE", 0),
            animation_frames=env.integer("IMGPROXY_MAX_ANIMATION_FRAMES", 1, 1),
            animation_frame_resolution=env.megapixels("IMGPROXY_MAX_ANIMATION_FRAME_RESOLUTION", 0),
            result_dimension=env.integer("IMGPROXY_MAX_RESULT_DIMENSION", 0),
        ),
    )


def _source_rules(env: Environment) -> SourceRules:
    return SourceRules(
        local_root=env.folder("IMGPROXY_LOCAL_FILESYSTEM_ROOT"),
        allowed_sources=env.patterns("IMGPROXY_ALLOWED_SOURCES"),
        allow_loopback=env.flag("IMGPROXY_ALLOW_LOOPBACK_SOURCE_ADDRESSES"),
        allow_link_local=env.flag("IMGPROXY_ALLOW_LINK_LOCAL_SOURCE_ADDRESSES"),
        allow_private=env.flag("IMGPROXY_ALLOW_PRIVATE_SOURCE_ADDRESSES", default=True),
        ignore_ssl_verification=env.flag("IMGPROXY_IGNORE_SSL_VERIFICATION"),
        max_redirects=env.integer("IMGPROXY_MAX_REDIRECTS", 10),
        download_timeout_seconds=env.integer("IMGPROXY_DOWNLOAD_TIMEOUT", 5, 1),
        user_agent=env.text("IMGPROXY_USER_AGENT", "imgproxy-cache"),
    )


def _render_rules(env: Environment) -> RenderRules:
    preferred = env.formats("IMGPROXY_PREFERRED_FORMATS", PREFERRED_FORMATS)
    saved = tuple(name for name in preferred if name in SAVED)
    if not saved:
        env.problems.append(
            f"IMGPROXY_PREFERRED_FORMATS={','.join(preferred)!r}: "
            f"expected at least one of {', '.join(sorted(SAVED))}"
        )
    return RenderRules(
        preferred_formats=saved,
        sanitize_svg=env.flag("IMGPROXY_SANITIZE_SVG", default=True),
        always_rasterize_svg=env.flag("IMGPROXY_ALWAYS_RASTERIZE_SVG"),
        encoders=EncoderRules(
            jpeg_progressive=env.flag("IMGPROXY_JPEG_PROGRESSIVE"),
            png_interlaced=env.flag("IMGPROXY_PNG_INTERLACED"),
            png_quantize=env.flag("IMGPROXY_PNG_QUANTIZE"),
            png_quantization_colors=env.integer("IMGPROXY_PNG_QUANTIZATION_COLORS", 256, 2, 256),
            webp_effort=env.integer("IMGPROXY_WEBP_EFFORT", 4, 1, 6),
            webp_preset=env.choice("IMGPROXY_WEBP_PRESET", "default", WEBP_PRESETS),
            avif_speed=env.integer("IMGPROXY_AVIF_SPEED", 8, 0, 9),
        ),
    )


def _answer_rules(env: Environment) -> AnswerRules:
    auto = {name for name in MODERN_FORMATS if env.flag(f"IMGPROXY_AUTO_{name.upper()}")}
    enforced = {name for name in MODERN_FORMATS if env.flag(f"IMGPROXY_ENFORCE_{name.upper()}")}
    return AnswerRules(
        ttl_seconds=env.integer("IMGPROXY_TTL", YEAR_SECONDS),
        cache_control_passthrough=env.flag("IMGPROXY_CACHE_CONTROL_PASSTHROUGH"),
        canonical=env.flag("IMGPROXY_SET_CANONICAL_HEADER"),
        debug=env.flag("IMGPROXY_ENABLE_DEBUG_HEADERS"),
        etag=env.flag("IMGPROXY_ETAG_ENABLED", default=True),
        last_modified=env.flag("IMGPROXY_LAST_MODIFIED_ENABLED", default=True),
        allow_origin=env.text("IMGPROXY_ALLOW_ORIGIN"),
        auto_formats=frozenset(auto | enforced),
        enforce_formats=frozenset(enforced),
    )


def _fallback_rules(env: Environment) -> FallbackRules:
    data = env.text("IMGPROXY_FALLBACK_IMAGE_DATA")
    try:
        decoded = b64decode("".join(data.split()), validate=True)
    except ValueError:
        decoded = b""
        env.problems.append("IMGPROXY_FALLBACK_IMAGE_DATA: expected an image in base64")
    status = env.integer("IMGPROXY_FALLBACK_IMAGE_HTTP_CODE", 200, 0, 599)
    if 0 < status < 200:
        env.problems.append(f"IMGPROXY_FALLBACK_IMAGE_HTTP_CODE={status}: expected 0 or 200 to 599")
    return FallbackRules(
        data=decoded,
        path=env.file("IMGPROXY_FALLBACK_IMAGE_PATH"),
        url=env.text("IMGPROXY_FALLBACK_IMAGE_URL"),
        status=status,
        ttl_seconds=env.integer("IMGPROXY_FALLBACK_IMAGE_TTL", 0),
    )
