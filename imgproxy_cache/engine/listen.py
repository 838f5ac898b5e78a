"""uvicorn as the engine needs it: the raw target, our sockets, a stop that is no failure."""

from __future__ import annotations

import logging
import signal
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import uvicorn
from uvicorn._types import ASGIApplication
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

FAMILIES = {"tcp4": (socket.AF_INET,), "tcp6": (socket.AF_INET6,)}


class TargetProtocol(HttpToolsProtocol):
    """Hands over the target as it came: ``scope["target"]``; uvicorn itself parses nothing."""

    def on_headers_complete(self) -> None:
        self.scope["target"] = self.url  # type: ignore[typeddict-unknown-key]
        self.url = b"/"
        super().on_headers_complete()


class _Server(uvicorn.Server):
    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Take the signals as uvicorn does, but do not raise them again: a stop is no failure."""
        with ExitStack() as before:
            for number in (signal.SIGINT, signal.SIGTERM):
                before.callback(signal.signal, number, signal.signal(number, self.handle_exit))
            yield


async def listen(
    app: ASGIApplication,
    sockets: list[socket.socket],
    *,
    keep_alive_seconds: int,
    graceful_stop_seconds: int,
) -> None:
    """Serve until SIGTERM or SIGINT, then finish what is being answered."""
    # Its warnings are about what clients send; what fails in the application is logged there.
    logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)
    config = uvicorn.Config(
        app,
        http=TargetProtocol,
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=keep_alive_seconds,
        timeout_graceful_shutdown=graceful_stop_seconds,
    )
    await _Server(config).serve(sockets=sockets)


def open_sockets(network: str, bind: str) -> list[socket.socket]:
    """
    Bind to ``:8081``, ``127.0.0.1:8081``, ``[::1]:8081``, or to a path where ``network`` is unix.

    Without a host on IPv4 and IPv6, or on what there is of them.

    Raises: OSError, ValueError.
    """
    if network == "unix":
        unix = socket.socket(socket.AF_UNIX)
        unix.bind(bind)
        return [unix]
    host, _, port = bind.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    families = FAMILIES.get(network, (socket.AF_INET, socket.AF_INET6))
    found = socket.getaddrinfo(
        host or None, int(port), type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )
    sockets = []
    for family, kind, _, _, address in found:
        if family not in families or (family == socket.AF_INET6 and not socket.has_ipv6):
            continue
        sock = socket.socket(family, kind)
        sockets.append(sock)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind(address)
    if not sockets:
        raise ValueError(f"{bind} is no address of {network}")
    return sockets
