"""The kernel's table of connections, by NETLINK_NETFILTER (linux/netfilter/nfnetlink_conntrack.h).

Read by hand, because a dump of 50,000 connections must take a fraction of a second while traffic goes on: the kernel
writes the two tuples first and always in the same way (ctnetlink_fill_info(), net/netfilter/nf_conntrack_netlink.c),
so that one struct reads each. /proc/net/nf_conntrack says the same, but not to root of a user namespace.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import NamedTuple

from timewait.balancer.config.addresses import Address
from timewait.balancer.engine import BalancerError

_NETFILTER = 12  # NETLINK_NETFILTER
_GET, _DELETE = 1 << 8 | 1, 1 << 8 | 2  # NFNL_SUBSYS_CTNETLINK << 8 | IPCTNL_MSG_CT_GET, _DELETE
_REQUEST, _ACK, _DUMP = 0x1, 0x4, 0x300
_ERROR, _DONE = 2, 3
_ORIGINAL, _REPLY, _STATUS, _PROTOINFO, _ID = 1, 2, 3, 4, 12  # CTA_...
_DST_NAT = 1 << 5  # IPS_DST_NAT
_OPEN = frozenset({1, 2, 3, 4, 5, 9})  # SYN_SENT, SYN_RECV, ESTABLISHED, FIN_WAIT, CLOSE_WAIT, SYN_SENT2

_HEADER = struct.Struct("=IHHII")
_ATTRIBUTE = struct.Struct("=HH")
# Nested in one another: the tuple, its addresses, its protocol and ports; each attribute with its own header.
_TUPLES: dict[int, struct.Struct] = {
    socket.AF_INET: struct.Struct("=4x 4x 4x4s 4x4s 4x 4xB3x 4x2s2x 4x2s2x"),
    socket.AF_INET6: struct.Struct("=4x 4x 4x16s 4x16s 4x 4xB3x 4x2s2x 4x2s2x"),
}
_PROTOCOLS = {"tcp": socket.IPPROTO_TCP, "udp": socket.IPPROTO_UDP}


class Flow(NamedTuple):
    """A connection whose destination is rewritten. Addresses are (packed, port); what the client sees comes first."""

    protocol: int
    client: tuple[bytes, int]
    service: tuple[bytes, int]  # whom the client wanted
    target: tuple[bytes, int]  # who answers
    source: tuple[bytes, int]  # whom the target answers to: the client, or our address where NAT is full
    open: bool  # in use: not closing, for TCP; always, for UDP
    key: bytes  # its tuple and id, as the kernel wrote them


def end(address: Address | str, port: int) -> tuple[bytes, int]:
    """An address and port as flows have them."""
    return ip_address(str(address)).packed, port


def readable(one: tuple[bytes, int]) -> str:
    """`10.0.0.1:80`."""
    address: IPv4Address | IPv6Address = ip_address(one[0])
    return f"[{address}]:{one[1]}" if address.version == 6 else f"{address}:{one[1]}"


def flows(protocols: set[str]) -> list[Flow]:
    """Every connection with a rewritten destination, in this network namespace. Raises BalancerError."""
    numbers = {_PROTOCOLS[name] for name in protocols}
    found = []
    for family in _TUPLES:
        for message in _dump(family):
            flow = _flow(family, message, numbers)
            if flow is not None:
                found.append(flow)
    return found


def forget(which: list[Flow]) -> int:
    """Takes connections out of the table; how many were still there. Raises BalancerError."""
    gone = 0
    with _opened() as kernel:
        for flow in which:
            family = socket.AF_INET if len(flow.client[0]) == 4 else socket.AF_INET6
            kernel.send(_message(_DELETE, _REQUEST | _ACK, family, flow.key))
            (problem,) = struct.unpack_from("=i", kernel.recv(65536), _HEADER.size)
            if not problem:
                gone += 1
            elif -problem != errno.ENOENT:
                raise BalancerError(f"conntrack: {os.strerror(-problem)}")
    return gone


def _opened() -> socket.socket:
    kernel = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETFILTER)
    kernel.settimeout(5)
    return kernel


def _message(kind: int, flags: int, family: int, attributes: bytes = b"") -> bytes:
    body = struct.pack("=BBH", family, 0, 0) + attributes
    return _HEADER.pack(_HEADER.size + len(body), kind, flags, 1, 0) + body


def _dump(family: int) -> Iterator[memoryview]:
    """The attributes of each connection of a family."""
    with _opened() as kernel:
        kernel.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        kernel.send(_message(_GET, _REQUEST | _DUMP, family))
        while True:
            data = memoryview(kernel.recv(1 << 16))
            at = 0
            while at < len(data):
                length, kind, _, _, _ = _HEADER.unpack_from(data, at)
                if kind == _DONE:
                    return
                if kind == _ERROR:
                    (problem,) = struct.unpack_from("=i", data, at + _HEADER.size)
                    raise BalancerError(f"conntrack: {os.strerror(-problem)} (it needs CAP_NET_ADMIN)")
                yield data[at + _HEADER.size + 4 : at + length]
                at += length + 3 & ~3


def _flow(family: int, data: memoryview, numbers: set[int]) -> Flow | None:
    shape = _TUPLES[family]
    client, service, protocol, client_port, service_port = shape.unpack_from(data, 0)
    if protocol not in numbers:
        return None
    first, _ = _ATTRIBUTE.unpack_from(data, 0)
    target, source, _, target_port, source_port = shape.unpack_from(data, first)
    key, status, state = bytes(data[:first]), 0, 3
    at = 0
    while at + 4 <= len(data):
        length, kind = _ATTRIBUTE.unpack_from(data, at)
        kind &= 0x3FFF  # without NLA_F_NESTED
        if kind == _STATUS:
            (status,) = struct.unpack_from(">I", data, at + 4)
        elif kind == _PROTOINFO:
            state = data[at + 12]  # CTA_PROTOINFO_TCP, CTA_PROTOINFO_TCP_STATE, its value
        elif kind == _ID:
            key += bytes(data[at : at + length])
        at += max(4, length + 3 & ~3)
    if not status & _DST_NAT:
        return None
    ports = [int.from_bytes(port, "big") for port in (client_port, service_port, target_port, source_port)]
    return Flow(
        protocol,
        (client, ports[0]),
        (service, ports[1]),
        (target, ports[2]),
        (source, ports[3]),
        protocol != socket.IPPROTO_TCP or state in _OPEN,
        key,
    )
