"""Layer 4: a client's stream and a target's, passed on as they are, both directions and both ends of each.

One end's FIN is passed on as a FIN and the other direction goes on (half-close, RFC 9293 section 3.6); a reset is
passed on as a reset, once what came before it was delivered. So toward a target it is mostly not the balancer's to
choose who closes first:

| who ends                | TIME_WAIT toward the client       | toward the target                         |
|-------------------------|-----------------------------------|-------------------------------------------|
| client, FIN             | at the client                     | here: its FIN had to be passed on         |
| target, FIN             | as `client.close` says            | at the target                             |
| either, RST             | nowhere                           | nowhere                                   |
| idle timeout, cut, stop | as `client.close` says            | as `upstream.close` says                  |

`client.close` toward a client whose target has ended: `fin` leaves TIME_WAIT here, at the port that listens;
`fin-rst` leaves none, and what the client still sends is lost; `peer` leaves it to the client, if that ends within
`close_wait`, and passes the FIN on else. What was read and not taken by the other side is all that is held: at most
one read for each direction.
"""

from __future__ import annotations

import errno
import select
import socket
import time
from typing import Any

from timewait.balancer.config.effective import idle, real_ip_mode
from timewait.balancer.config.model import ClientClose, RealIpMode, Then, UpstreamClose
from timewait.balancer.embedded import closing, proxy_protocol
from timewait.balancer.embedded.access_log import Record, endpoint
from timewait.balancer.embedded.flow import NOTHING, Flow
from timewait.balancer.embedded.loop import READ_AND_WRITE
from timewait.balancer.embedded.sources import EXHAUSTED
from timewait.balancer.embedded.state import ListenerState, PoolState, TargetState

Endpoint = tuple[str, int]
READABLE = select.EPOLLIN | select.EPOLLRDHUP | select.EPOLLHUP | select.EPOLLERR
ENDING = select.EPOLLRDHUP | select.EPOLLHUP | select.EPOLLERR
FAILED = select.EPOLLHUP | select.EPOLLERR


def serve(
    listener: ListenerState, sock: Any, client: Endpoint, server: Endpoint, initial: bytes, connection_id: int
) -> None:
    """Takes a client's connection over: chooses a target, connects, relays to the end."""
    relay = Relay(listener, sock, client, server, initial, connection_id)
    try:
        relay.connect()
    except Exception:
        relay.crashed()
        raise


class Way:
    """What all relays of a listener have in common, looked up once."""

    def __init__(self, listener: ListenerState) -> None:
        config, worker = listener.config, listener.worker
        self.loop, self.statistics = worker.loop, listener.statistics
        self.pool: PoolState = worker.pools[config.pool]
        self.by_source = self.pool.wants_source
        self.connect = listener.sources.connect
        self.attempts = 1 + config.upstream.retries
        self.connect_timeout = config.upstream.connect_timeout
        self.idle = idle(config)
        self.client_patience = min(self.idle, config.client.send_timeout)
        self.target_patience = min(self.idle, config.upstream.send_timeout)
        self.header = _HEADERS.get(real_ip_mode(config))


