"""Which segments a `Drop` of the spec means."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from timewait.lab.frames import Packet
from timewait.lab.wire.spec import FLAGS, Drop
from timewait.tcp.segment import ACK, SYN

_MOST_SYNS = 65_536  # unanswered ones remembered; older ones are forgotten


class Condition:
    """One Drop, its flags as bits."""

    def __init__(self, drop: Drop) -> None:
        self.name = drop.name
        self.answers_syn = drop.answers_syn
        self._side = {"": -1, "a": 1, "b": 0}[drop.toward]  # the side it comes from: the other one
        self._set = sum(FLAGS[flag] for flag in set(drop.flags))
        self._mask = self._set | sum(FLAGS[flag] for flag in set(drop.without))
        self._empty, self._port, self._share = drop.empty, drop.port, drop.share
        self._left = drop.first or -1

    def takes(self, packet: Packet, side: int, answers_syn: bool, random: Random) -> bool:
        """Whether this segment, coming from that side, is one that vanishes."""
        if packet.flags & self._mask != self._set or self._side not in (-1, side) or not self._left:
            return False
        if (self._empty and packet.length) or (self.answers_syn and not answers_syn):
            return False
        if self._port and self._port not in (packet.source_port, packet.target_port):
            return False
        if self._share < 1 and random.random() >= self._share:
            return False
        self._left -= 1
        return True


class Drops:
    """All of them, in the order of the spec; and which SYNs are unanswered, if one of them asks."""

    def __init__(self, drops: Sequence[Drop]) -> None:
        self._conditions = [Condition(drop) for drop in drops]
        self._watches = any(condition.answers_syn for condition in self._conditions)
        self._syns: dict[tuple[int, bytes, bytes, int, int], None] = {}  # in the order they came

    def taking(self, packet: Packet, side: int, random: Random) -> str:
        """The name of the first drop that takes the segment; empty: none does."""
        answers_syn = self._watches and self._answers(packet, side)
        for condition in self._conditions:
            if condition.takes(packet, side, answers_syn, random):
                return condition.name
        return ""

    def _answers(self, packet: Packet, side: int) -> bool:
        """Keeps count of SYNs; whether this segment comes back while one is unanswered, and is no SYN-ACK."""
        kind = packet.flags & (SYN | ACK)
        if kind == SYN:
            key = (side, packet.source, packet.target, packet.source_port, packet.target_port)
            self._syns[key] = None
            if len(self._syns) > _MOST_SYNS:
                del self._syns[next(iter(self._syns))]
            return False
        asked = (1 - side, packet.target, packet.source, packet.target_port, packet.source_port)
        if asked not in self._syns:
            return False
        if kind == SYN | ACK:
            del self._syns[asked]
            return False
        return True
