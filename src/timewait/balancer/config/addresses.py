"""Addresses as a balancer's file writes them: where to listen, whom to connect to, where from. IP addresses only: a
name may mean another machine tomorrow, and CLB takes none either.

    0.0.0.0:80      every IPv4 address of this machine
    [::]:80         every IPv6 address, and every IPv4 address too
    unix:/run/x     a socket in the file system
"""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import NamedTuple

Address = IPv4Address | IPv6Address
UNIX = "unix:"
LONGEST_PATH = 107  # sun_path holds 108 bytes, and ends with a NUL: unix(7)

_PLACE = re.compile(r"(?:\[([^\[\]]*)\]|([^:*\[\]]+)):([0-9]{1,5})", re.ASCII)
_SOURCE = re.compile(r"(?:\[([^\[\]]*)\]|([^:\[\]]*))(?::([0-9]{1,5})-([0-9]{1,5}))?", re.ASCII)


class Place(NamedTuple):
    """An address and a port."""

    address: Address
    port: int

    def __str__(self) -> str:
        host = f"[{self.address}]" if self.address.version == 6 else str(self.address)
        return f"{host}:{self.port}"


class Source(NamedTuple):
    """An address to connect from, and the ports it may use; 0, 0 is the kernel's own choice
    (net.ipv4.ip_local_port_range)."""

    address: Address
    low: int = 0
    high: int = 0


def bound(text: str) -> Place | str:
    """Where a listener listens: a place, or the path of a unix socket. Raises ValueError saying what to write."""
    if not text.startswith(UNIX):
        return place(text, 'as "0.0.0.0:80", "[::]:80" or "unix:/path"')
    path = text.removeprefix(UNIX)
    if not path.startswith("/"):
        raise ValueError('is no whole path; write it from the root on, as "unix:/run/web.sock"')
    if len(path.encode()) > LONGEST_PATH:
        raise ValueError(f"is too long for a unix socket; at most {LONGEST_PATH} bytes after unix: (unix(7))")
    return path


def place(text: str, how: str = 'as "10.0.1.11:8080" or "[fd00::1]:8080"') -> Place:
    """An address and a port. Raises ValueError saying what to write."""
    match = _PLACE.fullmatch(text)
    if match is None:
        _one_address(text, how)
        raise ValueError(f"is no address with a port; write it {how}")
    port = int(match[3])
    if not 1 <= port <= 65535:
        raise ValueError(f"has no usable port; ports are 1 to 65535, not {match[3]}")
    return Place(_address(match, how), port)


def source(text: str) -> Source:
    """`10.0.0.2`, `10.0.0.3:20000-39999`, `[fd00::2]:20000-39999`. Raises ValueError saying what to write."""
    how = 'as "10.0.0.2" or with its ports as "10.0.0.3:20000-39999"'
    match = _SOURCE.fullmatch(text)
    if match is None or not match[3]:
        if text.count(":") == 1:
            raise ValueError(f"is no source address; write it {how}")
        found = _plain(text.removeprefix("[").removesuffix("]"), how)
        low = high = 0
    else:
        found, low, high = _address(match, how), int(match[3]), int(match[4])
        if not 1 <= low <= high <= 65535:
            raise ValueError("has no usable ports; write the lower first, 1 to 65535")
    if found.is_unspecified or found.is_multicast:
        raise ValueError("is no address to connect from; write one of this machine's")
    return Source(found, low, high)


def network(text: str) -> None:
    """Raises ValueError unless the text is a network, as `10.0.0.0/8`, or one address."""
    try:
        ip_network(text)
    except ValueError:
        try:
            whole = ip_network(text, strict=False)
        except ValueError:
            raise ValueError('is no network; write it as "10.0.0.0/8", "fd00::/8" or "10.0.0.1"') from None
        raise ValueError(f'has bits beyond its length; write "{whole}"') from None


def overlap(one: Place, other: Place) -> bool:
    """Whether the kernel refuses to listen at both; `[::]` takes IPv4 too (net.ipv6.bindv6only = 0, Linux's own)."""
    if one.port != other.port:
        return False
    if one.address == other.address:
        return True
    return any(
        wild.address.is_unspecified and wild.address.version >= tame.address.version
        for wild, tame in ((one, other), (other, one))
    )


def _address(match: re.Match[str], how: str) -> Address:
    if match[1] is not None:
        found = _plain(match[1], how)
        if found.version == 4:
            raise ValueError(f"has brackets around an IPv4 address; write it {how}")
        return found
    return _plain(match[2], how)


def _plain(text: str, how: str) -> Address:
    try:
        found = ip_address(text)
    except ValueError:
        name = re.fullmatch(r"[A-Za-z][A-Za-z0-9.-]*", text)
        what = f"names a host ({text}), which may change" if name else "is no IP address"
        raise ValueError(f"{what}; write an address {how}") from None
    if isinstance(found, IPv6Address) and found.scope_id:
        raise ValueError("is an address of one link only; write one without %")
    if isinstance(found, IPv6Address) and found.ipv4_mapped:
        raise ValueError(f"is an IPv4 address in disguise; write {found.ipv4_mapped}")
    return found


def _one_address(text: str, how: str) -> None:
    """Raises ValueError for what lacks only its brackets or its port."""
    try:
        ip_address(text)
    except ValueError:
        host, _, port = text.rpartition(":")
        if ":" in host and "[" not in host:
            raise ValueError(f"lacks the brackets of IPv6; write it {how}") from None
        if host in ("", "*") and re.fullmatch("[0-9]+", port):
            raise ValueError(f"has no address; write it {how}") from None
    else:
        raise ValueError(f"has no port; write it {how}")
