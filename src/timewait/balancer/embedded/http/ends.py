"""Ends: of an answer, of waiting, of a target's connection that failed, of the client's own."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from timewait.balancer.config.model import ClientClose, Then
from timewait.balancer.embedded import closing
from timewait.balancer.embedded.http.bodies import UntilClose
from timewait.balancer.embedded.http.core import ENDED, EXCHANGE, FLUSHING, HEAD, IDLE, TUNNEL, WAITING, Core
from timewait.balancer.embedded.http.record import record_of
from timewait.balancer.embedded.sources import EXHAUSTED
from timewait.balancer.http.answers import answer

if TYPE_CHECKING:
    from timewait.balancer.embedded.http.heads import Ask
    from timewait.balancer.embedded.state import TargetState

# Answers of our own after which the next request on the connection can be understood, if this one was read whole.
HARMLESS = frozenset((301, 403, 404, 405, 502, 503, 504))
CLIENT_GONE = 499  # nginx's: the client left before an answer; nobody gets it, it is counted


class Ends(Core):
    """What ends, and why."""

    __slots__ = ()

    # time -------------------------------------------------------------------------------------------------------

    def arm(self) -> None:
        """See Core. The end of connecting is set once, where it begins."""
        site, upstream, now = self.site, self.upstream, self.loop.now
        if self.outbox:
            self.deadline = now + site.client.send_timeout
        elif upstream is None or not upstream.established:
            return
        elif upstream.outbox:
            self.deadline = now + site.upstream.send_timeout
        elif self._waits_for_body():
            self.deadline = now + site.client.body_timeout
        else:
            self.deadline = now + site.upstream.read_timeout

    def _waits_for_body(self) -> bool:
        """Whether it is the client's turn. Also where the answer has begun: it may well end only after the body."""
        return self.body is not None and not self.awaits_continue

    def expired(self, now: float) -> None:
        """The deadline has passed; whose it was, arm() tells the other way round."""
        upstream = self.upstream
        if self.phase == IDLE:
            self.end(timed_out=True)
        elif self.phase == HEAD:
            self.begin_nothing()
            self.unread = True
            self.answer_self(408, "header-timeout")
        elif self.outbox or upstream is None:
            self.reason = self.reason or "send-timeout"
            self.abort(timed_out=True)
        elif upstream.established and not upstream.outbox and self._waits_for_body():
            self._body_overdue()
        else:
            self.target_failed(None, timed_out=True)

    def _body_overdue(self) -> None:
        """The client has stopped in the middle of its body: no failure of the target's, whatever it has answered."""
        if self.reply is not None:
            self._cut_off("body-timeout")
            return
        self.release()
        self.unread = True
        self.answer_self(408, "body-timeout")

    # an answer --------------------------------------------------------------------------------------------------

    def answer_self(self, status: int, reason: str, location: bytes = b"", fields: bytes = b"") -> None:
        """See Core."""
        ask, statistics = self.ask, self.site.statistics
        if status < 500 and reason and status != 404:
            statistics.refused[reason] = statistics.refused.get(reason, 0) + 1
        if ask is None:  # no request could be made out
            self.requests += 1
            statistics.requests += 1
            self.started = self.loop.now
        self.phase = EXCHANGE
        self.own, self.status, self.reason = True, status, reason
        if self.body is not None:
            self.unread = True
        if self.unread or status not in HARMLESS:
            self.close_after = True
        head_only = ask is not None and ask.head.method == b"HEAD"
        data = answer(status, head_only=head_only, close=self.close_after, location=location, fields=fields)
        self.first = self.loop.now
        self.passed = 0 if head_only else len(data) - data.find(b"\r\n\r\n") - 4
        self.write(data)
        if self.phase != ENDED:
            self.finish()

    def finish(self) -> None:
        """See Core."""
        if self.body is not None:  # the answer came before the request was over, and nobody waits for its rest
            self.unread = self.close_after = True
        upstream = self.upstream
        if upstream is not None:
            assert self.reply is not None
            clean = not (upstream.inbox or upstream.outbox or upstream.deaf or upstream.ending or self.unread)
            self.release(keep=clean and self.reply.head.keep_alive and self.site.keeps)
        self._count()
        if self.outbox:
            self.phase = FLUSHING
            self.deadline = self.loop.now + self.site.client.send_timeout
        else:
            self.flushed()

    def flushed(self) -> None:
        """The client has taken the whole answer."""
        if self.close_after:
            self.end()
            return
        self.begin_nothing()
        self.phase = IDLE
        self.deadline = self.loop.now + self.site.client.keepalive
        if self.readable or self.inbox:
            self.process()

    def _count(self) -> None:
        """Adds the exchange to the statistics and to the log."""
        statistics = self.site.statistics
        made = statistics.made_by_balancer if self.own else statistics.made_by_target
        if self.status:
            made[self.status] = made.get(self.status, 0) + 1
        statistics.bytes_in += self.took
        statistics.bytes_out += self.passed
        target = self.target
        if target is not None:
            target.statistics.bytes_out += self.took
            if not self.own and self.status:
                statuses = target.statistics.statuses
                statuses[self.status] = statuses.get(self.status, 0) + 1
                target.statistics.bytes_in += self.passed
        if self.site.log is not None:
            self.note()

    def note(self) -> None:
        """Writes a line to the access log, or keeps it until it is known who closed."""
        record = record_of(self)
        if self.close_after or self.phase == ENDED:
            self.record = record
        elif self.site.log is not None:
            self.site.log.write(record)

    # the target's connection ------------------------------------------------------------------------------------

    def release(self, *, keep: bool = False, timed_out: bool = False, rst: bool = False) -> None:
        """See Core."""
        upstream, target = self.upstream, self.target
        assert upstream is not None and target is not None
        self.upstream = upstream.client = None
        target.statistics.active -= 1
        target.connections.discard(self)
        if not keep:
            upstream.end(timed_out=timed_out, rst=rst)
        elif upstream.owner is not None:
            self.private = upstream
        else:
            upstream.lane.keep(upstream, self.loop.now)

    def target_failed(self, error: OSError | None, *, timed_out: bool = False, cut: Then | None = None) -> None:
        """See Core. Another try, a 502 or 504, or the end of an answer that cannot be completed."""
        upstream, target, ask = self.upstream, self.target, self.ask
        assert target is not None and ask is not None
        established = stale = silent = False
        if upstream is not None:
            established = upstream.established
            # A kept connection that ended under a request was being closed by the target when the request left: a
            # race, no failure of the target's, and it does not count against `retries`.
            stale = established and upstream.carried > 1 and not timed_out and cut is None
            silent = self.reply is None and not upstream.inbox
            self.release(timed_out=timed_out, rst=cut is Then.RST)
            if timed_out:  # others to the same target would lead into the same silence; a new one is tried elsewhere
                upstream.lane.clear()
        if self.reply is not None:
            if cut is None:
                _count_failure(target, error, timed_out)
            self._cut_off()
            return
        again = self.failures < self.site.upstream.retries and bool(self.request)
        if established:
            again = again and silent and ask.idempotent and not timed_out
        if again and stale:
            self.site.statistics.retried += 1
            self.ask_target(target)
            return
        if error is not None and error.errno in EXHAUSTED and not established:
            self._exhausted(error)
            return
        if cut is None:
            _count_failure(target, error, timed_out)
            self.failures += 1
        if again:
            self._try_elsewhere(target, ask)
        else:
            self.answer_self(504 if timed_out else 502, _reason(error, established, timed_out))

    def _exhausted(self, error: OSError) -> None:
        """No descriptor is left for a connection to any target; the client's own is given back with the answer."""
        self.site.worker.tell_exhausted(self.site.config.name, error.errno, "requests are answered 503")
        self.close_after = True
        self.answer_self(503, "no-descriptor")

    def _try_elsewhere(self, target: TargetState, ask: Ask) -> None:
        self.site.statistics.retried += 1
        self.tried = (*self.tried, target.address)
        if target.weight > 0 and ask.pool is not None and len(ask.pool.targets) == 1:
            self.tried = ()  # there is no other to ask
        self.dispatch()

    def _cut_off(self, reason: str = "answer-cut-off") -> None:
        """The answer will not be completed, and the client must be able to tell: by a length that is not reached, or
        where only the end of the connection says where the answer ends, by a reset."""
        self.reason = reason
        if isinstance(self.answer, UntilClose) and self.ends_by_close:
            self.abort()
            return
        self.close_after = True
        self.finish()

    def cut(self, then: Then) -> None:
        """See Core."""
        if then is not Then.LEAVE and self.upstream is not None:
            self.target_failed(None, cut=then)

    # the client's connection ------------------------------------------------------------------------------------

    def end_tunnel(self, *, rst: bool, timed_out: bool) -> None:
        """See Core."""
        if rst:
            self.abort(timed_out=timed_out)
            return
        self.close_after = True
        if self.upstream is not None:
            self.release(timed_out=timed_out)
        self._count()
        self.end(timed_out=timed_out)

    def client_ended(self) -> None:
        """See Core. Half-closed clients get their answers; what can get none any more is given up."""
        if self.phase <= HEAD:
            self.end()
        elif self.body is not None:  # its rest will never come
            self._leave()
            self.abort()

    def vanished(self) -> None:
        """See Core."""
        if self.phase == ENDED:
            return
        self._leave()
        self.abort()

    def _leave(self) -> None:
        """The client is gone: if it had no answer yet, that is a 499."""
        if WAITING <= self.phase <= EXCHANGE and self.reply is None and not self.own:
            self.own, self.status, self.reason = True, CLIENT_GONE, "client-gone"

    def abort(self, *, timed_out: bool = False) -> None:
        """See Core."""
        if self.upstream is not None:
            self.release(rst=True)
        busy = WAITING <= self.phase <= EXCHANGE or self.phase == TUNNEL
        self._leave_loop()
        if busy:
            self._count()
        self.loop.closed(self.fd)  # what this turn still holds for it is not for who gets its number next
        how = closing.reset(self.sock)
        closing.count(self.site.statistics.closes, how, timed_out)
        self._closed(how)

    def end(self, *, timed_out: bool = False) -> None:
        """See Core. Where the answer ends with the connection, the client must not be waited for."""
        site = self.site
        policy = site.client.close
        linger = self.unread or bool(self.inbox) or (self.readable and not self.half_closed and not self.tls)
        if policy is ClientClose.PEER and self.ends_by_close:
            policy = ClientClose.FIN
        self._leave_loop()
        if policy is ClientClose.FIN and not linger and not self.tls:  # what happens most, without more ado
            how = closing.first(self.sock)
            closing.close(self.loop, self.sock)
            closing.count(site.statistics.closes, how, timed_out)
            self._closed(how)
            return
        closing.end_client(
            self.loop,
            self.sock,
            policy,
            site.statistics.closes,
            close_wait=site.client.close_wait,
            linger=linger,
            timed_out=timed_out,
            done=self._closed,
        )

    def _leave_loop(self) -> None:
        self.phase = ENDED
        self.outbox = self.inbox = b""
        self.site.clients.discard(self)
        self.loop.unguard(self)
        if self.private is not None:
            self.private.end()
            self.private = None

    def _closed(self, how: str) -> None:
        self.site.listener.release()
        if self.record is not None and self.site.log is not None:
            self.record.closed_by = how
            self.site.log.write(self.record)
            self.record = None

    def drain(self, now: float, grace: float) -> None:
        """The worker drains: an idle connection ends soon, another with its next answer."""
        if self.phase == IDLE:
            self.deadline = min(self.deadline, now + grace)
        elif WAITING <= self.phase <= EXCHANGE and self.reply is None:
            self.phase, self.close_after = EXCHANGE, True

    def crashed(self) -> None:
        """See Core. It may have left anything half done: neither end may be left waiting, nor counted for ever."""
        mine = self.phase != ENDED or getattr(self.loop.handler_of(self.fd), "__self__", None) is self
        try:
            if self.phase != ENDED:
                self.abort()
        finally:
            upstream, target = self.upstream, self.target
            self.upstream = None
            if target is not None and self in target.connections:
                target.connections.discard(self)
                target.statistics.active -= 1
            if upstream is not None:
                upstream.end(rst=True)
            if mine and self.sock.fileno() >= 0:
                self._leave_loop()
                self.loop.closed(self.fd)
                closing.count(self.site.statistics.closes, closing.reset(self.sock))
                self.site.listener.release()

    def stop(self) -> None:
        """Ends at once."""
        if self.phase not in (TUNNEL, ENDED):
            self.abort()


def _count_failure(target: TargetState, error: OSError | None, timed_out: bool) -> None:
    statistics = target.statistics
    number = error.errno if error is not None else 0
    if timed_out or number == errno.ETIMEDOUT:
        statistics.timed_out += 1
    elif number == errno.ECONNREFUSED:
        statistics.refused += 1
    elif number == errno.EADDRNOTAVAIL:
        statistics.no_port += 1
    else:
        statistics.failed += 1


def _reason(error: OSError | None, established: bool, timed_out: bool) -> str:
    """Why there is no answer, for the access log."""
    if timed_out:
        return "read-timeout" if established else "connect-timeout"
    if error is None:
        return "target-closed"
    if error.errno == errno.ECONNREFUSED:
        return "target-refused"
    return "no-port" if error.errno == errno.EADDRNOTAVAIL else "target-failed"
