"""The HTTP/1.1 proxy of one worker."""

from __future__ import annotations

from typing import TYPE_CHECKING

from timewait.balancer.embedded.http.client import Client
from timewait.balancer.embedded.http.core import IDLE
from timewait.balancer.embedded.http.heads import Kinds
from timewait.balancer.embedded.http.site import Site
from timewait.balancer.embedded.loop import READ, READ_AND_WRITE

if TYPE_CHECKING:
    from socket import SocketType

    from timewait.balancer.embedded.state import ListenerState, PoolState, Worker

DRAIN_GRACE = 1.0  # seconds an idle connection gets to send one more request when the worker drains: it may be on its
# way, and would be lost if we closed at once (RFC 9112, 9.6); who did not use the connection for that long will retry


class HttpProxy:
    """Takes accepted connections and serves them until they end."""

    def __init__(self, worker: Worker) -> None:
        self._worker, self._kinds = worker, Kinds()
        self._sites: dict[ListenerState, Site] = {}
        worker.make_room = self._make_room

    def accept(
        self,
        listener: ListenerState,
        sock: SocketType,
        client: tuple[str, int],
        server: tuple[str, int],
        initial: bytes,
        connection_id: int,
    ) -> None:
        """Serves a client. `sock` is connected and non-blocking, TLS is established, a PROXY header was taken off;
        `initial` is what was read behind it; `client` and `server` are the addresses as believed."""
        site = self._sites.get(listener) or self._site(listener)
        found = Client(site, sock, client, server, initial, connection_id)
        loop = site.loop
        loop.watch(found.fd, READ_AND_WRITE if found.tls else READ, found.on_event)  # may raise; nobody has it yet
        site.clients.add(found)
        found.deadline = loop.now + site.client.header_timeout
        loop.guard(found)
        if initial or found.tls:
            found.process()

    def drain(self) -> None:
        """No connection outlives its next answer; idle ones end after a moment."""
        for site in self._sites.values():
            site.renew()
            now = site.loop.now
            for client in site.clients:
                client.drain(now, DRAIN_GRACE)

    def rotated(self, pool: PoolState) -> None:
        """Weights changed, or targets came or left."""
        for site in self._sites.values():
            site.rotated()

    def stop(self) -> None:
        """Ends everything at once."""
        for site in self._sites.values():
            for tunnel in list(site.tunnels):
                tunnel.end(rst=True)
            for client in list(site.clients):
                client.stop()
            for lane in site.lanes.values():
                lane.clear()

    def count(self) -> None:
        """Brings the gauges of idle connections up to date; they are not worth a count per request."""
        for site in self._sites.values():
            site.statistics.idle = sum(client.phase == IDLE and client.requests > 0 for client in site.clients)
        kept: dict[str, int] = {}
        for site in self._sites.values():
            for target, lane in site.lanes.items():
                key = f"{target.pool}/{target.address}"
                kept[key] = kept.get(key, 0) + len(lane.idle)
        for key, statistics in self._worker.statistics.targets.items():
            statistics.idle = kept.get(key, 0)

    def _make_room(self) -> bool:
        return any(site.make_room() for site in self._sites.values())

    def _site(self, listener: ListenerState) -> Site:
        site = self._sites[listener] = Site(self._worker, listener, self._kinds)
        return site
