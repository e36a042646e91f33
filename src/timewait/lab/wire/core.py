"""What becomes of a frame on the wire: the decisions, without sockets. Time and chance are arguments.

A segment passes, in this order:

    leaving its end     TSval shifted by that end's clock; timestamps taken out of a SYN
    recorded            as the capture file shows it
    on the way          drops, loss, then delay and overtaking
    arriving            the old kernel the other end seems to run may drop a SYN; TSecr shifted back

So an old kernel judges a SYN when it arrives and not when it was sent, as a real one would.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from heapq import heappop, heappush
from itertools import count
from random import Random
from typing import NamedTuple

from timewait.lab.frames import Packet, options_of, parse
from timewait.lab.wire import clocks
from timewait.lab.wire.connections import NEVER
from timewait.lab.wire.drops import Drops
from timewait.lab.wire.old_kernel import OldHost, Refusal
from timewait.lab.wire.spec import CROWDED, LOST, OLD, WireSpec
from timewait.tcp.segment import ACK, SYN

Frame = bytearray | memoryview
MOST_HELD = 65_536  # frames on the way; more are lost, as in a queue of a router


def dice(seed: int) -> tuple[tuple[Random, Random], tuple[Random, Random]]:
    """Chance for each side: of its TCP segments, and of everything else, whose number (neighbour discovery, ARP) is
    never twice the same and must not shift what happens to the segments."""
    return (Random(f"{seed} a"), Random(f"{seed} a, other")), (Random(f"{seed} b"), Random(f"{seed} b, other"))


def reasons(spec: WireSpec) -> tuple[str, ...]:
    """What a frame may be lost for."""
    return (LOST, CROWDED, OLD, *(drop.name for drop in spec.drop))


class SynDrop(NamedTuple):
    """A SYN that did not arrive, and why."""

    at: float
    side: int  # it came from
    reason: str  # a key of `Core.dropped`
    packet: Packet  # as it was then
    refusal: Refusal | None  # of the old kernel


class Core:
    """One wire. Sides are 0 (`a` of the spec) and 1; `record` gets every frame that left its end."""

    def __init__(
        self,
        spec: WireSpec,
        chance: tuple[tuple[Random, Random], tuple[Random, Random]],
        record: Callable[[Frame], None] | None = None,
    ) -> None:
        self._chance, self._record = chance, record
        self._shifts = (spec.a.clock_shift, spec.b.clock_shift)
        self._strip = spec.strip_timestamps
        self._drops = Drops(spec.drop) if spec.drop else None
        self._loss, self._delay, self._jitter = spec.loss, spec.delay, spec.jitter
        self._reorder, self._reorder_by = spec.reorder, spec.reorder_by
        self._holds = bool(spec.delay or spec.jitter or spec.reorder)
        self.hosts = tuple(OldHost(end.kernel) if end.kernel else None for end in (spec.a, spec.b))
        self._old = any(self.hosts)
        self._reads = bool(any(self._shifts) or self._strip or self._drops or self._loss or self._holds or self._old)
        self._held: list[tuple[float, int, int, bytearray, Packet | None]] = []
        self._numbers = count()
        self._last_due = [0.0, 0.0]
        self.passed = [0, 0]  # frames that crossed, by the side they came from
        self.bytes = [0, 0]  # ... their bytes
        self.unread = 0  # frames that are no whole TCP segment; they pass unchanged
        self.overtaken = 0
        self.dropped = dict.fromkeys(reasons(spec), 0)
        self.syns: list[SynDrop] = []  # dropped since whoever reads them emptied the list

    def take(self, frame: Frame, side: int, now: float) -> bool:
        """A frame comes from this side. True: it passes on at once, as it stands now; else it is gone, or held."""
        packet = None
        if self._reads:
            packet = parse(frame)
            if packet is None:
                self.unread += 1
            else:
                packet = self._leaves(frame, packet, side, now)
        if self._record is not None:
            self._record(frame)
        if packet is not None and self._drops is not None:
            name = self._drops.taking(packet, side, self._chance[side][0])
            if name:
                self._drop(name, packet, side, now)
                return False
        if self._loss and self._dice(packet, side).random() < self._loss:
            self._drop(LOST, packet, side, now)
            return False
        if self._holds:
            self._hold(frame, packet, side, now)
            return False
        return self._arrives(frame, packet, side, now)

    def ready(self, now: float) -> Iterator[tuple[Frame, int]]:
        """The frames that were held until now and pass on, with the side they came from."""
        held = self._held
        while held and held[0][0] <= now:
            _, _, side, frame, packet = heappop(held)
            if self._arrives(frame, packet, side, now):
                yield frame, side

    def due(self) -> float:
        """When to call `ready` and `expire` again."""
        due = self._held[0][0] if self._held else NEVER
        if self._old:
            due = min(due, *(host.due() for host in self.hosts if host))
        return due

    def expire(self, now: float) -> None:
        """Lets time pass for the old kernels."""
        for host in self.hosts:
            if host:
                host.expire(now)

    @property
    def held(self) -> int:
        """Frames on the way."""
        return len(self._held)

    def _leaves(self, frame: Frame, packet: Packet, side: int, now: float) -> Packet:
        host = self.hosts[side]
        if host:
            scale = options_of(frame, packet).scale or 0 if packet.flags & SYN else 0
            host.sent(packet, scale, now)
        if packet.has_ts:
            if self._shifts[side]:
                packet = clocks.departed(frame, packet, self._shifts[side])
            if self._strip and packet.flags & SYN:
                packet = clocks.stripped(frame, packet)
        return packet

    def _hold(self, frame: Frame, packet: Packet | None, side: int, now: float) -> None:
        if len(self._held) >= MOST_HELD:
            self._drop(CROWDED, packet, side, now)
            return
        dice = self._dice(packet, side)
        due = now + self._delay
        if self._jitter:
            due += dice.random() * self._jitter
        self._last_due[side] = due = max(due, self._last_due[side])
        if self._reorder and dice.random() < self._reorder:
            due += self._reorder_by
            self.overtaken += 1
        heappush(self._held, (due, next(self._numbers), side, bytearray(frame), packet))

    def _arrives(self, frame: Frame, packet: Packet | None, side: int, now: float) -> bool:
        if packet is not None:
            host = self.hosts[1 - side]
            if host:
                refusal = host.receives(packet, now)
                if refusal:
                    self._drop(OLD, packet, side, now, refusal)
                    return False
            if packet.has_ts and self._shifts[1 - side]:
                clocks.arriving(frame, packet, self._shifts[1 - side])
        self.passed[side] += 1
        self.bytes[side] += len(frame)
        return True

    def _drop(self, name: str, packet: Packet | None, side: int, now: float, refusal: Refusal | None = None) -> None:
        self.dropped[name] += 1
        if packet is not None and packet.flags & (SYN | ACK) == SYN:
            self.syns.append(SynDrop(now, side, name, packet, refusal))

    def _dice(self, packet: Packet | None, side: int) -> Random:
        return self._chance[side][packet is None]
