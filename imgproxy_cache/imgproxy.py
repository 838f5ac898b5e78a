"""`imgproxy-cache imgproxy`: the imgproxy behind the proxy, found on this machine or embedded."""

import importlib.util
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import NoReturn

from imgproxy_cache.errors import ImgproxyCacheError
from imgproxy_cache.settings.environment import Environment
from imgproxy_cache.settings.imgproxy import read_fallback_rules

IN_THE_OFFICIAL_IMAGE = Path("/opt/imgproxy/bin/imgproxy")
ENGINE_PACKAGES = ("pyvips", "lxml")
FALLBACK_IMAGE_TTL = "67"


class NoImgproxy(ImgproxyCacheError):  # noqa: N818 - told by its parent
    """Neither an imgproxy nor the packages of the embedded engine are on this machine."""


def environ_for_imgproxy(environ: Mapping[str, str], *, host: str, port: int) -> dict[str, str]:
    """
    What imgproxy sees: our environment, but listening where we expect it.

    `PORT`, which is ours, would win over its `IMGPROXY_BIND`.
    """
    address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    changed = {"IMGPROXY_BIND": address, "IMGPROXY_NETWORK": "tcp"}
    kept = {name: value for name, value in environ.items() if name != "PORT"}
    return kept | fallback_image_ttl(environ) | changed


def fallback_image_ttl(environ: Mapping[str, str]) -> dict[str, str]:
    """
    What tells a fallback image from others, where nothing does: a lifetime of its own.

    imgproxy and the proxy both have to see it. Empty where no fallback image is configured, or
    where it has a lifetime or a status of its own already.
    """
    env = Environment(environ)
    if not read_fallback_rules(env).is_unmarked or env.text("IMGPROXY_FALLBACK_IMAGE_TTL"):
        return {}
    return {"IMGPROXY_FALLBACK_IMAGE_TTL": FALLBACK_IMAGE_TTL}


def find_imgproxy(named: str | None, *, path: str | None) -> str | None:
    """
    Find the real imgproxy: the one that is named, on `path`, or where the official image has it.

    Raises: NoImgproxy when the one that was named does not exist.
    """
    if named is not None:
        found = shutil.which(named, path=path)
        if found is None:
            raise NoImgproxy(
                f"CACHE_IMGPROXY_BIN={named!r} is no program: expected the path of imgproxy"
            )
        return found
    return shutil.which("imgproxy", path=path) or shutil.which(IN_THE_OFFICIAL_IMAGE)


def become_imgproxy(environ: Mapping[str, str], *, named: str | None, host: str, port: int) -> int:
    """
    Replace this process by the real imgproxy; where none is installed, serve as the engine.

    Returns the engine's exit status. Raises: NoImgproxy.
    """
    theirs = environ_for_imgproxy(environ, host=host, port=port)
    found = find_imgproxy(named, path=environ.get("PATH"))
    if found is not None:
        _exec(found, theirs)
    missing = [name for name in ENGINE_PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise NoImgproxy(
            f"no imgproxy on this machine, and no {' and '.join(missing)} for the embedded engine:"
            " install imgproxy (https://docs.imgproxy.net/installation), name it with"
            " CACHE_IMGPROXY_BIN, or pip install 'imgproxy-cache[engine]'"
        )
    from imgproxy_cache.engine.app import serve  # noqa: PLC0415 - its packages are an extra

    return serve(theirs)


def _exec(program: str, environ: dict[str, str]) -> NoReturn:
    try:
        os.execve(program, [program], environ)  # noqa: S606 - the operator's own program
    except OSError as exc:
        raise NoImgproxy(f"{program} does not start: {exc.strerror}") from exc
