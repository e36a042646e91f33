"""A host's TCP, as far as connections begin and end: sockets, the queues of a listener, TIME_WAIT, timers.

Pure: segments and calls in, with the time; segments, counters and the next deadline out. It has one peer, which may
have any number of ports. What it does with a segment is decided by the functions of this room, for the kernel and
the sysctls it was given; `timewait.lab.dialogue` plays the same scripts on it and on a real kernel.

Timers end when they should: how late the wheels of a version are is told by `length`. What `connection` leaves out is
left out here too.
"""

from __future__ import annotations

import errno
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
from timewait.tcp.queues import syn_queue_is_full
from timewait.tcp.recycle import Record
from timewait.tcp.reuse import connect_counters
from timewait.tcp.segment import ACK, FIN, RST, SYN, Segment, u32
from timewait.tcp.sockets import Bucket, CallError, Ends, Listening, Tables, Waiting, choose, choose_bound
from timewait.tcp.states import State
from timewait.tcp.timewait import TimeWait

SYN_ACK_RETRIES = 5  # tcp_synack_retries
MAX_SYN_BACKLOG = 1024  # tcp_max_syn_backlog, which grows with memory
OVERFLOW_AT_ACK = counters.LISTEN_OVERFLOWS | counters.LISTEN_DROPS  # `tcp_v4_syn_recv_sock()`, every version


class Shown(NamedTuple):
    """A connection as sock_diag shows it."""

    state: int  # a State; a TIME_WAIT in its substate shows FIN_WAIT2
    left_ms: int | None  # until its timer of TIME_WAIT or FIN_WAIT2 ends


