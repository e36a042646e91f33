"""A host followed from outside, as if it ran an old kernel: which SYNs that kernel would drop.

The host at this end of the wire runs the kernel of this machine. What it sends and gets tells when it closes a
connection first and enters TIME_WAIT; there a kernel with tcp_tw_recycle writes down the peer's last timestamp, and
by that it judges SYNs. The running kernel does neither, so nothing it does contradicts the older one. All decisions
are `timewait.tcp`'s; here is only what state they are asked about.

What cannot be seen from outside is taken as follows. A program closes with close(), so a connection whose FIN is
acknowledged is an orphan, and its record is written then (tcp_time_wait() for FIN_WAIT2) and again at the peer's FIN.
Its retransmission timeout is that after one measurement of the round trip, the handshake's. Somebody listens, and its
queues are not full. A TIME_WAIT lasts as long as the wheel it hangs on allows.
"""

from __future__ import annotations

from heapq import heappop, heappush
from typing import NamedTuple

from timewait.lab.frames import Packet
from timewait.lab.wire.peers import Peers
from timewait.lab.wire.spec import OldKernel
from timewait.tcp import counters, kernels, length, listener, recycle, timewait
from timewait.tcp.action import Action
from timewait.tcp.listener import Listener
from timewait.tcp.recycle import Record
from timewait.tcp.segment import ACK, FIN, RST, SYN, Segment, after, older, u32
from timewait.tcp.timewait import TimeWait

_MOST = 262_144  # connections followed; beyond that the oldest is forgotten
_OPEN = Listener()
_RTO_MIN = 200  # ms, TCP_RTO_MIN of include/net/tcp.h
NEVER = float("inf")

Key = tuple[bytes, int, bytes, int]  # peer, its port; own address, own port


class Refusal(NamedTuple):
    """A SYN that the old kernel drops."""

    rule: int  # key of tcp.rulebook.RULES
    counters: int  # bits of tcp.counters
    record: Record
    now_s: int


