"""A host made of frames: it sends TCP segments with any sequence number, timestamp, port and flags, and reads what
comes back.

Its addresses belong to no kernel. It has a MAC address of its own and answers ARP and neighbour discovery itself, so
no TCP of ours resets what it begins, and the host at the other end cannot tell it from a machine. A packet socket
(packet(7)) on one end of a link is all it needs.

    with Crafted(namespace, "eth0", address="10.0.0.9", target="10.0.0.2") as peer:
        talk = peer.connect(to=80, isn=1000, tsval=5000)
        ...                                     # the host at 10.0.0.2 closes
        peer.close_by_other(talk)               # it is in TIME_WAIT now
        peer.send(Segment(seq=talk.snd_nxt + 1000, flags=SYN, has_ts=True, tsval=4000), port=talk.port, to=80)
        answers = peer.settled()
"""

from __future__ import annotations

import os
import select
import socket
import time
from collections import deque
from dataclasses import dataclass
from typing import NamedTuple

from timewait.lab import frames, neighbours
from timewait.lab.namespaces import Namespace
from timewait.tcp.segment import ACK, FIN, PSH, RST, SYN, Segment, end_seq, u32

_ETH_P_ALL = 3  # linux/if_ether.h
_PACKET_OUTGOING = 4  # linux/if_packet.h: frames this end sends
_KNOWN_FLAGS = FIN | SYN | RST | PSH | ACK
_PATIENCE = 5.0  # seconds for an answer that must come; on an idle machine it takes 50 us
_MSS = frames.options(frames.Options(mss=1460))


class CraftedError(Exception):
    """The host at the other end did not do what was waited for; the text says what came instead."""


class Seen(NamedTuple):
    """A segment that came back, with our port and the other host's."""

    segment: Segment
    port: int
    other_port: int


@dataclass
class Talk:
    """A connection of ours: what a next segment in order would carry."""

    port: int
    to: int
    snd_nxt: int
    rcv_nxt: int
    tsval: int | None  # our timestamp; None: the connection has none
    tsecr: int = 0  # the other host's last one