class Host:
    """A host with one peer. `now` is seconds since boot; every method may be given a later one than the last."""

    def __init__(self, kernel: Kernel, knobs: Knobs, random: Random, now: float, *, ipv6: bool = False) -> None:
        self.world = World(kernel, knobs, random, round(now * 1000), ipv6)
        self._sockets = Tables()
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
        if bucket := self._sockets.buckets.get((local, remote)):
            state = State.FIN_WAIT2 if bucket.tw.fin_wait2 else State.TIME_WAIT
            return Shown(state, bucket.due_ms - now)
        if connection := self._sockets.connections.get((local, remote)):
            due = connection.orphaned.due_ms
            return Shown(connection.state, due - now if due else None)
        if (listening := self._sockets.listening.get(local)) and remote in listening.requests:
            return Shown(State.SYN_RECV, None)
        return None

    # Time.

    def deadline(self) -> float | None:
        """When something happens by itself, None: never."""
        due = [bucket.due_ms for bucket in self._sockets.buckets.values()]
        due += [at for connection in self._sockets.connections.values() if (at := connection.deadline_ms())]
        due += [waiting.timer.due_ms for _, _, waiting in self._sockets.requests()]
        return min(due) / 1000 if due else None

    def advance(self, now: float) -> None:
        """Time passes: whatever is due until then happens, each at its time."""
        while (due := self.deadline()) is not None and due <= now:
            self.world.now_ms = max(self.world.now_ms, round(due * 1000))
            self._run_timers()
        self.world.now_ms = max(self.world.now_ms, round(now * 1000))

    def _run_timers(self) -> None:
        now = self.world.now_ms
        for key, bucket in list(self._sockets.buckets.items()):
            if bucket.due_ms <= now:
                self.world.count(bucket.counter)
                self._remove_bucket(key)
        for connection in list(self._sockets.connections.values()):
            connection.run_timers()
            self.settle(connection)
        for local, remote, waiting in list(self._sockets.requests()):
            if waiting.timer.due_ms <= now:
                self._resend_syn_ack(local, remote, waiting)

    # Segments.

    def receive(self, local: int, remote: int, segment: Segment, now: float) -> None:
        """A segment of the peer arrives."""
        self.advance(now)
        if bucket := self._sockets.buckets.get((local, remote)):
            self._meet_time_wait(local, remote, bucket, segment)
        elif connection := self._sockets.connections.get((local, remote)):
            connection.receive(segment)
            self.settle(connection)
        elif listening := self._sockets.listening.get(local):
            if waiting := listening.requests.get(remote):
                self._meet_request(local, remote, listening, waiting, segment)
            else:
                self._meet_listener(local, remote, listening, segment)
        else:
            self.world.reset(local, remote, segment)

    def _meet_time_wait(self, local: int, remote: int, bucket: Bucket, segment: Segment) -> None:
        world, listening = self.world, self._sockets.listening.get(local)
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

    def _meet_listener(self, local: int, remote: int, listening: Listening, segment: Segment) -> None:
        """`tcp_rcv_state_process()` in LISTEN."""
        world = self.world
        if segment.flags & ACK:
            self._meet_cookie(local, remote, listening, segment)
            return
        if segment.flags & (RST | FIN) or not segment.flags & SYN:
            return
        rules, requests = world.kernel.rules, len(listening.requests)
        syn_queue_full = syn_queue_is_full(rules, requests, listening.backlog, MAX_SYN_BACKLOG)
        verdict = listener.answer(
            rules,
            world.knobs,
            listener.Listener(True, syn_queue_full, listening.full, listening.young),
            self._record,
            segment.has_ts,
            segment.tsval,
            world.now_s,
            world.ipv6,
        )
        world.count(verdict.counters)
        if verdict.action == Action.ACCEPT:
            self._answer_syn(local, remote, listening, segment, self._isn(local, remote))
        elif verdict.action == Action.COOKIE:
            waiting = Waiting(self._request(segment, self._isn(local, remote)), Timer())
            listening.cookies[remote] = waiting.request
            self._send_syn_ack(local, remote, waiting)

    def _meet_cookie(self, local: int, remote: int, listening: Listening, segment: Segment) -> None:
        """An ACK at a listener that remembers no request: its number may be a SYN cookie (`cookie_v4_check()`)."""
        request = listening.cookies.pop(remote, None)
        if request is None or incoming.keeps_request(request, segment) or segment.flags & (SYN | RST):
            self.world.reset(local, remote, segment)
        elif listening.full:
            self.world.count(OVERFLOW_AT_ACK)
        else:
            self._open(local, remote, listening, request, segment)

    def _request(self, syn: Segment, isn: int) -> Request:
        has_ts = syn.has_ts and self.world.knobs.tcp_timestamps != 0
        return Request(syn.seq, isn, WINDOW, has_ts, syn.tsval if has_ts else 0)

    def _answer_syn(self, local: int, remote: int, listening: Listening, syn: Segment, isn: int) -> None:
        waiting = listening.requests[remote] = Waiting(self._request(syn, isn), Timer())
        self._send_syn_ack(local, remote, waiting)

    def _send_syn_ack(self, local: int, remote: int, waiting: Waiting) -> None:
        request, world = waiting.request, self.world
        ts = request.ts if request.has_ts else None
        world.emit(local, remote, request.snt_isn, request.rcv_isn + 1, SYN | ACK, ts)
        sent = world.out[-1][2].tsval
        first = request.first_tsval if waiting.timer.due_ms else sent
        waiting.request = request._replace(first_tsval=first, last_tsval=sent)
        wait = world.kernel.rules.syn_rto_ms << waiting.timer.count
        waiting.timer.due_ms = world.now_ms + wait

    def _resend_syn_ack(self, local: int, remote: int, waiting: Waiting) -> None:
        waiting.timer.count += 1
        if waiting.timer.count > SYN_ACK_RETRIES:
            del self._sockets.listening[local].requests[remote]
        else:
            self._send_syn_ack(local, remote, waiting)

    def _meet_request(
        self, local: int, remote: int, listening: Listening, waiting: Waiting, segment: Segment
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
                world.count(OVERFLOW_AT_ACK)  # the request stays
            case Action.ACCEPT:
                del listening.requests[remote]
                self._open(local, remote, listening, request, segment)

    def _open(self, local: int, remote: int, listening: Listening, request: Request, segment: Segment) -> None:
        """The ACK of our SYN-ACK, which may bring data or a FIN along."""
        world, start = self.world, u32(request.snt_isn + 1)
        connection = Connection(world, local, remote, start, start, u32(request.rcv_isn + 1))
        connection.rcv_wup = connection.rcv_nxt
        connection.has_ts = request.has_ts
        if request.has_ts:
            connection.ts, connection.stamp = request.ts, world.now_s
        connection.reuse = connection.bound = True  # it shares the listener's port and its SO_REUSEADDR
        self._sockets.connections[local, remote] = connection
        listening.queue.append(connection)
        world.count(counters.PASSIVE_OPENS)
        connection.receive(segment)
        self.settle(connection)

    # What a connection becomes.

    def settle(self, connection: Connection) -> None:
        """After anything that may have ended it, a call on it too: TIME_WAIT begins, or it is gone."""
        key = (connection.local, connection.remote)
        if self._sockets.connections.get(key) is not connection:
            return
        if connection.state == State.TIME_WAIT:
            del self._sockets.connections[key]
            self._enter_time_wait(connection)
        elif connection.state == State.CLOSE:
            del self._sockets.connections[key]

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
        self._sockets.buckets[connection.local, connection.remote] = Bucket(tw, due, counter, owner, connection.bound)
        world.buckets += 1

    def _remove_bucket(self, key: Ends) -> None:
        del self._sockets.buckets[key]
        self.world.buckets -= 1

    def _remember(self, ts: int, stamp: int) -> None:
        store = self.world.kernel.rules.record_store
        self._record = recycle.written(self._record, ts, stamp, self.world.now_s, store)

    def _isn(self, local: int, remote: int) -> int:
        tuple_hash = self._hashes.setdefault((local, remote), self.world.random.getrandbits(32))
        return clock.isn(tuple_hash, self.world.now_ms * 1_000_000)

    # Calls of the program. Those on one connection are its methods; `settle` it afterwards.

    def listen(self, port: int, backlog: int) -> None:
        """Raises CallError(EADDRINUSE)."""
        if port in self._sockets.listening:
            raise CallError(errno.EADDRINUSE)
        self._sockets.listening[port] = Listening(backlog)

    def stop_listening(self, port: int) -> None:
        """close() of the listener: what waits to be accepted is reset, requests are forgotten."""
        for connection in self._sockets.listening.pop(port).queue:
            connection.abort()
            self.settle(connection)

    def accept(self, port: int) -> Connection:
        """Raises CallError(EAGAIN) where nothing waits."""
        queue = self._sockets.listening[port].queue
        if not queue:
            raise CallError(errno.EAGAIN)
        return queue.pop(0)

    def connect(self, remote: int, port: int = 0, *, reuse: bool = False) -> Connection:
        """connect() to the peer, from `port` if bound before, with SO_REUSEADDR if `reuse`. Raises CallError."""
        world, sockets = self.world, self._sockets
        if port:
            local, taken, shared, _ = choose_bound(world, sockets, remote, port, reuse)
        else:
            local, taken, shared, steps = choose(world, sockets, remote, self._hint)
            self._hint += choice.advance(world.kernel.rules, steps, world.random.randrange(8))
        isn = taken.isn if taken else self._isn(local, remote)
        connection = Connection(world, local, remote, isn, u32(isn + 1), bound=bool(port), reuse=reuse)
        if taken:
            connection.ts, connection.stamp = taken.tsecr, sockets.buckets[local, remote].tw.stamp
            self._remove_bucket((local, remote))
        elif recycle.is_loaded_by_connect(world.kernel.rules, world.knobs, self._record, world.now_s, world.ipv6):
            connection.ts, connection.stamp = self._record
        world.count(connect_counters(world.kernel.rules, taken is not None, shared, bool(port)))
        sockets.connections[local, remote] = connection
        connection.connect(connection.ts if connection.stamp else 0)
        return connection