class Connection:
    """One that the host has, in the terms of its own socket."""

    __slots__ = ("began", "fin", "fin_acked", "first", "kept_until", "peer_fin", "rcv_wup", "rto_ms", "stamp", "ts",
                 "ts_recent")  # fmt: skip

    def __init__(self, ts: bool, ts_recent: int, stamp: int, rcv_wup: int, began: float) -> None:
        self.ts = ts  # both SYNs offered timestamps
        self.ts_recent, self.stamp = ts_recent, stamp  # the peer's last, and the second it was stored
        self.rcv_wup = rcv_wup  # the last acknowledgement sent
        self.began = began  # when the host's SYN or SYN-ACK left
        self.rto_ms = 0  # 0: nothing came back yet
        self.fin = -1  # sequence number after the host's FIN; -1: not sent
        self.fin_acked = False
        self.first = False  # the host sent its FIN before it had the peer's
        self.peer_fin = -1  # sequence number after the peer's FIN, which may not be in order yet
        self.kept_until = NEVER  # an orphan in FIN_WAIT2


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
        self._orphans = 0  # connections in FIN_WAIT2, which are TIME_WAIT sockets to the kernel too
        self._ends: list[tuple[float, Key]] = []

    # -- what the host sends --------------------------------------------------------------------------------------

    def sent(self, packet: Packet, now: float) -> None:
        """The host sent this segment."""
        key = (packet.target, packet.target_port, packet.source, packet.source_port)
        flags = packet.flags
        if flags & SYN:
            self._opened(key, packet, now)
            return
        connection = self.connections.get(key)
        if connection is None:
            return
        if flags & RST:
            self._forget(key, connection)
            return
        connection.rcv_wup = packet.ack
        has_peer_fin = connection.peer_fin >= 0 and not after(connection.peer_fin, packet.ack)
        if flags & FIN and connection.fin < 0:
            connection.fin = u32(packet.seq + packet.length + 1)
            connection.first = not has_peer_fin
        if has_peer_fin and connection.first and connection.fin_acked:
            self._waits(key, connection, now)

    def _opened(self, key: Key, packet: Packet, now: float) -> None:
        """A SYN or a SYN-ACK of the host. The latter says all about the SYN it answers."""
        self.time_waits.pop(key, None)
        old = self.connections.pop(key, None)
        if old is not None and old.kept_until < NEVER:
            self._orphans -= 1
        rcv_wup, ts_recent = (packet.ack, packet.tsecr) if packet.flags & ACK else (-1, 0)
        self.connections[key] = Connection(packet.has_ts, ts_recent, int(now), rcv_wup, now)
        if len(self.connections) > _MOST:
            oldest = next(iter(self.connections))
            self._forget(oldest, self.connections[oldest])

    # -- what comes to it -----------------------------------------------------------------------------------------

    def receives(self, packet: Packet, now: float) -> Refusal | None:
        """A segment reaches the host; a Refusal when the old kernel would drop it as a SYN it does not like."""
        key = (packet.source, packet.source_port, packet.target, packet.target_port)
        connection = self.connections.get(key)
        if connection is not None:
            self._follow(key, connection, packet, now)
            return None
        waiting = self.time_waits.get(key)
        if waiting is not None and waiting.until > now:
            self._meets(key, waiting, packet, now)
            return None
        if packet.flags & (SYN | ACK | RST | FIN) == SYN:
            return self._judge(packet, int(now))
        return None

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
        known = self.peers.record(packet.target, packet.source, int(now)) != recycle.NOTHING
        answer = timewait.answer(self.rules, self.knobs, waiting.tw, segment, int(now), int(now * 1000), known=known)
        self._count(answer.counters)
        if answer.gone:
            del self.time_waits[key]
        elif answer.rearm_ms:
            ending = length.ends(self.rules, answer.rearm_ms)
            self._keep(key, answer.tw, now + ending.high_ms / 1000, ending.counter)
        else:
            self.time_waits[key] = waiting._replace(tw=answer.tw)

    def _follow(self, key: Key, connection: Connection, packet: Packet, now: float) -> None:
        """A segment for a connection that the host has."""
        flags = packet.flags
        if flags & SYN:
            if flags & ACK and connection.rcv_wup < 0:  # the answer to the host's own SYN
                connection.ts = connection.ts and packet.has_ts
                connection.ts_recent, connection.stamp = packet.tsval, int(now)
                connection.rcv_wup = u32(packet.seq + 1)
                connection.rto_ms = _first_rto(now - connection.began)
            return
        if flags & RST:
            if not after(connection.rcv_wup, packet.seq) or connection.rcv_wup < 0:
                self._forget(key, connection)
            return
        if not flags & ACK or connection.rcv_wup < 0:
            return
        if connection.rto_ms == 0:
            connection.rto_ms = _first_rto(now - connection.began)
        end = packet.seq + packet.length
        if flags & FIN:
            end += 1
            connection.peer_fin = u32(end)
        # tcp_replace_ts_recent(): the segment begins at or before the last acknowledgement, and reaches it.
        if (
            packet.has_ts
            and connection.ts
            and not after(packet.seq, connection.rcv_wup)
            and not after(connection.rcv_wup, end)
            and not older(connection.ts_recent, packet.tsval, 0)
        ):
            connection.ts_recent, connection.stamp = packet.tsval, int(now)
        if connection.fin >= 0 and not connection.fin_acked and not after(connection.fin, packet.ack):
            self._fin_acked(key, connection, flags & FIN != 0, now)

    def _fin_acked(self, key: Key, connection: Connection, with_fin: bool, now: float) -> None:
        """The peer has the host's FIN: LAST_ACK, CLOSING or FIN_WAIT1 is over."""
        connection.fin_acked = True
        if not connection.first:
            self._forget(key, connection)
        elif connection.peer_fin >= 0 and not after(connection.peer_fin, connection.rcv_wup):
            self._waits(key, connection, now)
        elif not with_fin:  # the FIN of the same segment leads straight into TIME_WAIT (tcp_rcv_state_process())
            self._orphaned(key, connection, now)

    # -- TIME_WAIT ------------------------------------------------------------------------------------------------

    def _orphaned(self, key: Key, connection: Connection, now: float) -> None:
        """FIN_WAIT2, with nobody to read: the socket makes room for a small one."""
        kept = length.fin_time(self.knobs, connection.rto_ms, 0, self.rules.hz)
        if kept > timewait.TCP_TIMEWAIT_LEN:  # an ordinary socket for the time beyond; the peer's FIN comes before
            return
        self._begin(key, connection, now, fin_wait2_ms=kept)

    def _waits(self, key: Key, connection: Connection, now: float) -> None:
        """Both FINs are acknowledged, and the host's was first."""
        self._begin(key, connection, now, fin_wait2_ms=0)

    def _begin(self, key: Key, connection: Connection, now: float, fin_wait2_ms: int) -> None:
        """tcp_time_wait(), or the FIN that ends the substate FIN_WAIT2 of what that made."""
        was_orphan = connection.kept_until < NEVER
        stamp = self._remembered(key, connection, int(now), was_orphan)
        ipv6 = len(key[0]) == 16
        found = length.time_wait(self.rules, self.knobs, connection.rto_ms, stamp, ipv6, fin_wait2_ms)
        if not was_orphan:
            if length.overflows(self.knobs, len(self.time_waits) + self._orphans):
                self._count(length.overflow_counters(self.rules))
                self._forget(key, connection)
                return
            if self.rules.counts_at_entry:
                self._count(found.counter)
        until = now + found.high_ms / 1000
        if fin_wait2_ms:
            self._orphans += 1
            connection.kept_until = until
            heappush(self._ends, (until, key))
            return
        self._forget(key, connection)
        tw = TimeWait(
            rcv_nxt=connection.peer_fin,
            snd_nxt=connection.fin,
            ts=connection.ts_recent if connection.ts else 0,
            stamp=connection.stamp if connection.ts else 0,
            entered_ms=int(now * 1000),
            timeout_ms=found.short_ms,
            ipv6=ipv6,
        )
        self._keep(key, tw, until, found.counter)

    def _remembered(self, key: Key, connection: Connection, now_s: int, was_orphan: bool) -> int:
        """Writes the peer's record if this kernel does; the stamp it wrote, or 0, and then TIME_WAIT is not short."""
        peer, _, own, _ = key
        stamp = connection.stamp if connection.ts else 0
        known = self.peers.record(own, peer, now_s) != recycle.NOTHING
        creates = not was_orphan or recycle.creates_at_fin(self.rules)
        if not recycle.writes(self.rules, self.knobs, stamp, len(peer) == 16, known, creates):
            return 0
        self.peers.remember(own, peer, connection.ts_recent, stamp, now_s)
        return stamp

    def _keep(self, key: Key, tw: TimeWait, until: float, counter: int) -> None:
        self.time_waits[key] = Waiting(tw, until, counter)
        heappush(self._ends, (until, key))

    def due(self) -> float:
        """When something may end by itself."""
        return self._ends[0][0] if self._ends else NEVER

    def expire(self, now: float) -> None:
        """Ends what has ended by now, and counts it."""
        while self._ends and self._ends[0][0] <= now:
            _, key = heappop(self._ends)
            waiting = self.time_waits.get(key)
            connection = self.connections.get(key)
            if waiting is not None and waiting.until <= now:  # else: killed, or started again
                del self.time_waits[key]
                if not self.rules.counts_at_entry:
                    self._count(waiting.counter)
            elif connection is not None and connection.kept_until <= now:
                self._forget(key, connection)
                if not self.rules.counts_at_entry:
                    self._count(counters.TW)

    def _forget(self, key: Key, connection: Connection) -> None:
        del self.connections[key]
        if connection.kept_until < NEVER:
            self._orphans -= 1

    def _count(self, moved: int) -> None:
        for name in counters.names(moved):
            self.counters[name] = self.counters.get(name, 0) + 1


def _first_rto(rtt: float) -> int:
    """ms after the first measurement: tcp_rtt_estimator(), tcp_set_rto()."""
    ms = int(rtt * 1000)
    return ms + max(2 * ms, _RTO_MIN)