class Crafted:
    """`address` sends to `target`, both IPv4 or both IPv6, from the end `interface` of a link in `namespace`.

    `target` must be on that link, or reached through `via`, which is. Raises CraftedError when nobody answers there.
    """

    def __init__(
        self, namespace: Namespace, interface: str, *, address: str, target: str, via: str | None = None
    ) -> None:
        self.address, self.target = address, target
        self._source, self._target = frames.packed(address), frames.packed(target)
        self._via = frames.packed(via or target)
        self._mac = b"\x02tw" + self._source[-3:]  # 02: locally administered
        self._their_mac = b""
        self._waiting: deque[Seen] = deque()
        with namespace.entered():
            self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ETH_P_ALL))
        try:
            self._socket.bind((interface, _ETH_P_ALL))
            self._socket.setblocking(False)
            self._meet()
        except BaseException:
            self._socket.close()
            raise

    def __enter__(self) -> Crafted:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Nothing is said to anybody: to the other host we have vanished."""
        self._socket.close()

    def send(self, segment: Segment, *, port: int, to: int, window: int = 65535) -> None:
        """Sends it from our `port` to port `to`. A SYN carries an MSS of 1460; no window is ever scaled."""
        options = _MSS if segment.flags & SYN else b""
        if segment.has_ts:
            options += frames.options(frames.Options(timestamps=(u32(segment.tsval), u32(segment.tsecr))))
        text = frames.segment(
            self._source,
            self._target,
            port,
            to,
            seq=u32(segment.seq),
            ack=u32(segment.ack),
            flags=segment.flags,
            window=window,
            options=options,
            payload=b"x" * segment.length,
        )
        self._send(frames.ethernet(self._mac, self._their_mac, frames.packet(self._source, self._target, text)))

    def receive(self, timeout: float) -> Seen | None:
        """The next segment for us, None when none comes within `timeout` seconds."""
        deadline = time.monotonic() + timeout
        while not self._waiting:
            left = deadline - time.monotonic()
            if not self._wait(max(0.0, left)) and left <= 0:
                return None
        return self._waiting.popleft()

    def stay(self, seconds: float) -> None:
        """Lets time pass; what comes meanwhile is kept, and neighbours are answered."""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            self._wait(left)

    def settled(self) -> list[Seen]:
        """Every segment the host has sent until now, and certainly no less: nothing of it is still on its way.

        A question of ARP or neighbour discovery goes the same way as our segments and is answered after them, as long
        as this process stays on one CPU (the backlog of a veth belongs to the sending CPU). Raises CraftedError.
        """
        self._meet()
        seen = list(self._waiting)
        self._waiting.clear()
        return seen

    def connect(self, *, to: int, port: int = 40_000, isn: int = 1000, tsval: int | None = None) -> Talk:
        """Opens a connection; without `tsval` it has no timestamps. Raises CraftedError."""
        talk = Talk(port, to, u32(isn + 1), 0, tsval)
        self.send(Segment(isn, 0, SYN, 0, tsval is not None, tsval or 0, 0), port=port, to=to)
        answer = self._expect(talk, SYN | ACK, "a SYN-ACK")
        if answer.ack != talk.snd_nxt:
            raise CraftedError(f"the SYN-ACK acknowledges {answer.ack}, not {talk.snd_nxt}")
        if not answer.has_ts:
            talk.tsval = None
        self.say(talk, ACK)
        return talk

    def say(self, talk: Talk, flags: int, length: int = 0) -> None:
        """The next segment of a connection, in order."""
        segment = Segment(
            talk.snd_nxt, talk.rcv_nxt, flags, length, talk.tsval is not None, talk.tsval or 0, talk.tsecr
        )
        self.send(segment, port=talk.port, to=talk.to)
        talk.snd_nxt = end_seq(segment)

    def close_by_other(self, talk: Talk) -> None:
        """Waits until the other host closes, and closes after it: it holds the TIME_WAIT. Raises CraftedError.

        Data that comes before its FIN is acknowledged with it.
        """
        self._expect(talk, FIN, "a FIN")
        self.say(talk, FIN | ACK)
        last = self._expect(talk, ACK, "the ACK of our FIN")
        if last.ack != talk.snd_nxt:
            raise CraftedError(f"the last ACK acknowledges {last.ack}, not {talk.snd_nxt}")

    def _expect(self, talk: Talk, flags: int, what: str) -> Segment:
        """The next segment of this connection with these flags; data on the way is counted as received."""
        deadline = time.monotonic() + _PATIENCE
        while True:
            seen = self.receive(max(0.0, deadline - time.monotonic()))
            if seen is None:
                raise CraftedError(f"{self.target} port {talk.to} sent no {what.removeprefix('a ')}")
            segment = seen.segment
            if (seen.port, seen.other_port) != (talk.port, talk.to):
                continue
            if segment.flags & RST:
                raise CraftedError(f"{self.target} port {talk.to} answered with a RST, not with {what}")
            if segment.length or segment.flags & (SYN | FIN):
                talk.rcv_nxt = end_seq(segment)
            if segment.has_ts:
                talk.tsecr = segment.tsval
            if segment.flags & flags == flags:
                return segment

    def _meet(self) -> None:
        """Asks who has the target's address, and waits for the answer."""
        self._send(neighbours.ask(self._mac, self._source, self._via))
        deadline = time.monotonic() + _PATIENCE
        self._their_mac, before = b"", self._their_mac
        while not self._their_mac:
            if not self._wait(max(0.0, deadline - time.monotonic())) and time.monotonic() >= deadline:
                self._their_mac = before
                raise CraftedError(f"nobody on the link of {self.address} has {frames.readable(self._via)}")

    def _wait(self, timeout: float) -> bool:
        """Takes one frame, if one is there within `timeout`."""
        ready, _, _ = select.select([self._socket], [], [], timeout)
        if not ready:
            return False
        frame, (_, _, direction, *_) = self._socket.recvfrom(65536)
        if direction != _PACKET_OUTGOING:
            self._take(frame)
        return True

    def _take(self, frame: bytes) -> None:
        packet = frames.parse(frame)
        if packet is None:
            said = neighbours.parse(frame)
            if said and said.question and said.target == self._source:
                self._send(neighbours.answer(self._mac, self._source, said))
            elif said and not said.question and said.target == self._via:
                self._their_mac = said.mac
        elif packet.target == self._source and packet.source == self._target:
            segment = Segment(
                packet.seq,
                packet.ack,
                packet.flags & _KNOWN_FLAGS,
                packet.length,
                packet.has_ts,
                packet.tsval,
                packet.tsecr,
            )
            self._waiting.append(Seen(segment, packet.target_port, packet.source_port))

    def _send(self, frame: bytes) -> None:
        select.select([], [self._socket], [], _PATIENCE)
        self._socket.send(frame)


def stay_on_one_cpu(number: int = 0) -> None:
    """Pins this process to one of the CPUs it may use, the `number`th modulo their count; see `Crafted.settled`."""
    allowed = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {allowed[number % len(allowed)]})
