"""The PROXY protocol, versions 1 and 2: a header before the stream that says who the client is.

As HAProxy's doc/proxy-protocol.txt has it. Reading is strict: what is not exactly a header is refused, since
whoever is trusted to send one must not be able to smuggle bytes past it.
"""

from __future__ import annotations

import socket
import struct
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import NamedTuple

Endpoint = tuple[str, int]  # address, port

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
LONGEST_V1 = 107  # with CRLF and IPv6 (section 2.1)
LONGEST_V2 = 16 << 10  # the document allows 64 KiB; addresses and TLVs need a fraction of this
LOCAL, PROXY = 0x20, 0x21  # version 2 in the upper half, the command in the lower
TCP4, TCP6 = 0x11, 0x21  # family in the upper half, SOCK_STREAM in the lower
_FIXED = struct.Struct("!12sBBH")
_ADDRESSES = {0x1: struct.Struct("!4s4sHH"), 0x2: struct.Struct("!16s16sHH"), 0x3: struct.Struct("!108s108s")}


class Header(NamedTuple):
    """What a header said. `client` and `server` are None where it speaks for itself (LOCAL, a health check) or does
    not know (UNKNOWN, a unix socket): then the connection's own addresses hold."""

    size: int  # bytes it took
    client: Endpoint | None
    server: Endpoint | None


class Malformed(NamedTuple):
    """No header: the connection must be dropped."""

    reason: str


def parse(data: bytes) -> Header | Malformed | None:
    """The header at the start of `data`; None while it is not complete."""
    if SIGNATURE.startswith(data[: len(SIGNATURE)]):
        return _parse_v2(data)
    if b"PROXY ".startswith(data[:6]):
        return _parse_v1(data)
    return Malformed("neither version's signature")


def _parse_v1(data: bytes) -> Header | Malformed | None:
    end = data.find(b"\r\n", 0, LONGEST_V1)
    if end < 0:
        if len(data) >= LONGEST_V1:
            return Malformed("no end of line within 107 bytes")
        return Malformed("a bare LF") if b"\n" in data else None
    size = end + 2
    fields = data[:end].split(b" ")
    if len(fields) > 1 and fields[1] == b"UNKNOWN":
        return Header(size, None, None)
    if len(fields) != 6 or fields[1] not in (b"TCP4", b"TCP6"):
        return Malformed("not PROXY TCP4|TCP6|UNKNOWN and four fields")
    version = 4 if fields[1] == b"TCP4" else 6
    addresses = [_address(field, version) for field in fields[2:4]]
    ports = [_port(field) for field in fields[4:]]
    if None in addresses or None in ports:
        return Malformed("an address or port that is none")
    return Header(size, (str(addresses[0]), ports[0] or 0), (str(addresses[1]), ports[1] or 0))


def _address(field: bytes, version: int) -> IPv4Address | IPv6Address | None:
    try:
        found = ip_address(field.decode("ascii"))
    except ValueError:
        return None
    return found if found.version == version and b"%" not in field else None


def _port(field: bytes) -> int | None:
    if not field.isdigit() or len(field) > 5 or (field[:1] == b"0" and field != b"0"):
        return None
    port = int(field)
    return port if port <= 65535 else None


def _parse_v2(data: bytes) -> Header | Malformed | None:
    if len(data) < _FIXED.size:
        return None
    _, command, family, length = _FIXED.unpack_from(data)
    if command not in (LOCAL, PROXY):
        return Malformed("a version or command that is unknown")
    if length > LONGEST_V2:
        return Malformed(f"longer than {LONGEST_V2} bytes")
    size = _FIXED.size + length
    if len(data) < size:
        return None
    if command == LOCAL or family == 0:
        return Header(size, None, None)
    layout = _ADDRESSES.get(family >> 4)
    if layout is None or not 1 <= family & 0xF <= 2:
        return Malformed("a family or protocol that is unknown")
    if length < layout.size:
        return Malformed("too short for its addresses")
    if family >> 4 == 0x3:
        return Header(size, None, None)  # unix sockets have no address that would say anything here
    kind = socket.AF_INET if family >> 4 == 0x1 else socket.AF_INET6
    source, destination, source_port, destination_port = layout.unpack_from(data, _FIXED.size)
    return Header(
        size, (socket.inet_ntop(kind, source), source_port), (socket.inet_ntop(kind, destination), destination_port)
    )


def v1(client: Endpoint, server: Endpoint) -> bytes:
    """A header in text; for a client of a unix socket, whose address is empty, one that says UNKNOWN."""
    ends = _alike(client[0], server[0])
    if ends is None:
        return b"PROXY UNKNOWN\r\n"
    return f"PROXY TCP{ends[0].version} {ends[0]} {ends[1]} {client[1]} {server[1]}\r\n".encode()


def v2(client: Endpoint, server: Endpoint) -> bytes:
    """The same in binary; for a client of a unix socket, LOCAL."""
    ends = _alike(client[0], server[0])
    if ends is None:
        return _FIXED.pack(SIGNATURE, LOCAL, 0, 0)
    family = 1 if ends[0].version == 4 else 2
    body = _ADDRESSES[family].pack(ends[0].packed, ends[1].packed, client[1], server[1])
    return _FIXED.pack(SIGNATURE, PROXY, TCP4 if family == 1 else TCP6, len(body)) + body


def _alike(client: str, server: str) -> tuple[IPv4Address, IPv4Address] | tuple[IPv6Address, IPv6Address] | None:
    """Both addresses in one family: a header has room for one, so the IPv4 address of a mixed pair is mapped."""
    if not client or not server:
        return None
    one, other = ip_address(client), ip_address(server)
    if isinstance(one, IPv4Address) and isinstance(other, IPv4Address):
        return one, other
    return _mapped(one), _mapped(other)


def _mapped(address: IPv4Address | IPv6Address) -> IPv6Address:
    return address if isinstance(address, IPv6Address) else IPv6Address(f"::ffff:{address}")
