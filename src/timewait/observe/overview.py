"""All TCP sockets of this network namespace, by direction, end and state: what `timewait watch` shows.

A socket is *inbound* when somebody listens on its local port. Where nobody does any more, it is inbound when only
its remote port is one that kernels hand out by themselves, and where that does not decide, when nobody listens on
its remote port either and its local port is the busier one. Inbound sockets count under their local end, all others
are *outbound* and count under their remote end: one line per service, not one per client.
"""

from __future__ import annotations

import time
from typing import Any

import msgspec
import numpy as np

from timewait.observe import addresses, counters, sysctls
from timewait.observe.bytecode import Side
from timewait.observe.netlink import NetlinkError
from timewait.observe.sock_diag import CONNECTED, Columns, Listener, Mask, Rows, SockDiag, ends, whole
from timewait.port_use import PortUse
from timewait.tcp.ports import capacity
from timewait.tcp.states import State

MOST_ENDS = 1000  # lines kept; what is over is counted in `left_out`


class End(msgspec.Struct, kw_only=True):
    """One service: sockets of this namespace toward it (outbound) or of it (inbound)."""

    direction: str  # "out" or "in"
    end: str  # "10.0.0.1:80"
    states: dict[str, int] = {}  # "TIME_WAIT" -> sockets
    total: int = 0
    ports: PortUse | None = None  # outbound: source ports toward it, of the source address that uses most
    source: str = ""  # that source address
    sources: int = 0  # outbound: local addresses seen toward it
    queue: int | None = None  # inbound: connections waiting for accept()
    queue_max: int | None = None


class Overview(msgspec.Struct, kw_only=True):
    """One moment. `counters` holds what moved since the overview before, empty in the first one."""

    at: float = 0.0  # seconds since the watch began
    seconds: float = 0.0  # since the overview before
    states: dict[str, int] = {}  # of all sockets, those left out below too
    ends: list[End] = []  # fullest first
    left_out: int = 0  # sockets at ends past MOST_ENDS
    counters: dict[str, int] = {}
    conntrack: int | None = None
    conntrack_max: int | None = None
    unreadable: list[str] = []
    cost: float = 0.0  # seconds it took to find this out


Counts = np.ndarray[Any, np.dtype[np.int64]]
_Key = tuple[int, int, int, int, int]  # packed, see Census.add


class Census:
    """A folder (sock_diag.SockDiag.fold) that groups sockets exactly, in memory that grows with the groups only.

    `before` is the census before this one, or none: how busy ports are is known from it.
    """

    def __init__(self, listening: set[int], low: int, high: int, before: Census | None = None) -> None:
        self._listening = np.zeros(65536, dtype=np.bool_)
        self._listening[list(listening)] = True
        self._low, self._high = low, high
        self._before = (before.near, before.far) if before is not None else None
        self.near: Counts = np.zeros(65536, dtype=np.int64)  # sockets by local port
        self.far: Counts = np.zeros(65536, dtype=np.int64)  # and by remote port
        self.groups: dict[_Key, int] = {}

    def add(self, rows: Rows, /) -> None:
        self.near += np.bincount(rows["local_port"], minlength=65536)
        self.far += np.bincount(rows["remote_port"], minlength=65536)
        near_port, far_port = rows["local_port"].astype(np.uint64), rows["remote_port"].astype(np.uint64)
        in_range = self._ephemeral(near_port)
        inbound = self._inbound(rows, in_range, self._ephemeral(far_port))
        near, far = ends(rows, Side.LOCAL), ends(rows, Side.REMOTE)
        none = np.uint64(0)
        port = np.where(inbound, near_port, far_port)
        columns = [
            (port << np.uint64(10))
            | (rows["state"].astype(np.uint64) << np.uint64(2))
            | (in_range.astype(np.uint64) << np.uint64(1))
            | inbound.astype(np.uint64),
            near[0],
            near[1],
            np.where(inbound, none, far[0]),
            np.where(inbound, none, far[1]),
        ]
        for key, count in _tally(columns):
            self.groups[key] = self.groups.get(key, 0) + count

    def _inbound(self, rows: Rows, near_ephemeral: Mask, far_ephemeral: Mask) -> Mask:
        listened: Mask = self._listening[rows["local_port"]]
        inbound: Mask = far_ephemeral & ~near_ephemeral
        if self._before is not None:
            busy, asked = self._before
            busier = busy[rows["local_port"]] > asked[rows["remote_port"]]
            busier &= ~self._listening[rows["remote_port"]]
            inbound = np.where(near_ephemeral == far_ephemeral, busier, inbound)
        return inbound | listened

    def _ephemeral(self, ports: Columns) -> Mask:
        return (ports >= self._low) & (ports <= self._high)


