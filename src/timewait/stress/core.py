"""What one worker holds, and the verbs its parts use of one another.

`Engine` is made of parts, each a chapter of a connection's life: openings, exchanges, endings. This is the page they
share: the state, the bookkeeping of slots, and the names by which one chapter calls the next.
"""

from __future__ import annotations

import select
import ssl
from abc import ABC, abstractmethod
from random import Random

from timewait.plan import Plan, RateUnit
from timewait.run import Cause, Phase
from timewait.stress.connection import CLOSING, CONNECTING, FOREVER, READING, SENDING, SHAKING, WAITING, Connection
from timewait.stress.endpoints import Endpoint
from timewait.stress.meters import Meters, clock
from timewait.stress.opening import Opener
from timewait.stress.pacing import Schedule, share
from timewait.stress.tls import context
from timewait.stress.tuples import Tuples

IN, OUT, GONE = select.EPOLLIN, select.EPOLLOUT, select.EPOLLRDHUP | select.EPOLLHUP | select.EPOLLERR
# Edge-triggered: one epoll_ctl per connection, none per request; whoever reads less than all must read on.
READ_EVENTS = select.EPOLLIN | select.EPOLLRDHUP | select.EPOLLET
ALL_EVENTS = READ_EVENTS | select.EPOLLOUT

EAGER_MISSES = 64  # connects in a row not yet established when connect() returned: a real network, stop trying
SLOW_SYN = 0.9  # seconds; the first SYN is sent again after 1 s (RFC 6298, TCP_TIMEOUT_INIT), on 2.6.32 after 3 s
BACKOFF_FIRST, BACKOFF_MOST = 0.01, 0.5  # seconds between tries of a slot that cannot connect
SAMPLE_EVERY = 64  # connections per TCP_INFO read
SMALLEST_READ, LARGEST_READ = 4096, 65536  # above 128 KiB malloc() would mmap for every recv()


