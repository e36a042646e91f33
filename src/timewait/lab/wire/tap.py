"""Raw frames from an interface and to it: an AF_PACKET socket, received through a ring in shared memory.

A socket's ordinary queue holds 212 KB (net.core.rmem_max) by the kernel's accounting of memory: some 180 full frames,
or 550 small ones, which is less than a sender's window. A TPACKET_V2 ring (packet(7), packet_mmap.rst of the kernel's
documentation) has as many slots as we ask for, without a system call a frame. Each slot begins with

    status, length on the line, length here   32 bits each
    place of the frame in the slot            16 bits, and 16 others
    seconds, nanoseconds                      32 bits each

and belongs to us while bit 0 of its status is set.
"""

from __future__ import annotations

import errno
import fcntl
import mmap
import socket
import struct
from collections.abc import Iterator

from timewait.lab import frames

_SOL_PACKET = 263  # linux/socket.h; the others: linux/if_packet.h
_RX_RING, _STATISTICS, _VERSION, _IGNORE_OUTGOING = 5, 6, 10, 23
_TPACKET_V2 = 1
_USER, _CSUM_NOT_READY = 1, 8
_ETH_P_ALL = 3
_RING_BYTES = 8 << 20
_BLOCK_BYTES = 1 << 16  # contiguous memory: small enough to be found on a machine that has run for long
_HEADROOM = 128  # bytes in a slot before the frame
_SIOCGIFMTU = 0x8921


class Tap:
    """An interface of the calling thread's namespace. Raises OSError: PermissionError without CAP_NET_RAW there.

    With `outgoing` also what this host sends, and what it sends unfinished (checksums left to the card) finished.
    """

    def __init__(self, name: str, *, outgoing: bool = False) -> None:
        self.name = name
        self.socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        try:
            self.socket.setsockopt(_SOL_PACKET, _VERSION, _TPACKET_V2)
            self.socket.setsockopt(_SOL_PACKET, _IGNORE_OUTGOING, 0 if outgoing else 1)
            self._slot = _slot_bytes(self.socket, name)
            ring = (_BLOCK_BYTES, _RING_BYTES // _BLOCK_BYTES, self._slot, _RING_BYTES // self._slot)
            self.socket.setsockopt(_SOL_PACKET, _RX_RING, struct.pack("IIII", *ring))
            self.socket.bind((name, _ETH_P_ALL))
            self.socket.setblocking(False)
        except OSError:
            self.socket.close()
            raise

    def start(self) -> None:
        """Maps the ring, in the process that is to read it. Its descriptor becomes a low one, fit for select(2)."""
        low = self.socket.dup()
        self.socket.close()
        self.socket = low
        self.send = low.send
        self._memory = mmap.mmap(low.fileno(), _RING_BYTES)
        self._bytes = memoryview(self._memory)
        self._words = self._bytes.cast("I")
        self._halves = self._bytes.cast("H")
        self._place = 0  # of the slot that the kernel fills next

    def fileno(self) -> int:
        return self.socket.fileno()

    def frames(self, most: int) -> Iterator[tuple[memoryview, int]]:
        """Up to so many frames that wait, and how long each was: longer than what we have when it did not fit.

        A frame lies in the ring and may be changed there; it is the kernel's again when the next one is asked for.
        """
        words = self._words
        for _ in range(most):
            place = self._place
            word = place >> 2
            status = words[word]
            if not status & _USER:
                return
            start = place + self._halves[(word << 1) + 6]
            frame = self._bytes[start : start + words[word + 2]]
            if status & _CSUM_NOT_READY:
                _finish(frame)
            try:
                yield frame, words[word + 1]
            finally:
                words[word] = 0
                place += self._slot
                self._place = place if place < _RING_BYTES else 0

    def time_ns(self) -> int:
        """When the frame that `frames` gave last came, on the wall clock, by the kernel's reading."""
        word = self._place >> 2
        return self._words[word + 4] * 1_000_000_000 + self._words[word + 5]

    def lost(self) -> int:
        """Frames for which no slot was free since the last time this was asked."""
        _, lost = struct.unpack("II", self.socket.getsockopt(_SOL_PACKET, _STATISTICS, 8))
        return int(lost)

    def failed(self) -> bool:
        """Whether the interface has gone away. Asked after an error of the socket, which it takes away."""
        self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        try:
            socket.if_nametoindex(self.name)
        except OSError:
            return True
        return False

    def close(self) -> None:
        self.socket.close()


def _finish(frame: memoryview) -> None:
    found = frames.parse(frame)
    if found is not None:
        frames.seal(frame, found)


def _slot_bytes(door: socket.socket, name: str) -> int:
    """A power of two, so that slots fill blocks, with room for the longest frame of the interface."""
    try:
        answer = fcntl.ioctl(door, _SIOCGIFMTU, struct.pack("16si12x", name.encode(), 0))
    except OSError as error:
        raise OSError(error.errno or errno.ENODEV, f"interface {name!r}: {error.strerror}") from error
    mtu = struct.unpack_from("i", answer, 16)[0]
    slot = 2048
    while slot < mtu + frames.ETHERNET + _HEADROOM and slot < _BLOCK_BYTES:
        slot *= 2
    return slot