def _tally(columns: list[Columns]) -> list[tuple[_Key, int]]:
    """Distinct rows of these columns, and how often each occurs. Sorting skips columns in which nothing differs."""
    varied = [column for column in columns if column.min() != column.max()]
    if varied:
        order = np.lexsort(varied)
        sorted_columns = [column[order] for column in varied]
        new = np.concatenate(([True], np.any([c[1:] != c[:-1] for c in sorted_columns], axis=0)))
        first = np.flatnonzero(new)
        at, counts = order[first], np.diff(np.append(first, len(order)))
    else:
        at, counts = np.array([0]), np.array([len(columns[0])])
    keys: list[Any] = list(zip(*(column[at].tolist() for column in columns), strict=True))
    return list(zip(keys, counts.tolist(), strict=True))


class Lookout:
    """Overviews, one after the other; keeps only the counters of the last. See Watcher for the errors."""

    def __init__(self) -> None:
        settings = sysctls.read_sysctls(
            names=("net.ipv4.ip_local_port_range", "net.ipv4.ip_local_reserved_ports")
        ).values
        self._low, self._high = sysctls.port_range(settings.get("net.ipv4.ip_local_port_range", "32768 60999"))
        reserved = settings.get("net.ipv4.ip_local_reserved_ports", "")
        self._reserved = sysctls.reserved_within(reserved, self._low, self._high)
        self._diag: SockDiag | None = None
        self._census: Census | None = None
        self._begun = self._before = time.monotonic()
        self._counters: dict[str, int] | None = None

    def close(self) -> None:
        if self._diag is not None:
            self._diag.close()

    def look(self) -> Overview:
        """What is true now. Never raises for what cannot be read: see Overview.unreadable."""
        now = time.monotonic()
        view = Overview(at=now - self._begun, seconds=now - self._before)
        try:
            self._count(view)
        except NetlinkError as problem:
            view.unreadable.append(str(problem))
        try:
            found = counters.read_counters()
            view.counters = counters.moved(self._counters, found) if self._counters is not None else {}
            self._counters = found
        except OSError as problem:
            view.unreadable.append(f"the TCP counters in /proc/net/snmp cannot be read: {problem.strerror}")
        tracked = counters.read_conntrack()
        if tracked is not None:
            view.conntrack, view.conntrack_max = tracked
        self._before = now
        view.cost = time.monotonic() - now
        return view

    def _count(self, view: Overview) -> None:
        self._diag = self._diag or SockDiag()
        listeners = self._diag.listeners()
        listening = {one.port for one in listeners}
        for _ in range(1 if self._census is not None else 2):  # at first, once more to know the busy ports
            self._census = self._diag.fold(
                CONNECTED, (), lambda: Census(listening, self._low, self._high, self._census)
            )
        found = self._ends(self._census.groups, listening) if self._census is not None else []
        for one in found:
            for state, count in one.states.items():
                view.states[state] = view.states.get(state, 0) + count
        _add_listeners(found, listeners)
        found.sort(key=lambda one: (-one.total, one.direction, one.end))
        view.ends, over = found[:MOST_ENDS], found[MOST_ENDS:]
        view.left_out = sum(one.total for one in over)

    def _ends(self, groups: dict[_Key, int], listening: set[int]) -> list[End]:
        found: dict[tuple[bool, str], End] = {}
        taken: dict[tuple[bool, str], dict[tuple[int, int], list[int]]] = {}
        for (packed, near_high, near_low, far_high, far_low), count in groups.items():
            inbound, in_range = bool(packed & 1), bool(packed & 2)
            address = whole(near_high, near_low) if inbound else whole(far_high, far_low)
            key = (inbound, addresses.label(address, packed >> 10))
            one = found.setdefault(key, End(direction="in" if inbound else "out", end=key[1]))
            state = State((packed >> 2) & 0xFF)
            one.states[state.name] = one.states.get(state.name, 0) + count
            one.total += count
            if not inbound:
                pair = taken.setdefault(key, {}).setdefault((near_high, near_low), [0, 0])
                pair[state is State.TIME_WAIT] += count if in_range else 0
        blocked = sum(self._low <= port <= self._high for port in listening)
        most = capacity(self._low, self._high, self._reserved, 1)
        for key, by_source in taken.items():
            source, (in_use, time_wait) = max(by_source.items(), key=lambda pair: sum(pair[1]))
            one = found[key]
            free = max(0, most - blocked - in_use - time_wait)
            one.ports = PortUse(destination=one.end, capacity=most, in_use=in_use, time_wait=time_wait, free=free)
            one.source, one.sources = str(whole(*source)), len(by_source)
        return list(found.values())


def _add_listeners(found: list[End], listeners: list[Listener]) -> None:
    """A listener is a line of its own, under the address it is bound to; of several the fullest counts."""
    inbound = {one.end: one for one in found if one.direction == "in"}
    for listener in listeners:
        label = addresses.label(listener.address, listener.port)
        one = inbound.get(label)
        if one is None:
            one = inbound[label] = End(direction="in", end=label)
            found.append(one)
        if one.queue is None or listener.queue > one.queue:
            one.queue, one.queue_max = listener.queue, listener.limit
