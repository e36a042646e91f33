"""Which of this host's source ports are taken toward each destination."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from timewait.observe.addresses import Destination
from timewait.observe.bytecode import Filter, Side
from timewait.observe.sock_diag import Address, Columns, Mask, Rows, ends, halves, held_at, toward
from timewait.port_use import PortUse
from timewait.tcp.ports import capacity
from timewait.tcp.states import State

_MOST_IN_KERNEL = 32  # destinations filtered by the kernel; past that every socket costs it more than sending does


class PortRange(NamedTuple):
    low: int
    high: int  # inclusive
    reserved: int  # of ip_local_reserved_ports, inside the range


class Sources:
    """The local addresses that count; none given: all."""

    def __init__(self, addresses: Sequence[Address]) -> None:
        self.count = len(addresses)
        lows: dict[int, list[int]] = {}
        for address in addresses:
            high, low = halves(address)
            lows.setdefault(high, []).append(low)
        # By upper half: few in practice, while the lower halves may be tens of thousands.
        self._lows = {np.uint64(high): np.array(sorted(low), dtype=np.uint64) for high, low in lows.items()}

    def among(self, high: Columns, low: Columns) -> Mask:
        if not self._lows:
            return np.ones(len(high), dtype=np.bool_)
        found = np.zeros(len(high), dtype=np.bool_)
        for upper, lows in self._lows.items():
            found |= (high == upper) & np.isin(low, lows)
        return found


class Place(NamedTuple):
    """A destination, and what is known of it before looking at sockets."""

    where: Destination
    sources: Sources  # ours toward it
    here: bool  # its address is one of this namespace


class PortLedger:
    """A folder (sock_diag.SockDiag.fold) that counts, per destination, ports in use and in TIME_WAIT.

    Counted are sockets toward the destination whose local port lies in the range and whose local address is one of
    the sources: those are what keeps a port from being used again. Five-tuples are unique, so sockets are ports.
    """

    def __init__(self, places: Sequence[Place], ports: PortRange) -> None:
        self._places, self._ports = places, ports
        self._in_use = [0] * len(places)
        self._time_wait = [0] * len(places)
        self._peer = [0] * len(places)
        self._any_here = any(place.here for place in places)

    def add(self, rows: Rows, /) -> None:
        far, near = ends(rows, Side.REMOTE), ends(rows, Side.LOCAL)
        far_port, near_port = rows["remote_port"], rows["local_port"]
        resting = rows["state"] == State.TIME_WAIT
        in_range = (near_port >= self._ports.low) & (near_port <= self._ports.high)
        for number, place in enumerate(self._places):
            port = place.where.port
            high, low = (np.uint64(half) for half in halves(place.where.address))
            ours = (far_port == port) & (far[1] == low) & (far[0] == high) & in_range
            if ours.any():
                ours &= place.sources.among(*near)
                waiting = int(np.count_nonzero(ours & resting))
                self._time_wait[number] += waiting
                self._in_use[number] += int(np.count_nonzero(ours)) - waiting
            if place.here:
                theirs = (near_port == port) & (near[1] == low) & (near[0] == high) & resting
                self._peer[number] += int(np.count_nonzero(theirs))

    def uses(self, listening: set[int]) -> list[PortUse]:
        """One per destination. `listening`: ports with a listener, which connect() passes over.

        __inet_hash_connect() skips a port whose bind bucket was made by bind(), whatever its address.
        """
        low, high, reserved = self._ports
        blocked = sum(low <= port <= high for port in listening)
        found = []
        for place, in_use, time_wait, peer in zip(
            self._places, self._in_use, self._time_wait, self._peer, strict=True
        ):
            most = capacity(low, high, reserved, place.sources.count)
            free = most - in_use - time_wait - blocked * max(1, place.sources.count)
            use = PortUse(destination=place.where.label, capacity=most, in_use=in_use, time_wait=time_wait)
            use.free = max(0, free)
            use.peer_time_wait = peer if place.here else None
            found.append(use)
        return found


def filter_for(places: Sequence[Place]) -> Filter:
    """What the kernel should send for these destinations; empty (everything) where they are many."""
    if len(places) > _MOST_IN_KERNEL:
        return ()
    ours = [clause for place in places for clause in toward(place.where.address, place.where.port)]
    theirs = [c for place in places if place.here for c in held_at(place.where.address, place.where.port)]
    return tuple(dict.fromkeys(tuple(clause) for clause in ours + theirs))
