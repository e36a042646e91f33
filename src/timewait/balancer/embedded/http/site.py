"""What all HTTP connections of one listener share: its settings, its routes, what was learned of its requests."""

from __future__ import annotations

import socket
from ipaddress import ip_address, ip_network
from typing import TYPE_CHECKING

from timewait.balancer.config.effective import real_ip_mode
from timewait.balancer.config.model import Protocol, RealIpMode, Reuse, SessionType, Tunnel, UpstreamClose
from timewait.balancer.embedded.http.heads import Ask, Asks, Kinds, Own
from timewait.balancer.embedded.http.upstream import Lane
from timewait.balancer.http.grammar import NO_BODY
from timewait.balancer.routing.router import Redirect, Router
from timewait.balancer.routing.sessions import CookieSessions

if TYPE_CHECKING:
    from timewait.balancer.embedded.http.client import Client
    from timewait.balancer.embedded.http.tunnel import OpenTunnel
    from timewait.balancer.embedded.state import ListenerState, PoolState, TargetState, Worker

MOST_PEERS = 4096  # addresses of clients about which is remembered what follows from them
METHODS = b"Allow: GET, HEAD, POST, PUT, DELETE, OPTIONS, PATCH\r\n"  # with 405 (RFC 9110, 15.5.6)


class Site:
    """A listener of HTTP, with or without TLS before it."""

    def __init__(self, worker: Worker, listener: ListenerState, kinds: Kinds) -> None:
        self.worker, self.loop, self.log = worker, worker.loop, worker.log
        self.listener, self.statistics = listener, listener.statistics
        config = listener.config
        self.config, self.client, self.upstream = config, config.client, config.upstream
        self.body_size = config.limits.body_size
        self.peers: dict[str, tuple[bytes, bool, bytes]] = {}
        self.clients: set[Client] = set()
        self.tunnels: set[OpenTunnel] = set()
        self.lanes: dict[TargetState, Lane] = {}
        self.asks = Asks(config.limits, self.complete, kinds)
        self.router = Router(config.rule)
        self.cookies: dict[str, CookieSessions] = {}
        mode = real_ip_mode(config)
        self.xff = mode is RealIpMode.XFF
        self.proxy_version = {RealIpMode.PROXY_V1: 1, RealIpMode.PROXY_V2: 2}.get(mode, 0)
        self.proto = b"https" if config.protocol is Protocol.HTTPS else b"http"
        self.trusted = [ip_network(network, strict=False) for network in config.real_ip.trusted]
        # Whether connections to targets carry more than one request, and from which of a client's requests on they
        # may be another client's (HAProxy's http-reuse: with "safe" not for its first).
        self.keeps = config.upstream.keepalive and config.upstream.reuse is not Reuse.NEVER
        self.reuses_from = 2 if config.upstream.reuse is Reuse.SAFE else 1
        self.asks_close = not self.keeps and config.upstream.close is UpstreamClose.PEER
        self.ends = False  # every answer is the last on its connection
        self.counts = False  # which answer is the last depends on how many there were
        self.renew()

    def renew(self) -> None:
        """The worker has begun to drain, or has other targets."""
        self.ends = self.worker.draining or not self.client.keepalive
        self.counts = self.ends or self.client.max_requests > 0
        self.cookies.clear()

    # of a request -----------------------------------------------------------------------------------------------

    def complete(self, ask: Ask) -> None:
        """What becomes of a request, as far as its head alone tells."""
        head = ask.head
        if head.is_connect and self.config.connect is Tunnel.REFUSE:
            ask.own = Own(405, "connect-refused", fields=METHODS)
        elif head.upgrade is not None and self.config.upgrade is Tunnel.REFUSE:
            ask.own = Own(403, "upgrade-refused")
        else:
            self._route(ask)
        pool = ask.pool
        ask.simple = (
            pool is not None
            and head.framing == NO_BODY
            and head.version == (1, 1)
            and not (head.is_connect or head.trailers or head.forwarded_for or head.forwarded_proto)
            and head.upgrade is None
            and not pool.by_cookie
            and not self.proxy_version
        )

    def _route(self, ask: Ask) -> None:
        head = ask.head
        found = self.router.find(head.host, head.path, head.query)
        if found is None:
            ask.own = Own(404, "no-rule")
        elif isinstance(found, Redirect):
            ask.own = Own(301, location=found.location)
        else:
            ask.pool = self.worker.pools[found.pool]

    def cookie_sessions(self, pool: PoolState) -> CookieSessions | None:
        """Of a pool whose sessions are kept by cookies."""
        session = pool.config.session
        if session.type is not SessionType.COOKIE_INSERT:
            return None
        known = self.cookies.get(pool.config.name)
        if known is None:
            secure = self.proto == b"https"
            known = self.cookies[pool.config.name] = CookieSessions(
                session.cookie, session.ttl, self.worker.key, pool.config.name, list(pool.targets), secure
            )
        return known

    # of a client ------------------------------------------------------------------------------------------------

    def peer(self, address: str) -> tuple[bytes, bool, bytes]:
        """What follows from a client's address: see Core."""
        if len(self.peers) >= MOST_PEERS:
            self.peers.clear()
        known = self.peers[address] = self.packed(address), self.trusts(address), self.tail(address)
        return known

    def packed(self, address: str) -> bytes:
        """An address as ip_hash and sessions take it; empty for a client of a unix socket."""
        if not address:
            return b""
        return socket.inet_pton(socket.AF_INET6 if ":" in address else socket.AF_INET, address)

    def trusts(self, address: str) -> bool:
        """Whether what a client says about those behind it is believed."""
        if not address:
            return True  # by a unix socket: the file's rights decided who may
        if not self.trusted:
            return False
        found = ip_address(address)
        mapped = getattr(found, "ipv4_mapped", None)
        return any((mapped or found) in network for network in self.trusted)

    def trusts_text(self, text: str) -> bool:
        """The same for what stands in a header, which may be anything."""
        try:
            return self.trusts(text)
        except ValueError:
            return False

    def tail(self, address: str) -> bytes:
        """What ends the head of a simple request to a target."""
        lines = b"Connection: close\r\n" if self.asks_close else b""
        if self.xff and address:
            lines += b"X-Forwarded-For: %b\r\n" % address.encode()
        if self.xff:
            lines += b"X-Forwarded-Proto: %b\r\n" % self.proto
        return lines + b"\r\n"

    # of targets -------------------------------------------------------------------------------------------------

    def lane(self, target: TargetState) -> Lane:
        """The way to a target."""
        lane = self.lanes.get(target)
        if lane is None:
            lane = self.lanes[target] = Lane(self, target)
        return lane

    def make_room(self) -> bool:
        """Ends a connection that is kept for later; whether there was one. See Worker."""
        for lane in self.lanes.values():
            if lane.idle:
                lane.idle.pop(0).end(rst=True)
                return True
        return False

    def rotated(self) -> None:
        """Weights changed, or targets left: nothing is kept for those that get nothing new."""
        for target, lane in list(self.lanes.items()):
            if target.weight <= 0:
                lane.clear()
            pool = self.worker.pools.get(target.pool)
            if pool is None or pool.targets.get(target.address) is not target:
                self.loop.unguard(lane)
                del self.lanes[target]
