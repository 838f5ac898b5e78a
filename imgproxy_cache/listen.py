"""Sockets for an address that we are to listen on."""

import contextlib
import socket
from collections.abc import Iterator

from imgproxy_cache.errors import ListenError
from imgproxy_cache.settings.addresses import BindAddress


@contextlib.contextmanager
def bound(address: BindAddress) -> Iterator[list[socket.socket]]:
    """
    Sockets bound to `address`, not listening yet: one for each family.

    Raises:
        ListenError: it is taken, forbidden or not of this machine
    """
    with contextlib.ExitStack() as stack:
        sockets: list[socket.socket] = []
        for family, host in _families(address):
            listener = stack.enter_context(socket.socket(family, socket.SOCK_STREAM))
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            try:
                listener.bind((host, address.port))
            except OSError as exc:
                raise ListenError(f"cannot listen on {address}: {exc.strerror}") from exc
            sockets.append(listener)
        yield sockets


def _families(address: BindAddress) -> list[tuple[socket.AddressFamily, str]]:
    """Address families and hosts to bind: both families where the host is any, as in Go."""
    if address.host in (None, "::"):
        both = [(socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::")]
        return both if _has_ipv6() else both[:1]
    try:
        found = socket.getaddrinfo(
            address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
    except OSError as exc:
        raise ListenError(f"cannot listen on {address}: {exc.strerror}") from exc
    return [(family, str(where[0])) for family, _, _, _, where in found]


def _has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True
