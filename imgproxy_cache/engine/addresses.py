"""Which addresses a source may have: what imgproxy refuses, so that nobody reaches inside by it."""

from __future__ import annotations

import ipaddress
from ipaddress import IPv4Address, IPv6Address

SHARED = ipaddress.ip_network("100.64.0.0/10")  # RFC 6598
PRIVATE = tuple(
    ipaddress.ip_network(network)
    for network in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7")
)
LINK_LOCAL = tuple(
    ipaddress.ip_network(network)
    for network in ("169.254.0.0/16", "224.0.0.0/24", "fe80::/10")  # and ff?2::/16
)
NAT64 = ipaddress.ip_network("64:ff9b::/96")  # RFC 6052
NAT64_LOCAL = ipaddress.ip_network("64:ff9b:1::/48")  # RFC 8215
TEREDO = ipaddress.ip_network("2001::/32")  # RFC 4380
SIX_TO_FOUR = ipaddress.ip_network("2002::/16")  # RFC 3056
ISATAP_MARKS = {b"\x00\x00\x5e\xfe", b"\x02\x00\x5e\xfe"}  # RFC 5214


def why_refused(
    text: str, *, allow_loopback: bool, allow_link_local: bool, allow_private: bool
) -> str | None:
    """
    Why no source may be fetched from this address; None when it may.

    An IPv6 address that carries an IPv4 one counts as both.
    """
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return f"{text!r} is no IP address"
    seen: list[IPv4Address | IPv6Address] = [address]
    if isinstance(address, IPv6Address):
        carried = carried_ipv4(address)
        seen += [carried] if carried else []
    if not allow_loopback and any(map(_is_loopback, seen)):
        return f"loopback source address is not allowed: {text}"
    if not allow_link_local and any(map(_is_link_local, seen)):
        return f"link-local source address is not allowed: {text}"
    if not allow_private and any(map(_is_private, seen)):
        return f"private source address is not allowed: {text}"
    return None


def carried_ipv4(address: IPv6Address) -> IPv4Address | None:
    """The IPv4 address that gateways between the two protocols would reach for this one."""
    octets = address.packed
    if octets[:12] in {bytes(12), bytes(10) + b"\xff\xff"} or address in NAT64:
        carried = octets[12:]
    elif address in SIX_TO_FOUR:
        carried = octets[2:6]
    elif address in NAT64_LOCAL:
        carried = octets[6:8] + octets[9:11]  # RFC 6052 section 2.2: byte 8 is reserved
    elif address in TEREDO:
        carried = bytes(octet ^ 0xFF for octet in octets[12:])
    elif octets[8:12] in ISATAP_MARKS:
        carried = octets[12:]
    else:
        return None
    return IPv4Address(carried)


def _is_loopback(address: IPv4Address | IPv6Address) -> bool:
    return address.is_loopback or address.is_unspecified


def _is_link_local(address: IPv4Address | IPv6Address) -> bool:
    if isinstance(address, IPv6Address) and address.is_multicast:
        return address.packed[1] & 0x0F == 2  # RFC 4291 section 2.7: the scope
    return _is_in(address, LINK_LOCAL)


def _is_private(address: IPv4Address | IPv6Address) -> bool:
    return _is_in(address, (*PRIVATE, SHARED))


def _is_in(
    address: IPv4Address | IPv6Address,
    networks: tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...],
) -> bool:
    return any(address in network for network in networks)
