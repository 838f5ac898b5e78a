"""Which addresses a source may have; the expected verdicts are imgproxy's."""

from __future__ import annotations

import pytest

from imgproxy_cache.engine.addresses import why_refused

DEFAULTS = {"allow_loopback": False, "allow_link_local": False, "allow_private": True}
STRICT = DEFAULTS | {"allow_private": False}

LOOPBACK = [
    pytest.param("127.0.0.1", id="loopback"),
    pytest.param("127.255.255.254", id="far loopback"),
    pytest.param("0.0.0.0", id="unspecified"),
    pytest.param("::1", id="IPv6 loopback"),
    pytest.param("::", id="IPv6 unspecified"),
    pytest.param("::ffff:127.0.0.1", id="mapped"),
    pytest.param("::127.0.0.1", id="IPv4-compatible"),
    pytest.param("64:ff9b::127.0.0.1", id="NAT64"),
    pytest.param("64:ff9b:1:7f00:0:100::", id="local NAT64"),
    pytest.param("2002:7f00:1::", id="6to4"),
    pytest.param("2001:0:1:2:3:4:80ff:fffe", id="Teredo"),
    pytest.param("2001:db8::5efe:7f00:1", id="ISATAP"),
    pytest.param("2001:db8::200:5efe:7f00:1", id="global ISATAP"),
]
LINK_LOCAL = [
    pytest.param("169.254.169.254", id="the metadata address of clouds"),
    pytest.param("224.0.0.251", id="multicast"),
    pytest.param("fe80::1", id="IPv6"),
    pytest.param("fe80::1%eth0", id="with a zone"),
    pytest.param("febf:ffff::1", id="end of the IPv6 range"),
    pytest.param("ff02::1", id="IPv6 multicast"),
    pytest.param("ff12::1", id="transient IPv6 multicast"),
    pytest.param("::ffff:169.254.169.254", id="mapped"),
    pytest.param("2002:a9fe:a9fe::", id="6to4"),
]
PRIVATE = [
    pytest.param("10.1.2.3", id="10/8"),
    pytest.param("172.31.255.255", id="172.16/12"),
    pytest.param("192.168.0.1", id="192.168/16"),
    pytest.param("100.64.0.1", id="shared by carriers"),
    pytest.param("fd00::1", id="unique local"),
    pytest.param("64:ff9b::10.0.0.1", id="NAT64"),
]
PUBLIC = [
    pytest.param("8.8.8.8", id="IPv4"),
    pytest.param("172.32.0.1", id="just behind 172.16/12"),
    pytest.param("100.128.0.1", id="just behind the carriers'"),
    pytest.param("2606:4700::1111", id="IPv6"),
    pytest.param("64:ff9b::8.8.8.8", id="NAT64"),
    pytest.param("ff0e::1", id="global multicast"),
]


@pytest.mark.parametrize("address", LOOPBACK)
def test_loopback_is_refused_unless_allowed(address: str) -> None:
    assert "loopback" in str(why_refused(address, **DEFAULTS))
    assert why_refused(address, **DEFAULTS | {"allow_loopback": True}) is None


@pytest.mark.parametrize("address", LINK_LOCAL)
def test_link_local_is_refused_unless_allowed(address: str) -> None:
    assert "link-local" in str(why_refused(address, **DEFAULTS))
    assert why_refused(address, **DEFAULTS | {"allow_link_local": True}) is None


@pytest.mark.parametrize("address", PRIVATE)
def test_private_is_allowed_unless_refused(address: str) -> None:
    assert why_refused(address, **DEFAULTS) is None
    assert "private" in str(why_refused(address, **STRICT))


@pytest.mark.parametrize("address", PUBLIC)
def test_public_is_allowed_always(address: str) -> None:
    assert why_refused(address, **STRICT) is None


@pytest.mark.parametrize("text", ["", "localhost", "127.1", "0x7f000001", "127.0.0.1:80"])
def test_what_is_no_address_is_refused(text: str) -> None:
    everything = {"allow_loopback": True, "allow_link_local": True, "allow_private": True}
    assert why_refused(text, **everything) == f"{text!r} is no IP address"
