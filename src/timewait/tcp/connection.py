"""One end of a connection: segments in, segments out, time as an argument. No effects.

Everything decided is decided by the functions of this room; here stands only what a connection remembers between two
decisions. Not modelled: windows and congestion, data out of order (answered, not kept), SACK, keep-alive.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from errno import ECONNREFUSED, ECONNRESET, EPIPE, ETIMEDOUT
from random import Random

from timewait.tcp import clock, counters, incoming, synsent
from timewait.tcp.action import Action
from timewait.tcp.endings import Change, Conditions, End, after
from timewait.tcp.incoming import Receiver
from timewait.tcp.kernels import Kernel
from timewait.tcp.knobs import Knobs
from timewait.tcp.segment import ACK, FIN, PSH, RST, SYN, Segment, end_seq, u32
from timewait.tcp.segment import after as is_after
from timewait.tcp.states import Event, Sends, State
from timewait.tcp.syn import schedule

TCP_DELACK_MIN = 40  # ms, include/net/tcp.h: HZ/25
TCP_RTO_MIN = 200  # ms; what a retransmission timeout is after any round trip shorter than a few ms
TCP_RETRIES2, ORPHAN_RETRIES = 15, 8  # tcp_retries2; tcp_orphan_retries() where the sysctl is 0
WINDOW = 65535  # what we offer; close enough to the kernel's for a peer that never fills it
_CLOSED = End(State.CLOSE)
_OPEN = (State.ESTABLISHED, State.CLOSE_WAIT)


@dataclass
class World:
    """What the connections of a host share: its kernel, its clock, its counters, and the wire."""

    kernel: Kernel
    knobs: Knobs
    random: Random
    now_ms: int
    ipv6: bool = False
    buckets: int = 0  # TIME_WAIT sockets
    counted: dict[str, int] = field(default_factory=dict)
    out: list[tuple[int, int, Segment]] = field(default_factory=list)  # local port, remote port, segment
    _ts_offset: int = -1

    @property
    def now_s(self) -> int:
        return self.now_ms // 1000

    def count(self, bits: int) -> None:
        """The counters of these bits rise by one."""
        for name in counters.names(bits):
            self.counted[name] = self.counted.get(name, 0) + 1

    def tsval(self) -> int:
        """The timestamp we send now. One offset for all: nothing here compares those of two connections."""
        if self._ts_offset < 0:
            self._ts_offset = self.random.getrandbits(32)
        return clock.tsval(self.kernel.rules, self.knobs, self.now_ms * 1000, self._ts_offset)

    def emit(self, local: int, remote: int, seq: int, ack: int, flags: int, ts: int | None, length: int = 0) -> None:
        """A segment leaves; `ts` is the timestamp it echoes, None: it has none."""
        has_ts = ts is not None
        segment = Segment(
            u32(seq), u32(ack), flags, length, has_ts, self.tsval() if has_ts else 0, ts if ts is not None else 0
        )
        self.out.append((local, remote, segment))

    def reset(self, local: int, remote: int, cause: Segment) -> None:
        """The RST that answers a segment nobody wants, without options; `tcp_v4_send_reset()`."""
        if cause.flags & RST:
            return
        if cause.flags & ACK:
            self.emit(local, remote, cause.ack, 0, RST, None)
        else:
            self.emit(local, remote, 0, end_seq(cause), RST | ACK, None)


@dataclass
class Timer:
    """What happens next by itself."""

    due_ms: int = 0  # 0: not running
    set_ms: int = 0
    count: int = 0  # how often it has fired


@dataclass
class Connection:
    """One end, from SYN_SENT or ESTABLISHED on, until TIME_WAIT or CLOSE."""

    world: World
    local: int
    remote: int
    snd_una: int
    snd_nxt: int
    rcv_nxt: int = 0
    end: End = field(default_factory=End)
    has_ts: bool = False
    ts: int = 0
    stamp: int = 0
    error: int = 0  # errno that the next call meets
    unread: int = 0  # bytes
    linger: int = -1  # SO_LINGER in seconds; -1: not set
    bound: bool = False  # the port was chosen by bind()
    reuse: bool = False  # SO_REUSEADDR
    change: Change | None = None  # the last one: how long FIN_WAIT2 lasts
    rto_ms: int = TCP_RTO_MIN
    rcv_wup: int = 0
    last_ack_ms: int = 0
    got_fin: bool = False
    pingpong: bool = False  # ACKs wait for something to travel with
    first_ms: int = 0  # when our SYN left
    data_ms: int = 0  # when data came last
    resend: Timer = field(default_factory=Timer)
    delack: Timer = field(default_factory=Timer)
    orphaned: Timer = field(default_factory=Timer)  # FIN_WAIT2 of more than 60 s

    @property
    def state(self) -> int:
        return self.end.state

    # Segments.

    def receive(self, segment: Segment) -> None:
        """A segment of this connection arrives."""
        if self.state == State.SYN_SENT:
            self._receive_answer(segment)
            return
        rules, world = self.world.kernel.rules, self.world
        receiver = self._receiver()
        judged = incoming.judge(rules, world.knobs, receiver, segment, world.now_s, world.now_ms)
        self.last_ack_ms = judged.last_ack_ms
        world.count(judged.counters)
        match judged.action:
            case Action.ACK:
                self._send(ACK)
            case Action.KILL:
                self._die(EPIPE if self.state == State.CLOSE_WAIT else ECONNRESET)
            case Action.RESET:
                self._die(ECONNRESET)
                world.reset(self.local, self.remote, segment)
            case Action.ACCEPT:
                if incoming.stores(rules, receiver, segment, world.now_s):
                    self.ts, self.stamp = segment.tsval, world.now_s
                self._take(segment, incoming.is_fin_in_place(receiver, segment))

    def _receiver(self) -> Receiver:
        return Receiver(
            self.rcv_nxt,
            self.rcv_wup,
            WINDOW,
            self.snd_una,
            self.has_ts,
            self.ts,
            self.stamp,
            self.rto_ms,
            self.got_fin,
            self.last_ack_ms,
        )

    def _receive_answer(self, segment: Segment) -> None:
        """In SYN_SENT."""
        world = self.world
        rules, hz = world.kernel.rules, world.kernel.rules.hz
        sent_ts = u32(world.tsval() - clock.ticks_per_second(rules) * (world.now_ms - self.first_ms) // 1000)
        reaction = synsent.react(
            rules, self.snd_una, self.snd_nxt, segment, sent_ts, world.tsval(), self.resend.count
        )
        world.count(reaction.counters)
        if reaction.resend_jiffies:
            self.resend.due_ms = world.now_ms + -(-reaction.resend_jiffies * 1000 // hz)
        match reaction.next:
            case synsent.Next.RESET:
                world.emit(self.local, self.remote, reaction.seq, 0, RST, None)
            case synsent.Next.REFUSED:
                self._die(ECONNREFUSED)
            case synsent.Next.CONNECTED | synsent.Next.SIMULTANEOUS:
                self._learn(segment)
                if reaction.next == synsent.Next.CONNECTED:
                    self.snd_una = segment.ack
                    self.end = End(State.ESTABLISHED)
                    self.resend = Timer()
                    self._send(ACK)
                else:
                    self.end = End(State.SYN_RECV)
                    self._send(SYN | ACK, seq=self.snd_una)

    def _learn(self, syn: Segment) -> None:
        """What the peer's SYN says."""
        self.rcv_nxt = self.rcv_wup = u32(syn.seq + 1)
        self.has_ts = syn.has_ts and self.world.knobs.tcp_timestamps != 0
        self.ts, self.stamp = (syn.tsval, self.world.now_s) if self.has_ts else (0, 0)

    def _take(self, segment: Segment, fin: bool) -> None:
        """Step 5 and following of `tcp_rcv_state_process()`: the ACK, the data, the FIN."""
        if is_after(segment.ack, self.snd_nxt):
            return
        acked = is_after(segment.ack, self.snd_una)
        if acked:
            self.snd_una = segment.ack
            self.resend = Timer() if self.snd_una == self.snd_nxt else self.resend
        if self.state == State.SYN_RECV:
            if not acked:
                self.world.reset(self.local, self.remote, segment)
                return
            self.end = End(State.ESTABLISHED)
        fin_acked = acked and self.snd_una == self.snd_nxt and self.state in _FIN_SENT
        start, stop = u32(self.rcv_nxt - segment.seq), segment.length
        fresh = max(0, stop - start) if not is_after(segment.seq, self.rcv_nxt) else 0
        if fresh and self._happens(Event.DATA, segment):
            return
        if fresh:
            self.rcv_nxt = u32(self.rcv_nxt + fresh)
            self.unread += fresh
            self.data_ms = self.world.now_ms
        fin = fin and end_seq(segment) == u32(self.rcv_nxt + 1) and not self.got_fin
        if fin:
            self.rcv_nxt = u32(self.rcv_nxt + 1)
            self.got_fin = self.pingpong = True
        before = self.state
        if fin and fin_acked:
            self._happens(Event.FIN_AND_ACK, segment)
        elif fin_acked:
            self._happens(Event.ACK_OF_FIN, segment)
        elif fin:
            self._happens(Event.FIN, segment)
        if (fresh or fin) and before == State.ESTABLISHED and self.pingpong:
            self._delay_ack()
        elif fresh or fin or end_seq(segment) != segment.seq:
            self._send(ACK)  # data in quick ACK mode, a FIN, or something again or out of order

    def _happens(self, event: Event, cause: Segment | None = None) -> bool:
        """Passes an event through the rules; True when that ended the connection by a RST."""
        world = self.world
        given = Conditions(rto_ms=self.rto_ms, buckets=world.buckets)
        before = self.state
        change = after(world.kernel.rules, world.knobs, self.end, event, given)
        self.end, self.change = change.end, change
        world.count(change.counters)
        if change.sends == Sends.FIN:
            self._send(FIN | ACK)
        if change.full_ms:
            self.orphaned = Timer(world.now_ms + change.full_ms, world.now_ms)
        if self.state == State.CLOSE:
            if before in _OPEN:
                world.count(counters.ESTAB_RESETS)
            if change.sends == Sends.RST:
                if cause is None:
                    self._send(RST | ACK)
                else:
                    world.reset(self.local, self.remote, cause)
        return change.sends == Sends.RST

    # Calls of the program.

    def send(self, amount: int) -> None:
        """send() of so many bytes."""
        if self.data_ms and self.world.now_ms - self.data_ms < TCP_DELACK_MIN:
            self.pingpong = True
        self._send(PSH | ACK, amount)

    def close(self) -> None:
        """close(). What follows it (TIME_WAIT, nothing) stands in `end`."""
        if self.state in (State.SYN_SENT, State.CLOSE):
            self.end = _CLOSED
        elif self.unread:
            self._happens(Event.CLOSE_UNREAD)
        elif self.linger == 0:
            self._happens(Event.CLOSE_LINGER_0)
        else:
            self._happens(Event.CLOSE)

    def shutdown(self) -> None:
        """shutdown(SHUT_WR)."""
        self._happens(Event.SHUTDOWN)

    def abort(self) -> None:
        """Its listener was closed before anybody accepted it; `inet_csk_listen_stop()`."""
        if self.state in _OPEN:
            self.world.count(counters.ESTAB_RESETS)
        self._send(RST | ACK)
        self.end = _CLOSED

    def _die(self, error: int) -> None:
        if self.state in (State.SYN_SENT, State.SYN_RECV):
            self.world.count(counters.ATTEMPT_FAILS)
        elif self.state in _OPEN:
            self.world.count(counters.ESTAB_RESETS)
        self.end, self.error = End(State.CLOSE, self.end.orphan), error

    # Segments of ours, and time.

    def _send(self, flags: int, length: int = 0, seq: int | None = None) -> None:
        start = self.snd_nxt if seq is None else seq
        self.world.emit(self.local, self.remote, start, self.rcv_nxt, flags, self.ts if self.has_ts else None, length)
        self.rcv_wup, self.delack = self.rcv_nxt, Timer()
        taken = length + (flags & FIN != 0)
        if seq is None and taken:
            self.snd_nxt = u32(self.snd_nxt + taken)
            if not self.resend.due_ms:
                self.resend = Timer(self.world.now_ms + self.rto_ms, self.world.now_ms)

    def connect(self, inherited_ts: int) -> None:
        """The first SYN leaves."""
        self.end = End(State.SYN_SENT)
        self.first_ms = self.world.now_ms
        self.resend.count = -1
        self._send_syn(inherited_ts)

    def _send_syn(self, tsecr: int) -> None:
        world = self.world
        world.emit(self.local, self.remote, self.snd_una, 0, SYN, tsecr if world.knobs.tcp_timestamps else None)
        timer = self.resend
        timer.count += 1
        knobs = world.knobs
        plan = schedule(world.kernel, retries=knobs.tcp_syn_retries, linear=knobs.tcp_syn_linear_timeouts)
        times = (*plan.sends, plan.gives_up)
        wait = times[timer.count + 1] - times[timer.count]
        timer.due_ms, timer.set_ms = world.now_ms + round(wait * 1000), world.now_ms

    def _delay_ack(self) -> None:
        if not self.delack.due_ms:
            self.delack = Timer(self.world.now_ms + TCP_DELACK_MIN, self.world.now_ms)

    def deadline_ms(self) -> int:
        """When something happens here by itself, 0: never."""
        due = [timer.due_ms for timer in (self.resend, self.delack, self.orphaned) if timer.due_ms]
        return min(due, default=0)

    def run_timers(self) -> None:
        """What is due now happens."""
        now = self.world.now_ms
        if 0 < self.delack.due_ms <= now:
            self._send(ACK)
        if 0 < self.orphaned.due_ms <= now:
            assert self.change is not None
            self.orphaned = Timer()
            self.end = End(State.TIME_WAIT, True, True)
        if 0 < self.resend.due_ms <= now:
            self._resend()

    def _resend(self) -> None:
        """A retransmission timeout."""
        timer, world = self.resend, self.world
        if self.state == State.SYN_SENT:
            limit = world.knobs.tcp_syn_retries
            if timer.count >= limit + world.knobs.tcp_syn_linear_timeouts:
                self._die(ETIMEDOUT)
            else:
                self._send_syn(self.ts if self.stamp else 0)
            return
        timer.count += 1
        if timer.count > (ORPHAN_RETRIES if self.end.orphan else TCP_RETRIES2):
            self._die(ETIMEDOUT)
            return
        fin = FIN if self.state in _FIN_SENT else 0
        length = u32(self.snd_nxt - self.snd_una) - (fin != 0)
        self._send(fin | ACK | (PSH if length else 0), length, seq=self.snd_una)
        timer.due_ms, timer.set_ms = world.now_ms + (self.rto_ms << min(timer.count, 9)), world.now_ms


_FIN_SENT = (State.FIN_WAIT1, State.CLOSING, State.LAST_ACK)
