"""A run read once: the questions that several causes ask of it, answered in one place.

Everything here tolerates a record that is empty, cut short or contradictory (a damaged file, a host whose counters
cannot be read): what is not known counts as nothing seen.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from functools import cache, cached_property

from timewait.histogram import Histogram, Sparse, quantiles
from timewait.plan import Closing, Plan, PortPolicy, RateUnit
from timewait.run import Cause, Failure, Host, Phase, PortUse, Run, Tick
from timewait.tcp import ports as rules
from timewait.tcp import reuse
from timewait.tcp.kernels import Kernel, running

TW_REUSE = "net.ipv4.tcp_tw_reuse"


def sysctl(host: Host, name: str) -> int | None:
    """A sysctl that is one number; None where it is absent or something else."""
    text = host.sysctls.get(name, "").strip()
    return int(text) if text.isdecimal() and len(text) < 19 else None


def taken(use: PortUse) -> int:
    return use.in_use + use.time_wait


MOST_COUNTS = 1 << 53


@cache
def _indices() -> int:
    return len(Histogram().counts)


def sound(part: Sparse) -> Sparse:
    """The part itself, or an empty one where a damaged file left it inconsistent."""
    fits = (
        len(part.index) == len(part.count)
        and all(0 <= index < _indices() for index in part.index)
        and all(0 <= number < MOST_COUNTS for number in part.count)
        and 0 <= part.max_ns < MOST_COUNTS * 1024
    )
    return part if fits and any(part.count) else Sparse()


def median(part: Sparse) -> float:
    return quantile(part, 0.5)


def quantile(part: Sparse, share: float) -> float:
    """Seconds; 0.0 when empty."""
    return quantiles(sound(part), (share,))[0]


def connections_asked(plan: Plan) -> float | None:
    """New connections a second that an open loop wants; None in the closed loop and where connections never end."""
    if plan.rate is None:
        return None
    if plan.rate.unit is RateUnit.CONNECTIONS:
        return plan.rate.per_second
    if plan.requests_per_connection is None:
        return None
    return plan.rate.per_second / max(1, plan.requests_per_connection)


def we_close_first(plan: Plan) -> bool:
    """Whether the plan makes this host the first closer, the one that holds TIME_WAIT."""
    if plan.closing is Closing.KEEP:
        return plan.requests_per_connection is not None
    return plan.closing in (Closing.CLIENT, Closing.HALF)


def our_ports(plan: Plan) -> bool:
    """Whether we choose source ports ourselves and bind() them."""
    return plan.ports.policy is not PortPolicy.KERNEL


class Facts:
    """`Facts(run)`: the run, and what follows from it."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.plan: Plan = run.plan
        self.host: Host = run.host
        self.total: Tick = run.total

    # --- failures -----------------------------------------------------------------------------------------------

    @cached_property
    def failures(self) -> list[Failure]:
        """Rows of `errors`, most frequent first; a key that is not three words is nobody's cause."""
        rows = []
        for key, number in self.total.errors.items():
            words = key.split(" ")
            phase, errno, cause = words if len(words) == 3 else ("", "", Cause.OTHER)
            rows.append(Failure(phase, errno, cause, number))
        return sorted(rows, key=lambda row: -row.count)

    def failed(self, *causes: Cause, phases: Iterable[Phase] | None = None) -> list[Failure]:
        """Rows with one of these causes, in one of these phases (None: any), that happened at all."""
        wanted = None if phases is None else set(phases)
        return [
            row
            for row in self.failures
            if row.cause in causes and (wanted is None or row.phase in wanted) and row.count > 0
        ]

    # --- kernel -------------------------------------------------------------------------------------------------

    @cached_property
    def moved(self) -> dict[str, int]:
        """Counters that rose during the run; without a reading from before it nothing is known."""
        return {name: by for name, by in self.run.moved().items() if by > 0} if self.run.before.counters else {}

    @cached_property
    def kernel(self) -> Kernel:
        """The rules this host's kernel decides by."""
        return running(self.host.kernel)

    @cached_property
    def tw_reuse(self) -> int:
        return sysctl(self.host, TW_REUSE) or 0

    @property
    def tw_reuse_on(self) -> bool:
        """Whether tcp_tw_reuse covers this run's destination."""
        return reuse.is_in_force(self.kernel.rules, self.tw_reuse, self.host.loopback)

    @cached_property
    def reuse_delay(self) -> float:
        """Seconds after which tcp_tw_reuse lets a port go."""
        delay = sysctl(self.host, "net.ipv4.tcp_tw_reuse_delay")
        return (self.kernel.defaults.tcp_tw_reuse_delay if delay is None else delay) / 1000

    @property
    def timestamps(self) -> bool | None:
        """Whether connections negotiated RFC 7323 timestamps; None where none was sampled."""
        if sysctl(self.host, "net.ipv4.tcp_timestamps") == 0:
            return False
        if self.total.sampled <= 0:
            return None
        return 2 * self.total.sampled_timestamps >= self.total.sampled

    # --- ports --------------------------------------------------------------------------------------------------

    @cached_property
    def fullest(self) -> PortUse | None:
        """The destination and moment with the largest part of its ports taken; None where nothing was read.

        Of the seconds in which a connection found no port, if there were any: at the end of a run all connections
        are closed, so what was open a moment before is TIME_WAIT then.
        """
        pairs = list(zip(self.run.ticks, self.run.snapshots, strict=False))
        short = [snapshot for tick, snapshot in pairs if any(key.endswith(Cause.NO_PORT) for key in tick.errors)]
        seen = [use for snapshot in short or (*self.run.snapshots, self.run.after) for use in snapshot.ports]
        known = [use for use in seen if use.capacity > 0] or seen
        return max(known, key=lambda use: (taken(use) / max(1, use.capacity), use.time_wait), default=None)

    @cached_property
    def capacity(self) -> int:
        """Ports toward one destination."""
        known = self.fullest.capacity if self.fullest else 0
        return known if known > 0 else capacity_of(self.plan, self.host)

    @property
    def per_source(self) -> int:
        return self.capacity // max(1, len(self.plan.sources))

    @cached_property
    def demand(self) -> float | None:
        """New connections a second this load asks of one destination when nothing is in its way; None if of none.

        The closed loop asks as fast as it is answered: connections held divided by the time one takes.
        """
        if self.plan.rate is not None:
            asked = connections_asked(self.plan)
        elif self.plan.requests_per_connection is None:
            asked = None
        else:
            life = median(self.total.connect) + median(self.total.total) * max(1, self.plan.requests_per_connection)
            measured = self.total.connected / self.total.seconds if self.total.seconds > 0 else 0.0
            asked = max(self.plan.concurrency / life if life > 0 else 0.0, measured) or None
        return asked / self.destinations if asked and math.isfinite(asked) else None

    @property
    def destinations(self) -> int:
        """Over how many destinations connections are spread, in turn."""
        return max(1, len(self.run.before.ports), len(self.run.after.ports))

    # --- time ---------------------------------------------------------------------------------------------------

    @cached_property
    def slow_connects(self) -> Histogram:
        histogram = Histogram()
        histogram.add(sound(self.total.connect))
        return histogram

    @property
    def workers(self) -> int:
        return max(1, self.total.workers or self.plan.workers)

    @property
    def cpu_share(self) -> float:
        """CPU used of what the workers could use: 1.0 is all of it."""
        could = self.total.seconds * min(self.workers, max(1, self.host.cores))
        return self.total.cpu / could if could > 0 and math.isfinite(self.total.cpu) else 0.0

    @property
    def idle_share(self) -> float | None:
        """How much of the time the loops slept; None where it was not measured. Near 0 with a low CPU share: others
        on this machine had the core."""
        whole = self.total.seconds * self.workers
        return self.total.waited / whole if whole > 0 and self.total.waited > 0 else None


