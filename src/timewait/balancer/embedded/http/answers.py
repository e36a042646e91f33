"""A target's answers: heads, bodies, and what is sent to the client."""

from __future__ import annotations

from typing import TYPE_CHECKING

from timewait.balancer.embedded.http.bodies import UntilClose, of_answer
from timewait.balancer.embedded.http.core import (
    BLOCKED,
    CHUNKED_TURNS,
    ENDED,
    EXCHANGE,
    FLUSHING,
    HEAD_READ,
    HEAD_TURNS,
    IDLE,
    READ,
    TURNS,
    Core,
)
from timewait.balancer.embedded.http.tunnel import OpenTunnel
from timewait.balancer.embedded.loop import READ_AND_WRITE
from timewait.balancer.http.chunks import Chunks
from timewait.balancer.http.grammar import CHUNKED, UNTIL_CLOSE, Refusal

if TYPE_CHECKING:
    from timewait.balancer.embedded.http.heads import Reply


class Answers(Core):
    """From the target to the client."""

    __slots__ = ()

    def answered(self, reply: Reply, data: bytes, head: int) -> None:
        """See Core. THE HOT PATH: all that happens at the end of a simple exchange, in one place."""
        last = self.close_after
        out = reply.last if last else reply.kept
        if len(data) > head:
            out += data[head:]
        site, target, upstream = self.site, self.target, self.upstream
        assert target is not None and upstream is not None
        now = self.loop.now
        status, size = reply.status, len(data) - head
        statistics, theirs = site.statistics, target.statistics
        made = statistics.made_by_target
        made[status] = made.get(status, 0) + 1
        made = theirs.statuses
        made[status] = made.get(status, 0) + 1
        statistics.bytes_out += size
        theirs.bytes_in += size
        theirs.active -= 1
        target.connections.discard(self)
        self.upstream = upstream.client = None
        if site.log is not None:
            self.status, self.reply, self.first, self.passed = status, reply, now, size
            self.note()
            self.status, self.reply, self.first, self.passed = 0, None, 0.0, 0
        self.target = None
        if site.keeps:
            upstream.lane.keep(upstream, now)
        else:
            upstream.end()
        if self.attempts > 1:
            self.tried, self.failures = (), 0
        self.attempts = 0
        self.phase = IDLE
        self.deadline = now + site.client.keepalive
        try:
            sent = self.send(out)
        except BLOCKED:
            sent = 0
        except OSError:
            sent = len(out)
            self.half_closed = self.readable = True  # the end is told by the next event, or found by process()
        if sent < len(out):
            self._keep(memoryview(out)[sent:])
            self.phase = FLUSHING
            self.deadline = now + site.client.send_timeout
        elif last:
            self.end()
        elif self.readable or self.inbox:
            self.process()

    # reading ----------------------------------------------------------------------------------------------------

    def received(self, data: bytes, size: int) -> None:
        """See Core."""
        upstream = self.upstream
        assert upstream is not None
        upstream.readable = len(data) == size or upstream.ending
        self._receive(data)
        if self.upstream is upstream and upstream.readable:
            self.pump_answer()

    def pump_answer(self) -> None:
        """See Core. While the client has not taken what it got, nothing more is read."""
        upstream = self.upstream
        assert upstream is not None
        turns = HEAD_TURNS if self.reply is None else CHUNKED_TURNS if type(self.answer) is Chunks else TURNS
        for _ in range(turns):
            if self.outbox:
                return
            size = HEAD_READ if self.reply is None else READ
            try:
                data = upstream.recv(size)
            except BlockingIOError:
                upstream.readable = False
                return
            except OSError as error:
                upstream.readable = False
                self.target_failed(error)
                return
            upstream.readable = len(data) == size or upstream.ending
            self._receive(data)
            if self.upstream is not upstream or not upstream.readable:
                return
        self.later()

    def _receive(self, data: bytes) -> None:
        self.phase = EXCHANGE
        if not data:
            self._target_ended()
        elif self.reply is not None:
            self._pass_on(data, b"")
        else:
            self._read_heads(data)

    def _target_ended(self) -> None:
        """The target's FIN."""
        if self.reply is not None and isinstance(self.answer, UntilClose):
            last = self.answer.end()
            if last:
                self.write(last)
            if self.phase != ENDED:
                self.answer = None
                self.finish()
        else:
            self.target_failed(None)

    def _read_heads(self, data: bytes) -> None:
        """Interim answers (1xx) and the head of the answer proper."""
        upstream, ask = self.upstream, self.ask
        assert upstream is not None and ask is not None
        upstream.inbox = upstream.inbox + data if upstream.inbox else data
        while upstream.inbox and self.phase != ENDED:
            reply = ask.answers.read(upstream.inbox)
            if reply is None:
                return
            if isinstance(reply, Refusal):
                self._refuse_answer(reply)
                return
            upstream.inbox = upstream.inbox[reply.head.size :]
            if not reply.head.is_interim:
                self._begin_answer(reply)
                return
            self.request = b""  # something was answered: no retry
            self.awaits_continue = False
            if ask.head.version == (1, 1):  # RFC 9110, 15.2
                self.write(reply.kept)
        if self.phase != ENDED:
            self.arm()

    def _refuse_answer(self, refusal: Refusal) -> None:
        """The target does not speak HTTP as it should."""
        assert self.target is not None
        self.target.statistics.failed += 1
        self.release(rst=True)
        if self.reply is None:
            self.answer_self(502, refusal.reason)
        else:
            self.reason = refusal.reason
            self.abort()

    def _begin_answer(self, reply: Reply) -> None:
        upstream, ask, head = self.upstream, self.ask, reply.head
        assert upstream is not None and ask is not None
        if head.is_upgrade:
            self._begin_tunnel(reply)
            return
        self.first = self.loop.now
        self.reply, self.status = reply, reply.status
        http10 = ask.head.version == (1, 0)
        self.answer = of_answer(head.framing, http10)
        if http10 and head.framing in (CHUNKED, UNTIL_CLOSE):
            self.close_after = self.ends_by_close = True
        # A target that answers before the body is over may mean to read the rest, unless it says no to it.
        if self.body is not None and (head.status >= 300 or self.awaits_continue):
            self.close_after = True
        lines = [head.forward, self.cookie]
        if head.framing == UNTIL_CLOSE and not http10:
            lines.append(b"Transfer-Encoding: chunked\r\n")
        if self.close_after:
            lines.append(b"Connection: close\r\n")
        elif http10:
            lines.append(b"Connection: keep-alive\r\n")
        lines.append(b"\r\n")
        out = b"".join(lines)
        if self.answer is not None and upstream.inbox:
            data, upstream.inbox = upstream.inbox, b""
            self._pass_on(data, out)
            return
        self.write(out)
        if self.answer is None and self.phase != ENDED:
            self.finish()

    def _begin_tunnel(self, reply: Reply) -> None:
        assert self.upstream is not None and self.target is not None
        self.first = self.loop.now
        self.reply, self.status = reply, reply.status
        rest, self.upstream.inbox = self.upstream.inbox, b""
        OpenTunnel(self, self.upstream).begin(reply.kept, rest)

    def _pass_on(self, data: bytes, before: bytes) -> None:
        """A part of the answer's body, and what is to be sent before it."""
        upstream, answer = self.upstream, self.answer
        assert upstream is not None and answer is not None
        fed = answer.feed(data)
        if isinstance(fed, Refusal):
            if before:
                self.reply = None  # the client has seen nothing yet
            self._refuse_answer(fed)
            return
        out, used, over = fed
        self.passed = answer.received
        if used < len(data):
            upstream.inbox = data[used:]  # more than it announced: nobody may take that for another answer
        out = before + out if before else out
        if out:
            self.write(out)
        if self.phase == ENDED:
            return
        if over:
            self.answer = None
            self.finish()
        else:
            self.arm()

    # writing ----------------------------------------------------------------------------------------------------

    def write(self, data: bytes) -> None:
        """See Core."""
        if self.outbox:
            self.outbox = b"".join((self.outbox, data))
            return
        try:
            sent = self.send(data)
        except BLOCKED:
            sent = 0
        except OSError:
            self.vanished()
            return
        if sent < len(data):
            self._keep(memoryview(data)[sent:])

    def _keep(self, rest: memoryview) -> None:
        """What the client does not take now."""
        self.outbox = rest
        if not self.watches_out:
            self.watches_out = True
            self.loop.change(self.fd, READ_AND_WRITE)

    def flush(self) -> None:
        """The client takes more: what waits is sent, then what waited for that goes on."""
        data, self.outbox = self.outbox, b""
        try:
            sent = self.send(data)
        except BLOCKED:
            sent = 0
        except OSError:
            self.vanished()
            return
        if sent < len(data):
            self.outbox = memoryview(data)[sent:]
            if sent:
                self.arm()
