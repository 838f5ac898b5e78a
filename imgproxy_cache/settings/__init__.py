"""
The settings, and the only reader of the environment.

What each variable means is in :mod:`imgproxy_cache.settings.reference`.
"""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Literal, Self, cast

from imgproxy_cache.core.imgproxy_path import PathRules
from imgproxy_cache.core.key import KeyRules
from imgproxy_cache.core.location import StoreLocation
from imgproxy_cache.core.policy import StorageRules
from imgproxy_cache.errors import SettingsError
from imgproxy_cache.settings.addresses import BindAddress, port_collision, read_listeners
from imgproxy_cache.settings.environment import Environment
from imgproxy_cache.settings.imgproxy import (
    are_formats_enforced,
    are_settings_hidden,
    auto_formats,
    read_fallback_rules,
    read_path_rules,
)
from imgproxy_cache.settings.read_through import (
    ReadThrough,
    read_key_rules,
    read_read_through,
    refuse_shared_folder,
    warnings_without_read_through,
)
from imgproxy_cache.settings.reference import NAMES
from imgproxy_cache.settings.store import read_store

__all__ = ["BindAddress", "LogFormat", "LogLevel", "ReadThrough", "Settings"]

LogLevel = Literal["debug", "info", "warning", "error"]
LogFormat = Literal["json", "console"]
IPNetwork = IPv4Network | IPv6Network


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything that the environment says, checked. Printing it prints no secret."""

    store: StoreLocation
    bind: BindAddress
    admin_bind: BindAddress | None
    health_check_timeout_seconds: float
    upstream_url: str
    upstream_host: str
    upstream_port: int
    upstream_connections: int
    upstream_wait_seconds: float
    upstream_queue_items: int
    upstream_connect_timeout_seconds: float
    upstream_read_timeout_seconds: float
    buffer_bytes: int
    client_stall_seconds: float
    trusted_proxies: tuple[IPNetwork, ...]
    max_object_bytes: int
    upload_concurrency: int
    upload_queue_items: int
    upload_queue_bytes: int
    spool_dir: Path
    spool_is_lasting: bool
    """The folder was named by the operator: it is there after a restart."""
    spool_sync: bool
    spool_bytes: int
    spool_items: int
    spool_max_age_seconds: float
    drain_seconds: float
    imgproxy_bin: str | None
    log_level: LogLevel
    log_format: LogFormat | None
    """None: JSON, or readable lines on a terminal."""
    workers: int
    path_rules: PathRules = field(repr=False)
    key_rules: KeyRules
    read_through: ReadThrough | None
    """None: off."""
    storage_rules: StorageRules
    health_path: str
    port_collision: str | None
    """What of imgproxy's may keep one of the two from its port: the first thing to look at then."""
    warnings: tuple[str, ...]
    """What to say at start: set-ups that work, but store less than they seem to."""

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> Self:
        """
        Read every setting.

        Raises: SettingsError, which names all that is wrong at once.
        """
        env = Environment(environ)
        store = read_store(env)
        listeners = read_listeners(env)
        health_check_timeout_seconds = env.seconds("HEALTH_CHECK_TIMEOUT_IN_SEC", 30.0)
        upstream = listeners.upstream
        collision = port_collision(env, listeners)
        path_rules = read_path_rules(env)
        hidden_by = _what_hides_settings(env, upstream)
        storage_rules = _storage_rules(
            env, path_rules, settings_may_be_hidden=hidden_by is not None
        )
        upstream_connections = env.number("CACHE_UPSTREAM_CONNECTIONS", 100, at_least=1)
        workers = env.number("WEB_CONCURRENCY", 1, at_least=1)
        buffer_bytes = _bytes(env, "CACHE_BUFFER_BYTES", 268_435_456)
        upload_queue_bytes = _bytes(env, "CACHE_UPLOAD_QUEUE_BYTES", 134_217_728)
        read_through = read_read_through(
            env,
            hidden_by=hidden_by,
            upstream_is_ours=upstream.is_loopback,
            upstream_connections=upstream_connections,
            workers=workers,
        )
        settings = cls(
            store=cast(StoreLocation, store),  # None is a problem, and raised below
            bind=listeners.bind,
            admin_bind=listeners.admin_bind,
            health_check_timeout_seconds=health_check_timeout_seconds,
            upstream_url=f"http://{upstream}",
            upstream_host=upstream.host or "",
            upstream_port=upstream.port,
            upstream_connections=upstream_connections,
            upstream_wait_seconds=env.seconds("CACHE_UPSTREAM_WAIT_SECONDS", 10, may_be_zero=True),
            upstream_queue_items=env.number("CACHE_UPSTREAM_QUEUE_ITEMS", 1000, at_least=0),
            upstream_connect_timeout_seconds=env.seconds(
                "CACHE_UPSTREAM_CONNECT_TIMEOUT_SECONDS", 2
            ),
            upstream_read_timeout_seconds=env.seconds("CACHE_UPSTREAM_READ_TIMEOUT_SECONDS", 60),
            buffer_bytes=buffer_bytes,
            client_stall_seconds=env.seconds("CACHE_CLIENT_STALL_SECONDS", 60),
            trusted_proxies=_trusted_proxies(env),
            max_object_bytes=storage_rules.max_object_bytes,
            upload_concurrency=env.number("CACHE_UPLOAD_CONCURRENCY", 8, at_least=1),
            upload_queue_items=env.number("CACHE_UPLOAD_QUEUE_ITEMS", 10_000, at_least=1),
            upload_queue_bytes=upload_queue_bytes,
            spool_dir=_spool_dir(env),
            spool_is_lasting=env.text("CACHE_SPOOL_DIR") is not None,
            spool_sync=env.flag("CACHE_SPOOL_SYNC", default=True),
            spool_bytes=_bytes(env, "CACHE_SPOOL_BYTES", 1_073_741_824),
            spool_items=env.number("CACHE_SPOOL_ITEMS", 100_000, at_least=0),
            spool_max_age_seconds=env.seconds("CACHE_SPOOL_MAX_AGE_SECONDS", 604_800),
            drain_seconds=env.seconds("CACHE_DRAIN_SECONDS", 4, may_be_zero=True),
            imgproxy_bin=env.text("CACHE_IMGPROXY_BIN"),
            log_level=_log_level(env),
            log_format=_log_format(env),
            workers=workers,
            path_rules=path_rules,
            key_rules=read_key_rules(env),
            read_through=read_through,
            storage_rules=storage_rules,
            health_path=f"{path_rules.prefix}/health",
            port_collision=collision,
            warnings=(
                *_warnings_of_names(env),
                *_warnings(env, storage_rules, collision, hidden_by),
                *_warnings_of_sizes(
                    storage_rules.max_object_bytes,
                    CACHE_BUFFER_BYTES=buffer_bytes,
                    CACHE_UPLOAD_QUEUE_BYTES=upload_queue_bytes,
                ),
            ),
        )
        _refuse_contradictions(env, settings)
        if env.problems:
            # A variable that is read twice is told once.
            raise SettingsError(tuple(dict.fromkeys(env.problems)))
        return settings


