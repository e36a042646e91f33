"""A client's requests: reading heads, choosing a target, sending head and body on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from timewait.balancer.embedded import proxy_protocol
from timewait.balancer.embedded.http.bodies import of_request
from timewait.balancer.embedded.http.core import (
    BLOCKED,
    CHUNKED_TURNS,
    EXCHANGE,
    HEAD,
    HEAD_READ,
    HEAD_TURNS,
    IDLE,
    READ,
    TURNS,
    WAITING,
    Core,
)
from timewait.balancer.http.chunks import Chunks
from timewait.balancer.http.grammar import Refusal

if TYPE_CHECKING:
    from timewait.balancer.embedded.http.heads import Ask
    from timewait.balancer.embedded.http.upstream import Lane, Upstream
    from timewait.balancer.embedded.state import PoolState, TargetState


class Requests(Core):
    """From the client to the target."""

    __slots__ = ()

    # heads ------------------------------------------------------------------------------------------------------

    def process(self) -> None:
        """See Core. A loop, not a recursion: a client may send a thousand requests at once that we answer."""
        if self.processing:
            return
        self.processing = True
        reads = 0
        while self.phase <= HEAD:
            if self.phase == IDLE and self._begin_next():
                continue
            if reads == HEAD_TURNS:
                self.later()
                break
            if not self._read_more():
                break
            reads += 1
            self._begin_next()
        self.processing = False

    def _begin_next(self) -> bool:
        """Takes up the request at the front of the inbox; whether there was one."""
        if not self.inbox:
            return False
        ask = self.site.asks.read(self.inbox)
        if ask is None:
            if self.phase == IDLE:
                self.phase = HEAD
                if self.requests:  # the first head's time began with the connection
                    self.deadline = self.loop.now + self.site.client.header_timeout
            return False
        if isinstance(ask, Refusal):
            self.begin_nothing()
            self.unread = True
            self.answer_self(ask.status, ask.reason)
            return True
        self.inbox = self.inbox[ask.size :]
        if ask.simple and not self.site.counts:
            self.begin_simple(ask)
        else:
            self._begin(ask)
        return True

    def _read_more(self) -> bool:
        if not self.readable:
            return False
        while True:
            data = self._take(HEAD_READ)
            if not data:
                return False
            self.inbox = self.inbox + data if self.inbox else data
            # Looking at a long head again for each byte of a line that comes byte by byte would be expensive.
            if self.phase != HEAD or b"\n" in data or len(self.inbox) >= self.site.config.limits.header_size:
                return True
            if not self.readable:
                return False

    def _take(self, size: int) -> bytes:
        """Reads from the client; nothing where there is nothing, or nothing any more."""
        try:
            data = self.recv(size)
        except BLOCKED:
            self.readable = False
            return b""
        except OSError:
            self.readable = False
            self.vanished()
            return b""
        if not data:
            self.readable, self.half_closed = False, True
            self.client_ended()
            return b""
        # Fewer bytes than asked for: the socket is empty (epoll(7)). TLS gives a record at a time; and a FIN that
        # was told together with the data is told only once.
        self.readable = len(data) == size or self.half_closed or self.tls
        return data

    def begin_simple(self, ask: Ask) -> None:
        """A request without a body: passed on with one send(), answered with another."""
        self.requests += 1
        statistics = self.site.statistics
        statistics.requests += 1
        if self.requests > 1:
            statistics.reused += 1
        self.ask, self.known = ask, ask.known
        self.started = self.loop.now
        self.request = ask.forward + self.tail
        self.close_after = ask.last
        self.phase = WAITING
        self.dispatch()

    def _begin(self, ask: Ask) -> None:
        """Any other request."""
        site, head = self.site, ask.head
        self.requests += 1
        site.statistics.requests += 1
        if self.requests > 1:
            site.statistics.reused += 1
        self.ask, self.known = ask, ask.known
        self.started = self.loop.now
        self.phase = EXCHANGE
        self.body = of_request(head.framing, site.body_size)
        most = site.client.max_requests
        self.close_after = not head.keep_alive or site.ends or 0 < most <= self.requests
        if ask.own is not None:
            self._skip_body()
            if self.phase == EXCHANGE:
                self.answer_self(ask.own.status, ask.own.reason, ask.own.location, ask.own.fields)
            return
        self.awaits_continue = head.expects_continue and not self.inbox
        pieces = [ask.forward, self._tail(ask)]
        if self.body is not None and self.inbox:
            piece = self._feed()
            if piece is None:
                return
            pieces.append(piece)
        self.request = b"".join(pieces)
        self.dispatch()

    def _tail(self, ask: Ask) -> bytes:
        """The lines at the end of the head, that are ours to say."""
        head = ask.head
        if ask.simple or not (
            head.trailers
            or head.expects_continue
            or head.upgrade
            or head.forwarded_for
            or head.forwarded_proto
            or not head.host
        ):
            return self.tail
        options, lines = [b"close"] if self.site.asks_close else [], []
        if head.upgrade:
            options = [b"Upgrade"]
            lines.append(b"Upgrade: %b\r\n" % head.upgrade)
        if head.trailers:
            options.append(b"TE")
        if options:
            lines.append(b"Connection: %b\r\n" % b", ".join(options))
        if head.expects_continue:
            lines.append(b"Expect: 100-continue\r\n")
        lines += self._forwarded(head.forwarded_for, head.forwarded_proto)
        return b"".join(lines) + b"\r\n"

    def _forwarded(self, came: bytes, proto: bytes) -> list[bytes]:
        """Who the client is: what came is passed on where it is believed, or is not ours to say."""
        site, peer = self.site, self.peer[0].encode()
        if not site.xff:
            believed = [came] if came else []
        else:
            believed = [part for part in (came if self.trusted else b"", peer) if part]
        if site.xff and not (self.trusted and proto):
            proto = site.proto
        lines = [b"X-Forwarded-For: %b\r\n" % b", ".join(believed)] if believed else []
        return [*lines, b"X-Forwarded-Proto: %b\r\n" % proto] if proto else lines

    # a target ---------------------------------------------------------------------------------------------------

    def dispatch(self) -> None:
        """See Core."""
        ask = self.ask
        assert ask is not None and ask.pool is not None
        target = ask.pool.choose(self.source, self.tried) if ask.simple else self._choose(ask, ask.pool)
        if target is not None:
            self.ask_target(target)
        elif self.tried:
            self.answer_self(502, "no-other-target")
        else:
            self.answer_self(503, "no-target")

    def _choose(self, ask: Ask, pool: PoolState) -> TargetState | None:
        """By the cookie, where sessions are kept by one; a client without one gets it with the answer."""
        sessions = self.site.cookie_sessions(pool)
        self.cookie = b""
        if sessions is not None and ask.head.cookie:
            address = sessions.find(ask.head.cookie)
            target = pool.target(address) if address is not None and address not in self.tried else None
            if target is not None:
                return target
        target = pool.choose(self.source, self.tried)
        if sessions is not None and target is not None:
            self.cookie = sessions.fields(target.address)
        return target

    def ask_target(self, target: TargetState) -> None:
        """See Core."""
        site, ask = self.site, self.ask
        assert ask is not None
        lane = site.lanes.get(target) or site.lane(target)
        request = self.request
        if not ask.head.host:
            request = request[:-2] + b"Host: %b\r\n\r\n" % target.address.encode()
        self.target = target
        self.attempts += 1
        upstream = self._kept(lane, ask) if self.attempts == 1 else None
        fresh = upstream is None
        if upstream is None:
            try:
                upstream = lane.open()
            except OSError as error:
                self.target_failed(error)
                return
            if site.proxy_version:
                upstream.owner = self
                request = self._proxy_header() + request
        self.upstream, upstream.client = upstream, self
        statistics = target.statistics
        statistics.active += 1
        statistics.requests += 1
        target.connections.add(self)
        self.reused = upstream.carried > 0
        if self.reused:
            statistics.reused += 1
        upstream.carried += 1
        self.connected, self.connecting = self.loop.now, 0.0
        upstream.write(request)
        if upstream.deaf and not upstream.established:
            self.target_failed(upstream.error)
            return
        if fresh:
            lane.watch(upstream)
        if upstream.outbox or not upstream.established or upstream.deaf or self.body is not None:
            self.phase = EXCHANGE
            self._sent_in_part(upstream)
        else:
            self.deadline = self.loop.now + site.upstream.read_timeout

    def _kept(self, lane: Lane, ask: Ask) -> Upstream | None:
        """A kept connection, if this request may use one.

        One that the target closes at this moment fails; then a request that may be sent twice is, on a new one. Any
        other looks first whether its connection still stands.
        """
        if self.private is not None:
            upstream, self.private = self.private, None
            if upstream.lane is lane:
                return upstream
            upstream.end()
            return None
        if self.requests < self.site.reuses_from:
            return None
        idle = lane.idle
        while idle:
            upstream = idle.pop()
            if ask.idempotent or upstream.is_alive():
                return upstream
            upstream.end()
        return None

    def _proxy_header(self) -> bytes:
        write = proxy_protocol.v1 if self.site.proxy_version == 1 else proxy_protocol.v2
        return write(self.peer, self.server)

    def _sent_in_part(self, upstream: Upstream) -> None:
        """The request is not all there yet."""
        if not upstream.established:
            self.deadline = self.loop.now + self.site.upstream.connect_timeout
        else:
            self.arm()
        if upstream.deaf:
            self.pump_answer()
        elif self.body is not None and self.readable:
            self.later()

    # bodies -----------------------------------------------------------------------------------------------------

    def go_on(self) -> None:
        """See Core."""
        upstream = self.upstream
        if upstream is None or not WAITING <= self.phase <= EXCHANGE:
            return
        moving = self.body is not None or bool(self.outbox)
        if upstream.readable and not self.outbox:
            self.pump_answer()
        if self.body is not None and self.upstream is upstream:
            self._pump_body(upstream)
        if moving and self.upstream is upstream:
            self.arm()

    def _pump_body(self, upstream: Upstream) -> None:
        """Moves the request's body to the target, a read at a time."""
        for _ in range(CHUNKED_TURNS if type(self.body) is Chunks else TURNS):
            if upstream.outbox or upstream.deaf or not upstream.established:
                return
            if not self.inbox:
                if not self.readable:
                    return
                self.inbox = self._take(READ)
                if not self.inbox:
                    return
            data = self._feed()
            if data is None:
                return
            self.request = b""
            if data:
                upstream.write(data)
            if self.body is None:
                return
        self.later()

    def _feed(self) -> bytes | None:
        """What of the inbox is to be sent on; None where the body breaks its rules, which was answered then."""
        body = self.body
        assert body is not None
        fed = body.feed(self.inbox)
        if isinstance(fed, Refusal):
            self._refuse_body(fed)
            return None
        data, used, over = fed
        self.inbox = self.inbox[used:]
        self.awaits_continue = False
        self.took = body.received
        if over:
            self.body = None
        return data

    def _refuse_body(self, refusal: Refusal) -> None:
        self.inbox, self.unread = b"", True
        if self.reply is not None:
            self.abort()
            return
        if self.upstream is not None:
            self.release()
        self.answer_self(refusal.status, refusal.reason)

    def _skip_body(self) -> None:
        """Before an answer of our own: a body that is here already need not cost the connection."""
        if self.body is not None and self.inbox:
            self._feed()
