"""What one worker knows: its listeners, the pools behind them, and their targets, with what was counted of each."""

from __future__ import annotations

import os
import resource
import socket
import ssl
from collections.abc import Callable, Container
from typing import TYPE_CHECKING, Any, Protocol

from timewait.balancer.config.addresses import place
from timewait.balancer.config.model import Configuration, Listener, Pool, Scheduler, SessionType, Target, Then
from timewait.balancer.embedded.access_log import AccessLog
from timewait.balancer.embedded.loop import Loop
from timewait.balancer.embedded.shared import Limits, Sessions, Shared, tag
from timewait.balancer.embedded.sources import Destination, Sources
from timewait.balancer.engine import Rotation
from timewait.balancer.routing.schedulers import scheduler
from timewait.balancer.statistics import ListenerStatistics, Statistics, TargetStatistics

if TYPE_CHECKING:
    from timewait.balancer.embedded.accepting import Arrival

_UNASKED: dict[str, int] = {}


class Cuttable(Protocol):
    """A connection to a target that is in use."""

    def cut(self, then: Then) -> None:
        """Ends it, and the client's that uses it, as said."""


class TargetState:
    """A server, as this worker sees it. `statistics.active` is what the scheduler goes by."""

    __slots__ = ("address", "connections", "destination", "family", "idle", "pool", "statistics", "tag", "weight")

    def __init__(self, pool: str, address: str) -> None:
        self.pool, self.address, self.tag = pool, address, tag(address)
        where = place(address)
        self.family: int = socket.AF_INET if where.address.version == 4 else socket.AF_INET6
        self.destination: Destination = (str(where.address), where.port)
        self.weight = 0
        self.statistics = TargetStatistics(pool=pool, address=address)
        self.connections: set[Cuttable] = set()  # in use by clients
        self.idle: list[object] = []  # kept for later; only the HTTP proxy knows what they are


class PoolState:
    """Targets and the scheduler that chooses among them. Every worker has its own; sessions are shared."""

    def __init__(self, worker: Worker, config: Pool, statistics: dict[str, TargetStatistics]) -> None:
        self.worker, self.config = worker, config
        self.targets: dict[str, TargetState] = {}  # also those that are drained
        self._statistics = statistics
        self._by_tag: dict[bytes, TargetState] = {}
        self._left: list[TargetState] = []  # with connections that are still open
        self._sticky = config.session.type is SessionType.SOURCE_IP
        self.by_cookie = config.session.type is SessionType.COOKIE_INSERT
        self.adopt(config.target)
        self.wants_source = self._sticky or config.scheduler is Scheduler.IP_HASH
        """Whether choose() looks at the client's address."""
        self._by_load = config.scheduler is Scheduler.LEAST_CONN
        self._scheduler = scheduler(config.scheduler, (), worker.number)

    def adopt(self, targets: tuple[Target, ...]) -> list[TargetState]:
        """These are the targets from now on; the states of those that left, with what is still open toward them.

        Statistics of a target that left stay: counters only grow.
        """
        wanted = [target.addr for target in targets]
        left = [self.targets.pop(address) for address in list(self.targets) if address not in wanted]
        for address in wanted:
            if address not in self.targets:
                state = TargetState(self.config.name, address)
                state.statistics = self._statistics.setdefault(f"{self.config.name}/{address}", state.statistics)
                self.targets[address] = state
        self._by_tag = {state.tag: state for state in self.targets.values()}
        for state in left:
            state.weight = 0
            if state.connections:
                self._left.append(state)
        return left

    def connections(self, address: str | None = None) -> list[Cuttable]:
        """What is in use toward a target (None: toward all of them), also toward one that has left."""
        self._left = [state for state in self._left if state.connections]
        states = [*self.targets.values(), *self._left]
        return [one for state in states if address in (None, state.address) for one in state.connections]

    def rotate(self, rotation: Rotation) -> None:
        """The weights that count from now on."""
        weights = dict.fromkeys(self.targets, 0) | {
            address: weight for address, weight in rotation.weights if address in self.targets
        }
        for address, weight in weights.items():
            self.targets[address].weight = weight
        self._scheduler.reweigh(list(weights.items()))

    def choose(self, source: bytes, avoid: Container[str] = ()) -> TargetState | None:
        """The next target for a client of this (packed) address; None when there is none left to try.

        `avoid` are addresses that were tried for this request already.
        """
        if self._sticky:
            return self._choose_sticky(source, avoid)
        return self._next(source, avoid)

    def target(self, address: str) -> TargetState | None:
        """That target, if it may get new traffic: for a cookie that names it."""
        state = self.targets.get(address)
        return state if state is not None and state.weight > 0 else None

    def _next(self, source: bytes, avoid: Container[str]) -> TargetState | None:
        active = self._active()
        chosen = self._scheduler.next(source, active)
        if chosen is None or chosen not in avoid:
            return None if chosen is None else self.targets[chosen]
        for _ in range(4 * len(self.targets)):  # others have their turn soon, unless the scheduler is a hash
            chosen = self._scheduler.next(source, active)
            if chosen is not None and chosen not in avoid:
                return self.targets[chosen]
        usable = [state for state in self.targets.values() if state.weight > 0 and state.address not in avoid]
        return min(usable, key=lambda state: state.statistics.active / state.weight, default=None)

    def _active(self) -> dict[str, int]:
        if not self._by_load:
            return _UNASKED
        return {address: state.statistics.active for address, state in self.targets.items()}

    def _choose_sticky(self, source: bytes, avoid: Container[str]) -> TargetState | None:
        name, ttl, now = self.config.name, self.config.session.ttl, self.worker.loop.now
        known = self.worker.sessions.find(name, source, ttl, now)
        state = self._by_tag.get(known) if known else None
        if state is not None and state.weight > 0 and state.address not in avoid:
            return state
        chosen = self._next(source, avoid)
        if chosen is not None:
            self.worker.sessions.remember(name, source, chosen.tag, ttl, now)
        return chosen


