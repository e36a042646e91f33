"""A host followed from outside, as if it ran an old kernel: which SYNs that kernel would drop.

The host at this end of the wire runs the kernel of this machine. What it sends and gets tells when it closes a
connection first and enters TIME_WAIT; there a kernel with tcp_tw_recycle writes down the peer's last timestamp, and
by that it judges SYNs. The running kernel does neither, so nothing it does contradicts the older one. All decisions
are `timewait.tcp`'s; here is only what they are asked about.

What cannot be seen from outside is taken as follows. A program closes with close(), so a connection whose FIN is
acknowledged is an orphan: its record is written then, and again at the peer's FIN. Its retransmission timeout is that
after one measurement of the round trip, the handshake's. Somebody listens, and its queues are not full. A TIME_WAIT
lasts as long as the wheel it hangs on may let it.
"""

from __future__ import annotations

from heapq import heappop, heappush
from typing import NamedTuple

from timewait.lab.frames import Packet
from timewait.lab.wire.connections import NEVER, Connection
from timewait.lab.wire.peers import Peers
from timewait.lab.wire.spec import OldKernel
from timewait.tcp import counters, endings, kernels, length, listener, recycle, timewait
from timewait.tcp.action import Action
from timewait.tcp.endings import Conditions
from timewait.tcp.listener import Listener
from timewait.tcp.recycle import Record
from timewait.tcp.segment import ACK, FIN, RST, SYN, Segment
from timewait.tcp.states import Event, State
from timewait.tcp.timewait import TimeWait

_MOST = 262_144  # connections followed; beyond that the oldest is forgotten
_OPEN = Listener()
_CLOSING = (State.FIN_WAIT1, State.FIN_WAIT2, State.CLOSING)

Key = tuple[bytes, int, bytes, int]  # peer, its port; own address, own port


class Refusal(NamedTuple):
    """A SYN that the old kernel drops."""

    rule: int  # key of tcp.rulebook.RULES
    counters: int  # bits of tcp.counters
    record: Record
    now_s: int


class Waiting(NamedTuple):
    """A TIME_WAIT that the old kernel would have."""

    tw: TimeWait
    until: float
    counter: int  # what its end counts


