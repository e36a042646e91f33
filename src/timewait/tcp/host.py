"""A host's TCP, as far as connections begin and end: sockets, the queues of a listener, TIME_WAIT, timers.

Pure: segments and calls in, with the time; segments, counters and the next deadline out. It has one peer, which may
have any number of ports. What it does with a segment is decided by the functions of this room, for the kernel and
the sysctls it was given; `timewait.lab.dialogue` plays the same scripts on it and on a real kernel.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from dataclasses import dataclass, field
from random import Random
from typing import NamedTuple

from timewait.tcp import choice, clock, counters, incoming, listener, recycle, timewait
from timewait.tcp.action import Action
from timewait.tcp.choice import Owner
from timewait.tcp.connection import WINDOW, Connection, Timer, World
from timewait.tcp.incoming import Request
from timewait.tcp.kernels import Kernel
from timewait.tcp.knobs import Knobs
from timewait.tcp.length import ends, overflow_counters, overflows, time_wait
from timewait.tcp.recycle import Record
from timewait.tcp.reuse import Reuse, connect_counters, reuse
from timewait.tcp.segment import ACK, FIN, RST, SYN, Segment, u32
from timewait.tcp.states import State
from timewait.tcp.timewait import TimeWait

SYN_ACK_RETRIES = 5  # tcp_synack_retries
OVERFLOW_AT_ACK = counters.LISTEN_OVERFLOWS | counters.LISTEN_DROPS  # `tcp_v4_syn_recv_sock()`, every version

Ends = tuple[int, int]  # local port, remote port


class CallError(Exception):
    """A socket call failed: its errno."""

    def __init__(self, number: int) -> None:
        super().__init__(errno.errorcode[number])
        self.errno = number


class Shown(NamedTuple):
    """A connection as sock_diag shows it."""

    state: int  # a State; a TIME_WAIT in its substate shows FIN_WAIT2
    left_ms: int | None  # until its timer of TIME_WAIT or FIN_WAIT2 ends


@dataclass
class _Waiting:
    """A request in SYN_RECV."""

    request: Request
    timer: Timer
    acked: bool = False  # its ACK came, but the accept queue was full


@dataclass
class _Listening:
    backlog: int
    requests: dict[int, _Waiting] = field(default_factory=dict)  # by remote port
    queue: list[Connection] = field(default_factory=list)

    @property
    def full(self) -> bool:
        return len(self.queue) > self.backlog  # sk_acceptq_is_full()

    @property
    def young(self) -> int:
        return sum(waiting.timer.count == 0 for waiting in self.requests.values())


@dataclass
class _Bucket:
    """A TIME_WAIT socket."""

    tw: TimeWait
    due_ms: int
    counter: int  # TW or TWKilled, counted when it ends; 0: it was counted at entry
    owner: Owner
    bound: bool


class Host:
    """A host with one peer. `now` is seconds since boot; every method may be given a later one than the last."""

    def __init__(self, kernel: Kernel, knobs: Knobs, random: Random, now: float, *, ipv6: bool = False) -> None:
        self.world = World(kernel, knobs, random, round(now * 1000), ipv6)
        self._listening: dict[int, _Listening] = {}
        self._connections: dict[Ends, Connection] = {}
        self._buckets: dict[Ends, _Bucket] = {}
        self._record = Record()
        self._hashes: dict[Ends, int] = {}
        self._hint = random.getrandbits(16)

    # Out.

    def sent(self) -> list[tuple[int, int, Segment]]:
        """What was sent since the last call: local port, remote port, segment."""
        out, self.world.out = self.world.out, []
        return out

    def counted(self) -> dict[str, int]:
        """Counters since the beginning, those that moved."""
        return dict(self.world.counted)

    def shown(self, local: int, remote: int) -> Shown | None:
        """The connection, None where there is none."""
        now = self.world.now_ms
        if bucket := self._buckets.get((local, remote)):
            state = State.FIN_WAIT2 if bucket.tw.fin_wait2 else State.TIME_WAIT
            return Shown(state, bucket.due_ms - now)
        if connection := self._connections.get((local, remote)):
            due = connection.orphaned.due_ms
            return Shown(connection.state, due - now if due else None)
        if (listening := self._listening.get(local)) and remote in listening.requests:
            return Shown(State.SYN_RECV, None)
        return None

    # Time.

    def deadline(self) -> float | None:
        """When something happens by itself, None: never."""
        due = [bucket.due_ms for bucket in self._buckets.values()]
        due += [at for connection in self._connections.values() if (at := connection.deadline_ms())]
        due += [waiting.timer.due_ms for _, _, waiting in self._requests()]
        return min(due) / 1000 if due else None

    def advance(self, now: float) -> None:
        """Time passes: whatever is due until then happens, each at its time."""
        while (due := self.deadline()) is not None and due <= now:
            self.world.now_ms = max(self.world.now_ms, round(due * 1000))
            self._run_timers()
        self.world.now_ms = max(self.world.now_ms, round(now * 1000))

    def _requests(self) -> Iterator[tuple[int, int, _Waiting]]:
        for local, listening in self._listening.items():
            for remote, waiting in listening.requests.items():
                yield local, remote, waiting

    def _run_timers(self) -> None:
        now = self.world.now_ms
        for key, bucket in list(self._buckets.items()):
            if bucket.due_ms <= now:
                self.world.count(bucket.counter)
                self._remove_bucket(key)
        for connection in list(self._connections.values()):
            connection.run_timers()
            self._settle(connection)
        for local, remote, waiting in list(self._requests()):
            if waiting.timer.due_ms <= now:
                self._resend_syn_ack(local, remote, waiting)

    # Segments.

    def receive(self, local: int, remote: int, segment: Segment, now: float) -> None:
        """A segment of the peer arrives."""
        self.advance(now)
        if bucket := self._buckets.get((local, remote)):
            self._meet_time_wait(local, remote, bucket, segment)
        elif connection := self._connections.get((local, remote)):
            connection.receive(segment)
            self._settle(connection)
        elif listening := self._listening.get(local):
            if waiting := listening.requests.get(remote):
                self._meet_request(local, remote, listening, waiting, segment)
            else:
                self._meet_listener(local, remote, listening, segment)
        else:
            self.world.reset(local, remote, segment)

    def _meet_time_wait(self, local: int, remote: int, bucket: _Bucket, segment: Segment) -> None:
        world, listening = self.world, self._listening.get(local)
        answer = timewait.answer(
            world.kernel.rules,
            world.knobs,
            bucket.tw,
            segment,
            world.now_s,
            world.now_ms,
            listening is not None,
            listening is not None and listening.full,
            listening.young if listening else 0,
            self._record.stamp != 0,
        )
        world.count(answer.counters)
        bucket.tw = answer.tw
        if answer.rearm_ms:
            bucket.due_ms = world.now_ms + answer.rearm_ms
            if bucket.counter:
                bucket.counter = ends(world.kernel.rules, answer.rearm_ms).counter
        if answer.remembers:
            self._remember(answer.tw.ts, answer.tw.stamp)
        if answer.gone:
            self._remove_bucket((local, remote))
        match answer.action:
            case Action.ACK:
                tw = answer.tw  # tcp_v4_send_ack() leaves the option out where there is nothing to echo
                world.emit(local, remote, tw.snd_nxt, tw.rcv_nxt, ACK, tw.ts if tw.ts else None)
            case Action.RESET:
                world.reset(local, remote, segment)
            case Action.ACCEPT:
                assert listening is not None
                self._answer_syn(local, remote, listening, segment, answer.isn)

    def _meet_listener(self, local: int, remote: int, listening: _Listening, segment: Segment) -> None:
        """`tcp_rcv_state_process()` in LISTEN."""
        world = self.world
        if segment.flags & ACK:
            world.reset(local, remote, segment)
            return
        if segment.flags & (RST | FIN) or not segment.flags & SYN:
            return
        verdict = listener.answer(
            world.kernel.rules,
            world.knobs,
            listener.Listener(accept_queue_full=listening.full, young=listening.young),
            self._record,
            segment.has_ts,
            segment.tsval,
            world.now_s,
            world.ipv6,
        )
        world.count(verdict.counters)
        if verdict.action == Action.ACCEPT:
            self._answer_syn(local, remote, listening, segment, self._isn(local, remote))

    def _answer_syn(self, local: int, remote: int, listening: _Listening, syn: Segment, isn: int) -> None:
        has_ts = syn.has_ts and self.world.knobs.tcp_timestamps != 0
        request = Request(syn.seq, isn, WINDOW, has_ts, syn.tsval if has_ts else 0)
        waiting = listening.requests[remote] = _Waiting(request, Timer())
        self._send_syn_ack(local, remote, waiting)

    def _send_syn_ack(self, local: int, remote: int, waiting: _Waiting) -> None:
        request, world = waiting.request, self.world
        ts = request.ts if request.has_ts else None
        world.emit(local, remote, request.snt_isn, request.rcv_isn + 1, SYN | ACK, ts)
        wait = world.kernel.rules.syn_rto_ms << waiting.timer.count
        waiting.timer.due_ms = world.now_ms + wait

    def _resend_syn_ack(self, local: int, remote: int, waiting: _Waiting) -> None:
        waiting.timer.count += 1
        if waiting.timer.count > SYN_ACK_RETRIES:
            del self._listening[local].requests[remote]
        else:
            self._send_syn_ack(local, remote, waiting)

    def _meet_request(
        self, local: int, remote: int, listening: _Listening, waiting: _Waiting, segment: Segment
    ) -> None:
        world, request = self.world, waiting.request
        judged = incoming.judge_request(world.kernel.rules, world.knobs, request, segment, world.now_s, world.now_ms)
        waiting.request = request._replace(last_ack_ms=judged.last_ack_ms)
        world.count(judged.counters)
        match judged.action:
            case Action.ACK:
                ts = request.ts if request.has_ts else None
                world.emit(local, remote, request.snt_isn + 1, request.rcv_isn + 1, ACK, ts)
            case Action.COOKIE:
                self._send_syn_ack(local, remote, waiting)
            case Action.RESET:
                world.reset(local, remote, segment)
                if not incoming.keeps_request(request, segment):
                    del listening.requests[remote]
            case Action.KILL:
                del listening.requests[remote]
            case Action.ACCEPT if listening.full:
                world.count(OVERFLOW_AT_ACK)
                waiting.acked = True
            case Action.ACCEPT:
                del listening.requests[remote]
                self._open(local, remote, listening, request, segment)

    def _open(self, local: int, remote: int, listening: _Listening, request: Request, segment: Segment) -> None:
        """The ACK of our SYN-ACK, which may bring data or a FIN along."""
        world, start = self.world, u32(request.snt_isn + 1)
        connection = Connection(world, local, remote, start, start, u32(request.rcv_isn + 1))
        connection.rcv_wup = connection.rcv_nxt
        connection.has_ts = request.has_ts
        if request.has_ts:
            connection.ts, connection.stamp = request.ts, world.now_s
        connection.reuse = connection.bound = True  # it shares the listener's port and its SO_REUSEADDR
        self._connections[local, remote] = connection
        listening.queue.append(connection)
        world.count(counters.PASSIVE_OPENS)
        connection.receive(segment)
        self._settle(connection)

    # What a connection becomes.

    def _settle(self, connection: Connection) -> None:
        """After anything that may have ended it."""
        key = (connection.local, connection.remote)
        if self._connections.get(key) is not connection:
            return
        if connection.state == State.TIME_WAIT:
            del self._connections[key]
            self._enter_time_wait(connection)
        elif connection.state == State.CLOSE:
            del self._connections[key]

    def _enter_time_wait(self, connection: Connection) -> None:
        """`tcp_time_wait()`. That the table is full was found before, but by a timer."""
        world, rules = self.world, self.world.kernel.rules
        change, end = connection.change, connection.end
        fin_wait2_ms = change.time_wait_ms if change is not None and end.fin_wait2 else 0
        length = time_wait(rules, world.knobs, connection.rto_ms, connection.stamp, world.ipv6, fin_wait2_ms)
        if length.remembers:
            self._remember(connection.ts, connection.stamp)
        if overflows(world.knobs, world.buckets):
            world.count(overflow_counters(rules))
            return
        tw = TimeWait(
            rcv_nxt=connection.rcv_nxt,
            snd_nxt=connection.snd_nxt,
            ts=connection.ts,
            stamp=connection.stamp,
            fin_wait2=end.fin_wait2,
            entered_ms=world.now_ms,
            timeout_ms=length.short_ms,
            ipv6=world.ipv6,
        )
        if rules.counts_at_entry:
            world.count(length.counter)
        owner = Owner(connection.reuse, time_wait=True)
        counter = 0 if rules.counts_at_entry else length.counter
        due = world.now_ms + length.nominal_ms
        self._buckets[connection.local, connection.remote] = _Bucket(tw, due, counter, owner, connection.bound)
        world.buckets += 1

    def _remove_bucket(self, key: Ends) -> None:
        del self._buckets[key]
        self.world.buckets -= 1

    def _remember(self, ts: int, stamp: int) -> None:
        store = self.world.kernel.rules.record_store
        self._record = recycle.written(self._record, ts, stamp, self.world.now_s, store)

    def _isn(self, local: int, remote: int) -> int:
        tuple_hash = self._hashes.setdefault((local, remote), self.world.random.getrandbits(32))
        return clock.isn(tuple_hash, self.world.now_ms * 1_000_000)

    # Calls of the program. Those on one connection are methods of it; `settle` it afterwards.

    def listen(self, port: int, backlog: int) -> None:
        """Raises CallError(EADDRINUSE)."""
        if port in self._listening:
            raise CallError(errno.EADDRINUSE)
        self._listening[port] = _Listening(backlog)

    def stop_listening(self, port: int) -> None:
        """close() of the listener: what waits to be accepted is reset, requests are forgotten."""
        for connection in self._listening.pop(port).queue:
            connection.abort()
            self._settle(connection)

    def accept(self, port: int) -> Connection:
        """Raises CallError(EAGAIN) where nothing waits."""
        queue = self._listening[port].queue
        if not queue:
            raise CallError(errno.EAGAIN)
        return queue.pop(0)

    def settle(self, connection: Connection) -> None:
        """After a call on a connection: TIME_WAIT begins, or it is gone, if that is what it led to."""
        self._settle(connection)

    def connect(self, remote: int, port: int = 0, *, reuse: bool = False) -> Connection:
        """connect() to the peer, from `port` if bound before, with SO_REUSEADDR if `reuse`. Raises CallError."""
        local, taken, had_bucket = self._choose_bound(remote, port, reuse) if port else self._choose(remote)
        world = self.world
        isn = taken.isn if taken else self._isn(local, remote)
        connection = Connection(world, local, remote, isn, u32(isn + 1), bound=bool(port), reuse=reuse)
        connection.rto_ms = max(connection.rto_ms, 200)
        if taken:
            connection.ts, connection.stamp = taken.tsecr, self._buckets[local, remote].tw.stamp
            self._remove_bucket((local, remote))
        elif recycle.is_loaded_by_connect(world.kernel.rules, world.knobs, self._record, world.now_s, world.ipv6):
            connection.ts, connection.stamp = self._record
        world.count(connect_counters(world.kernel.rules, taken is not None, had_bucket, bool(port)))
        self._connections[local, remote] = connection
        connection.connect(connection.ts if connection.stamp else 0)
        return connection

    def _choose_bound(self, remote: int, port: int, reuse_address: bool) -> tuple[int, Reuse | None, bool]:
        owners = [owner for _, owner in self._owners(port)]
        for owner in owners:
            if number := choice.bind(Owner(reuse_address), owner):
                raise CallError(number)
        state, taken = self._is_to(port, remote, bound=True)
        if number := choice.connect_bound(self.world.kernel.rules, not owners, state):
            raise CallError(number)
        return port, taken, bool(owners)

    def _choose(self, remote: int) -> tuple[int, Reuse | None, bool]:
        rules, (low, high) = self.world.kernel.rules, self.world.knobs.ip_local_port_range
        states = [self._is_to(port, remote, bound=False)[0] for port in range(low, high + 1)]
        offset = choice.start(rules, low, high, self._hint, remote)
        found = choice.choose(rules, low, high, offset, states)
        if found.errno:
            raise CallError(found.errno)
        self._hint += choice.advance(rules, found.steps, self.world.random.randrange(8))
        return found.port, self._is_to(found.port, remote, bound=False)[1], found.state != choice.FREE

    def _is_to(self, port: int, remote: int, *, bound: bool) -> tuple[int, Reuse | None]:
        """What a local port is to a search for one toward `remote`."""
        world = self.world
        if not bound and any(by_bind for by_bind, _ in self._owners(port)):
            return choice.BOUND, None
        if bucket := self._buckets.get((port, remote)):
            taken = reuse(world.kernel.rules, world.knobs, bucket.tw, world.now_s, world.now_ms, bound)
            return (choice.REUSABLE, taken) if taken.reuses else (choice.BUSY, None)
        if (port, remote) in self._connections:
            return choice.BUSY, None
        return (choice.SHARED if any(True for _ in self._owners(port)) else choice.FREE), None

    def _owners(self, port: int) -> Iterator[tuple[bool, Owner]]:
        """Who has a local port: whether by bind() or listen(), and with which options."""
        if port in self._listening:
            yield True, Owner(True, listens=True)
        for (local, _), connection in self._connections.items():
            if local == port:
                yield connection.bound, Owner(connection.reuse)
        for (local, _), bucket in self._buckets.items():
            if local == port:
                yield bucket.bound, bucket.owner
