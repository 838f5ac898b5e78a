"""`imgproxy-cache run`: what the container runs, imgproxy and the proxy in front of it."""

import sys
from collections.abc import Iterator, Mapping

from imgproxy_cache.errors import ListenError
from imgproxy_cache.imgproxy import fallback_image_ttl
from imgproxy_cache.listen import bound
from imgproxy_cache.settings import Settings
from imgproxy_cache.settings.addresses import BindAddress
from imgproxy_cache.supervision import IMGPROXY, PROXY, supervise


def run(environ: Mapping[str, str]) -> int:
    """
    Run the proxy, and imgproxy where that is ours to start, until one ends or we are to stop.

    Returns the exit status: 0 when asked to stop, else that of the program that ended first.
    Raises: SettingsError or ListenError, before anything is started.
    """
    added = fallback_image_ttl(environ)
    settings = Settings.from_environ({**environ, **added})
    problems = list(why_not_listening(settings))
    if problems:
        raise ListenError("\n".join(problems))
    end = supervise(
        [IMGPROXY, PROXY] if _starts_imgproxy(settings) else [PROXY],
        environment=added,
        drain_seconds=settings.drain_seconds,
    )
    if end is None:
        return 0
    if end.program == IMGPROXY and settings.port_collision is not None:
        # The proxy, which says so as well, has had no time to.
        sys.stderr.write(f"imgproxy-cache run: {settings.port_collision}\n")
    return end.status


def why_not_listening(settings: Settings) -> Iterator[str]:
    """
    Say which ports are taken, before there are the log lines of two programs to find it in.

    It is imgproxy's above all that matters: the proxy would take who listens there for imgproxy.
    """
    named = [("IMGPROXY_BIND", settings.bind)]
    if settings.admin_bind is not None:
        named.append(("CACHE_ADMIN_BIND", settings.admin_bind))
    if _starts_imgproxy(settings):
        named.append(("CACHE_UPSTREAM_URL", _upstream(settings)))
    for variable, address in named:
        try:
            with bound(address):
                pass
        except ListenError as exc:
            yield f"{exc}: stop what listens there, or change {variable}"


def _starts_imgproxy(settings: Settings) -> bool:
    """Only an imgproxy on this machine is ours to start."""
    return _upstream(settings).is_loopback


def _upstream(settings: Settings) -> BindAddress:
    return BindAddress(settings.upstream_host, settings.upstream_port)
