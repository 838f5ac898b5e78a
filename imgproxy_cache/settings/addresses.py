"""Who listens where: we, our operator's port, and imgproxy."""

import re
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address
from itertools import combinations
from typing import Self

from imgproxy_cache.settings.environment import Environment, printable

_HOST = r"[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\]"
_ADDRESS = re.compile(rf"(|{_HOST}):([0-9]{{1,5}})")
_UPSTREAM_URL = re.compile(rf"http://({_HOST})(?::([0-9]{{1,5}}))?/?")
LARGEST_PORT = 65535
_EVERYWHERE = frozenset({None, "0.0.0.0", "::"})


@dataclass(frozen=True, slots=True)
class BindAddress:
    """Where to listen; `host` None is every address of this machine, IPv4 and IPv6."""

    host: str | None
    port: int

    def __str__(self) -> str:
        host = self.host or ""
        return f"[{host}]:{self.port}" if ":" in host else f"{host}:{self.port}"

    def overlaps(self, other: Self) -> bool:
        """Can only one program listen on the two?"""
        is_same = self.host == other.host or self.is_everywhere or other.is_everywhere
        return self.port == other.port != 0 and is_same

    @property
    def is_everywhere(self) -> bool:
        """Is it every address of this machine, or every one of IPv4?"""
        return self.host in _EVERYWHERE

    @property
    def is_loopback(self) -> bool:
        """Can only this machine reach it?"""
        try:
            return ip_address(self.host or "").is_loopback
        except ValueError:
            return (self.host or "").lower() == "localhost"


@dataclass(frozen=True, slots=True)
class Listeners:
    """The addresses that the settings name; no two on this machine share a port."""

    bind: BindAddress
    admin_bind: BindAddress | None
    upstream: BindAddress


def read_listeners(env: Environment) -> Listeners:
    """Read the three addresses."""
    listeners = Listeners(bind=_bind(env), admin_bind=_admin_bind(env), upstream=_upstream(env))
    _refuse_shared_ports(env, listeners)
    return listeners


def port_collision(env: Environment, listeners: Listeners) -> str | None:
    """What of imgproxy's own takes a port that one of the two is to listen on."""
    # The official Helm chart sets ":8081".
    metrics = env.text("IMGPROXY_PROMETHEUS_BIND") or ""
    port = metrics.rpartition(":")[2].strip()
    if not listeners.upstream.is_loopback:
        return None
    for name, address in _on_this_machine(env, listeners):
        if port == str(address.port):
            owner = "that imgproxy has from" if address is listeners.upstream else "of"
            return (
                f"IMGPROXY_PROMETHEUS_BIND={printable(metrics)} takes the port {owner} {name},"
                f" {port}: change one of them"
            )
    return None


def _bind(env: Environment) -> BindAddress:
    if env.text("IMGPROXY_BIND") is None:
        port = env.number("PORT", 8080, at_least=0, at_most=LARGEST_PORT, unit="a port")
        return BindAddress(None, port)
    return _address(env, "IMGPROXY_BIND") or BindAddress(None, 8080)


def _admin_bind(env: Environment) -> BindAddress | None:
    if env.text("CACHE_ADMIN_BIND") is None:
        is_off = env.is_present("CACHE_ADMIN_BIND")
        return None if is_off else BindAddress("127.0.0.1", 8082)
    return _address(env, "CACHE_ADMIN_BIND")


def _address(env: Environment, name: str) -> BindAddress | None:
    match = _ADDRESS.fullmatch((env.text(name) or "").strip())
    address = _checked(match[1], match[2]) if match else None
    if address is None:
        env.reject(name, "host:port or :port")
    return address


def _upstream(env: Environment) -> BindAddress:
    url = env.text("CACHE_UPSTREAM_URL") or "http://127.0.0.1:8081"
    match = _UPSTREAM_URL.fullmatch(url.strip())
    address = _checked(match[1], match[2] or "80") if match else None
    if address is None or address.port == 0:
        env.reject("CACHE_UPSTREAM_URL", "http://host:port")
        return BindAddress("127.0.0.1", 8081)
    return address


def _checked(host: str, port: str) -> BindAddress | None:
    is_ipv6 = host.startswith("[")
    try:
        bare = str(IPv6Address(host[1:-1])) if is_ipv6 else host
    except ValueError:
        return None
    return BindAddress(bare or None, int(port)) if int(port) <= LARGEST_PORT else None


def _on_this_machine(env: Environment, listeners: Listeners) -> list[tuple[str, BindAddress]]:
    """The addresses that are taken here, each with the variable that says which."""
    ours = "IMGPROXY_BIND" if env.text("IMGPROXY_BIND") is not None else "PORT"
    named = [(ours, listeners.bind)]
    if listeners.admin_bind is not None:
        named.append(("CACHE_ADMIN_BIND", listeners.admin_bind))
    if listeners.upstream.is_loopback:
        named.append(("CACHE_UPSTREAM_URL", listeners.upstream))
    return named


def _refuse_shared_ports(env: Environment, listeners: Listeners) -> None:
    for (one, first), (other, second) in combinations(_on_this_machine(env, listeners), 2):
        if first.overlaps(second):
            # One of them has its default: the other is the one to change.
            wrong, right = (one, other) if env.text(other) is None else (other, one)
            env.reject(wrong, f"another port than that of {right}")