class Core(ABC):
    """The state of one worker. Times are CLOCK_MONOTONIC seconds; `start_at` is the run's beginning."""

    def __init__(
        self, plan: Plan, endpoints: list[Endpoint], opener: Opener, worker: int, workers: int, start_at: float
    ) -> None:
        self.plan, self.endpoints, self.opener = plan, endpoints, opener
        self.meters = Meters()
        self.poll = select.epoll()
        self.by_fd: dict[int, Connection] = {}
        self.closing = plan.closing
        self.start_at = start_at
        self.budget = share(plan.requests, worker, workers) if plan.requests else FOREVER
        self.per_connection = plan.requests_per_connection or FOREVER
        self.slots = max(1, share(plan.concurrency, worker, workers))
        self.connections: list[Connection] = []  # one per slot, made when first needed
        self.free: list[Connection] = []
        self.idle: dict[Connection, None] = {}  # kept, waiting for an arrival; last in, first out
        self.retries: list[tuple[float, int, Connection]] = []
        self.busy = 0  # slots with something under way
        self.held = 0  # open sockets
        self.held_most = 0  # ... since the last tick
        self.schedule: Schedule | None = None
        if plan.rate is not None:
            self.schedule = Schedule(plan.rate.per_second, plan.ramp_up, worker, workers)
        self.by_connection = plan.rate is not None and plan.rate.unit is RateUnit.CONNECTIONS
        self.arrival = 0  # the next one
        self.read_size = SMALLEST_READ
        self.misses = 0
        self.tuples = Tuples(active=opener.allocates)
        self.tls = context(plan.tls) if plan.scheme == "https" else None
        self.sessions: dict[str, ssl.SSLSession] = {}
        self.tcp = plan.scheme == "tcp"
        self.accepted = frozenset(int(word) for word in plan.expect if not word.endswith("x"))
        self.accepted_classes = frozenset(int(word[0]) for word in plan.expect if word.endswith("xx"))
        self.limits = [0.0] * 8  # seconds per state; 0: none
        self.limits[CONNECTING] = self.limits[SHAKING] = plan.connect_timeout
        self.limits[SENDING] = self.limits[WAITING] = self.limits[READING] = plan.timeout
        self.limits[CLOSING] = plan.close_timeout
        self.random = Random(worker)
        self.turn = worker % len(endpoints)
        self.stopped = False
        self.drain_until = float("inf")
        self.end_at = start_at + plan.duration if plan.duration else float("inf")
        # How long what is in flight at the end may take to be answered or to fail of itself.
        self.patience = max(plan.connect_timeout, plan.timeout) + 0.5

    def asked(self, now: float) -> int:
        """Connections wanted at this moment of the closed loop."""
        if self.schedule is not None:
            return self.slots
        elapsed = now - self.start_at
        if elapsed >= self.plan.ramp_up:
            return self.slots
        return int(self.slots * elapsed / self.plan.ramp_up) + 1

    def add_slot(self) -> Connection:
        c = Connection(len(self.connections))
        self.connections.append(c)
        return c

    def take_slot(self) -> Connection | None:
        """A slot without a connection, None when all are in use."""
        if self.free:
            return self.free.pop()
        return self.add_slot() if len(self.connections) < self.slots else None

    def take_idle(self) -> Connection | None:
        """A kept connection that waits for a request."""
        if not self.idle or self.by_connection:
            return None
        return self.idle.popitem()[0]

    @property
    def direct(self) -> bool:
        """Whether connections are established when connect() returns, and nobody tracks their tuples."""
        return not self.misses and not self.tuples.active

    @property
    def finished(self) -> bool:
        """All of the work has been begun (stop now, then drain)."""
        if self.stopped:
            return False
        return clock() >= self.end_at or (self.budget <= 0 and self.busy == 0)

    # the verbs between chapters ---------------------------------------------------------------------------------

    @abstractmethod
    def start(self, c: Connection, due: float) -> None: ...

    @abstractmethod
    def request(self, c: Connection, now: float, due: float) -> None: ...

    @abstractmethod
    def request_started(self, c: Connection, count: int, now: float) -> None: ...

    @abstractmethod
    def sent(self, c: Connection, data: bytes, count: int, now: float) -> None: ...

    @abstractmethod
    def push(self, c: Connection, now: float) -> None: ...

    @abstractmethod
    def choose(self, c: Connection) -> None: ...

    @abstractmethod
    def connected(self, c: Connection, now: float) -> None: ...

    @abstractmethod
    def slow_syn(self, c: Connection, now: float) -> None: ...

    @abstractmethod
    def sample(self, c: Connection) -> None: ...

    @abstractmethod
    def not_sent(self, c: Connection, first: bytes, error: OSError, called: float) -> None: ...

    @abstractmethod
    def sent_in_part(self, c: Connection, data: bytes, count: int, now: float) -> None: ...

    @abstractmethod
    def succeeded(self, c: Connection, now: float) -> None: ...

    @abstractmethod
    def answered(self, c: Connection, now: float, *, peer_closed: bool, closes: bool) -> None: ...

    @abstractmethod
    def idle_ended(self, c: Connection, now: float, *, eof: bool, fin: bool) -> None: ...

    @abstractmethod
    def peer_closed(self, c: Connection) -> None: ...

    @abstractmethod
    def cut_short(self, c: Connection) -> None: ...

    @abstractmethod
    def not_opened(self, c: Connection, phase: Phase, code: int) -> None: ...

    @abstractmethod
    def not_connected(self, c: Connection, code: int) -> None: ...

    @abstractmethod
    def broken(self, c: Connection, error: OSError, phase: Phase | None = None) -> None: ...

    @abstractmethod
    def failed(self, c: Connection, phase: Phase, code: str, cause: Cause, detail: str = "") -> None: ...

    @abstractmethod
    def fail(self, c: Connection, phase: Phase, code: str, cause: Cause, detail: str = "") -> None: ...
