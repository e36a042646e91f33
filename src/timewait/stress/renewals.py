"""Closing and reopening in one go: the plain case of one request per connection, flat for speed.

Engine.part, .closed, .drop, .next and .start do the same in a dozen calls; at fifteen thousand connections a second
those calls are a tenth of the core. Whatever is not plain leaves through the same doors as there.
"""

from __future__ import annotations

import errno
import socket

from timewait.plan import Closing
from timewait.run import Phase
from timewait.stress.closing import abort
from timewait.stress.connection import CONNECTING, FREE, WAITING, Connection
from timewait.stress.core import READ_EVENTS, SAMPLE_EVERY, Core
from timewait.stress.meters import clock
from timewait.stress.opening import STREAM


class Renewals(Core):
    """The fast path between two connections of a slot."""

    def renewable(self) -> bool:
        """Whether this is the plain case: the closed loop, one request to one place, no wish for the source."""
        plain = self.schedule is None and self.per_connection == 1 and self.tls is None and not self.tcp
        alone = len(self.endpoints) == 1 and len(self.endpoints[0].asks) == 1
        return plain and alone and self.opener.plain and self.closing in (Closing.SERVER, Closing.RESET)

    def renew_all(self, batch: list[Connection]) -> None:
        """All of these have their answer and the end as planned: for SERVER the FIN is here, for RESET it is not.

        Closes them all and then opens all the next ones, whose requests are out of the budget. In this order
        the target's process is woken once per batch instead of once per connect().
        """
        m, by_fd, reset = self.meters, self.by_fd, self.closing is Closing.RESET
        for c in batch:
            sock = c.sock
            del by_fd[sock.fileno()]
            if reset:
                abort(sock)
            sock.close()
            c.state, c.served, c.close_asked, c.established = FREE, 0, False, False
        count = len(batch)
        if reset:
            m.closed_reset += count
            m.reset_by_us += count
        else:
            m.closed_peer += count
        self.held -= count
        for c in batch:
            self.reopen(c)

    def reopen(self, c: Connection) -> None:
        """`start` for the plain case."""
        m, endpoint = self.meters, c.endpoint
        m.started += 1
        try:
            sock = socket.SocketType(endpoint.family, STREAM, 0)
        except OSError as error:
            self.not_opened(c, Phase.BIND, error.errno or 0)
            return
        c.sock = sock
        self.held += 1
        data = c.ask.data
        began = clock()
        code = sock.connect_ex(endpoint.sockaddr)
        called = clock()
        c.due = c.began = began
        if code and code != errno.EINPROGRESS:
            m.search.append(called - began)
            c.state = CONNECTING
            self.not_connected(c, code)
            return
        fd = sock.fileno()
        self.by_fd[fd] = c
        try:
            sent = sock.send(data)
        except OSError as error:
            self.not_sent(c, data, error, called)
            return
        m.quick.append(called - began)
        c.established = True
        m.connected += 1
        self.poll.register(fd, READ_EVENTS)
        if not m.started % SAMPLE_EVERY:
            self.sample(c)
        if sent == len(data):
            m.requests += 1
            m.bytes_out += sent
            c.began, c.state = called, WAITING
            if self.closing is Closing.SERVER:
                m.close_asked += 1
                c.close_asked = True
        else:
            self.sent_in_part(c, data, sent, called)
