"""What the admin API tells of a running balancer: records that are JSON on the way, and the same at the other end."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from timewait.balancer.config.model import Configuration
from timewait.balancer.rotation import State
from timewait.balancer.statistics import ListenerStatistics, Statistics, TargetStatistics
from timewait.port_use import PortUse


class TargetHealth(msgspec.Struct, kw_only=True):
    """A target as the supervisor sees it."""

    pool: str
    address: str
    weight: int  # wished
    effective: int  # what counts now
    state: State
    since: float = 0.0  # seconds in this state
    reason: str = ""  # of the last check that failed
    passed: int = 0  # checks
    failed: int = 0
    void: int = 0  # could not be made, for want of a port or a descriptor at the balancer
    check_seconds: float = 0.0  # the last one took
    draining: bool = False
    leaving: bool = False  # removed; there until it is drained


class Notice(msgspec.Struct, kw_only=True):
    """Something found about the balancer itself, as `timewait` words findings."""

    id: str
    about: str  # the target's address
    summary: str
    evidence: list[str] = []
    remedy: list[str] = []


class Kernel(msgspec.Struct, kw_only=True):
    """What the kernel says of the balancer's connections."""

    ports: dict[str, PortUse] = {}  # toward a target's address, all source addresses together
    seconds_left: dict[str, float] = {}  # by address: until no port is free at the present pace; absent: no wall
    time_wait: dict[str, int] = {}  # by listener: TIME_WAIT on its ports
    findings: list[Notice] = []
    unreadable: list[str] = []


Look = Callable[[Configuration, Statistics, float], Kernel]
"""Asks the kernel: configuration, what was counted, time.monotonic(). It may block for some milliseconds."""


class Stats(msgspec.Struct, kw_only=True):
    """GET /v1/stats."""

    at: float  # time.monotonic() of the balancer, so that two of them make a rate
    uptime: float
    pid: int
    file: str
    listeners: dict[str, ListenerStatistics]
    targets: dict[str, TargetStatistics]
    unknown: list[str] = []  # what an engine cannot count
    log_lost: int = 0  # lines of the access log that could not be written
    health: list[TargetHealth] = []
    kernel: Kernel = msgspec.field(default_factory=Kernel)
    stopping: bool = False


class Weighed(msgspec.Struct, kw_only=True):
    """PUT of a weight."""

    pool: str
    target: str
    was: int
    weight: int
    effective: int
    draining: bool = False


class Drained(msgspec.Struct, kw_only=True):
    """How a drain ended."""

    pool: str
    target: str
    ended: str  # idle: all by themselves; cut; left: still open, as asked; cancelled: it got traffic again
    connections: int = 0  # when it began
    cut: int = 0
    seconds: float = 0.0
