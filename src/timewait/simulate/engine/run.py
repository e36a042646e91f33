"""`run_world`: a scenario is played, tick by tick, to its end or until it is stopped."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np

from timewait.histogram import Sparse
from timewait.simulate import limits
from timewait.simulate.engine import build, hosts, memory, step
from timewait.simulate.engine.state import (
    B_TIME_WAIT,
    BOX,
    BY_KERNEL,
    COUNTERS,
    DROPS,
    G_BACK_HEAD,
    G_BACK_ROOM,
    G_BACK_TAKEN,
    G_CONNECTING,
    G_EVENTS,
    G_NOW,
    G_OPEN,
    G_QUEUE,
    G_REST_HEAD,
    G_REST_ROOM,
    G_TAKEN,
    HEADS,
    LATENCY,
    SLOT,
    TICK,
    Fixed,
)
from timewait.simulate.outcome import POSITIONS, REASONS, Array, Column, Outcome, Suffering
from timewait.simulate.world import Scenario

MOST_SLOTS = 2e6  # room made at the beginning
LOST = (Column.NO_PORT, Column.GAVE_UP, Column.BACKEND_FAILED, Column.OVERFLOWED)
BUDGET = 2_000_000  # events between two looks at `stop`: well under a second, compiled
INTERPRETED_BUDGET = 20_000


class Progress(NamedTuple):
    """How far it has come."""

    simulated: float  # seconds
    duration: float
    wall: float  # seconds it took
    left: float  # seconds it will take from here, by what it took so far
    started: int  # connections attempted
    failed: int


class Engine(NamedTuple):
    """The functions that are called from here, compiled or not."""

    advance: Callable[..., int]
    gauge: Callable[..., None]
    begin: Callable[..., None]
    suffering: Callable[..., None]


@cache
def engine(compiled: bool) -> Engine:
    """Compiling takes a minute, the first time on a machine."""
    plain = Engine(step.advance, step.gauge, step.begin, hosts.suffering)
    if not compiled:
        return plain
    from timewait.simulate.engine.compiled import compiler

    return Engine(*compiler(plain))


def is_kept() -> bool:
    """Whether the compiled engine lies in the cache."""
    import numba

    from timewait.simulate.engine.compiled import cache_folder, digest

    return any((cache_folder() / digest(engine(False), numba.__version__)).glob("**/step.advance*.nbc"))


def available_memory() -> int:
    """Octets that may be taken: MemAvailable of /proc/meminfo; everything where that cannot be read."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return 1 << 62
    found = [line.split()[1] for line in lines if line.startswith("MemAvailable:")]
    return int(found[0]) * 1024 if found else 1 << 62


def run_world(
    scenario: Scenario,
    seed: int = 1,
    *,
    compiled: bool = True,
    progress: Callable[[Progress], None] | None = None,
    stop: Callable[[], bool] | None = None,
    available: int | None = None,
    width: int | None = None,
) -> Outcome:
    """Plays the scenario; the same seed gives the same outcome, compiled or not, in whatever process.

    `progress` is called and `stop` asked several times a second; stopped, what was done is kept. `available`: octets
    of memory that may be taken, None: what the machine has. `width`: log2 of ns in a bucket of the wheel, for tests.
    Raises WorldError for what is impossible or would not fit.
    """
    limits.check(scenario)
    limits.refuse_if_too_large(scenario, available_memory() if available is None else available)
    began = time.monotonic()
    try:
        player = _Player(scenario, seed, build.fixed(scenario, seed, width), compiled)
    except (MemoryError, OSError):
        needed = sum(limits.memory(scenario).values()) / 1e9
        raise limits.WorldError(f"the {needed:,.1f} GB of memory this world needs cannot be had") from None
    player.play(progress, stop, began)
    return player.outcome(time.monotonic() - began)


