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
_REPLY, _STATUS, _PROTOINFO, _ID, _FILTER, _STATUS_MASK = 2, 3, 4, 12, 25, 26  # CTA_...
_NESTED = 1 << 15  # NLA_F_NESTED
DST_NAT = 1 << 5  # IPS_DST_NAT
OPEN = frozenset({1, 2, 3, 4, 5, 9})  # SYN_SENT, SYN_RECV, ESTABLISHED, FIN_WAIT, CLOSE_WAIT, SYN_SENT2

HEADER = struct.Struct("=IHHII")
_ATTRIBUTE = struct.Struct("=HH")
# Nested in one another: the tuple, its addresses, its protocol and ports; each attribute with its own header.
_LAST = HEADER.size + 4  # bytes of NLMSG_DONE
_ROOM = 1 << 16  # bytes of a datagram; the kernel fills at most half of it
_TUPLES: dict[int, struct.Struct] = {
    socket.AF_INET: struct.Struct("=4x 4x 4x4s 4x4s 4x 4xB3x 4x2s2x 4x2s2x"),
    socket.AF_INET6: struct.Struct("=4x 4x 4x16s 4x16s 4x 4xB3x 4x2s2x 4x2s2x"),
}
PROTOCOLS = {"tcp": socket.IPPROTO_TCP, "udp": socket.IPPROTO_UDP}


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


def toward(protocol: str, target: tuple[bytes, int]) -> list[Flow]:
    """The connections that this end answers. Raises BalancerError."""
    family = socket.AF_INET if len(target[0]) == 4 else socket.AF_INET6
    found = _flows(family, rewritten() + _answered_by(PROTOCOLS[protocol], target), {PROTOCOLS[protocol]})
    return [flow for flow in found if flow.target == target]


def flows(protocols: set[str]) -> list[Flow]:
    """Every connection with a rewritten destination, in this network namespace. Raises BalancerError."""
    numbers = {PROTOCOLS[name] for name in protocols}
    return [flow for family in _TUPLES for flow in _flows(family, rewritten(), numbers)]


def _flows(family: int, wanted: bytes, numbers: set[int]) -> Iterator[Flow]:
    for data, end in batches(family, wanted):
        at = 0
        while at < end:
            (length,) = struct.unpack_from("=I", data, at)
            flow = _flow(family, data[at + HEADER.size + 4 : at + length], numbers)
            if flow is not None:
                yield flow
            at += length + 3 & ~3


def rewritten() -> bytes:
    """What makes a dump leave out connections whose destination is their own. A kernel that does not know it (before
    5.18) or the other one (5.8) dumps them all, so whoever reads looks again."""
    wanted = struct.pack(">I", DST_NAT)
    return _attribute(_STATUS, wanted) + _attribute(_STATUS_MASK, wanted)


def _answered_by(protocol: int, target: tuple[bytes, int]) -> bytes:
    """CTA_FILTER: only tuples of answers with this source (ctnetlink_filter_match_tuple())."""
    source = _attribute(1 if len(target[0]) == 4 else 3, target[0])  # CTA_IP_V4_SRC, CTA_IP_V6_SRC
    ports = _attribute(1, bytes([protocol])) + _attribute(2, struct.pack(">H", target[1]))  # CTA_PROTO_NUM, _SRC_PORT
    answer = _attribute(_NESTED | 1, source) + _attribute(_NESTED | 2, ports)  # CTA_TUPLE_IP, CTA_TUPLE_PROTO
    flags = struct.pack("=I", 1 << 0 | 1 << 3 | 1 << 4)  # CTA_FILTER_F_CTA_IP_SRC, _PROTO_NUM, _PROTO_SRC_PORT
    nothing = _attribute(1, struct.pack("=I", 0))  # CTA_FILTER_ORIG_FLAGS
    return _attribute(_NESTED | _REPLY, answer) + _attribute(_NESTED | _FILTER, nothing + _attribute(2, flags))


