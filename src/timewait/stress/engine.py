"""One worker's connections: what to do at each event of their life. The frequent case stands a second time, inlined,
in `loop.py`; everything here is the readable version and the rest.

A connection that fails is the subject of this tool: it is counted by phase, errno and cause, never raised.
"""

from __future__ import annotations

import errno
import heapq
import select
import socket
import ssl
from random import Random

from timewait.plan import Closing, Plan, RateUnit
from timewait.run import Cause, Phase
from timewait.stress.closing import RESET, US, abort, shut, tcp_info
from timewait.stress.connection import (
    CLOSING,
    CONNECTING,
    FOREVER,
    FREE,
    IDLE,
    READING,
    SENDING,
    SHAKING,
    WAITING,
    Connection,
)
from timewait.stress.endpoints import Ask, Endpoint
from timewait.stress.http import Answer, BadResponse
from timewait.stress.meters import Meters, clock
from timewait.stress.opening import Opener, cause_of
from timewait.stress.pacing import Schedule, share
from timewait.stress.tls import Channel, context, why
from timewait.stress.tuples import Tuples

IN, OUT, GONE = select.EPOLLIN, select.EPOLLOUT, select.EPOLLRDHUP | select.EPOLLHUP | select.EPOLLERR
# Edge-triggered: one epoll_ctl per connection, none per request; whoever reads less than all must read on.
READ_EVENTS = select.EPOLLIN | select.EPOLLRDHUP | select.EPOLLET
ALL_EVENTS = READ_EVENTS | select.EPOLLOUT

EAGER_MISSES = 64  # connects in a row not yet established when connect() returned: a real network, stop trying
SLOW_SYN = 0.9  # seconds; the first SYN is sent again after 1 s (RFC 6298, TCP_TIMEOUT_INIT), on 2.6.32 after 3 s
BACKOFF_FIRST, BACKOFF_MOST = 0.01, 0.5  # seconds between tries of a slot that cannot connect
SAMPLE_EVERY = 64  # connections per TCP_INFO read
SMALLEST_READ, LARGEST_READ = 4096, 65536  # above 128 KiB malloc() would mmap for every recv()


