"""Where connections to targets come from: addresses in turn, each with all its ports or with a range of them.

Without `source` the kernel chooses address and port in connect(), by the whole five-tuple, so each target has a port
range of its own. Binding an address first would throw that away: bind() must find a port that is free toward every
destination. IP_BIND_ADDRESS_NO_PORT (Linux 4.2, ip(7)) leaves the port to connect() again, and IP_LOCAL_PORT_RANGE
(Linux 6.3) narrows it to a range, but only within net.ipv4.ip_local_port_range (inet_sk_get_local_port_range()). Any
other range is walked through by hand, as HAProxy does: SO_REUSEADDR lets bind() take a port that another connection
uses, and connect() then refuses the same five-tuple.

EADDRNOTAVAIL from connect() is the wall: no port is left toward this target from any of the addresses.
"""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Callable, Iterable
from pathlib import Path
from socket import SocketType

from timewait.balancer.config.addresses import Source, source

IP_BIND_ADDRESS_NO_PORT, IP_LOCAL_PORT_RANGE = 24, 51  # linux/in.h
TRIES = 256  # ports tried by hand for one connection, before it counts as "no port"
STREAM = socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
STARTED = (0, errno.EINPROGRESS, errno.EAGAIN)  # EAGAIN: a unix socket whose queue is full; connect(2)
NO_PORT = (errno.EADDRNOTAVAIL, errno.EADDRINUSE)
EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
"""This process or machine has nothing left to make a socket of: no target is to blame."""

Destination = tuple[str, int] | tuple[str, int, int, int]


class Sources:
    """Opens connections from the configured addresses, in turn."""

    def __init__(self, written: Iterable[str] = (), start: int = 0) -> None:
        """`start` says with which one to begin; workers begin with different ones."""
        every = [source(text) for text in written]
        self._by_family: dict[int, list[_Origin]] = {
            family: [_Origin(origin) for origin in every if origin.address.version == version]
            for family, version in ((socket.AF_INET, 4), (socket.AF_INET6, 6))
        }
        self._turn = start

    def connect(self, family: int, destination: Destination) -> tuple[SocketType, bool]:
        """A non-blocking socket on its way to `destination`, and whether it has arrived already.

        Raises OSError; with EADDRNOTAVAIL no source has a port left.
        """
        origins = self._by_family.get(family)
        if not origins:
            return _open(family, destination, lambda sock: None)
        self._turn += 1
        for step in range(len(origins)):
            try:
                return origins[(self._turn + step) % len(origins)].connect(family, destination)
            except OSError as error:
                if error.errno not in NO_PORT:
                    raise
        raise OSError(errno.EADDRNOTAVAIL, "no source has a port left")


class _Origin:
    """One source address."""

    def __init__(self, wanted: Source) -> None:
        self._address, self._low, self._high = str(wanted.address), wanted.low, wanted.high
        self._range = struct.pack("=I", self._high << 16 | self._low)
        self._next = self._low
        self._by_hand = bool(self._low) and not _kernel_takes(self._low, self._high)

    def connect(self, family: int, destination: Destination) -> tuple[SocketType, bool]:
        if not self._by_hand:
            return _open(family, destination, self._bind)
        for _ in range(min(TRIES, self._high - self._low + 1)):
            try:
                return _open(family, destination, self._bind_next)
            except OSError as error:
                if error.errno not in NO_PORT:
                    raise
        raise OSError(errno.EADDRNOTAVAIL, f"no port of {self._low}-{self._high} is free")

    def _bind(self, sock: SocketType) -> None:
        sock.setsockopt(socket.IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1)
        if self._low:
            sock.setsockopt(socket.IPPROTO_IP, IP_LOCAL_PORT_RANGE, self._range)
        sock.bind((self._address, 0))

    def _bind_next(self, sock: SocketType) -> None:
        port = self._next
        self._next = self._low if port == self._high else port + 1
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((self._address, port))


def _open(family: int, destination: Destination, bind: Callable[[SocketType], None]) -> tuple[SocketType, bool]:
    sock = SocketType(family, STREAM)
    try:
        bind(sock)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        number = sock.connect_ex(destination)
    except BaseException:
        sock.close()
        raise
    if number not in STARTED:
        sock.close()
        raise OSError(number, errno.errorcode.get(number, ""))
    return sock, not number


def _kernel_takes(low: int, high: int) -> bool:
    """Whether IP_LOCAL_PORT_RANGE can be these ports."""
    probe = SocketType(socket.AF_INET, STREAM)
    try:
        probe.setsockopt(socket.IPPROTO_IP, IP_LOCAL_PORT_RANGE, 0)
        lowest, highest = map(int, Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split())
    except OSError:
        return False
    finally:
        probe.close()
    return lowest <= low and high <= highest
