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
from timewait.simulate.engine import build, hosts, step
from timewait.simulate.engine.arrivals import schedule_arrival
from timewait.simulate.engine.state import (
    B_TIME_WAIT,
    BOX,
    BY_KERNEL,
    G_BACK_HEAD,
    G_BACK_TAIL,
    G_BACK_TAKEN,
    G_CONNECTING,
    G_EVENTS,
    G_NOW,
    G_OPEN,
    G_QUEUE,
    G_REST_HEAD,
    G_REST_TAIL,
    G_TAKEN,
    SLOT,
    Fixed,
    State,
)
from timewait.simulate.outcome import POSITIONS, Array, Column, Outcome, Suffering
from timewait.simulate.world import Scenario

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
    arrival: Callable[..., None]
    suffering: Callable[..., None]


@cache
def engine(compiled: bool) -> Engine:
    """Compiling takes a minute, the first time on a machine."""
    plain = Engine(step.advance, step.gauge, schedule_arrival, hosts.suffering)
    if not compiled:
        return plain
    from timewait.simulate.engine.compiled import compiler

    make = compiler()
    return Engine(*(make(function) for function in plain))


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
    fixed = build.fixed(scenario, seed, width)
    state = build.state(scenario, fixed)
    player = _Player(scenario, seed, fixed, state, compiled)
    player.play(progress, stop, began)
    return player.outcome(time.monotonic() - began)


class _Player:
    def __init__(self, scenario: Scenario, seed: int, fixed: Fixed, state: State, compiled: bool) -> None:
        self.scenario, self.seed, self.compiled = scenario, seed, compiled
        self.fixed, self.state = fixed, state
        self.engine = engine(compiled)
        if not compiled:
            self.state = build.plain(state)
            self.fixed = fixed._replace(times=fixed.times.tolist(), sends=fixed.sends.tolist())
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
        self.engine.arrival(self.state, self.fixed, 0)
        duration, tick = build.ns(self.scenario.duration), build.ns(self.scenario.tick)
        at = 0
        while at < duration and not self.interrupted:
            at = min(duration, at + tick)
            at = self._until(at, progress, stop, began)
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
            why = self.engine.advance(self.state, self.fixed, until, budget)
            if why == step.NO_SLOT:
                self._grow_slots()
            elif why in (step.NO_ROOM, step.NO_BACK_ROOM):
                self._grow_room(why == step.NO_BACK_ROOM)
            now = until if why == step.REACHED else int(self.state.g[G_NOW])
            if why in (step.REACHED, step.PAUSED):
                if progress:
                    progress(self._progress(now, time.monotonic() - began))
                if stop and stop():
                    self.interrupted = True
                    return now
            if why == step.REACHED:
                return until

    def _progress(self, now: int, wall: float) -> Progress:
        tick = self.state.tick
        failed = tick[Column.NO_PORT] + tick[Column.GAVE_UP] + tick[Column.BACKEND_FAILED] + tick[Column.OVERFLOWED]
        simulated = now / build.NANO
        left = wall * (self.scenario.duration / simulated - 1) if simulated > 0 else 0.0
        started = self.started + int(tick[Column.STARTED])
        return Progress(simulated, self.scenario.duration, wall, left, started, self.failed + int(failed))

    def _arrays(self) -> State:
        return self.state if self.compiled else build.arrays(self.state)

    def _back(self, arrays: State) -> None:
        self.state = arrays if self.compiled else build.plain(arrays)

    def _grow_slots(self) -> None:
        arrays = self._arrays()
        self._back(build.with_slots(arrays, len(arrays.conns) // SLOT * 2))

    def _grow_room(self, backend: bool) -> None:
        arrays = self._arrays()
        head, tail = (G_BACK_HEAD, G_BACK_TAIL) if backend else (G_REST_HEAD, G_REST_TAIL)
        pool = arrays.back if backend else arrays.port
        grown = build.with_room(pool, int(arrays.g[head]), int(arrays.g[tail]), 2 * len(pool.rest_when))
        self._back(arrays._replace(back=grown) if backend else arrays._replace(port=grown))

    def _tick(self, at: int) -> None:
        """Takes the counts of the stretch, reads the gauges, and clears what is counted anew."""
        self.engine.gauge(self.state, self.fixed, at)
        s, f = self.state, self.fixed
        row = np.array(s.tick, dtype=np.int64)
        boxes = np.array(s.boxes, dtype=np.int64).reshape(-1, BOX)[:, B_TIME_WAIT]
        free = np.array(s.port.free, dtype=np.int64)
        row[Column.CONNECTING], row[Column.OPEN] = s.g[G_CONNECTING], s.g[G_OPEN]
        row[Column.SERVER_TIME_WAIT] = boxes[: f.boxes].sum()
        row[Column.SERVER_TIME_WAIT_MOST] = boxes[: f.boxes].max()
        row[Column.CLIENT_TIME_WAIT], row[Column.BACKEND_TIME_WAIT] = boxes[f.boxes], boxes[f.boxes + 1]
        row[Column.PORTS_TAKEN], row[Column.PORTS_TAKEN_MOST] = s.g[G_TAKEN], f.ports - free.min()
        row[Column.BACKEND_TAKEN], row[Column.ACCEPT_QUEUE] = s.g[G_BACK_TAKEN], s.g[G_QUEUE]
        self.rows.append(row)
        self.drops.append(np.array(s.drops, dtype=np.int64))
        self.counters.append(np.array(s.counters, dtype=np.int64))
        latency = np.array(s.latency, dtype=np.int64)
        index = np.flatnonzero(latency)
        self.connect.append(Sparse(index.tolist(), latency[index].tolist(), _highest(index)))
        self.ends.append(at / build.NANO)
        self.started += int(row[Column.STARTED])
        lost = (Column.NO_PORT, Column.GAVE_UP, Column.BACKEND_FAILED, Column.OVERFLOWED)
        self.failed += int(sum(row[column] for column in lost))
        for part in (s.tick, s.drops, s.counters, s.latency):
            part[:] = [0] * len(part)
        s.g[G_QUEUE] = 0

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
            events=int(self.state.g[G_EVENTS]),
            wall_seconds=wall,
            interrupted=self.interrupted,
            port_capacity=f.addresses * f.ports,
            backend_capacity=f.boxes * f.sources * f.back_ports if f.servers else 0,
        )

    def _suffering(self) -> Suffering:
        f = self.fixed
        addresses = f.addresses if f.choice != BY_KERNEL else min(f.addresses, 65536)
        found = [build.numbers(size) for size in (addresses, addresses, POSITIONS, POSITIONS)]
        self.engine.suffering(self.state, f, *found)
        return Suffering(*found)


def _highest(index: Array) -> int:
    """The largest value, in ns, that the last of these counts stands for."""
    if not len(index):
        return 0
    last = int(index[-1])
    bucket = max(0, (last >> 10) - 1)
    return ((last - (bucket << 10)) << bucket) + (1 << bucket) - 1
