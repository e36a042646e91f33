"""Makes both ends of a forgotten connection speak, so that they learn at once that it is gone.

A packet filter has no sequence numbers, so it cannot write a reset that the other end would believe (RFC 5961, 3.2).
But an end that gets an acknowledgement out of its window answers with one of its own (RFC 9293, 3.10.7.4; in Linux
tcp_validate_incoming()), and that one belongs to no connection here: it is answered by a reset with the right number.
"""

from __future__ import annotations

import random
import socket
import struct
from collections.abc import Iterable

from timewait.balancer.nftables.conntrack import Flow

_ACK = 0x10
_MOST = 10_000  # connections told at once; the others learn it with their next segment


def send(flows: Iterable[Flow]) -> None:
    """One segment to the client and one to the target of each TCP connection. Without CAP_NET_RAW nothing is sent."""
    chance = random.Random()
    doors: dict[int, socket.socket] = {}
    try:
        for flow in [one for one in flows if one.protocol == socket.IPPROTO_TCP][:_MOST]:
            _send(doors, flow.service, flow.client, chance)
            _send(doors, flow.source, flow.target, chance)
    except OSError:
        pass
    finally:
        for door in doors.values():
            door.close()


def _send(
    doors: dict[int, socket.socket], origin: tuple[bytes, int], end: tuple[bytes, int], chance: random.Random
) -> None:
    family = socket.AF_INET if len(origin[0]) == 4 else socket.AF_INET6
    if family not in doors:
        doors[family] = socket.socket(family, socket.SOCK_RAW, socket.IPPROTO_RAW)  # with our own IP header: raw(7)
        doors[family].setblocking(False)
    packet = segment(origin, end, chance.getrandbits(32), chance.getrandbits(32))
    doors[family].sendto(packet, (socket.inet_ntop(family, end[0]), 0))


def segment(origin: tuple[bytes, int], end: tuple[bytes, int], sequence: int, acknowledged: int) -> bytes:
    """An IP packet with an empty segment that acknowledges. Pure."""
    tcp = struct.pack("!HHIIBBHHH", origin[1], end[1], sequence, acknowledged, 5 << 4, _ACK, 0, 0, 0)
    if len(origin[0]) == 4:
        header = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(tcp), 0, 0, 64, 6, 0) + origin[0] + end[0]
        pseudo = origin[0] + end[0] + struct.pack("!BBH", 0, 6, len(tcp))
    else:
        header = struct.pack("!IHBB", 6 << 28, len(tcp), 6, 64) + origin[0] + end[0]
        pseudo = origin[0] + end[0] + struct.pack("!II", len(tcp), 6)
    return header + tcp[:16] + struct.pack("!H", _checksum(pseudo + tcp)) + tcp[18:]


def _checksum(data: bytes) -> int:
    """RFC 1071."""
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    total = (total & 0xFFFF) + (total >> 16)
    return 0xFFFF - ((total + (total >> 16)) & 0xFFFF)
