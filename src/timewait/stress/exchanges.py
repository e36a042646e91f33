"""A request goes out, an answer comes in: the readable version of what `loop.py` inlines, and the rest."""

from __future__ import annotations

import select
import socket
import ssl

from timewait.plan import Closing
from timewait.run import Cause, Phase
from timewait.stress.connection import (
    CLOSING,
    CONNECTING,
    FREE,
    IDLE,
    READING,
    SENDING,
    SHAKING,
    WAITING,
    Connection,
)
from timewait.stress.core import (
    ALL_EVENTS,
    GONE,
    IN,
    LARGEST_READ,
    OUT,
    Core,
)
from timewait.stress.endpoints import Ask
from timewait.stress.http import Answer, BadResponseError
from timewait.stress.tls import Channel, why


class Exchanges(Core):
    """Sending, reading, understanding."""

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

    def sent_in_part(self, c: Connection, data: bytes, count: int, now: float) -> None:
        """The kernel's buffer took only a part of a further request."""
        c.out = memoryview(data)[count:]
        self.poll.modify(c.sock.fileno(), ALL_EVENTS)
        self.request_started(c, count, now)

    def push(self, c: Connection, now: float) -> None:
        """Sends what is still waiting; moves on when all has gone."""
        if c.out is not None:
            try:
                count = c.sock.send(c.out)
            except BlockingIOError:
                return
            except OSError as error:
                self.broken(c, error, Phase.SEND if c.channel is None or c.channel.shaken else Phase.TLS)
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
            self.plain(c, data, events, now, eof=not size, fin=not size)
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
            self.plain(c, plain, events, now, eof=closing or not data, fin=not data)
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

    def plain(self, c: Connection, data: bytes, events: int, now: float, *, eof: bool, fin: bool) -> None:
        """Bytes of an answer; `eof`: no more will come (FIN, or TLS close_notify); `fin`: the FIN itself is here."""
        state = c.state
        if state == CLOSING:
            if data:
                self.meters.detail("data after the end of the answer")
            if fin:
                self.peer_closed(c)
            return
        if state == IDLE:
            if data:
                self.meters.detail("data on an idle connection")
            if eof or data:
                self.idle_ended(c, now, eof=eof, fin=fin)
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
            self.complete(
                c, data, now, closes=eof, fin=fin or bool(events & select.EPOLLRDHUP and len(data) < self.read_size)
            )
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
        except BadResponseError as error:
            self.fail(c, Phase.BODY, "", Cause.BAD_RESPONSE, str(error))
            return False
        return True

    def reply_complete(self, c: Connection) -> bool:
        return len(c.reply) >= len(self.plan.tcp_expect)

    def complete(self, c: Connection, data: bytes, now: float, *, closes: bool, fin: bool) -> None:
        """An answer is complete: judge its status, remember it if it came in one piece, go on."""
        answer = c.answer
        c.answer = None
        if answer is not None:
            status, closes = answer.status, closes or answer.closes
            m = self.meters
            m.status[status] = m.status.get(status, 0) + 1
            if status not in self.accepted and status // 100 not in self.accepted_classes:
                self.failed(c, Phase.BODY, "", Cause.STATUS, f"status {status}")
                self.answered(c, now, peer_closed=fin, closes=closes)
                return
            # A read that filled the buffer may have left bytes behind; an answer that ends with the connection is
            # not complete by itself; and one that announces the end must be seen by `answered` on a kept connection.
            whole = len(data) < self.read_size and c.first == now - c.due and not answer.ends_with_connection
            if whole and c.channel is None and (c.ask.last or not closes):
                self.remember(c.ask, data, status, closes=closes)
        self.succeeded(c, now)
        self.answered(c, now, peer_closed=fin, closes=closes)

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

    def succeeded(self, c: Connection, now: float) -> None:
        self.meters.first.append(c.first)
        self.meters.total.append(now - c.due)