def _attribute(kind: int, value: bytes) -> bytes:
    return _ATTRIBUTE.pack(4 + len(value), kind) + value + bytes(-len(value) % 4)


def forget(which: list[Flow]) -> int:
    """Takes connections out of the table; how many were still there. Raises BalancerError."""
    gone = 0
    with _opened() as kernel:
        for flow in which:
            family = socket.AF_INET if len(flow.client[0]) == 4 else socket.AF_INET6
            kernel.send(_message(_DELETE, _REQUEST | _ACK, family, flow.key))
            (problem,) = struct.unpack_from("=i", kernel.recv(65536), HEADER.size)
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
    return HEADER.pack(HEADER.size + len(body), kind, flags, 1, 0) + body


def batches(family: int, wanted: bytes = b"") -> Iterator[tuple[memoryview, int]]:
    """A dump's datagrams, each a row of messages, and where the row ends; valid until the next one is asked for.
    `wanted`: attributes that the kernel compares with. Raises BalancerError."""
    room = memoryview(bytearray(_ROOM + 256))
    with _opened() as kernel:
        kernel.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        kernel.send(_message(_GET, _REQUEST | _DUMP, family, wanted))
        while True:
            size = kernel.recv_into(room, _ROOM)
            _, kind, _, _, _ = HEADER.unpack_from(room)
            if kind == _ERROR:
                (problem,) = struct.unpack_from("=i", room, HEADER.size)
                raise BalancerError(f"conntrack: {os.strerror(-problem)} (it needs CAP_NET_ADMIN)")
            # The end is said by the last message of all, behind others where there is room (netlink_dump()).
            last = HEADER.unpack_from(room, size - _LAST)[:2] == (_LAST, _DONE)
            if end := size - _LAST if last else size:
                yield room, end
            if last:
                return


def _flow(family: int, data: memoryview, numbers: set[int]) -> Flow | None:
    shape = _TUPLES[family]
    client, service, protocol, client_port, service_port = shape.unpack_from(data, 0)
    if protocol not in numbers:
        return None
    first, _ = _ATTRIBUTE.unpack_from(data, 0)
    target, source, _, target_port, source_port = shape.unpack_from(data, first)
    status, state_of_tcp = state(data)
    if not status & DST_NAT:
        return None
    ports = [int.from_bytes(port, "big") for port in (client_port, service_port, target_port, source_port)]
    return Flow(
        protocol,
        (client, ports[0]),
        (service, ports[1]),
        (target, ports[2]),
        (source, ports[3]),
        protocol != socket.IPPROTO_TCP or state_of_tcp in OPEN,
        bytes(data[:first]) + _id(data),
    )


def state(data: memoryview) -> tuple[int, int]:
    """The bits of a connection's status, and TCP's state (established, where it has none). Pure."""
    status, found = 0, 3
    for kind, at, _ in _attributes(data):
        if kind == _STATUS:
            (status,) = struct.unpack_from(">I", data, at + 4)
        elif kind == _PROTOINFO:
            found = data[at + 12]  # CTA_PROTOINFO_TCP, CTA_PROTOINFO_TCP_STATE, its value
    return status, found


def state_at(data: memoryview) -> int:
    """Where the attribute with TCP's state begins; where the last one ends, if there is none."""
    return next((at for kind, at, _ in _attributes(data) if kind == _PROTOINFO), len(data))


def _id(data: memoryview) -> bytes:
    return b"".join(bytes(data[at : at + length]) for kind, at, length in _attributes(data) if kind == _ID)


def _attributes(data: memoryview) -> Iterator[tuple[int, int, int]]:
    """Kind, place and length of each."""
    at = 0
    while at + 4 <= len(data):
        length, kind = _ATTRIBUTE.unpack_from(data, at)
        yield kind & 0x3FFF, at, length  # without NLA_F_NESTED
        at += max(4, length + 3 & ~3)