def unsent_share(total: Tick) -> float:
    """The part of an open loop's arrivals that never started."""
    due = total.requests + total.unsent
    return total.unsent / due if due > 0 else 0.0


def capacity_of(plan: Plan, host: Host) -> int:
    """Ports toward one destination by plan and host alone, before the kernel is asked."""
    low, high = plan.ports.low or host.port_low, plan.ports.high or host.port_high
    whole = (low, high) == (host.port_low, host.port_high)
    return rules.capacity(low, high, host.reserved_ports if whole else 0, len(plan.sources))


def total_of(rows: Iterable[Failure]) -> int:
    return sum(row.count for row in rows)


def named(rows: Iterable[Failure]) -> str:
    """`EADDRNOTAVAIL 300, EADDRINUSE 2`: the errnos of rows; those without a failed call by their cause."""
    table: dict[str, int] = {}
    for row in rows:
        name = row.errno or row.cause
        table[name] = table.get(name, 0) + row.count
    return ", ".join(f"{name} {number:,}" for name, number in sorted(table.items(), key=lambda item: -item[1]))


def by_phase(rows: Iterable[Failure]) -> str:
    """`first_byte 12, send 3`."""
    table: dict[str, int] = {}
    for row in rows:
        table[row.phase] = table.get(row.phase, 0) + row.count
    return ", ".join(f"{name} {number:,}" for name, number in sorted(table.items(), key=lambda item: -item[1]))
