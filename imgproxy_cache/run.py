"""`imgproxy-cache run`: what the container runs, imgproxy and the proxy in front of it."""

from collections.abc import Iterator, Mapping

from imgproxy_cache.addresses import BindAddress
from imgproxy_cache.errors import ListenError
from imgproxy_cache.imgproxy import fallback_image_ttl
from imgproxy_cache.listen import bound
from imgproxy_cache.settings import Settings
from imgproxy_cache.supervision import IMGPROXY, PROXY, supervise


def run(environ: Mapping[str, str]) -> int:
    """
    Run the proxy, and imgproxy where that is ours to start, until one ends or we are to stop.

    Returns the exit status: 0 when asked to stop, else that of the program that ended first.
    Raises: SettingsError or ListenError, before anything is started.
    """
    added = fallback_image_ttl(environ)
    settings = Settings.from_environ({**environ, **added})
    upstream = BindAddress(settings.upstream_host, settings.upstream_port)
    problems = list(_why_not_listening(settings, upstream))
    if problems:
        raise ListenError("\n".join(problems))
    end = supervise(
        [IMGPROXY, PROXY] if upstream.is_loopback else [PROXY],
        environment=added,
        drain_seconds=settings.drain_seconds,
    )
    return 0 if end is None else end.status


def _why_not_listening(settings: Settings, upstream: BindAddress) -> Iterator[str]:
    """
    Say which ports are taken, before there are the log lines of two programs to find it in.

    It is imgproxy's above all that matters: the proxy would take who listens there for imgproxy.
    """
    named = [("IMGPROXY_BIND", settings.bind)]
    if settings.admin_bind is not None:
        named.append(("CACHE_ADMIN_BIND", (settings.admin_bind,)))
    if upstream.is_loopback:
        named.append(("CACHE_UPSTREAM_URL", (upstream,)))
    for variable, addresses in named:
        try:
            with bound(addresses):
                pass
        except ListenError as exc:
            yield f"{exc}: stop what listens there, or change {variable}"