class Engine:
    """Everything one worker holds. Times are CLOCK_MONOTONIC seconds; `start_at` is the run's beginning."""

    def __init__(
        self, plan: Plan, endpoints: list[Endpoint], opener: Opener, worker: int, workers: int, start_at: float
    ) -> None:
        self.plan, self.endpoints, self.opener = plan, endpoints, opener
        self.meters = Meters()
        self.poll = select.epoll()
        self.by_fd: dict[int, Connection] = {}
        self.closing = plan.closing
        self.start_at = start_at
        self.budget = share(plan.requests, worker, workers) if plan.requests else FOREVER
        self.per_connection = plan.requests_per_connection or FOREVER
        self.slots = max(1, share(plan.concurrency, worker, workers))
        self.connections: list[Connection] = []  # one per slot, made when first needed
        self.free: list[Connection] = []
        self.idle: dict[Connection, None] = {}  # kept, waiting for an arrival; last in, first out
        self.retries: list[tuple[float, int, Connection]] = []
        self.busy = 0  # slots with something under way
        self.held = 0  # open sockets
        self.schedule: Schedule | None = None
        if plan.rate is not None:
            self.schedule = Schedule(plan.rate.per_second, plan.ramp_up, worker, workers)
        self.by_connection = plan.rate is not None and plan.rate.unit is RateUnit.CONNECTIONS
        self.arrival = 0  # the next one
        self.read_size = SMALLEST_READ
        self.misses = 0
        self.tuples = Tuples(active=opener.allocates)
        self.tls = context(plan.tls) if plan.scheme == "https" else None
        self.sessions: dict[str, ssl.SSLSession] = {}
        self.tcp = plan.scheme == "tcp"
        self.accepted = frozenset(int(word) for word in plan.expect if not word.endswith("x"))
        self.accepted_classes = frozenset(int(word[0]) for word in plan.expect if word.endswith("xx"))
        self.limits = [0.0] * 8  # seconds per state; 0: none
        self.limits[CONNECTING] = self.limits[SHAKING] = plan.connect_timeout
        self.limits[SENDING] = self.limits[WAITING] = self.limits[READING] = plan.timeout
        self.limits[CLOSING] = plan.close_timeout
        self.random = Random(worker)
        self.turn = worker % len(endpoints)
        self.stopped = False
        self.drain_until = float("inf")
        self.end_at = start_at + plan.duration if plan.duration else float("inf")
        # How long what is in flight at the end may take to be answered or to fail of itself.
        self.patience = max(plan.connect_timeout, min(plan.timeout, 5.0)) + 0.5

    # slots ------------------------------------------------------------------------------------------------------

    def asked(self, now: float) -> int:
        """Connections wanted at this moment of the closed loop."""
        if self.schedule is not None:
            return self.slots
        elapsed = now - self.start_at
        if elapsed >= self.plan.ramp_up:
            return self.slots
        return int(self.slots * elapsed / self.plan.ramp_up) + 1

    def add_slot(self) -> Connection:
        c = Connection(len(self.connections))
        self.connections.append(c)
        return c

    def take_slot(self) -> Connection | None:
        """A slot without a connection, None when all are in use."""
        if self.free:
            return self.free.pop()
        return self.add_slot() if len(self.connections) < self.slots else None

    def take_idle(self) -> Connection | None:
        """A kept connection that waits for a request."""
        if not self.idle or self.by_connection:
            return None
        return self.idle.popitem()[0]

    @property
    def finished(self) -> bool:
        """All of the work has been begun (stop now, then drain)."""
        if self.stopped:
            return False
        return clock() >= self.end_at or (self.budget <= 0 and self.busy == 0)

    def stop(self, now: float, patience: float) -> None:
        """Nothing new from here on; what is in flight has `patience` seconds, idle connections are closed."""
        if self.schedule is not None and self.budget > 0:
            until = min(now, self.end_at) - self.start_at
            self.meters.unsent += max(0, min(self.schedule.count(until), FOREVER) - self.arrival)
        self.stopped, self.budget = True, 0
        self.drain_until = now + patience
        self.retries.clear()
        for c in list(self.idle):
            self.idle.pop(c)
            self.busy += 1
            self.part(c, now, peer_closed=False, closes=False)

    def abandon(self) -> None:
        """Counts and closes what is still in flight."""
        for c in list(self.by_fd.values()):
            if c.state not in (CLOSING, IDLE):
                self.meters.unfinished += 1
            if c.established:
                self.book_end(shut(c.sock))
            self.drop(c)

    # opening ----------------------------------------------------------------------------------------------------

    def start(self, c: Connection, due: float) -> None:
        """Opens the slot's next connection; its first request has been taken from the budget."""
        m = self.meters
        endpoint = self.endpoints[self.turn]
        self.turn = (self.turn + 1) % len(self.endpoints)
        m.started += 1
        c.endpoint, c.due, c.served, c.established, c.close_asked = endpoint, due, 0, False, False
        c.answer, c.channel, c.key, c.port, c.out, c.reply = None, None, 0, 0, None, b""
        c.left = self.per_connection
        c.turn = c.number if len(endpoint.asks) > 1 and not c.turn else c.turn
        try:
            sock, c.source, c.port = self.opener.open(endpoint)
        except OSError as error:
            c.state = FREE
            self.not_opened(c, Phase.BIND, error.errno or 0)
            return
        c.sock = sock
        began = c.began = clock()
        code = sock.connect_ex(endpoint.sockaddr)
        called = clock()
        self.held += 1
        if code and code != errno.EINPROGRESS:
            m.search.append(called - began)
            c.state = CONNECTING
            self.not_connected(c, code)
            return
        self.by_fd[sock.fileno()] = c
        self.choose(c)
        first = c.ask.data
        if self.tls is not None:
            c.channel = Channel(self.tls, endpoint.server_name, self.sessions.get(endpoint.server_name))
            first = c.channel.hello()
        if self.misses >= EAGER_MISSES:
            self.wait_for_connect(c, first, called - began)
            return
        try:
            # On loopback and veth the handshake is over when connect() returns: send at once, save a wake-up.
            sent = sock.send(first)
        except BlockingIOError:
            self.misses += 1
            self.wait_for_connect(c, first, called - began)
        except OSError as error:
            c.state = CONNECTING
            if error.errno in (errno.EPIPE, errno.ECONNRESET):
                m.quick.append(called - began)
                self.up(c, called)
                self.broken(c, error, Phase.SEND)
            else:
                m.search.append(called - began)
                self.not_connected(c, error.errno or 0)
        else:
            self.misses = 0
            m.quick.append(called - began)
            if not m.started % SAMPLE_EVERY:
                self.sample(c)
            self.up(c, called)
            complete = sent == len(first)
            self.poll.register(sock.fileno(), READ_EVENTS if complete else ALL_EVENTS)
            self.sent(c, first, sent, called)

    def wait_for_connect(self, c: Connection, first: bytes, search: float) -> None:
        self.meters.search.append(search)
        c.out = memoryview(first)
        c.state = CONNECTING
        self.poll.register(c.sock.fileno(), ALL_EVENTS)

    def up(self, c: Connection, now: float) -> None:
        """The TCP connection is established."""
        c.established = True
        c.backoff = 0.0
        if self.tls is None:
            self.meters.connected += 1
        if self.tuples.active:
            self.note_tuple(c, now, slow=now - c.began >= SLOW_SYN)

    def connected(self, c: Connection, now: float) -> None:
        """EPOLLOUT on a connecting socket."""
        code = c.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            self.not_connected(c, code)
            return
        took = now - c.began
        self.meters.connect.append(took)
        if took >= SLOW_SYN:
            self.slow_syn(c, now)
        if not self.meters.started % SAMPLE_EVERY:
            self.sample(c)
        self.up(c, now)
        self.push(c, now)

    def sent(self, c: Connection, data: bytes, count: int, now: float) -> None:
        """`count` bytes of `data` have gone out as the first flight."""
        c.out = memoryview(data)[count:] if count < len(data) else None
        if c.channel is not None:
            c.state, c.began = SHAKING, now
            return
        self.request_started(c, count, now)

    def request_started(self, c: Connection, count: int, now: float) -> None:
        """The present request is under way; `count` of its bytes have gone out."""
        m, ask = self.meters, c.ask
        m.requests += 1
        m.bytes_out += count
        c.began = now
        if ask.last and self.closing is Closing.SERVER and not self.tcp:
            m.close_asked += 1
            c.close_asked = True
        c.state = SENDING if c.out is not None else WAITING
        if c.out is None:
            self.all_sent(c, now)

    def all_sent(self, c: Connection, now: float) -> None:
        """The whole request is with the kernel."""
        c.state = WAITING
        if c.ask.last and self.closing is Closing.HALF:
            try:
                c.sock.shutdown(socket.SHUT_WR)
            except OSError:
                pass  # the RST that has arrived meanwhile is read, and counted, with the next event
        if self.tcp and not self.plan.tcp_expect:
            c.first = now - c.due
            self.succeeded(c, now)
            self.answered(c, now, peer_closed=False, closes=False)

    # sending ----------------------------------------------------------------------------------------------------

    def choose(self, c: Connection) -> None:
        """Which request comes next on this connection."""
        asks = c.endpoint.asks
        c.turn += 1
        c.ask = asks[c.turn % len(asks)][c.left == 1]

    def request(self, c: Connection, now: float, due: float) -> None:
        """Sends the next request on an open connection."""
        self.choose(c)
        c.due, c.answer, c.reply = due, None, b""
        data = c.ask.data if c.channel is None else c.channel.seal(c.ask.data)
        try:
            count = c.sock.send(data)
        except BlockingIOError:
            count = 0
        except OSError as error:
            self.meters.requests += 1
            c.state = WAITING
            self.broken(c, error, Phase.SEND)
            return
        if count < len(data):
            self.sent_in_part(c, data, count, now)
        else:
            self.request_started(c, count, now)

    def push(self, c: Connection, now: float) -> None:
        """Sends what is still waiting; moves on when all has gone."""
        if c.out is not None:
            try:
                count = c.sock.send(c.out)
            except BlockingIOError:
                return
            except OSError as error:
                self.broken(c, error, Phase.TLS if c.state == SHAKING or c.channel else Phase.SEND)
                return
            c.out = c.out[count:] if count < len(c.out) else None
            if c.state == CONNECTING and c.channel is None:
                self.request_started(c, count, now)
                return
            self.meters.bytes_out += count
        if c.state == CONNECTING:
            c.state, c.began = (SHAKING, now) if c.channel is not None else (c.state, now)
            if c.channel is None:
                self.request_started(c, 0, now)
        elif c.state == SENDING and c.out is None:
            self.all_sent(c, now)

    def sent_in_part(self, c: Connection, data: bytes, count: int, now: float) -> None:
        """The kernel's buffer took only a part of a further request."""
        c.out = memoryview(data)[count:]
        self.poll.modify(c.sock.fileno(), ALL_EVENTS)
        self.request_started(c, count, now)

    # events -----------------------------------------------------------------------------------------------------

    def event(self, c: Connection, events: int, now: float) -> None:
        """Any event but the frequent one."""
        if c.state == CONNECTING:
            if events & (OUT | GONE):
                self.connected(c, now)
            if not events & IN or c.state in (FREE, CONNECTING):
                return
        elif c.state in (SENDING, SHAKING) and events & OUT and c.out is not None:
            self.push(c, now)
        if events & (IN | GONE) and c.state != FREE:
            self.read(c, events, now)

    def read(self, c: Connection, events: int, now: float) -> None:
        """Reads until the kernel has no more (edge-triggered) or the connection has moved on."""
        sock = c.sock
        while c.state != FREE and c.sock is sock:
            try:
                data = sock.recv(self.read_size)
            except BlockingIOError:
                return
            except OSError as error:
                self.broken(c, error)
                return
            if not self.received(c, data, events, now):
                return

    def received(self, c: Connection, data: bytes, events: int, now: float) -> bool:
        """Bytes from the wire, b"" for a FIN. Returns whether to read on at once."""
        size = len(data)
        more = size == self.read_size or bool(size and events & GONE)
        if size == self.read_size and size < LARGEST_READ:
            self.read_size = size * 2
        self.meters.bytes_in += size
        serial = (c.sock, c.served)
        if c.channel is None:
            self.plain(c, data, events, now, eof=not size)
        else:
            self.sealed(c, c.channel, data, events, now)
        # The slot may carry another connection by now, or have sent its next request: not ours to read then.
        return more and c.state not in (FREE, IDLE) and (c.sock, c.served) == serial

    def sealed(self, c: Connection, channel: Channel, data: bytes, events: int, now: float) -> None:
        """TLS records, or b"" for a FIN."""
        try:
            if not channel.shaken:
                if not data:
                    self.fail(c, Phase.TLS, "", Cause.CLOSED, "closed during the TLS handshake")
                    return
                shaken = channel.handshake(data)
                c.out = memoryview(channel.pending()) or None
                if shaken:
                    self.shaken(c, channel, now)
                else:
                    self.push(c, now)
                return
            plain, closing = channel.open(data)
        except ssl.SSLError as error:
            cause, reason = why(error)
            try:
                c.sock.send(channel.pending())  # our alert, so that the peer's log has the reason too
            except OSError:
                pass
            self.fail(c, Phase.BODY if channel.shaken else Phase.TLS, "", cause, reason)
            return
        if plain or closing or not data:
            self.plain(c, plain, events, now, eof=closing or not data)
        if self.plan.tls.resume and c.endpoint.server_name not in self.sessions and channel.session is not None:
            self.sessions[c.endpoint.server_name] = channel.session

    def shaken(self, c: Connection, channel: Channel, now: float) -> None:
        m = self.meters
        m.tls.append(now - c.began)
        m.connected += 1
        m.resumed += channel.resumed
        if self.tcp:
            return
        data = bytes(c.out or b"") + channel.seal(c.ask.data)
        c.out, c.state = memoryview(data), SENDING
        m.requests += 1
        c.began = now
        if c.ask.last and self.closing is Closing.SERVER:
            m.close_asked += 1
            c.close_asked = True
        try:
            self.poll.modify(c.sock.fileno(), ALL_EVENTS)
        except OSError:
            pass
        self.push(c, now)

    def plain(self, c: Connection, data: bytes, events: int, now: float, *, eof: bool) -> None:
        """Bytes of an answer, and whether the peer has ended its side."""
        state = c.state
        if state == CLOSING:
            if data:
                self.meters.detail("data after the end of the answer")
            if eof:
                self.peer_closed(c)
            return
        if state == IDLE:
            if data:
                self.meters.detail("data on an idle connection")
            if eof or data:
                self.idle_ended(c, eof=eof)
            return
        if data:
            if state in (WAITING, SENDING):
                c.first = now - c.due
                if state == WAITING:
                    c.state = READING
            if not self.understood(c, data):
                return
        if c.answer is None and not self.tcp:
            if eof:
                self.cut_short(c)
            return
        done = self.reply_complete(c) if self.tcp else c.answer is not None and c.answer.complete
        if eof and not done and c.answer is not None:
            done = c.answer.eof()
        if done:
            self.complete(c, data, now, eof=eof or bool(events & select.EPOLLRDHUP and len(data) < self.read_size))
        elif eof:
            self.cut_short(c)

    def understood(self, c: Connection, data: bytes) -> bool:
        """Feeds the parser, or collects a tcp reply; False when that failed the connection."""
        if self.tcp:
            c.reply += data
            wanted = self.plan.tcp_expect
            if c.reply[: len(wanted)] != wanted[: len(c.reply)]:
                self.fail(c, Phase.BODY, "", Cause.BAD_RESPONSE, f"reply began with {c.reply[:24]!r}")
                return False
            return True
        if c.answer is None:
            c.answer = Answer(head=c.ask.head)
        try:
            c.answer.feed(data)
        except BadResponse as error:
            self.fail(c, Phase.BODY, "", Cause.BAD_RESPONSE, str(error))
            return False
        return True

    def reply_complete(self, c: Connection) -> bool:
        return len(c.reply) >= len(self.plan.tcp_expect)

    def complete(self, c: Connection, data: bytes, now: float, *, eof: bool) -> None:
        """An answer is complete: judge its status, remember it if it came in one piece, go on."""
        answer, closes = c.answer, False
        c.answer = None
        if answer is not None:
            status, closes = answer.status, answer.closes
            m = self.meters
            m.status[status] = m.status.get(status, 0) + 1
            if status not in self.accepted and status // 100 not in self.accepted_classes:
                self.failed(c, Phase.BODY, "", Cause.STATUS, f"status {status}")
                self.answered(c, now, peer_closed=eof, closes=closes)
                return
            # A read that filled the buffer may have left bytes behind; an answer that ends with the connection is
            # not complete by itself; and one that announces the end must be seen by `answered` on a kept connection.
            whole = len(data) < self.read_size and c.first == now - c.due and not answer.ends_with_connection
            if whole and c.channel is None and (c.ask.last or not closes):
                self.remember(c.ask, data, status, closes=closes)
        self.succeeded(c, now)
        self.answered(c, now, peer_closed=eof, closes=closes)

    def remember(self, ask: Ask, data: bytes, status: int, *, closes: bool) -> None:
        self.settle(ask)
        ask.expected, ask.status, ask.closes = data, status, closes

    def settle(self, ask: Ask) -> None:
        """Books the answers that were equal to the expected one."""
        if ask.hits and ask.expected is not None:
            m = self.meters
            m.status[ask.status] = m.status.get(ask.status, 0) + ask.hits
            m.bytes_in += ask.hits * len(ask.expected)
            ask.hits = 0

    def settle_all(self) -> None:
        for endpoint in self.endpoints:
            for asks in endpoint.asks:
                for ask in asks:
                    self.settle(ask)

    # after an answer --------------------------------------------------------------------------------------------

    def succeeded(self, c: Connection, now: float) -> None:
        self.meters.first.append(c.first)
        self.meters.total.append(now - c.due)

    def answered(self, c: Connection, now: float, *, peer_closed: bool, closes: bool) -> None:
        """The present request is done: the next one, rest, or the end of the connection."""
        c.served += 1
        if peer_closed or closes or c.left == 1 or c.state == SENDING:
            self.part(c, now, peer_closed=peer_closed, closes=closes)
        elif self.tcp and not self.plan.tcp_expect:
            if self.closing is Closing.KEEP:
                self.rest(c)  # nothing more to say: the connection is held
            else:
                self.part(c, now, peer_closed=False, closes=False)
        elif self.budget <= 0:
            self.part(c, now, peer_closed=False, closes=False)
        elif self.schedule is None or self.by_connection:
            self.budget -= 1
            c.left -= 1
            self.request(c, now, now)
        else:
            self.rest(c)

    def rest(self, c: Connection) -> None:
        c.state = IDLE
        self.idle[c] = None
        self.busy -= 1

    def idle_ended(self, c: Connection, *, eof: bool) -> None:
        """The peer ended an idle connection (or broke its silence, which ends it too)."""
        self.idle.pop(c, None)
        self.busy += 1
        if eof:
            self.meters.kept_ended += 1
        self.closed(c, "peer" if eof else US)

    def part(self, c: Connection, now: float, *, peer_closed: bool, closes: bool) -> None:
        """Ends a connection after its last answer, the way the plan says."""
        closing = self.closing
        if closes and closing in (Closing.KEEP, Closing.SERVER) and not c.close_asked:
            self.meters.kept_ended += 1
        if closing is Closing.HALF and c.ask.last:
            if peer_closed:
                self.closed(c, US)
            else:
                c.state, c.began = CLOSING, now
        elif peer_closed:
            self.closed(c, "peer")
        elif c.close_asked or (closes and closing in (Closing.KEEP, Closing.SERVER)):
            c.state, c.began = CLOSING, now  # the peer's FIN is on its way
        elif self.tcp and closing is Closing.SERVER:
            c.state, c.began = CLOSING, now
        elif closing is Closing.RESET:
            abort(c.sock)
            self.meters.reset_by_us += 1
            self.closed(c, RESET)
        else:
            if c.channel is not None:
                self.farewell(c, c.channel)
            self.closed(c, shut(c.sock))

    def farewell(self, c: Connection, channel: Channel) -> None:
        try:
            c.sock.send(channel.farewell())
        except OSError:
            pass  # a full buffer or a reset: the FIN or RST that follows says the same

    def peer_closed(self, c: Connection) -> None:
        """The FIN we waited for."""
        self.closed(c, US if self.closing is Closing.HALF and c.ask.last else "peer")

    def closed(self, c: Connection, first: str) -> None:
        """The connection has ended well; `first` is who closed first."""
        self.book_end(first)
        self.drop(c)
        self.next(c, 0.0)

    def book_end(self, first: str) -> None:
        m = self.meters
        if first is US:
            m.closed_us += 1
        elif first is RESET:
            m.closed_reset += 1
        else:
            m.closed_peer += 1

    def drop(self, c: Connection) -> None:
        """Gives back the socket, its port and its place."""
        if self.tuples.active and c.key:
            self.tuples.ended(c.key, clock())
        self.by_fd.pop(c.sock.fileno(), None)
        c.sock.close()
        c.state = FREE
        c.channel = c.answer = c.out = None
        self.held -= 1
        if c.port:
            self.opener.release(c.source, c.port)

    def next(self, c: Connection, wait: float) -> None:
        """The slot is free: its next connection now, later, or when an arrival wants it."""
        if self.schedule is not None:
            self.busy -= 1
            self.free.append(c)
        elif self.budget <= 0:
            self.busy -= 1
        elif wait > 0.0:
            self.busy -= 1
            heapq.heappush(self.retries, (clock() + wait, c.number, c))
        else:
            self.budget -= 1
            self.start(c, clock())

    # failures ---------------------------------------------------------------------------------------------------

    def failed(self, c: Connection, phase: Phase, code: str, cause: Cause, detail: str = "") -> None:
        self.meters.failed += 1
        self.meters.error(phase, code, cause, detail)

    def not_opened(self, c: Connection, phase: Phase, code: int) -> None:
        """socket() or bind() failed: there is no connection to drop."""
        self.failed(c, phase, *cause_of(code))
        self.back_off(c)

    def not_connected(self, c: Connection, code: int) -> None:
        if clock() - c.began >= SLOW_SYN:
            self.slow_syn(c, clock())
        self.failed(c, Phase.CONNECT, *cause_of(code))
        self.drop(c)
        self.back_off(c)

    def back_off(self, c: Connection) -> None:
        c.backoff = min(BACKOFF_MOST, c.backoff * 2 or BACKOFF_FIRST)
        self.next(c, c.backoff * (0.5 + self.random.random() / 2))

    def broken(self, c: Connection, error: OSError, phase: Phase | None = None) -> None:
        """A system call on an established connection failed."""
        name, cause = cause_of(error.errno or 0)
        if c.state == IDLE:
            self.idle.pop(c, None)
            self.busy += 1
            self.meters.kept_ended += 1
            self.closed(c, RESET)
            return
        if c.state == CLOSING:
            # A reset once the answer is complete harms nobody; it is booked as the end it was.
            self.closed(c, RESET)
            return
        if phase is None:
            phase = {SHAKING: Phase.TLS, SENDING: Phase.SEND, READING: Phase.BODY}.get(c.state, Phase.FIRST_BYTE)
        if cause is Cause.RESET and c.served and c.state == WAITING:
            cause = Cause.STALE
        self.fail(c, phase, name, cause)

    def cut_short(self, c: Connection) -> None:
        """A FIN before the answer was complete."""
        if c.state == SHAKING:
            self.fail(c, Phase.TLS, "", Cause.CLOSED)
        elif c.state == READING:
            self.fail(c, Phase.BODY, "", Cause.CLOSED)
        else:
            self.fail(c, Phase.FIRST_BYTE, "", Cause.STALE if c.served else Cause.CLOSED)

    def fail(self, c: Connection, phase: Phase, code: str, cause: Cause, detail: str = "") -> None:
        """The request in flight has failed, and the connection with it."""
        self.failed(c, phase, code, cause, detail)
        if c.established:
            if cause is Cause.RESET or code == "ECONNRESET":
                self.book_end(RESET)
            elif cause in (Cause.CLOSED, Cause.STALE):
                self.book_end("peer")
            else:
                self.book_end(shut(c.sock))
        self.drop(c)
        # Never straight into the next connection: a target that fails at once would recurse, and spin.
        self.next(c, 1e-6 if c.served or c.state == READING else BACKOFF_FIRST)

    def timed_out(self, c: Connection, now: float) -> None:
        """The deadline of the present state has passed."""
        state = c.state
        if state == CONNECTING:
            self.slow_syn(c, now)
            self.failed(c, Phase.CONNECT, "ETIMEDOUT", Cause.TIMEOUT)
            self.drop(c)
            self.next(c, BACKOFF_FIRST)
        elif state == CLOSING:
            if c.close_asked:
                self.meters.close_ignored += 1
            if self.closing is Closing.HALF:
                self.closed(c, US)
            else:
                self.closed(c, shut(c.sock))
        else:
            phase = {SHAKING: Phase.TLS, SENDING: Phase.SEND, READING: Phase.BODY}.get(state, Phase.FIRST_BYTE)
            self.fail(c, phase, "", Cause.TIMEOUT)

    # watching ---------------------------------------------------------------------------------------------------

    def sample(self, c: Connection) -> None:
        try:
            info = tcp_info(c.sock)
        except OSError:
            return
        m = self.meters
        m.sampled += 1
        m.sampled_timestamps += info.timestamps
        m.sampled_rtt += info.rtt
        m.sampled_retrans += info.retrans

    def slow_syn(self, c: Connection, now: float) -> None:
        """This connection's SYN was sent more than once."""
        self.meters.syn_slow += 1
        if not self.tuples.active:
            self.tuples.begin(now)
            self.note_tuple(c, now, slow=True)
        elif not c.established:
            self.note_tuple(c, now, slow=True)

    def note_tuple(self, c: Connection, now: float, *, slow: bool) -> None:
        """Books whether this five-tuple was used before; `up` comes through here once per connection."""
        port = c.port
        if not port:
            try:
                port = c.sock.getsockname()[1]
            except OSError:
                return
        if c.key:
            return
        place = self.endpoints.index(c.endpoint) if len(self.endpoints) > 1 else 0
        c.key = (place * max(1, len(self.plan.sources)) + c.source) << 16 | port
        m, past = self.meters, self.tuples.past(c.key, now)
        if past is None:
            return
        if slow:
            m.syn_slow_known += 1
            m.syn_slow_reused += past
        elif past:
            m.reused_known += 1
        else:
            m.fresh_known += 1

