"""Ethernet frames with TCP over IPv4 or IPv6: read, built, and changed in place. On bytes, knows no socket.

`parse` gives None for everything that is not one whole unfragmented TCP segment (ARP, neighbour discovery, UDP,
fragments, IPv6 extension headers, frames cut short or wrong in themselves), so that whoever forwards frames passes
those on untouched. It never raises. It does not look at checksums; `intact` does.

Internet checksums (RFC 1071) are sums of 16-bit words in ones' complement. 2**16 is 1 modulo 0xffff, so such a sum is
the whole text, read as one number, modulo 0xffff; a byte at an odd place counts 256 times less than one at an even
place, whichever word it is in. What a change does to a sum is the difference of both numbers (RFC 1624).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from struct import Struct
from typing import NamedTuple

ETHERNET = 14  # bytes of its header
IPV4, IPV6 = 0x0800, 0x86DD  # ethertypes
TCP = 6  # protocol number
END, NOP, MSS, WINDOW_SCALE, SACK_PERMITTED, SACK, TIMESTAMPS = 0, 1, 2, 3, 4, 5, 8  # kinds of TCP options

Bytes = bytes | bytearray | memoryview

_U16 = Struct("!H")
_U32 = Struct("!I")
_PAIR = Struct("!II")
_TCP = Struct("!HHIIBBH")  # ports, seq, ack, data offset, flags, window
_WHOLE_TCP = Struct("!HHIIBBHHH")
_IPV4 = Struct("!BBHHHBBH4s4s")
_IPV6 = Struct("!IHBB16s16s")
_ALIGNED_TIMESTAMPS = 0x0101080A  # NOP, NOP, kind 8, length 10: how every Linux writes it after the handshake
_CHECKSUM = 16  # its place in the TCP header


class Packet(NamedTuple):
    """One TCP segment as it stands in a frame. Addresses are packed (4 or 16 bytes); places count from the frame."""

    source: bytes
    target: bytes
    source_port: int
    target_port: int
    seq: int
    ack: int
    flags: int  # the whole byte, CWR and ECE too; names are in tcp.segment
    window: int  # as written, not scaled
    has_ts: bool
    tsval: int
    tsecr: int
    tcp: int  # place of the TCP header
    ts: int  # place of TSval, 0 without the option
    payload: int  # place of the payload
    length: int  # bytes of payload


class Options(NamedTuple):
    """TCP options in words. None: not there."""

    mss: int | None = None
    scale: int | None = None
    sack: bool = False  # permitted
    timestamps: tuple[int, int] | None = None  # TSval, TSecr


def parse(frame: Bytes) -> Packet | None:
    """The TCP segment in an Ethernet frame, or None when there is no whole one."""
    size = len(frame)
    if size < ETHERNET + 40:  # IPv4 and TCP at their shortest
        return None
    kind = frame[12] << 8 | frame[13]
    if kind == IPV4:
        first = frame[14]
        tcp = ETHERNET + (first & 15) * 4
        end = ETHERNET + (frame[16] << 8 | frame[17])
        # 0x3fff: more fragments follow, or this one does not begin the packet.
        if first < 0x45 or first > 0x4F or frame[23] != TCP or (frame[20] << 8 | frame[21]) & 0x3FFF:
            return None
        source, target = bytes(frame[26:30]), bytes(frame[30:34])
    elif kind == IPV6:
        tcp = ETHERNET + 40
        end = tcp + (frame[18] << 8 | frame[19])
        if frame[14] >> 4 != 6 or frame[20] != TCP:
            return None
        source, target = bytes(frame[22:38]), bytes(frame[38:54])
    else:
        return None
    if end > size or tcp + 20 > end:
        return None
    source_port, target_port, seq, ack, offset, flags, window = _TCP.unpack_from(frame, tcp)
    payload = tcp + (offset >> 4) * 4
    if payload < tcp + 20 or payload > end:
        return None
    ts = _timestamps(frame, tcp + 20, payload) if payload - tcp > 20 else 0
    tsval, tsecr = _PAIR.unpack_from(frame, ts) if ts else (0, 0)
    return Packet(
        source, target, source_port, target_port, seq, ack, flags, window,
        ts != 0, tsval, tsecr, tcp, ts, payload, end - payload,
    )  # fmt: skip


def _timestamps(frame: Bytes, place: int, end: int) -> int:
    """Place of TSval among the options, 0 without. tcp_parse_options(): a malformed option ends the reading."""
    if end - place == 12 and _U32.unpack_from(frame, place)[0] == _ALIGNED_TIMESTAMPS:
        return place + 4
    found = 0  # of several the last one counts, as there
    for kind, start, length in _each(frame, place, end):
        if kind == TIMESTAMPS and length == 8:
            found = start
    return found


def _each(data: Bytes, place: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Kind, place and length of the contents of each option."""
    while place < end:
        kind = data[place]
        if kind == END:
            return
        if kind == NOP:
            place += 1
            continue
        if place + 2 > end:
            return
        length = data[place + 1]
        if length < 2 or place + length > end:
            return
        yield kind, place + 2, length - 2
        place += length


def options_of(frame: Bytes, packet: Packet) -> Options:
    """All options of a parsed segment that we have words for."""
    found = Options()
    for kind, start, length in _each(frame, packet.tcp + 20, packet.payload):
        if kind == MSS and length == 2:
            found = found._replace(mss=_U16.unpack_from(frame, start)[0])
        elif kind == WINDOW_SCALE and length == 1:
            found = found._replace(scale=frame[start])
        elif kind == SACK_PERMITTED and length == 0:
            found = found._replace(sack=True)
        elif kind == TIMESTAMPS and length == 8:
            found = found._replace(timestamps=_PAIR.unpack_from(frame, start))
    return found


