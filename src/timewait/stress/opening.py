"""A socket with the source the plan asks for: address, port, and who chose it."""

from __future__ import annotations

import errno
import os
import socket
import struct
from random import Random

from timewait.plan import Plan, PortPolicy
from timewait.run import Cause
from timewait.stress.endpoints import Endpoint
from timewait.stress.source_ports import Allocator, allocator, ports_of

IP_BIND_ADDRESS_NO_PORT = 24  # include/uapi/linux/in.h, Linux 4.2+: the port is chosen in connect(), not in bind()
IP_LOCAL_PORT_RANGE = 51  # Linux 6.3+; low in the lower, high in the upper 16 bits
STREAM = socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
TRIES = 8  # ports tried when an explicit bind() meets one that another program holds

CAUSES = {
    errno.EADDRNOTAVAIL: Cause.NO_PORT,
    errno.EADDRINUSE: Cause.NO_PORT,
    errno.EMFILE: Cause.NO_FILE,
    errno.ENFILE: Cause.NO_FILE,
    errno.ECONNREFUSED: Cause.REFUSED,
    errno.ECONNRESET: Cause.RESET,
    errno.EPIPE: Cause.RESET,
    errno.ECONNABORTED: Cause.RESET,
    errno.ETIMEDOUT: Cause.TIMEOUT,
    errno.EHOSTUNREACH: Cause.UNREACHABLE,
    errno.ENETUNREACH: Cause.UNREACHABLE,
    errno.ENETDOWN: Cause.UNREACHABLE,
    errno.EHOSTDOWN: Cause.UNREACHABLE,
    errno.EACCES: Cause.UNREACHABLE,
    errno.EPERM: Cause.UNREACHABLE,
}


def cause_of(code: int) -> tuple[str, Cause]:
    """An errno -> (its name, its cause)."""
    return errno.errorcode.get(code, str(code)), CAUSES.get(code, Cause.OTHER)


class NoPortError(OSError):
    """Every port of our own allocator is held by an open connection."""

    def __init__(self) -> None:
        super().__init__(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))


class Opener:
    """Makes the sockets of one worker; sources are used in turn."""

    __slots__ = ("_allocators", "_range", "_sources", "_turn", "allocates", "plain")

    def __init__(
        self, plan: Plan, span: tuple[int, int], reserved: set[int], worker: int, workers: int, random: Random
    ) -> None:
        self._sources = plan.sources
        policy, low, high = plan.ports.policy, plan.ports.low or span[0], plan.ports.high or span[1]
        ports = ports_of(low, high, reserved, worker, workers) if policy is not PortPolicy.KERNEL else []
        allocators = [allocator(policy, ports, random) for _ in self._sources or ("",)]
        self._allocators: list[Allocator] = [one for one in allocators if one is not None]
        self.allocates = bool(self._allocators)
        self._range = b""
        if policy is PortPolicy.KERNEL and plan.ports.low:
            # Packed: the high half sets the sign bit of the int that setsockopt() would take.
            self._range = struct.pack("I", plan.ports.low | plan.ports.high << 16)
        # No bind() at all: neither addresses nor ports are wished for.
        self.plain = not (self._sources or self.allocates or self._range)
        self._turn = worker

    def open(self, endpoint: Endpoint) -> tuple[socket.SocketType, int, int]:
        """A non-blocking socket, its source's index, and the port we chose (0: the kernel will). Raises OSError."""
        sock = socket.SocketType(endpoint.family, STREAM, 0)
        if self.plain:
            return sock, 0, 0
        try:
            return sock, *self._bind(sock, endpoint)
        except OSError:
            sock.close()
            raise

    def _bind(self, sock: socket.SocketType, endpoint: Endpoint) -> tuple[int, int]:
        source = self._turn = (self._turn + 1) % len(self._sources or (0,))
        any_address = "::" if endpoint.family == socket.AF_INET6 else "0.0.0.0"
        address = self._sources[source] if self._sources else any_address
        if self._range:
            sock.setsockopt(socket.IPPROTO_IP, IP_LOCAL_PORT_RANGE, self._range)
        if not self.allocates:
            if self._sources:
                sock.setsockopt(socket.IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1)
                sock.bind((address, 0))
            return source, 0
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        ports = self._allocators[source]
        for last in range(TRIES - 1, -1, -1):
            port = ports.take()
            if not port:
                raise NoPortError
            try:
                sock.bind((address, port))
                return source, port
            except OSError as error:
                ports.give(port)
                if error.errno != errno.EADDRINUSE or not last:
                    raise
        raise NoPortError

    def release(self, source: int, port: int) -> None:
        """The connection on a port that we chose has ended."""
        if port:
            self._allocators[source].give(port)


def has_local_port_range() -> bool:
    """Whether this kernel knows IP_LOCAL_PORT_RANGE."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        try:
            probe.setsockopt(socket.IPPROTO_IP, IP_LOCAL_PORT_RANGE, 0)
        except OSError:
            return False
    return True


def any_bindable(sources: tuple[str, ...], span: tuple[int, int], reserved: set[int]) -> bool:
    """Whether an explicit bind() to any port of LOW-HIGH succeeds; looks until the first that does."""
    address = sources[0] if sources else ""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    for port in range(span[0], span[1] + 1):
        if port in reserved:
            continue
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((address, port))
            except OSError as error:
                if error.errno != errno.EADDRINUSE:
                    return True  # another trouble, which the run will name
                continue
            return True
    return False
