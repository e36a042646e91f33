"""Netlink, as much of it as sock_diag needs: one request out, a stream of messages back, read in large batches.

    message = header (length, type, flags, sequence, port id) + body, padded to 4 bytes

A dump's datagrams hold whole messages, so a batch of datagrams received one behind the other into one buffer is
again a row of whole messages, which NumPy can look at without copying. The kernel sizes a dump's datagrams by the
largest buffer it has been offered, at most 32 KiB (netlink_dump(), max_recvmsg_len), so more room does not help.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Generator
from typing import NoReturn, Protocol

HEADER = struct.Struct("=IHHII")
_STATUS = struct.Struct("=i")
NETLINK_SOCK_DIAG, NETLINK_ROUTE = 4, 0
NLMSG_ERROR, NLMSG_DONE = 2, 3
NLM_F_REQUEST, NLM_F_DUMP, NLM_F_DUMP_INTR = 0x1, 0x300, 0x10

_BATCH = 1 << 20  # bytes parsed at once: some ten thousand sockets, small enough to stay in the second level cache
_ROOM = 1 << 16  # offered to each recv(); twice the largest datagram, so nothing is ever truncated
_PATIENCE = struct.pack("@ll", 5, 0)  # SO_RCVTIMEO: a dump answers within microseconds or something is very wrong
_DONE_LENGTH = HEADER.size + 4


class NetlinkError(Exception):
    """The kernel cannot be asked. `kind`: denied, missing, refused, silent or garbled; `errno` as the kernel gave it.

    The text is one sentence for people, with what would help.
    """

    def __init__(self, kind: str, number: int, text: str) -> None:
        super().__init__(text)
        self.kind, self.errno = kind, number


_SENTENCES = {
    errno.EPERM: ("denied", "a security policy (seccomp, SELinux) forbids it"),
    errno.EACCES: ("denied", "a security policy (seccomp, SELinux) forbids it"),
    errno.ENOENT: ("missing", "it lacks the inet_diag and tcp_diag modules; as root: modprobe tcp_diag"),
    errno.EPROTONOSUPPORT: ("missing", "it was built without this netlink family (CONFIG_INET_DIAG)"),
    errno.EAFNOSUPPORT: ("missing", "it has no netlink sockets, or a security policy hides them"),
    errno.EOPNOTSUPP: ("missing", "it does not know the request"),
    errno.EAGAIN: ("silent", "it did not answer within 5 s"),
}


def error(number: int) -> NetlinkError:
    """The typed error for an errno from socket(), send(), recv() or an NLMSG_ERROR message."""
    name = errno.errorcode.get(number, str(number))
    kind, why = _SENTENCES.get(number, ("refused", os.strerror(number)))
    return NetlinkError(kind, number, f"the kernel's socket table cannot be read ({name}): {why}")


class Wire(Protocol):
    """The part of socket.socket used here; tests put a scripted kernel in its place."""

    def send(self, data: bytes, /) -> int: ...
    def recv_into(self, buffer: memoryview, /) -> int: ...
    def close(self) -> None: ...


def connect(family: int = NETLINK_SOCK_DIAG) -> Wire:
    """A netlink socket in the calling thread's network namespace. Raises NetlinkError."""
    try:
        wire = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, family)
    except OSError as problem:
        raise error(problem.errno or 0) from None
    wire.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _PATIENCE)
    return wire


class Netlink:
    """Requests and their answers over one socket. After an error the object is closed and of no more use."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._sequence = 0
        self._buffer = bytearray(_BATCH + _ROOM)
        self.closed = False
        self.interrupted = False  # NLM_F_DUMP_INTR on the last dump's closing message

    def close(self) -> None:
        self.closed = True
        self._wire.close()

    def ask(self, kind: int, body: bytes) -> bytes:
        """The one message (header included) that answers a request which is no dump. Raises NetlinkError."""
        self._send(kind, NLM_F_REQUEST, body)
        length = self._receive(0)
        return bytes(self._buffer[:length])

    def dump(self, kind: int, body: bytes) -> Generator[memoryview]:
        """Batches of whole messages, NLMSG_DONE left out; each is valid until the next is asked for.

        Raises NetlinkError; the socket is then closed, for a dump left unread would block the next (EBUSY).
        """
        self.interrupted = False
        self._send(kind, NLM_F_REQUEST | NLM_F_DUMP, body)
        view, filled, done = memoryview(self._buffer), 0, False
        try:
            while not done:
                length = self._receive(filled)
                done = self._ends(filled + length)
                filled += length - (_DONE_LENGTH if done else 0)
                if filled >= _BATCH or (done and filled):
                    yield view[:filled]
                    filled = 0
        finally:
            if not done:
                self.close()

    def _send(self, kind: int, flags: int, body: bytes) -> None:
        self._sequence += 1
        header = HEADER.pack(HEADER.size + len(body), kind, flags, self._sequence, 0)
        try:
            self._wire.send(header + body)
        except OSError as problem:
            self.close()
            raise error(problem.errno or 0) from None

    def _receive(self, at: int) -> int:
        """Receives one datagram behind `at` and looks at its first header. Returns its length."""
        try:
            length = self._wire.recv_into(memoryview(self._buffer)[at : at + _ROOM])
        except OSError as problem:
            self.close()
            raise error(problem.errno or 0) from None
        if length < HEADER.size:
            self._garbled(f"a datagram of {length} bytes")
        size, kind, _, sequence, _ = HEADER.unpack_from(self._buffer, at)
        if sequence != self._sequence or size < HEADER.size or size > length:
            self._garbled(f"message {sequence} of {size} bytes where message {self._sequence} was due")
        if kind == NLMSG_ERROR:
            self._fail(at)
            self._garbled("an acknowledgement nobody asked for")
        return length

    def _ends(self, end: int) -> bool:
        """Whether the datagram that ends here carries NLMSG_DONE, which is always its last message.

        netlink_dump() puts it behind the last data where there is room, else alone.
        """
        at = end - _DONE_LENGTH
        if at < 0:
            return False
        size, kind, flags, sequence, _ = HEADER.unpack_from(self._buffer, at)
        if (size, kind, sequence) != (_DONE_LENGTH, NLMSG_DONE, self._sequence):
            return False
        self.interrupted |= bool(flags & NLM_F_DUMP_INTR)
        self._fail(at)
        return True

    def _fail(self, at: int) -> None:
        """Raises what the 32-bit status behind the header at `at` says, a negative errno; 0 is no failure."""
        status = int(_STATUS.unpack_from(self._buffer, at + HEADER.size)[0])
        if status < 0:
            self.close()
            raise error(-status)

    def _garbled(self, what: str) -> NoReturn:
        self.close()
        raise NetlinkError("garbled", 0, f"the kernel's socket table cannot be read: netlink answered with {what}")
