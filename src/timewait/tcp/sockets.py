"""The sockets of a host in tables, and the search for a port of one that connects."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from timewait.tcp import choice
from timewait.tcp.choice import Owner
from timewait.tcp.connection import Connection, Timer, World
from timewait.tcp.incoming import Request
from timewait.tcp.queues import accept_queue_is_full
from timewait.tcp.reuse import Reuse, reuse
from timewait.tcp.timewait import TimeWait

Ends = tuple[int, int]  # local port, remote port


class CallError(Exception):
    """A socket call failed: its errno."""

    def __init__(self, number: int) -> None:
        super().__init__(errno.errorcode[number])
        self.errno = number


@dataclass
class Waiting:
    """A request in SYN_RECV."""

    request: Request
    timer: Timer


@dataclass
class Listening:
    """A socket that listens, and its queues."""

    backlog: int
    requests: dict[int, Waiting] = field(default_factory=dict)  # by remote port
    queue: list[Connection] = field(default_factory=list)
    cookies: dict[int, Request] = field(default_factory=dict)  # what the number of a SYN-ACK stands for

    @property
    def full(self) -> bool:
        return accept_queue_is_full(len(self.queue), self.backlog)

    @property
    def young(self) -> int:
        """Requests that were not sent a second SYN-ACK."""
        return sum(waiting.timer.count == 0 for waiting in self.requests.values())


@dataclass
class Bucket:
    """A TIME_WAIT socket."""

    tw: TimeWait
    due_ms: int
    counter: int  # TW or TWKilled, counted when it ends; 0: it was counted at entry
    owner: Owner
    bound: bool  # its port was chosen by bind() or listen()


@dataclass
class Tables:
    """All sockets of a host."""

    listening: dict[int, Listening] = field(default_factory=dict)  # by local port
    connections: dict[Ends, Connection] = field(default_factory=dict)
    buckets: dict[Ends, Bucket] = field(default_factory=dict)

    def requests(self) -> Iterator[tuple[int, int, Waiting]]:
        """Local port, remote port and request of everything in SYN_RECV."""
        for local, listening in self.listening.items():
            for remote, waiting in listening.requests.items():
                yield local, remote, waiting

    def owners(self) -> dict[int, list[tuple[bool, Owner]]]:
        """Who has which local port: whether by bind() or listen(), and with which options."""
        found: dict[int, list[tuple[bool, Owner]]] = {}
        for port in self.listening:
            found.setdefault(port, []).append((True, Owner(True, listens=True)))
        for (port, _), connection in self.connections.items():
            found.setdefault(port, []).append((connection.bound, Owner(connection.reuse)))
        for (port, _), bucket in self.buckets.items():
            found.setdefault(port, []).append((bucket.bound, bucket.owner))
        return found


class Chosen(NamedTuple):
    """The local port of a connect(), the TIME_WAIT it takes over, and whether other sockets have the port."""

    port: int
    taken: Reuse | None
    shared: bool
    steps: int  # of the search, by which the next one begins later


def choose_bound(world: World, tables: Tables, remote: int, port: int, reuse_address: bool) -> Chosen:
    """For a port that is bound before connect(). Raises CallError: EADDRINUSE by bind(), else EADDRNOTAVAIL."""
    owners = [owner for _, owner in tables.owners().get(port, [])]
    for owner in owners:
        if number := choice.bind(Owner(reuse_address), owner):
            raise CallError(number)
    state, taken = _is_to(world, tables, port, remote, bound=True)
    if number := choice.connect_bound(world.kernel.rules, not owners, state):
        raise CallError(number)
    return Chosen(port, taken, bool(owners), 0)


def choose(world: World, tables: Tables, remote: int, hint: int) -> Chosen:
    """An automatic port. Raises CallError(EADDRNOTAVAIL)."""
    rules, (low, high) = world.kernel.rules, world.knobs.ip_local_port_range
    states = [choice.FREE] * (high - low + 1)
    for port, owners in tables.owners().items():
        if low <= port <= high:
            by_bind = any(by_bind for by_bind, _ in owners)
            states[port - low] = choice.BOUND if by_bind else _is_to(world, tables, port, remote, bound=False)[0]
    found = choice.choose(rules, low, high, choice.start(rules, low, high, hint, remote), states)
    if found.errno:
        raise CallError(found.errno)
    taken = _is_to(world, tables, found.port, remote, bound=False)[1]
    return Chosen(found.port, taken, found.state != choice.FREE, found.steps)


def _is_to(world: World, tables: Tables, port: int, remote: int, *, bound: bool) -> tuple[int, Reuse | None]:
    """What a local port somebody has is to a connect() toward `remote`."""
    if bucket := tables.buckets.get((port, remote)):
        taken = reuse(world.kernel.rules, world.knobs, bucket.tw, world.now_s, world.now_ms, bound)
        return (choice.REUSABLE, taken) if taken.reuses else (choice.BUSY, None)
    return (choice.BUSY if (port, remote) in tables.connections else choice.SHARED), None
