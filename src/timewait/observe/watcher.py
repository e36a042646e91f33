"""What the kernel says of a load test, second by second: `Watcher.snapshot`."""

from __future__ import annotations

import time
from collections.abc import Sequence

from timewait.observe import addresses, counters, limits
from timewait.observe.netlink import NetlinkError
from timewait.observe.port_use import Place, PortLedger, PortRange, Sources, filter_for
from timewait.observe.sock_diag import CONNECTED, Address, Listener, SockDiag
from timewait.run import PortUse, Snapshot

_SHARE = 0.02  # of one core, at most, for reading the socket table: watching must not become the load
_LONGEST = 3.0  # seconds a reading of the socket table may be old, however dear it is


class Watcher:
    """Looks at the sockets toward some destinations, and at the counters of this thread's network namespace.

    `destinations` are numeric addresses and ports; `sources` the local addresses that will be used (none: the one
    the kernel chooses for each destination); `low`..`high` the source ports, `reserved` those of them that
    ip_local_reserved_ports withholds. Nothing is raised: what cannot be read stays empty in the snapshot and is told
    in `unreadable`, one sentence each.

    A dump costs a quarter of a microsecond per socket and visits those of all namespaces. When one costs more than
    2 % of the time since the last, the snapshots in between repeat its port counts; all else is always new.
    """

    def __init__(
        self, destinations: Sequence[tuple[str, int]], sources: Sequence[str], low: int, high: int, reserved: int
    ) -> None:
        self.unreadable: list[str] = []
        self._ports = PortRange(low, high, reserved)
        self._diag: SockDiag | None = None
        self._places: list[Place] = []
        self._last: list[PortUse] = []
        self._dump_again = float("-inf")
        try:
            self._diag = SockDiag()
            self._places = [_place(*pair, sources) for pair in dict.fromkeys(destinations)]
        except NetlinkError as problem:
            self._note(str(problem))
        self._where = filter_for(self._places)

    def __enter__(self) -> Watcher:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        if self._diag is not None:
            self._diag.close()

    def snapshot(self, at: float, pids: Sequence[int] = (), *, fresh: bool = False) -> Snapshot:
        """What is true now, `at` seconds into the run. `pids`: processes whose open files count.

        `fresh` reads the socket table whatever it costs, for the first and the last look.
        """
        begun = time.perf_counter()
        snapshot = Snapshot(at=at)
        try:
            self._look(snapshot, fresh)
        except NetlinkError as problem:
            self._note(str(problem))
        try:
            snapshot.counters = counters.read_counters()
        except OSError as problem:
            self._note(f"the TCP counters in /proc/net/snmp cannot be read: {problem.strerror}")
        tracked = counters.read_conntrack()
        if tracked is not None:
            snapshot.conntrack, snapshot.conntrack_max = tracked
        if pids:
            snapshot.open_files = limits.most_open_files(pids)
        snapshot.cost = time.perf_counter() - begun
        return snapshot

    def _look(self, snapshot: Snapshot, fresh: bool) -> None:
        if self._diag is None or not self._places:
            return
        listeners = self._diag.listeners()
        fullest = _fullest([one for place in self._places if place.here for one in _serving(listeners, place)])
        if fullest is not None:
            snapshot.accept_queue, snapshot.accept_queue_max = fullest.queue, fullest.limit
        if fresh or snapshot.at >= self._dump_again or not self._last:
            begun = time.thread_time()  # CPU, not wall: what a busy machine takes from us is no cost of the dump
            ledger = self._diag.fold(CONNECTED, self._where, lambda: PortLedger(self._places, self._ports))
            self._last = ledger.uses({one.port for one in listeners})
            cost = time.thread_time() - begun
            self._dump_again = snapshot.at + min(cost / _SHARE, _LONGEST)
        snapshot.ports = self._last

    def _note(self, sentence: str) -> None:
        if sentence not in self.unreadable:
            self.unreadable.append(sentence)


def _place(address: str, port: int, sources: Sequence[str]) -> Place:
    """Raises NetlinkError where the routing table cannot be asked."""
    where = addresses.destination(address, port)
    ours: list[Address] = [addresses.effective(text) for text in sources]
    ours = [source for source in ours if source.version == where.address.version]
    if not ours:
        chosen = addresses.source_toward(where.address)
        ours = [chosen] if chosen is not None else []
    return Place(where, Sources(ours), addresses.is_here(where.address))


def _serving(listeners: Sequence[Listener], place: Place) -> list[Listener]:
    """Listeners that may get a connection to this place: those of the very address before the wildcards."""
    able = [one for one in listeners if one.port == place.where.port and one.accepts(place.where.address)]
    return [one for one in able if one.address == place.where.address] or able


def _fullest(listeners: Sequence[Listener]) -> Listener | None:
    """With SO_REUSEPORT several listeners share a port: the fullest is the first to overflow."""
    return max(listeners, key=lambda one: one.queue / max(1, one.limit), default=None)
