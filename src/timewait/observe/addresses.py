"""Destinations as the kernel will see them, and where they live."""

from __future__ import annotations

import ipaddress
import socket
import struct
from typing import NamedTuple

from timewait.observe import netlink
from timewait.observe.sock_diag import Address, SockDiag

_RTM_GETROUTE = 26
_RTA_DST = 1
_RTN_LOCAL = 2
_RTMSG = struct.Struct("=BBBBBBBBI")  # family, dst_len, src_len, tos, table, protocol, scope, type, flags


class Destination(NamedTuple):
    """`label` is what people read: the address as it was given, "10.0.0.1:80" or "[::1]:80"."""

    label: str
    address: Address
    port: int


def destination(address: str, port: int) -> Destination:
    """A numeric address as sockets toward it will show it. Raises ValueError if it is not numeric.

    A zone is dropped, a mapped address is IPv4, and connecting to the unspecified address means loopback
    (__ip_route_output_key(), ip6_datagram_dst_update()).
    """
    return Destination(label(address, port), effective(address), port)


def effective(address: str) -> Address:
    """The address part of `destination`."""
    found = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(found, ipaddress.IPv6Address) and found.ipv4_mapped is not None:
        found = found.ipv4_mapped
    if found.is_unspecified:
        return ipaddress.ip_address("127.0.0.1" if found.version == 4 else "::1")
    return found


def label(address: str | Address, port: int) -> str:
    """10.0.0.1:80 or [::1]:80."""
    return f"[{address}]:{port}" if ":" in str(address) else f"{address}:{port}"


def is_here(address: Address) -> bool:
    """Whether packets to this address stay in this network namespace (a route of type local).

    Asked of the routing table, since bind() also takes foreign addresses under ip_nonlocal_bind, and interfaces
    do not list AnyIP routes. Raises NetlinkError if routes cannot be asked for at all.
    """
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    body = _RTMSG.pack(family, len(address.packed) * 8, 0, 0, 0, 0, 0, 0, 0)
    body += struct.pack("=HH", 4 + len(address.packed), _RTA_DST) + address.packed
    link = netlink.Netlink(netlink.connect(netlink.NETLINK_ROUTE))
    try:
        answer = link.ask(_RTM_GETROUTE, body)
    except netlink.NetlinkError as problem:
        if problem.kind == "refused":  # ENETUNREACH, EHOSTUNREACH, EINVAL of a prohibit route
            return False
        raise
    finally:
        link.close()
    return len(answer) > 23 and answer[16 + 7] == _RTN_LOCAL


def source_toward(address: Address) -> Address | None:
    """The source address the kernel chooses for this destination; None where there is no route. Sends nothing."""
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((str(address), 9))
            return ipaddress.ip_address(probe.getsockname()[0].partition("%")[0])
    except OSError:
        return None


def has_listener(table: SockDiag, where: Destination) -> bool:
    """Whether a socket of this namespace listens for the destination. Raises NetlinkError."""
    return is_here(where.address) and any(one.accepts(where.address) for one in table.listeners(where.port))