class Relay:
    """One client and one target."""

    __slots__ = (
        "address", "broken", "client", "client_how", "connected_at", "deadline", "down", "id", "initial",
        "listener", "loop", "server", "started", "target", "target_how", "tried", "up", "upstream", "way",
    )  # fmt: skip

    def __init__(
        self, listener: ListenerState, client: Any, address: Endpoint, server: Endpoint, initial: bytes, number: int
    ) -> None:
        way = listener.way
        if way is None:
            way = listener.way = Way(listener)
        self.way: Way = way
        self.listener, self.client, self.address, self.server = listener, client, address, server
        self.initial, self.id, self.loop = initial, number, way.loop
        self.started, self.connected_at = way.loop.now, 0.0
        self.tried: tuple[str, ...] = ()
        self.up: Flow = GONE
        self.down: Flow = GONE
        self.target: Any = None
        self.upstream: Any = None
        self.client_how = self.target_how = ""  # who was the first to close, once our FIN went out
        self.broken = False  # the target was reset, and is still read

    # connecting -----------------------------------------------------------------------------------------------

    def connect(self) -> None:
        """Toward the first target that does not fail at once; without one the client is reset."""
        reason, way = "no-target", self.way
        source = packed(self.address[0]) if way.by_source else b""
        while len(self.tried) < way.attempts:
            target = way.pool.choose(source, self.tried)
            if target is None:
                break
            self._take(target)
            try:
                self.upstream, _ = way.connect(target.family, target.destination)
            except OSError as error:
                if error.errno in EXHAUSTED and self.listener.worker.make_room():
                    self._leave_target()
                    self.tried = self.tried[:-1]
                    continue
                reason = self._failed(error.errno)
                if error.errno in EXHAUSTED:  # so it would be with any other
                    break
                continue
            self.deadline = way.loop.now + way.connect_timeout
            way.loop.watch(self.upstream.fileno(), READ_AND_WRITE, self._connected)
            way.loop.guard(self)
            return
        self._reject(reason)

    def _take(self, target: TargetState) -> None:
        self.target = target
        self.tried = (*self.tried, target.address)
        statistics = target.statistics
        statistics.connects += 1
        statistics.active += 1
        target.connections.add(self)

    def _leave_target(self) -> None:
        self.loop.unguard(self)
        self.target.statistics.active -= 1
        self.target.connections.discard(self)

    def _failed(self, number: int | None) -> str:
        """A connect() that failed, counted by what it failed with, unless it is the balancer that has run out."""
        if number in EXHAUSTED:
            self.listener.worker.tell_exhausted(self.listener.config.name, number, "clients are reset")
            self._leave_target()
            return "no-descriptor"
        field = _FAILURES.get(number or 0, "failed")
        setattr(self.target.statistics, field, getattr(self.target.statistics, field) + 1)
        self._leave_target()
        return f"connect-{field}".replace("_", "-")

    def _connected(self, events: int) -> None:
        if events & FAILED:
            number = self.upstream.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if number or not events & select.EPOLLOUT:
                self._try_another(number)
                return
        way, loop, statistics = self.way, self.loop, self.target.statistics
        self.connected_at = loop.now
        self.deadline = loop.now + way.idle
        statistics.connected += 1
        statistics.requests += 1
        self.up = Flow(self, self.client, self.upstream, way.target_patience, True)
        self.down = Flow(self, self.upstream, self.client, way.client_patience, False)
        loop.hand_over(self.upstream.fileno(), self._target_ready)
        loop.watch(self.client.fileno(), READ_AND_WRITE, self._client_ready)  # tells what came meanwhile
        first = self.initial if way.header is None else way.header(self.address, self.server) + self.initial
        if first:
            self.up.send_first(first)
        if events & READABLE and not self.down.stopped:
            self._target_ready(events)

    def _try_another(self, number: int) -> None:
        self.loop.closed(self.upstream.fileno())
        self.upstream.close()
        reason = self._failed(number)
        if len(self.tried) < self.way.attempts:
            self.connect()
        else:
            self._reject(reason)

    def _reject(self, reason: str) -> None:
        self.client_how = closing.reset(self.client)
        closing.count(self.listener.statistics.closes, self.client_how)
        self.listener.release()
        self._log(reason)

    # relaying -------------------------------------------------------------------------------------------------

    def _client_ready(self, events: int) -> None:
        if self.down.pending:
            self.down.flush()
        if events & READABLE and not self.up.ended:
            self.up.pump(bool(events & ENDING))
        self._touch()

    def _target_ready(self, events: int) -> None:
        if self.up.pending:
            self.up.flush()
        if events & READABLE and not self.down.ended:
            self.down.pump(bool(events & ENDING))
        self._touch()

    def _touch(self) -> None:
        """Something happened; what is stuck in one direction has its own limit, whatever the other one does."""
        if not self.up.pending and not self.down.pending:
            self.deadline = self.loop.now + self.way.idle

    def stuck(self, flow: Flow) -> None:
        """The receiver takes no more; it is given its send_timeout from here, or from the last byte it took."""
        self.deadline = self.loop.now + flow.patience

    def moved(self, flow: Flow, size: int) -> None:
        """So many bytes were taken by the receiver."""
        ours, theirs = self.way.statistics, self.target.statistics
        if flow.upward:
            ours.bytes_in += size
            theirs.bytes_out += size
        else:
            ours.bytes_out += size
            theirs.bytes_in += size

    # ending ---------------------------------------------------------------------------------------------------

    def ended(self, flow: Flow) -> None:
        """The sender's FIN came, and everything before it was passed on."""
        if self.broken:
            self.lost(flow, source=True)
        elif self.up.ended and self.down.ended:
            self._finish()
        elif flow.upward:
            self.target_how = closing.shut(self.upstream)
        elif self.listener.config.client.close is ClientClose.FIN:
            self.client_how = closing.shut(self.client)
        elif self.listener.config.client.close is ClientClose.FIN_RST:
            self._end(ClientClose.FIN_RST, UpstreamClose.FIN)
        else:
            self.loop.after(self.listener.config.client.close_wait, self._client_overdue)

    def _client_overdue(self) -> None:
        """A client that should close first did not."""
        if not self.client_how and not self.down.stopped:
            self.client_how = closing.shut(self.client)

    def _finish(self) -> None:
        """Both directions have ended: nothing to be sent or read any more."""
        client_how = self.client_how or closing.PEER_FIN  # without our FIN it was theirs
        target_how = self.target_how or closing.PEER_FIN
        closing.close(self.loop, self.client)
        closing.close(self.loop, self.upstream)
        closing.count(self.target.statistics.closes, target_how)
        self._target_gone()
        closing.count(self.listener.statistics.closes, client_how)
        self._client_gone(client_how)

    def lost(self, flow: Flow, *, source: bool) -> None:
        """A socket failed: its peer reset it, or does not answer any more. The other side is reset."""
        if flow.upward is source:
            self._pass_reset(self.client, self.upstream)
        elif not flow.upward:
            self._pass_reset(self.upstream, self.client)
        elif not self.broken:  # the target takes nothing; what it has sent before is still passed on
            self.broken = True
            self.up.stop()
            self.down.pump()

    def _pass_reset(self, failed: Any, other: Any) -> None:
        closes, gone = self.listener.statistics.closes, self.target.statistics.closes
        closing.close(self.loop, failed)
        self._target_gone()
        if failed is self.client:
            closing.count(closes, closing.PEER_RST)
            closing.reset_once_delivered(self.loop, other, gone)
            self._client_gone(closing.PEER_RST)
        else:
            closing.count(gone, closing.PEER_RST)
            closing.reset_once_delivered(self.loop, other, closes, done=self._client_gone)

    def expired(self, now: float) -> None:
        """connect_timeout, send_timeout or the idle timeout is over."""
        if not self.connected_at:
            self._try_another(errno.ETIMEDOUT)
        elif self.down.pending:
            self._reset(timed_out=True)  # the client does not read: a FIN would wait behind what it does not take
        else:
            config = self.listener.config
            self._end(config.client.close, config.upstream.close, timed_out=True)

    def cut(self, then: Then) -> None:
        """The supervisor ends it."""
        if then is Then.LEAVE:
            return
        if not self.connected_at:
            closing.close(self.loop, self.upstream)
            self._leave_target()
            self._reject("cut")
        elif then is Then.FIN:
            self._end(ClientClose.FIN, UpstreamClose.FIN)
        else:
            self._reset()

    def crashed(self) -> None:
        """A bug, which may have left anything half done: both ends are reset, what was counted in is counted out."""
        self.up.stop()
        self.down.stop()
        if self.upstream is not None and self.upstream.fileno() >= 0:
            self.loop.closed(self.upstream.fileno())
            closing.count(self.target.statistics.closes, closing.reset(self.upstream))
        if self.target is not None and self in self.target.connections:
            self._leave_target()
        if self.client.fileno() >= 0:
            self.loop.closed(self.client.fileno())
            closing.count(self.listener.statistics.closes, closing.reset(self.client))
            self._client_gone(closing.BALANCER_RST)

    def _end(self, client: ClientClose, upstream: UpstreamClose, timed_out: bool = False) -> None:
        """Ends both sides as configured."""
        closing.end_target(
            self.loop,
            self.upstream,
            upstream,
            self.target.statistics.closes,
            timed_out=timed_out,
            how=self.target_how,
        )
        self._target_gone()
        closing.end_client(
            self.loop,
            self.client,
            client,
            self.listener.statistics.closes,
            close_wait=self.listener.config.client.close_wait,
            linger=not self.up.ended,
            timed_out=timed_out,
            done=self._client_gone,
            how=self.client_how,
        )

    def _reset(self, timed_out: bool = False) -> None:
        for sock, closes in (
            (self.upstream, self.target.statistics.closes),
            (self.client, self.listener.statistics.closes),
        ):
            self.loop.closed(sock.fileno())
            closing.count(closes, closing.reset(sock), timed_out)
        self._target_gone()
        self._client_gone(closing.BALANCER_RST)

    def _target_gone(self) -> None:
        self.up.stop()
        self.down.stop()
        self._leave_target()

    def _client_gone(self, how: str) -> None:
        self.client_how = how
        self.listener.release()
        self._log("")
        self.up = self.down = GONE  # they refer to this object, and would keep it and each other

    def _log(self, reason: str) -> None:
        log = self.listener.worker.log
        if log is None:
            return
        now = self.loop.now
        record = Record(
            time=time.time(),
            listener=self.listener.config.name,
            client=endpoint(*self.address) if self.address[0] else "unix",
            connection=self.id,
            reason=reason,
            made_by="balancer" if reason else "target",
            target=self.tried[-1] if self.tried else "",
            retries=max(0, len(self.tried) - 1),
            bytes_in=self.up.total,
            bytes_out=self.down.total,
            seconds=round(now - self.started, 6),
            connect_seconds=round(self.connected_at - self.started, 6) if self.connected_at else 0.0,
            closed_by=self.client_how,
        )
        log.write(record)


class _Gone:
    """Stands for the flows of a connection that is over."""

    ended = stopped = True
    pending = NOTHING
    total = 0

    def stop(self) -> None:
        pass


GONE: Any = _Gone()
_HEADERS = {RealIpMode.PROXY_V1: proxy_protocol.v1, RealIpMode.PROXY_V2: proxy_protocol.v2}
_FAILURES = {errno.ECONNREFUSED: "refused", errno.ETIMEDOUT: "timed_out", errno.EADDRNOTAVAIL: "no_port"}


def packed(address: str) -> bytes:
    """An address as ip_hash and sessions take it; empty for a client of a unix socket."""
    if not address:
        return b""
    return socket.inet_pton(socket.AF_INET6 if ":" in address else socket.AF_INET, address)
