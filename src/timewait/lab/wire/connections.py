"""One connection of a host, followed from outside: what its socket stands at, told from the segments that pass.

What a segment means to the socket is decided by `timewait.tcp.incoming`. The host itself says what it has made of it:
its acknowledgements tell that it has the peer's FIN, so two FINs that cross are told apart from one that answers.
"""

from __future__ import annotations

from collections.abc import Iterator

from timewait.lab.frames import Packet
from timewait.tcp import incoming
from timewait.tcp.action import Action
from timewait.tcp.endings import End
from timewait.tcp.incoming import Receiver
from timewait.tcp.kernels import Knobs, Rules
from timewait.tcp.segment import ACK, FIN, RST, SYN, Segment, after, end_seq, u32
from timewait.tcp.states import Event

NEVER = float("inf")
_RTO_MIN = 200  # ms, TCP_RTO_MIN of include/net/tcp.h
_NONE = -1


class Connection:
    """Begins with a SYN or a SYN-ACK of the host; the latter says all that matters of the SYN it answers."""

    __slots__ = (
        "began", "end", "fin", "got_fin", "has_ts", "kept_until", "last_ack_ms", "moved", "peer_fin", "pending",
        "rcv_nxt", "rcv_wnd", "rcv_wup", "rto_ms", "scale", "snd_una", "stamp", "ts",
    )  # fmt: skip

    def __init__(self, packet: Packet, scale: int, now: float) -> None:
        answers = packet.flags & ACK != 0
        self.end = End()
        self.has_ts = packet.has_ts  # so far: of this side's SYN
        self.ts, self.stamp = packet.tsecr, int(now)  # a SYN-ACK echoes the SYN's
        self.rcv_nxt = self.rcv_wup = packet.ack if answers else _NONE
        self.rcv_wnd, self.scale = packet.window, scale
        self.snd_una = packet.seq
        self.last_ack_ms = 0
        self.moved = 0  # bits of tcp.counters: what the last segment received has moved
        self.began = now
        self.rto_ms = 0  # 0: nothing came back yet
        self.fin = _NONE  # sequence number after the host's FIN
        self.peer_fin = _NONE  # ... after the peer's, which may not be in its place yet
        self.got_fin = False  # the host has acknowledged that
        self.pending: int = _NONE  # what the peer's FIN will be to the host, an Event, once it has
        self.kept_until = NEVER  # of an orphan in FIN_WAIT2

    def sent(self, packet: Packet) -> Iterator[Event]:
        """The host sent this, no SYN: what has happened at its socket."""
        if packet.flags & RST:
            yield Event.RST
            return
        self.rcv_wup, self.rcv_wnd = packet.ack, packet.window << self.scale
        if after(packet.ack, self.rcv_nxt):
            self.rcv_nxt = packet.ack
        if self.pending != _NONE and not after(self.peer_fin, packet.ack):
            yield self._has_fin()
        if packet.flags & FIN and self.fin == _NONE:
            self.fin = u32(packet.seq + packet.length + 1)
            yield Event.CLOSE

    def received(self, rules: Rules, knobs: Knobs, packet: Packet, now: float) -> Iterator[Event]:
        """This reached the host: what it does to the socket. A FIN counts when the host has acknowledged it."""
        self.moved = 0
        if self.rcv_nxt == _NONE:
            yield from self._answered(packet, now)
            return
        _, _, _, _, seq, ack, flags, _, has_ts, tsval, tsecr, _, _, _, length = packet
        if flags & SYN and self.rto_ms == 0:  # in SYN_RECV, the same once more
            return
        segment = Segment(seq, ack, flags, length, has_ts, tsval, tsecr)
        receiver = Receiver(
            self.rcv_nxt, self.rcv_wup, self.rcv_wnd, self.snd_una, self.has_ts, self.ts, self.stamp, self.rto_ms,
            self.got_fin, self.last_ack_ms,
        )  # fmt: skip
        now_s = int(now)
        judged = incoming.judge(rules, knobs, receiver, segment, now_s, int(now * 1000))
        self.last_ack_ms, self.moved = judged.last_ack_ms, judged.counters
        if judged.action in (Action.KILL, Action.RESET):
            yield Event.RST
        if judged.action != Action.ACCEPT:
            return
        if incoming.stores(rules, receiver, segment, now_s):
            self.ts, self.stamp = tsval, now_s
        if self.rto_ms == 0:
            self.rto_ms = _first_rto(now - self.began)
        fin_acked = self.fin != _NONE and after(self.fin, self.snd_una) and not after(self.fin, ack)
        if after(ack, self.snd_una):
            self.snd_una = ack
        end = end_seq(segment)
        if not after(seq, self.rcv_nxt) and after(end, self.rcv_nxt):
            self.rcv_nxt = end
        if flags & FIN and self.peer_fin == _NONE:
            self.peer_fin, self.pending = end, Event.FIN
            if fin_acked and incoming.is_fin_in_place(receiver, segment):
                self.pending, fin_acked = Event.FIN_AND_ACK, False
        if fin_acked:
            if self.pending != _NONE and not after(self.peer_fin, self.rcv_wup):
                yield self._has_fin()
            yield Event.ACK_OF_FIN

    def _answered(self, packet: Packet, now: float) -> Iterator[Event]:
        """In SYN_SENT."""
        if packet.flags & RST:
            yield Event.RST
        elif packet.flags & SYN:
            self.has_ts = self.has_ts and packet.has_ts
            self.ts, self.stamp = packet.tsval, int(now)
            self.rcv_nxt = self.rcv_wup = u32(packet.seq + 1)
            self.rto_ms = _first_rto(now - self.began)
            if packet.flags & ACK:
                self.snd_una = packet.ack

    def _has_fin(self) -> Event:
        event, self.pending, self.got_fin = Event(self.pending), _NONE, True
        return event


def _first_rto(rtt: float) -> int:
    """Retransmission timeout in ms after the first measurement; tcp_rtt_estimator(), tcp_set_rto()."""
    ms = int(rtt * 1000)
    return ms + max(2 * ms, _RTO_MIN)
