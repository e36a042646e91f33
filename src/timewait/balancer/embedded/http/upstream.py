"""Connections to targets: those in use, and those kept for later."""

from __future__ import annotations

import errno
import socket
from typing import TYPE_CHECKING

from timewait.balancer.config.model import UpstreamClose
from timewait.balancer.embedded.closing import end_target
from timewait.balancer.embedded.http.core import HEAD_READ, WAITING
from timewait.balancer.embedded.http.heads import LONGEST_HEAD, Reply
from timewait.balancer.embedded.loop import BROKEN, IN, NEVER, OUT, PEER_CLOSED, READ, READ_AND_WRITE
from timewait.balancer.embedded.sources import EXHAUSTED
from timewait.balancer.http.grammar import END

if TYPE_CHECKING:
    from timewait.balancer.embedded.http.core import Core
    from timewait.balancer.embedded.http.site import Site
    from timewait.balancer.embedded.state import TargetState


class Upstream:
    """A connection to a target. One client uses it at a time, or none."""

    __slots__ = (
        "carried", "client", "deaf", "ending", "error", "established", "fd", "idle_since", "inbox", "lane", "outbox",
        "owner", "readable", "recv", "send", "sock", "watches_out",
    )  # fmt: skip

    def __init__(self, lane: Lane, sock: socket.SocketType, established: bool) -> None:
        self.lane, self.sock, self.fd = lane, sock, sock.fileno()
        self.recv, self.send = sock.recv, sock.send
        self.client: Core | None = None
        self.owner: Core | None = None  # the one client it may ever serve
        self.established = established
        self.carried = 0  # requests
        self.inbox = b""  # a part of an answer's head
        self.outbox: bytes | memoryview = b""  # of a request, what send() did not take
        self.readable = False  # there may be more in the socket, which was not read for the client takes no more
        self.ending = False  # the target's FIN or RST is here, what came before it may be unread
        self.deaf = False  # it takes no more of the request; its answer may still come ...
        self.error: OSError | None = None  # ... and why
        self.watches_out = not established
        self.idle_since = 0.0

    def on_event(self, events: int) -> None:
        """THE HOT PATH of an answer: what is whole in one read is passed on at once."""
        client = self.client
        if client is None or client.phase != WAITING or events != IN:
            self._event(events)
            return
        try:
            data = self.recv(HEAD_READ)
        except BlockingIOError:
            return
        except OSError as error:
            client.target_failed(error)
            return
        head = data.find(END) + 4
        key = data[:head]
        assert client.ask is not None
        reply = client.known.get(key) or client.ask.answers.learn(key if 4 <= head <= LONGEST_HEAD else b"", data)
        if isinstance(reply, Reply) and reply.total == len(data):
            client.answered(reply, data, head)
        else:
            client.received(data, HEAD_READ)

    def _event(self, events: int) -> None:
        client = self.client
        if client is None:
            self._idle_event(events)
            return
        if not self.established:
            if events & BROKEN:
                number = self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) or errno.ECONNREFUSED
                client.target_failed(OSError(number, errno.errorcode.get(number, "")))
                return
            if not events & OUT:
                return
            self.arrived()
        if events & (IN | PEER_CLOSED | BROKEN):
            self.readable = True
            self.ending = self.ending or bool(events & (PEER_CLOSED | BROKEN))
        if events & OUT and self.outbox:
            self.flush()
            client.arm()
        client.go_on()

    def _idle_event(self, events: int) -> None:
        """Nobody waits for an answer: it ends, or says what nobody asked."""
        if events & ~OUT:
            self.lane.lose(self)

    def arrived(self) -> None:
        """connect() has succeeded."""
        self.established = True
        self.lane.target.statistics.connected += 1
        if self.client is not None:
            self.client.connecting = self.lane.site.loop.now - self.client.connected
            self.client.arm()

    def write(self, data: bytes) -> None:
        """Sends, or keeps what is not taken. A target that takes no more may yet have answered: see `deaf`."""
        if self.outbox:
            self.outbox = b"".join((self.outbox, data))
        elif not self.deaf:
            self._send(data)

    def flush(self) -> None:
        """Sends what waits."""
        data, self.outbox = self.outbox, b""
        self._send(data)

    def _send(self, data: bytes | memoryview) -> None:
        try:
            sent = self.send(data)
        except BlockingIOError:
            sent = 0
        except OSError as error:
            self.deaf = self.readable = self.ending = True
            self.error = error
            return
        if sent and not self.established:
            self.arrived()
        if sent < len(data):
            self.outbox = memoryview(data)[sent:]
            if not self.watches_out:
                self.watches_out = True
                self.lane.site.loop.change(self.fd, READ_AND_WRITE)

    def is_alive(self) -> bool:
        """Whether a kept connection has neither ended nor said anything since."""
        try:
            self.sock.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return True
        except OSError:
            pass
        return False

    def end(self, *, timed_out: bool = False, rst: bool = False) -> None:
        """Ends the connection as configured; `rst`: with a reset whatever is configured."""
        loop = self.lane.site.loop
        self.client = None
        if self.established:
            policy = UpstreamClose.RST if rst else self.lane.close
            end_target(loop, self.sock, policy, self.lane.target.statistics.closes, timed_out=timed_out)
        else:  # what never was a connection has no end to count
            loop.closed(self.fd)
            self.sock.close()

    def crashed(self) -> None:
        """A bug, while somebody waits for an answer, or nobody."""
        client = self.client
        if client is not None:
            client.crashed()
        elif self.sock.fileno() >= 0:
            if self in self.lane.idle:
                self.lane.idle.remove(self)
            if self.owner is not None and self.owner.private is self:
                self.owner.private = None
            self.end(rst=True)

    def __repr__(self) -> str:
        return f"<upstream {self.lane.target.address} fd {self.fd}: {self.carried} requests, for {self.client}>"