class OldHost:
    """The host at one end. Times are float seconds of any clock that starts after 0; whole ones are the kernel's."""

    def __init__(self, kernel: OldKernel) -> None:
        row = kernels.kernel(kernel.name)
        self.rules, self.knobs = row.rules, kernels.knobs(row, kernel.knobs)
        self.peers = Peers(self.rules, self.knobs)
        self.connections: dict[Key, Connection] = {}
        self.time_waits: dict[Key, Waiting] = {}
        self.counters: dict[str, int] = {}
        self.orphans = 0  # connections in FIN_WAIT2 that are TIME_WAIT sockets to the kernel
        self._ends: list[tuple[float, Key]] = []

    def sent(self, packet: Packet, scale: int, now: float) -> None:
        """The host sent this segment; `scale`: the window scale it offers, if it is a SYN."""
        key = (packet.target, packet.target_port, packet.source, packet.source_port)
        if packet.flags & SYN:
            self._opened(key, Connection(packet, scale, now))
            return
        connection = self.connections.get(key)
        if connection is not None:
            for event in connection.sent(packet):
                self._happens(key, connection, event, now)

    def receives(self, packet: Packet, now: float) -> Refusal | None:
        """A segment reaches the host; a Refusal where the old kernel drops it as a SYN it does not like."""
        key = (packet.source, packet.source_port, packet.target, packet.target_port)
        connection = self.connections.get(key)
        if connection is not None:
            for event in connection.received(self.rules, self.knobs, packet, now):
                self._happens(key, connection, event, now)
            self._count(connection.moved)
            return None
        waiting = self.time_waits.get(key)
        if waiting is not None and waiting.until > now:
            self._meets(key, waiting, packet, now)
            return None
        if packet.flags & (SYN | ACK | RST | FIN) == SYN:
            return self._judge(packet, int(now))
        return None

    def due(self) -> float:
        """When something may end by itself."""
        return self._ends[0][0] if self._ends else NEVER

    def expire(self, now: float) -> None:
        """Ends what has ended by now, and counts it."""
        while self._ends and self._ends[0][0] <= now:
            _, key = heappop(self._ends)
            waiting, connection = self.time_waits.get(key), self.connections.get(key)
            if waiting is not None and waiting.until <= now:  # else: killed, or started again
                del self.time_waits[key]
                self._count(0 if self.rules.counts_at_entry else waiting.counter)
            elif connection is not None and connection.kept_until <= now:
                self._forget(key, connection)
                self._count(0 if self.rules.counts_at_entry else counters.TW)

    def _opened(self, key: Key, connection: Connection) -> None:
        self.time_waits.pop(key, None)
        if key in self.connections:
            self._forget(key, self.connections[key])
        self.connections[key] = connection
        if len(self.connections) > _MOST:
            oldest = next(iter(self.connections))
            self._forget(oldest, self.connections[oldest])

    def _judge(self, packet: Packet, now_s: int) -> Refusal | None:
        """A SYN for a listener. It leaves no trace here: the host's SYN-ACK will."""
        record = self.peers.record(packet.target, packet.source, now_s)
        ipv6 = len(packet.source) == 16
        verdict = listener.answer(
            self.rules, self.knobs, _OPEN, record, packet.has_ts, packet.tsval, now_s, ipv6=ipv6
        )
        if verdict.action != Action.DROP:
            return None
        self._count(verdict.counters)
        return Refusal(verdict.rule, verdict.counters, record, now_s)

    def _meets(self, key: Key, waiting: Waiting, packet: Packet, now: float) -> None:
        """A segment for a TIME_WAIT. What it does to that is followed; the answer is the host's own."""
        segment = Segment(
            packet.seq, packet.ack, packet.flags, packet.length, packet.has_ts, packet.tsval, packet.tsecr
        )
        answer = timewait.answer(self.rules, self.knobs, waiting.tw, segment, int(now), int(now * 1000))
        self._count(answer.counters)
        if answer.gone:
            del self.time_waits[key]
        elif answer.rearm_ms:
            ending = length.ends(self.rules, answer.rearm_ms)
            self._keep(key, Waiting(answer.tw, now + ending.high_ms / 1000, ending.counter))
        else:
            self.time_waits[key] = waiting._replace(tw=answer.tw)

    def _happens(self, key: Key, connection: Connection, event: Event, now: float) -> None:
        """Passes an event through the rules."""
        if self.connections.get(key) is not connection:  # it ended with the event before
            return
        before = connection.end
        buckets = len(self.time_waits) + self.orphans
        given = Conditions(rto_ms=connection.rto_ms, buckets=buckets)
        change = endings.after(self.rules, self.knobs, before, event, given)
        connection.end = change.end
        self._count(change.counters)
        state, stamp = change.end.state, 0
        # CLOSE in place of TIME_WAIT: there are too many, which tcp_time_wait() finds when the record is written.
        if state == State.TIME_WAIT or (state == State.CLOSE and before.state in _CLOSING and event != Event.RST):
            stamp = self._remembered(key, connection, before.fin_wait2, int(now))
        if state == State.CLOSE:
            self._forget(key, connection)
        elif state == State.TIME_WAIT:
            self._waits(key, connection, before.fin_wait2, change.time_wait_ms, stamp, now)

    def _remembered(self, key: Key, connection: Connection, was_orphan: bool, now_s: int) -> int:
        """Writes the peer's record if this kernel does; the stamp it wrote, or 0, and then TIME_WAIT is not short."""
        peer, _, own, _ = key
        stamp = connection.stamp if connection.has_ts else 0
        known = self.peers.record(own, peer, now_s) != recycle.NOTHING
        creates = not was_orphan or recycle.creates_at_fin(self.rules)
        if not recycle.writes(self.rules, self.knobs, stamp, len(peer) == 16, known, creates):
            return 0
        self.peers.remember(own, peer, connection.ts, stamp, now_s)
        return stamp

    def _waits(
        self, key: Key, connection: Connection, was_orphan: bool, fin_wait2_ms: int, stamp: int, now: float
    ) -> None:
        """TIME_WAIT begins, or its substate FIN_WAIT2, which lasts `fin_wait2_ms`."""
        ipv6 = len(key[0]) == 16
        found = length.time_wait(self.rules, self.knobs, connection.rto_ms, stamp, ipv6, fin_wait2_ms)
        if self.rules.counts_at_entry and not was_orphan:
            self._count(found.counter)
        until = now + found.high_ms / 1000
        if connection.end.fin_wait2:
            self.orphans += 1
            connection.kept_until = until
            heappush(self._ends, (until, key))
            return
        self._forget(key, connection)
        tw = TimeWait(
            rcv_nxt=connection.peer_fin,
            snd_nxt=connection.fin,
            ts=connection.ts if connection.has_ts else 0,
            stamp=connection.stamp if connection.has_ts else 0,
            entered_ms=int(now * 1000),
            timeout_ms=found.short_ms,
            ipv6=ipv6,
        )
        self._keep(key, Waiting(tw, until, found.counter))

    def _keep(self, key: Key, waiting: Waiting) -> None:
        self.time_waits[key] = waiting
        heappush(self._ends, (waiting.until, key))

    def _forget(self, key: Key, connection: Connection) -> None:
        del self.connections[key]
        if connection.kept_until < NEVER:
            self.orphans -= 1

    def _count(self, moved: int) -> None:
        for name in counters.names(moved) if moved else ():
            self.counters[name] = self.counters.get(name, 0) + 1
