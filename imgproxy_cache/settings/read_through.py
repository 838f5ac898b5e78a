"""Read-through: the tiers, how long they answer, and when it may not be turned on."""

import os
from dataclasses import dataclass
from pathlib import Path

from imgproxy_cache.core.key import KeyRules
from imgproxy_cache.core.location import FolderLocation, StoreLocation
from imgproxy_cache.settings.environment import Environment
from imgproxy_cache.settings.imgproxy import read_path_prefix

_SWITCH = "CACHE_READ_THROUGH"
_NEED_READ_THROUGH = (
    "CACHE_MEMORY_BYTES",
    "CACHE_DISK_DIR",
    "CACHE_DISK_BYTES",
    "CACHE_STALE_WHILE_REVALIDATE_SECONDS",
    "CACHE_STALE_IF_ERROR_SECONDS",
    "CACHE_NEGATIVE_SECONDS",
    "CACHE_FILL_CONCURRENCY",
    "CACHE_STORE_MISS_SECONDS",
    "CACHE_STORE_MISS_ITEMS",
)
_KEYS = ("IMGPROXY_KEY", "IMGPROXY_SALT")


@dataclass(frozen=True, slots=True)
class ReadThrough:
    """What of the settings decides about the tiers in front of imgproxy."""

    memory_bytes: int
    """For each worker; 0: no such tier."""
    disk_dir: Path | None
    """None: no such tier."""
    disk_bytes: int
    """All workers together."""
    stale_while_revalidate_seconds: float
    stale_if_error_seconds: float
    negative_seconds: int
    """How long a 404 is kept in memory; 0: not at all."""
    fill_concurrency: int
    """For each worker."""
    store_miss_seconds: float
    store_miss_items: int


def read_read_through(
    env: Environment,
    *,
    hidden_by: str | None,
    upstream_is_ours: bool,
    upstream_connections: int,
    workers: int,
) -> ReadThrough | None:
    """
    What stands in front of imgproxy; None where nothing does.

    `hidden_by` says what may keep settings of imgproxy from us.
    """
    read_through = ReadThrough(
        memory_bytes=env.number("CACHE_MEMORY_BYTES", 67_108_864, at_least=0, unit="bytes"),
        disk_dir=_disk_dir(env),
        disk_bytes=env.number("CACHE_DISK_BYTES", 10_737_418_240, at_least=1, unit="bytes"),
        stale_while_revalidate_seconds=env.seconds(
            "CACHE_STALE_WHILE_REVALIDATE_SECONDS", 0, may_be_zero=True
        ),
        stale_if_error_seconds=env.seconds(
            "CACHE_STALE_IF_ERROR_SECONDS", 86_400, may_be_zero=True
        ),
        # Longer, and an image that was uploaded late would be missing for a visit.
        negative_seconds=env.number(
            "CACHE_NEGATIVE_SECONDS", 0, at_least=0, at_most=60, unit="whole seconds"
        ),
        fill_concurrency=_fill_concurrency(
            env,
            upstream_is_ours=upstream_is_ours,
            upstream_connections=upstream_connections,
            workers=workers,
        ),
        store_miss_seconds=env.seconds("CACHE_STORE_MISS_SECONDS", 30, may_be_zero=True),
        store_miss_items=env.number("CACHE_STORE_MISS_ITEMS", 100_000, at_least=0),
    )
    is_unsigned = env.flag("CACHE_UNSIGNED")
    given = [name for name in _KEYS if env.text(name) is not None]
    if is_unsigned and given:
        env.reject("CACHE_UNSIGNED", f"false, or no {given[0]}: it says that nothing is signed")
    if not env.flag(_SWITCH):
        return None
    if hidden_by is not None:
        _refuse_unknown_access(env, hidden_by, is_unsigned=is_unsigned)
    return read_through


def read_key_rules(env: Environment) -> KeyRules:
    """How objects are named."""
    choice = env.choice("CACHE_KEY_SIGNATURE", ("include", "exclude"))
    prefix = read_path_prefix(env).encode("utf-8", "surrogateescape")
    return KeyRules(with_signature=choice != "exclude", prefix=prefix)


def refuse_shared_folder(
    env: Environment, read_through: ReadThrough, spool_dir: Path, store: StoreLocation
) -> None:
    """What is in the disk tier may be deleted: not so in the spool, or in a store."""
    others = {"CACHE_SPOOL_DIR": spool_dir}
    if isinstance(store, FolderLocation):
        others["CACHE_STORE_URL"] = Path(store.path)
    for name, folder in others.items():
        if read_through.disk_dir == folder:
            env.reject("CACHE_DISK_DIR", f"another folder than that of {name}")


def warnings_without_read_through(env: Environment) -> list[str]:
    """What is set and has no use."""
    idle = [name for name in _NEED_READ_THROUGH if env.text(name) is not None]
    if not idle or env.flag(_SWITCH):
        return []
    return [f"nothing is kept in memory or on disk: {', '.join(idle)} without {_SWITCH}=true"]


def _disk_dir(env: Environment) -> Path | None:
    folder = env.text("CACHE_DISK_DIR")
    if folder is None:
        return None
    if not Path(folder).is_absolute():
        env.reject("CACHE_DISK_DIR", "a folder from the root on, such as /var/cache/imgproxy-cache")
    return Path(folder)


def _fill_concurrency(
    env: Environment, *, upstream_is_ours: bool, upstream_connections: int, workers: int
) -> int:
    """
    For each worker; twice as many as imgproxy works at keep it busy while images come and go.

    Source: imgproxy's `runtime.GOMAXPROCS(0) * 2`, in 3.30.1 `config/config.go`, in 4.0.12
    `workers/config.go`
    """
    imgproxys = 2 * len(os.sched_getaffinity(0))
    for name in ("IMGPROXY_CONCURRENCY", "IMGPROXY_WORKERS"):  # the first up to 3.x
        imgproxys = env.number(name, imgproxys, at_least=1)
    default = 2 * imgproxys if upstream_is_ours else upstream_connections * workers
    return -(-env.number("CACHE_FILL_CONCURRENCY", default, at_least=1) // workers)


def _refuse_unknown_access(env: Environment, hidden_by: str, *, is_unsigned: bool) -> None:
    """A hit must not relax what imgproxy checks, with keys or a secret that we do not see."""
    if is_unsigned:
        return
    because = f"since {_SWITCH} checks what imgproxy checks, and imgproxy {hidden_by}"
    if env.first_of(_KEYS) is None:
        env.require(
            "IMGPROXY_KEY",
            f"imgproxy's, and its IMGPROXY_SALT, {because}; or CACHE_UNSIGNED=true if it has none",
        )
    if not env.is_present("IMGPROXY_SECRET"):
        env.require("IMGPROXY_SECRET", f"imgproxy's, {because}; or empty if it has none")