def options(wanted: Options) -> bytes:
    """Their bytes in Linux's order and alignment (tcp_options_write()), a multiple of four."""
    out = b""
    if wanted.mss is not None:
        out += bytes((MSS, 4)) + _U16.pack(wanted.mss)
    if wanted.timestamps is not None:
        lead = bytes((SACK_PERMITTED, 2)) if wanted.sack else bytes((NOP, NOP))
        out += lead + bytes((TIMESTAMPS, 10)) + _PAIR.pack(*wanted.timestamps)
    elif wanted.sack:
        out += bytes((NOP, NOP, SACK_PERMITTED, 2))
    if wanted.scale is not None:
        out += bytes((NOP, WINDOW_SCALE, 3, wanted.scale))
    return out


def segment(
    source: bytes,
    target: bytes,
    source_port: int,
    target_port: int,
    *,
    seq: int = 0,
    ack: int = 0,
    flags: int = 0,
    window: int = 65535,
    options: bytes = b"",
    payload: bytes = b"",
) -> bytes:
    """TCP header and payload with the right checksum. Options must be a multiple of four bytes, at most 40."""
    if len(options) % 4 or len(options) > 40:
        raise ValueError(f"TCP options fill whole words, at most 40 bytes; these are {len(options)}")
    offset = (20 + len(options)) << 2  # words of four bytes, in the upper half of the byte
    header = _WHOLE_TCP.pack(source_port, target_port, seq, ack, offset, flags, window, 0, 0)
    text = bytearray(header + options + payload)
    _U16.pack_into(text, _CHECKSUM, _complement(_pseudo(source, target, len(text)) + _number(text)))
    return bytes(text)


def packet(source: bytes, target: bytes, body: bytes, *, ttl: int = 64, protocol: int = TCP) -> bytes:
    """An IP packet around `body`, of the family of its addresses (4 or 16 bytes)."""
    if len(source) == 16:
        return _IPV6.pack(6 << 28, len(body), protocol, ttl, source, target) + body
    fields = (0x45, 0, 20 + len(body), 0, 0x4000, ttl, protocol)  # 0x4000: don't fragment
    header = _IPV4.pack(*fields, 0, source, target)
    return _IPV4.pack(*fields, _complement(_number(header)), source, target) + body


def ethernet(source_mac: bytes, target_mac: bytes, body: bytes) -> bytes:
    """A frame around an IP packet; its type is read from the packet."""
    return target_mac + source_mac + _U16.pack(IPV6 if body[0] >> 4 == 6 else IPV4) + body


def packed(address: str) -> bytes:
    """`10.0.0.1` or `fd00::1` as 4 or 16 bytes. Raises ValueError."""
    return ipaddress.ip_address(address).packed


def readable(address: bytes) -> str:
    """The other way."""
    return str(ipaddress.ip_address(address))


def intact(frame: Bytes) -> bool:
    """The TCP checksum, and the header's of IPv4, are right. False also where `parse` finds no segment."""
    found = parse(frame)
    if found is None:
        return False
    if len(found.source) == 4 and _number(frame[ETHERNET : found.tcp]) % 0xFFFF:
        return False
    text = frame[found.tcp : found.payload + found.length]
    return (_pseudo(found.source, found.target, len(text)) + _number(text)) % 0xFFFF == 0


def seal(frame: bytearray | memoryview, packet: Packet) -> None:
    """Writes the TCP checksum anew, for frames that a host left to its network card to finish."""
    place = packet.tcp + _CHECKSUM
    _U16.pack_into(frame, place, 0)
    text = frame[packet.tcp : packet.payload + packet.length]
    _U16.pack_into(frame, place, _complement(_pseudo(packet.source, packet.target, len(text)) + _number(text)))


def set_timestamps(frame: bytearray | memoryview, packet: Packet, tsval: int, tsecr: int) -> None:
    """Changes TSval and TSecr of a segment that has them; a checksum that was right stays right."""
    _PAIR.pack_into(frame, packet.ts, tsval, tsecr)
    _adjust(frame, packet, packet.ts, tsval - packet.tsval + tsecr - packet.tsecr)


def erase_timestamps(frame: bytearray | memoryview, packet: Packet) -> None:
    """Puts NOPs in the place of the timestamps of a segment that has them, as middleboxes do; the length stays."""
    start, end = packet.ts - 2, packet.ts + 8
    before = int.from_bytes(frame[start:end], "big")
    frame[start:end] = bytes((NOP,)) * 10
    _adjust(frame, packet, start, int.from_bytes(bytes((NOP,)) * 10, "big") - before)


def _adjust(frame: bytearray | memoryview, packet: Packet, place: int, difference: int) -> None:
    """The checksum after an even number of bytes from `place` on changed by so much (RFC 1624, equation 3)."""
    if (place - packet.tcp) % 2:
        difference <<= 8
    at = packet.tcp + _CHECKSUM
    _U16.pack_into(frame, at, _complement((0xFFFF - _U16.unpack_from(frame, at)[0]) + difference))


def _complement(total: int) -> int:
    """The checksum for a sum. None of ours is a sum of zeros only, so 0 modulo 0xffff is written 0xffff."""
    return 0xFFFF - (total % 0xFFFF or 0xFFFF)


def _number(text: Bytes) -> int:
    number = int.from_bytes(text, "big")
    return number << 8 if len(text) % 2 else number


def _pseudo(source: bytes, target: bytes, length: int) -> int:
    return int.from_bytes(source, "big") + int.from_bytes(target, "big") + TCP + length