def _bytes(env: Environment, name: str, default: int) -> int:
    return env.number(name, default, at_least=1, unit="bytes")


def _spool_dir(env: Environment) -> Path:
    named = env.text("CACHE_SPOOL_DIR")
    folder = Path(named or _temporary_spool(env))
    if not folder.is_absolute():
        wrong = "CACHE_SPOOL_DIR" if named else "TMPDIR"
        env.reject(wrong, "a folder from the root on, such as /var/spool/imgproxy-cache")
    return folder


def _temporary_spool(env: Environment) -> str:
    """Each user has one: of another's folder nothing can be taken over."""
    return f"{env.text('TMPDIR') or '/tmp'}/imgproxy-cache-spool-{os.geteuid()}"  # noqa: S108


def _trusted_proxies(env: Environment) -> tuple[IPNetwork, ...]:
    name = "CACHE_TRUSTED_PROXIES"
    try:
        return tuple(ip_network(item, strict=False) for item in env.items(name) if item)
    except ValueError:
        env.reject(name, "addresses or networks such as 10.0.0.0/8, several by commas")
        return ()


def _log_level(env: Environment) -> LogLevel:
    level = env.choice("CACHE_LOG_LEVEL", ("debug", "info", "warning", "error"))
    return cast(LogLevel, level or "info")


def _log_format(env: Environment) -> LogFormat | None:
    return cast(LogFormat | None, env.choice("CACHE_LOG_FORMAT", ("json", "console")))