class _Player:
    def __init__(self, scenario: Scenario, seed: int, fixed: Fixed, compiled: bool) -> None:
        self.scenario, self.seed, self.compiled = scenario, seed, compiled
        self.fixed, self.engine = fixed, engine(compiled)
        slots = int(1.3 * min(limits.open_at_once(scenario), MOST_SLOTS))
        self.state = memory.state(fixed, build.times(scenario), build.sends(scenario), slots)
        self.handed = memory.record(fixed) if compiled else fixed
        if not compiled:
            self.state = memory.plain(self.state)
        self.rows: list[Array] = []
        self.drops: list[Array] = []
        self.counters: list[Array] = []
        self.connect: list[Sparse] = []
        self.ends: list[float] = []
        self.interrupted = False
        self.started = self.failed = 0

    def play(
        self, progress: Callable[[Progress], None] | None, stop: Callable[[], bool] | None, began: float
    ) -> None:
        self.engine.begin(self.state, self.handed)
        duration, tick = build.ns(self.scenario.duration), build.ns(self.scenario.tick)
        at = 0
        while at < duration and not self.interrupted:
            at = self._until(min(duration, at + tick), progress, stop, began)
            self._tick(at)

    def _until(
        self,
        until: int,
        progress: Callable[[Progress], None] | None,
        stop: Callable[[], bool] | None,
        began: float,
    ) -> int:
        """Advances to `until`; where it was stopped on the way, only as far as that."""
        budget = BUDGET if self.compiled else INTERPRETED_BUDGET
        while True:
            why = self.engine.advance(self.state, self.handed, until, budget)
            if why not in (step.REACHED, step.PAUSED):
                self._grow(why)
                continue
            now = until if why == step.REACHED else int(self.state.m[G_NOW])
            if progress:
                progress(self._progress(now, time.monotonic() - began))
            if stop and stop():
                self.interrupted = True
                return now
            if why == step.REACHED:
                return until

    def _progress(self, now: int, wall: float) -> Progress:
        tick = [int(value) for value in self.state.m[TICK : TICK + len(Column)]]
        simulated = now / build.NANO
        left = wall * (self.scenario.duration / simulated - 1) if simulated > 0 else 0.0
        started = self.started + tick[Column.STARTED]
        failed = self.failed + sum(tick[column] for column in LOST)
        return Progress(simulated, self.scenario.duration, wall, left, started, failed)

    def _grow(self, why: int) -> None:
        """Twice the room for what there was not enough of."""
        s = self.state if self.compiled else memory.arrays(self.state)
        if why == step.NO_SLOT:
            s = memory.with_slots(s, len(s.conns) // SLOT * 2)
        elif why == step.NO_ROOM:
            s = s._replace(rest=memory.with_room(s.rest, s.m, G_REST_HEAD, G_REST_ROOM))
        else:
            s = s._replace(back=memory.with_room(s.back, s.m, G_BACK_HEAD, G_BACK_ROOM))
        self.state = s if self.compiled else memory.plain(s)

    def _taken(self, at: int, size: int) -> Array:
        """Counts that begin anew."""
        found = np.array(self.state.m[at : at + size], dtype=np.int64)
        self.state.m[at : at + size] = 0 if self.compiled else [0] * size
        return found

    def _tick(self, at: int) -> None:
        """Takes the counts of the stretch, and reads the gauges."""
        f, m = self.fixed, self.state.m
        self.engine.gauge(self.state, self.handed, at)
        row = self._taken(TICK, len(Column))
        boxes = np.array(m[f.boxes_at : f.boxes_at + (f.boxes + 2) * BOX], dtype=np.int64)
        waits = boxes.reshape(-1, BOX)[:, B_TIME_WAIT]
        pools = f.addresses if f.independent else f.addresses * f.destinations
        free = np.array(m[f.free_at : f.free_at + pools], dtype=np.int64)
        row[Column.CONNECTING], row[Column.OPEN] = m[G_CONNECTING], m[G_OPEN]
        row[Column.SERVER_TIME_WAIT] = waits[: f.boxes].sum()
        row[Column.SERVER_TIME_WAIT_MOST] = waits[: f.boxes].max()
        row[Column.CLIENT_TIME_WAIT], row[Column.BACKEND_TIME_WAIT] = waits[f.boxes], waits[f.boxes + 1]
        row[Column.PORTS_TAKEN], row[Column.PORTS_TAKEN_MOST] = m[G_TAKEN], f.ports - free.min()
        row[Column.BACKEND_TAKEN], row[Column.ACCEPT_QUEUE] = m[G_BACK_TAKEN], m[G_QUEUE]
        m[G_QUEUE] = 0
        latency = self._taken(LATENCY, HEADS - LATENCY)
        index = np.flatnonzero(latency)
        self.rows.append(row)
        self.drops.append(self._taken(DROPS, REASONS))
        self.counters.append(self._taken(COUNTERS, 32))
        self.connect.append(Sparse(index.tolist(), latency[index].tolist(), _highest(index)))
        self.ends.append(at / build.NANO)
        self.started += int(row[Column.STARTED])
        self.failed += int(sum(row[column] for column in LOST))

    def outcome(self, wall: float) -> Outcome:
        f = self.fixed
        return Outcome(
            scenario=self.scenario,
            seed=self.seed,
            ends=np.array(self.ends),
            ticks=np.array(self.rows, dtype=np.int64).reshape(-1, len(Column)),
            drops=np.array(self.drops, dtype=np.int64),
            counters=np.array(self.counters, dtype=np.int64),
            connect=self.connect,
            suffering=self._suffering(),
            events=int(self.state.m[G_EVENTS]),
            wall_seconds=wall,
            interrupted=self.interrupted,
            port_capacity=f.addresses * f.ports,
            backend_capacity=f.boxes * f.sources * f.back_ports if f.servers else 0,
        )

    def _suffering(self) -> Suffering:
        f = self.fixed
        addresses = f.addresses if f.choice != BY_KERNEL else min(f.addresses, 65536)
        found = [memory.numbers(size) for size in (addresses, addresses, POSITIONS, POSITIONS)]
        self.engine.suffering(self.state, self.handed, *found)
        return Suffering(*found)


def _highest(index: Array) -> int:
    """The largest value, in ns, that the last of these counts stands for."""
    if not len(index):
        return 0
    last = int(index[-1])
    bucket = max(0, (last >> 10) - 1)
    return ((last - (bucket << 10)) << bucket) + (1 << bucket) - 1
