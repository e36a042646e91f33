"""After 101, or 2xx to CONNECT: bytes in both directions, each ending by itself."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

from timewait.balancer.config.effective import idle
from timewait.balancer.config.model import Then
from timewait.balancer.embedded.http.core import BLOCKED, ENDED, READ, TUNNEL, TURNS
from timewait.balancer.embedded.loop import BROKEN, IN, PEER_CLOSED, READ_AND_WRITE

if TYPE_CHECKING:
    from collections.abc import Callable

    from timewait.balancer.embedded.http.core import Core
    from timewait.balancer.embedded.http.upstream import Upstream


class _Way:
    """One direction."""

    __slots__ = ("over", "passed", "readable", "recv", "rest", "send", "shut", "sure")

    def __init__(self, recv: Callable[[int], bytes], send: Callable[[bytes | memoryview], int]) -> None:
        self.recv, self.send = recv, send
        self.rest: bytes | memoryview = b""  # what send() did not take
        self.readable = True
        self.sure = False  # fewer bytes than asked for do not say that there are no more (TLS, a FIN behind them)
        self.over = False  # the end was read
        self.shut = False  # ... and passed on
        self.passed = 0

    def pump(self) -> bool:
        """Moves bytes; whether there may be more to move at once. Raises OSError."""
        for _ in range(TURNS):
            if self.rest:
                data, self.rest = self.rest, b""
                self._send(data)
                if self.rest:
                    return False
            if self.over or not self.readable:
                return False
            try:
                data = self.recv(READ)
            except BLOCKED:
                self.readable = False
                return False
            self.readable = len(data) == READ or self.sure
            if not data:
                self.over = True
                return False
            self._send(data)
        return True

    def _send(self, data: bytes | memoryview) -> None:
        try:
            sent = self.send(data)
        except BLOCKED:
            sent = 0
        self.passed += sent
        if sent < len(data):
            self.rest = memoryview(data)[sent:]


class OpenTunnel:
    """A client and a target that speak past us."""

    __slots__ = ("_client", "_turning", "deadline", "down", "loop", "seconds", "up", "upstream")

    def __init__(self, client: Core, upstream: Upstream) -> None:
        self._client, self.upstream, self.loop = client, upstream, client.loop
        self.up = _Way(client.recv, upstream.send)
        self.down = _Way(upstream.recv, client.send)
        self.up.sure = client.tls
        self.seconds = idle(client.site.config)
        self.deadline = self.loop.now + self.seconds
        self._turning = False

    def begin(self, head: bytes, data: bytes) -> None:
        """Takes both connections over; the client gets the head of the answer, and `data` that came behind it."""
        client, upstream = self._client, self.upstream
        client.phase = TUNNEL
        target = client.target
        assert target is not None
        target.connections.discard(client)
        target.connections.add(self)
        loop = self.loop
        loop.unguard(client)
        loop.guard(self)
        client.site.tunnels.add(self)
        loop.hand_over(client.fd, self._client_event)
        loop.hand_over(upstream.fd, self._target_event)
        loop.change(client.fd, READ_AND_WRITE)
        loop.change(upstream.fd, READ_AND_WRITE)
        self.up.rest, client.inbox = client.inbox, b""
        self.down.rest = b"".join((client.outbox, head, data))
        self.down.passed = len(data) - len(self.down.rest)  # heads do not count
        client.outbox = b""
        self.up.readable = client.readable = True
        self.up.sure = self.up.sure or client.half_closed
        self.down.sure = upstream.ending
        self._pump()

    def _client_event(self, events: int) -> None:
        if events & (IN | PEER_CLOSED | BROKEN):
            self.up.readable = True
            self.up.sure = self.up.sure or bool(events & (PEER_CLOSED | BROKEN))
        self._pump()

    def _target_event(self, events: int) -> None:
        if events & (IN | PEER_CLOSED | BROKEN):
            self.down.readable = True
            self.down.sure = self.down.sure or bool(events & (PEER_CLOSED | BROKEN))
        self._pump()

    def _pump(self) -> None:
        self._turning = False
        if self._client.phase == ENDED:
            return
        self.deadline = self.loop.now + self.seconds
        try:
            more = self.up.pump() | self.down.pump()
            self._pass_ends()
        except OSError:
            self.end(rst=True)
            return
        if self.up.shut and self.down.shut:
            self.end()
        elif more and not self._turning:
            self._turning = True
            self.loop.soon(self._pump)

    def _pass_ends(self) -> None:
        """An end that was read is passed on, behind everything before it. TLS has no half-closed state here."""
        if self.up.over and not self.up.rest and not self.up.shut:
            self.up.shut = True
            if self._client.tls:
                self.down.shut = True
            else:
                self.upstream.sock.shutdown(socket.SHUT_WR)
        if self.down.over and not self.down.rest and not self.down.shut:
            self.down.shut = True
            if self._client.tls:
                self.up.shut = True
            elif not self.up.shut:
                self._client.sock.shutdown(socket.SHUT_WR)

    def expired(self, now: float) -> None:
        """Nothing has moved for too long."""
        self.end(timed_out=True)

    def crashed(self) -> None:
        """A bug."""
        self.loop.unguard(self)
        self._client.site.tunnels.discard(self)
        if self._client.target is not None:
            self._client.target.connections.discard(self)
        self._client.crashed()

    def cut(self, then: Then) -> None:
        """See Core.cut()."""
        if then is not Then.LEAVE:
            self.end(rst=then is Then.RST)

    def end(self, *, rst: bool = False, timed_out: bool = False) -> None:
        """Ends both connections."""
        client = self._client
        if client.phase == ENDED:
            return
        self.loop.unguard(self)
        client.site.tunnels.discard(self)
        if client.target is not None:
            client.target.connections.discard(self)
        client.took, client.passed = self.up.passed, self.down.passed
        client.end_tunnel(rst=rst, timed_out=timed_out)
