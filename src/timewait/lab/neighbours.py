"""ARP and IPv6 neighbour discovery, as far as a host made of frames needs them: to ask, and to answer.

RFC 826 and RFC 4861. On bytes, knows no socket. MAC addresses are 6 bytes, addresses 4 or 16.
"""

from __future__ import annotations

from struct import Struct
from typing import NamedTuple

from timewait.lab.frames import ETHERNET, IPV6, ethernet, packet

ARP = 0x0806  # ethertype
ICMPV6 = 58  # protocol number
_BROADCAST = b"\xff" * 6
_ARP = Struct("!HHBBH6s4s6s4s")
_ND = Struct("!BBHI16sBB6s")  # type, code, checksum, flags, target, one option with a link-layer address
_REQUEST, _REPLY = 1, 2
_SOLICITATION, _ADVERTISEMENT = 135, 136
_SOURCE_MAC, _TARGET_MAC = 1, 2  # kinds of options
_SOLICITED_OVERRIDE = 0x60000000
_HOPS = 255  # proves that no router has passed it on (RFC 4861, 7.1)


class Said(NamedTuple):
    """What a frame of either protocol says. A question about `target`, or the answer: `mac` has it."""

    question: bool
    source: bytes  # address of who says it; of an answer of neighbour discovery, too
    target: bytes
    mac: bytes  # of the sender


def ask(mac: bytes, address: bytes, target: bytes) -> bytes:
    """The frame in which `address` asks everybody who has `target`. It teaches the receiver our own MAC as well."""
    if len(address) == 4:
        body = _ARP.pack(1, 0x0800, 6, 4, _REQUEST, mac, address, bytes(6), target)
        return _BROADCAST + mac + ARP.to_bytes(2, "big") + body
    group = bytes.fromhex("ff0200000000000000000001ff") + target[-3:]  # solicited-node address
    return ethernet(mac, b"\x33\x33" + group[-4:], _discovery(address, group, _SOLICITATION, target, mac))


def answer(mac: bytes, address: bytes, question: Said) -> bytes:
    """The frame that answers a question about `address`."""
    if len(address) == 4:
        body = _ARP.pack(1, 0x0800, 6, 4, _REPLY, mac, address, question.mac, question.source)
        return question.mac + mac + ARP.to_bytes(2, "big") + body
    return ethernet(mac, question.mac, _discovery(address, question.source, _ADVERTISEMENT, address, mac))


def parse(frame: bytes) -> Said | None:
    """What the frame says, None where it is something else. Never raises."""
    kind = int.from_bytes(frame[12:14], "big")
    if kind == ARP and len(frame) >= ETHERNET + _ARP.size:
        fields = _ARP.unpack_from(frame, ETHERNET)
        if fields[:4] != (1, 0x0800, 6, 4) or fields[4] not in (_REQUEST, _REPLY):
            return None
        asks, (mac, source, _, target) = fields[4] == _REQUEST, fields[5:]
        return Said(asks, source, target if asks else source, mac)
    if kind == IPV6 and len(frame) >= ETHERNET + 64 and frame[20] == ICMPV6:
        number, target = frame[ETHERNET + 40], frame[ETHERNET + 48 : ETHERNET + 64]
        if number in (_SOLICITATION, _ADVERTISEMENT):
            return Said(number == _SOLICITATION, frame[22:38], target, frame[6:12])
    return None


def _discovery(source: bytes, destination: bytes, number: int, target: bytes, mac: bytes) -> bytes:
    asks = number == _SOLICITATION
    fields = (0 if asks else _SOLICITED_OVERRIDE, target, _SOURCE_MAC if asks else _TARGET_MAC, 1, mac)
    body = _ND.pack(number, 0, 0, *fields)
    words = source + destination + len(body).to_bytes(4, "big") + ICMPV6.to_bytes(4, "big") + body
    checksum = 0xFFFF - (int.from_bytes(words, "big") % 0xFFFF or 0xFFFF)
    return packet(source, destination, _ND.pack(number, 0, checksum, *fields), ttl=_HOPS, protocol=ICMPV6)
