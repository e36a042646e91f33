"""From a free slot to an established connection."""

from __future__ import annotations

import errno
import socket

from timewait.run import Phase
from timewait.stress.closing import tcp_info
from timewait.stress.connection import (
    CONNECTING,
    FREE,
    Connection,
)
from timewait.stress.core import (
    ALL_EVENTS,
    EAGER_MISSES,
    READ_EVENTS,
    SAMPLE_EVERY,
    SLOW_SYN,
    Core,
)
from timewait.stress.meters import clock
from timewait.stress.tls import Channel


class Openings(Core):
    """socket(), bind(), connect(), and what is noted of the SYN."""

    def start(self, c: Connection, due: float) -> None:
        """Opens the slot's next connection; its first request has been taken from the budget."""
        m = self.meters
        endpoint = self.endpoints[self.turn]
        self.turn = (self.turn + 1) % len(self.endpoints)
        m.started += 1
        c.endpoint, c.due, c.served, c.established, c.close_asked = endpoint, due, 0, False, False
        c.answer, c.channel, c.key, c.port, c.out, c.reply = None, None, 0, 0, None, b""
        c.left, c.farewell_said = self.per_connection, False
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
        if self.held > self.held_most:
            self.held_most = self.held
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
        except OSError as error:
            self.not_sent(c, first, error, called)
        else:
            self.misses = 0
            m.quick.append(called - began)
            if not m.started % SAMPLE_EVERY:
                self.sample(c)
            self.up(c, called)
            complete = sent == len(first)
            self.poll.register(sock.fileno(), READ_EVENTS if complete else ALL_EVENTS)
            self.sent(c, first, sent, called)

    def not_sent(self, c: Connection, first: bytes, error: OSError, called: float) -> None:
        """The first send() right after connect() did not go: not connected yet, refused, or reset already."""
        took = called - c.began
        if isinstance(error, BlockingIOError):
            self.misses += 1
            self.wait_for_connect(c, first, took)
            return
        c.state = CONNECTING
        if error.errno in (errno.EPIPE, errno.ECONNRESET):
            self.meters.quick.append(took)
            self.up(c, called)
            self.broken(c, error, Phase.SEND if c.channel is None else Phase.TLS)
        else:
            self.meters.search.append(took)
            self.not_connected(c, error.errno or 0)

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