class ListenerState:
    """A listener, as this worker sees it."""

    __slots__ = ("config", "limits", "sources", "statistics", "tls", "way", "worker")

    def __init__(
        self, worker: Worker, config: Listener, statistics: ListenerStatistics, limits: Limits | None
    ) -> None:
        self.worker, self.config, self.statistics, self.limits = worker, config, statistics, limits
        self.sources = Sources(config.upstream.source, worker.number)
        self.tls: ssl.SSLContext | None = None
        self.way: Any = None  # the relay's own

    def release(self) -> None:
        """A client's connection that was counted in is closed."""
        self.statistics.active -= 1
        if self.limits is not None:
            self.limits.release()


class Worker:
    """One worker process: everything in it hangs here."""

    def __init__(self, loop: Loop, number: int, shared: Shared, configuration: Configuration, log: AccessLog | None):
        """`number` is unique among all workers this engine ever had."""
        self.loop, self.number, self.configuration, self.log = loop, number, configuration, log
        self.sessions = Sessions(shared)
        self.shared = shared
        self.statistics = Statistics()
        self.draining = False
        self.key = b""  # of sessions by cookie: one for all workers, also over reloads
        self.arrivals: dict[Arrival, None] = {}
        self.say: Callable[[str], None] = print  # tells the supervisor a line
        self.make_room: Callable[[], bool] = lambda: False
        """Gives a descriptor back that is only held for later, where they have run out; whether there was one."""
        self.listeners: dict[str, ListenerState] = {}
        self.pools: dict[str, PoolState] = {
            pool.name: PoolState(self, pool, self.statistics.targets) for pool in configuration.pool
        }
        self._next_id = number << 32
        self._exhausted_told = float("-inf")

    def tell_exhausted(self, listener: str, number: int | None, what: str) -> None:
        """Descriptors, or memory for sockets, have run out; told now and then, with what becomes of whom."""
        if self.loop.now - self._exhausted_told <= 10:
            return
        self._exhausted_told = self.loop.now
        limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        self.say(
            f"listener {listener}: a worker with {self.remaining} connections has no descriptors left "
            f"({os.strerror(number or 0)}; its limit is {limit}); {what}. Raise the limit: ulimit -n, or "
            "LimitNOFILE= in systemd"
        )

    def new_id(self) -> int:
        """A number for a client's connection that no other has, in any worker of this engine."""
        self._next_id += 1
        return self._next_id

    def rotate(self, rotation: Rotation) -> PoolState | None:
        """New weights for a pool; the pool, if this worker has it."""
        pool = self.pools.get(rotation.pool)
        if pool is not None:
            pool.rotate(rotation)
        return pool

    @property
    def remaining(self) -> int:
        """Clients' connections that are open."""
        return sum(listener.statistics.active for listener in self.listeners.values())

    def __repr__(self) -> str:
        return f"<worker {self.number} (pid {os.getpid()}): {self.remaining} connections>"