def _what_hides_settings(env: Environment, upstream: BindAddress) -> str | None:
    """What may keep settings of imgproxy from us, if anything does."""
    if not upstream.is_loopback:
        return "runs elsewhere"
    return "reads IMGPROXY_ENV_*" if are_settings_hidden(env) else None


def _storage_rules(
    env: Environment, path_rules: PathRules, *, settings_may_be_hidden: bool
) -> StorageRules:
    secret = env.text("IMGPROXY_SECRET")
    fallback = read_fallback_rules(env)
    return StorageRules(
        max_object_bytes=_bytes(env, "CACHE_MAX_OBJECT_BYTES", 52_428_800),
        min_max_age_seconds=env.number(
            "CACHE_MIN_MAX_AGE_SECONDS", 3600, at_least=0, unit="whole seconds"
        ),
        store_svg=env.flag("CACHE_STORE_SVG"),
        store_secret=env.flag("CACHE_STORE_SECRET"),
        secret=None if secret is None else secret.encode("utf-8", "surrogateescape"),
        # Somebody's image must not become everybody's: what is not said may be so.
        cookie_passthrough=env.flag("IMGPROXY_COOKIE_PASSTHROUGH", default=settings_may_be_hidden),
        formats_are_enforced=are_formats_enforced(env),
        formats_are_negotiated=bool(auto_formats(env)),
        settings_may_be_hidden=settings_may_be_hidden,
        fallback_max_age=fallback.max_age,
        fallback_is_unmarked=fallback.is_unmarked,
        path_rules=path_rules,
    )


def _refuse_contradictions(env: Environment, settings: Settings) -> None:
    if not settings.key_rules.with_signature and not settings.path_rules.keys:
        keys = "IMGPROXY_KEY and IMGPROXY_SALT"
        env.reject(
            "CACHE_KEY_SIGNATURE", f"include: without {keys} there is no signature to exclude"
        )
    if settings.read_through is not None:
        refuse_shared_folder(env, settings.read_through, settings.spool_dir, settings.store)


def _warnings(
    env: Environment, rules: StorageRules, collision: str | None, hidden_by: str | None
) -> list[str]:
    warnings = warnings_without_read_through(env)
    if collision is not None:
        warnings.append(collision)
    if rules.secret is not None and not rules.store_secret:
        warnings.append(
            "nothing is stored: IMGPROXY_SECRET is set, which a public bucket would bypass;"
            " CACHE_STORE_SECRET=true stores all the same"
        )
    if rules.fallback_is_unmarked:
        warnings.append(
            "nothing is stored: a fallback image cannot be told from others; set, here and in"
            " imgproxy, IMGPROXY_FALLBACK_IMAGE_TTL to a lifetime that no other image has"
        )
    if rules.formats_are_enforced:
        warnings.append("nothing is stored: IMGPROXY_ENFORCE_* makes every answer depend on Accept")
    if choosing := auto_formats(env):
        fate = "what imgproxy chooses the format of by Accept is not stored"
        remedy = "a path that pins its format (@webp) is"
        warnings.append(f"{fate} ({', '.join(choosing)}); {remedy}")
    if hidden_by is not None:
        warnings.append(
            f"imgproxy {hidden_by} and may have settings that are not seen here: give both the same"
            " IMGPROXY_* variables; answers that depend on Accept are not stored"
        )
        if env.text("IMGPROXY_COOKIE_PASSTHROUGH") is None:
            warnings.append(
                f"imgproxy {hidden_by} and may pass cookies on: answers to requests with cookies"
                " are not stored; IMGPROXY_COOKIE_PASSTHROUGH=false if it does not"
            )
    return warnings


def _warnings_of_names(env: Environment) -> Iterator[str]:
    """Of variables that look like ours, and that nobody reads."""
    for name in env.names("CACHE_"):
        if name not in NAMES:
            alike = get_close_matches(name, NAMES, n=1)
            hint = f": did you mean {alike[0]}?" if alike else ""
            yield f"{name} is none of our settings{hint}"


def _warnings_of_sizes(max_object_bytes: int, **room: int) -> Iterator[str]:
    for name, size in room.items():
        if size < max_object_bytes:
            yield (
                f"images over {size} bytes are not stored: {name} has no room for all that"
                f" CACHE_MAX_OBJECT_BYTES lets in, {max_object_bytes}"
            )
