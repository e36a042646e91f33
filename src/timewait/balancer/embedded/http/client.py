"""A client's connection: where its events come in."""

from __future__ import annotations

from timewait.balancer.embedded.http.answers import Answers
from timewait.balancer.embedded.http.core import FLUSHING, HEAD, HEAD_READ, IDLE
from timewait.balancer.embedded.http.ends import Ends
from timewait.balancer.embedded.http.heads import LONGEST_HEAD, Ask
from timewait.balancer.embedded.http.requests import Requests
from timewait.balancer.embedded.loop import BROKEN, IN, OUT, PEER_CLOSED
from timewait.balancer.http.grammar import END, Refusal


class Client(Requests, Answers, Ends):
    """See core.py."""

    __slots__ = ()

    def on_event(self, events: int) -> None:
        """THE HOT PATH of a request: a simple one, alone in one read, is passed on at once."""
        if self.phase != IDLE or events != IN or self.tls:
            self._event(events)
            return
        try:
            data = self.recv(HEAD_READ)
        except BlockingIOError:
            return
        except OSError:
            self.vanished()
            return
        ask: Ask | Refusal | None = self.asks.get(data)
        if ask is None and 0 <= data.find(END) == len(data) - 4 < LONGEST_HEAD:
            ask = self.site.asks.learn(data, data)
        if isinstance(ask, Ask) and ask.simple and not self.site.counts:
            self.begin_simple(ask)
        elif not data:
            self.half_closed = True
            self.client_ended()
        else:
            self.readable = len(data) == HEAD_READ
            self.inbox = data
            self.process()

    def _event(self, events: int) -> None:
        if events & BROKEN:
            self.vanished()
            return
        if events & (IN | PEER_CLOSED):
            self.readable = True
            self.half_closed = self.half_closed or bool(events & PEER_CLOSED)
        if self.outbox and (events & OUT or self.tls):
            self.flush()
        if self.phase <= HEAD:
            self.process()
        elif self.phase != FLUSHING:
            self.go_on()
        elif not self.outbox:
            self.flushed()

    def __repr__(self) -> str:
        phase = ("idle", "head", "waiting", "exchange", "flushing", "tunnel", "ended")[self.phase]
        return f"<client {self.peer} fd {self.fd}: {phase}, request {self.requests}, {self.upstream}>"