class Lane:
    """The way from one listener to one target: connections kept for later, last in, first out."""

    __slots__ = ("close", "deadline", "idle", "site", "target")

    def __init__(self, site: Site, target: TargetState) -> None:
        self.site, self.target = site, target
        self.close = site.upstream.close
        self.idle: list[Upstream] = []
        self.deadline = NEVER  # when the one that was idle for longest is to be ended, or earlier
        site.loop.guard(self)

    def open(self) -> Upstream:
        """A new connection, on its way. Raises OSError."""
        statistics, connect = self.target.statistics, self.site.listener.sources.connect
        statistics.connects += 1
        try:
            sock, established = connect(self.target.family, self.target.destination)
        except OSError as error:
            if error.errno not in EXHAUSTED or not self.site.worker.make_room():
                raise
            sock, established = connect(self.target.family, self.target.destination)
        if established:
            statistics.connected += 1
        return Upstream(self, sock, established)

    def watch(self, upstream: Upstream) -> None:
        """Has the loop look after a new connection, once the first send() has told whether it stands."""
        events = READ_AND_WRITE if upstream.outbox or not upstream.established else READ
        upstream.watches_out = events == READ_AND_WRITE
        self.site.loop.watch(upstream.fd, events, upstream.on_event)

    def keep(self, upstream: Upstream, now: float) -> None:
        """Keeps a connection that waits for nothing."""
        if len(self.idle) >= self.site.upstream.pool_max or self.target.weight <= 0:
            upstream.end()
            return
        upstream.idle_since = now
        if not self.idle:
            self.deadline = now + self.site.upstream.idle
        self.idle.append(upstream)

    def lose(self, upstream: Upstream) -> None:
        """A kept connection has ended, or can be used no more."""
        if upstream.owner is not None:
            upstream.owner.private = None
        else:
            self.idle.remove(upstream)
        upstream.end()

    def expired(self, now: float) -> None:
        """Ends what was idle for too long."""
        limit = self.site.upstream.idle
        old = 0
        while old < len(self.idle) and self.idle[old].idle_since + limit <= now:
            old += 1
        gone, self.idle[:old] = self.idle[:old], []
        for upstream in gone:
            upstream.end(timed_out=True)
        self.deadline = self.idle[0].idle_since + limit if self.idle else NEVER

    def crashed(self) -> None:
        """A bug: nothing that was kept is trusted any more."""
        self.clear()
        self.site.loop.guard(self)

    def clear(self) -> None:
        """Ends everything that is kept."""
        gone, self.idle = self.idle, []
        self.deadline = NEVER
        for upstream in gone:
            upstream.end()
