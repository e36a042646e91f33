"""ICMP echo (RFC 792, RFC 4443) over one socket per family, opened at the start while there are rights for it."""

from __future__ import annotations

import asyncio
import itertools
import os
import socket
import struct

from timewait.balancer.engine import BalancerError

_ECHO = struct.Struct("!BBHHH")  # type, code, checksum, identifier, sequence
_REQUEST = {socket.AF_INET: 8, socket.AF_INET6: 128}
_REPLY = {socket.AF_INET: 0, socket.AF_INET6: 129}
_PROTOCOL = {socket.AF_INET: socket.IPPROTO_ICMP, socket.AF_INET6: socket.IPPROTO_ICMPV6}
_BODY = b"HEALTH CHECK"


class Icmp:
    """Echo requests and who waits for their replies. Use inside a running event loop; `close` at the end."""

    def __init__(self) -> None:
        self._sockets: dict[socket.AddressFamily, socket.socket] = {}
        self._waiting: dict[tuple[str, int], asyncio.Future[None]] = {}
        self._sequence = itertools.count(1)
        self._identifier = os.getpid() & 0xFFFF  # of raw sockets; the kernel gives datagram sockets their own

    def open(self, family: socket.AddressFamily) -> None:
        """Makes echo() possible for a family.

        Raises BalancerError where this process may not ping: a datagram socket needs its group in
        net.ipv4.ping_group_range, a raw one CAP_NET_RAW (icmp(7)).
        """
        if family not in self._sockets:
            sock = self._sockets[family] = _socket(family)
            asyncio.get_running_loop().add_reader(sock, self._read, family, sock)

    def close(self) -> None:
        loop = asyncio.get_running_loop()
        for sock in self._sockets.values():
            loop.remove_reader(sock)
            sock.close()
        self._sockets = {}

    async def echo(self, family: socket.AddressFamily, where: tuple[str, int]) -> str:
        """Waits for the reply, however long; the empty string once it is there. Raises OSError."""
        sequence = next(self._sequence) & 0xFFFF
        head = _ECHO.pack(_REQUEST[family], 0, 0, self._identifier, sequence)
        if family == socket.AF_INET:  # the kernel does it for ICMPv6, and for datagram sockets does it again
            head = _ECHO.pack(_REQUEST[family], 0, checksum(head + _BODY), self._identifier, sequence)
        future = asyncio.get_running_loop().create_future()
        self._waiting[where[0], sequence] = future
        try:
            self._sockets[family].sendto(head + _BODY, (where[0], 0))
            await future
        finally:
            del self._waiting[where[0], sequence]
        return ""

    def _read(self, family: socket.AddressFamily, sock: socket.socket) -> None:
        try:
            data, sender = sock.recvfrom(2048)
        except OSError:
            return
        raw = sock.type & 0xF == socket.SOCK_RAW
        if raw and family == socket.AF_INET and data:
            data = data[(data[0] & 0xF) * 4 :]  # the IP header comes with it
        if len(data) < _ECHO.size:
            return
        kind, _, _, identifier, sequence = _ECHO.unpack_from(data)
        if kind != _REPLY[family] or (raw and identifier != self._identifier):
            return
        future = self._waiting.get((sender[0].partition("%")[0], sequence))
        if future is not None and not future.done():
            future.set_result(None)


def checksum(data: bytes) -> int:
    """RFC 1071."""
    data += b"\0" * (len(data) % 2)
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return 0xFFFF - total


def _socket(family: socket.AddressFamily) -> socket.socket:
    flags = socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
    for kind in (socket.SOCK_DGRAM, socket.SOCK_RAW):
        try:
            return socket.socket(family, kind | flags, _PROTOCOL[family])
        except PermissionError:
            continue
    raise BalancerError(
        "health checks of type ping: this user may not send ICMP echo; as root: sysctl -w "
        f'net.ipv4.ping_group_range=\'0 {os.getegid()}\', or let the pool\'s health say type = "tcp" or "custom"'
    )
