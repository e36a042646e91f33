"""Sweeps: every combination of some settings, each simulated some times; kept in a file as it goes.

The file is JSON lines: what is swept, then one line for each simulation that is done. A sweep that was cut short, by
whatever, goes on from its file; what it says in the end is what one uninterrupted process would have said.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import BinaryIO, NamedTuple

import msgspec

from timewait.simulate import limits
from timewait.simulate.answers import figures
from timewait.simulate.outcome import Outcome
from timewait.simulate.replicate import Estimate, estimates, seed_of
from timewait.simulate.scenario_file import Ask, with_settings
from timewait.simulate.settings import ScenarioError, parse_setting
from timewait.simulate.world import Clients, Scenario

FORMAT = 1
MOST_POINTS = 10_000


class Axis(msgspec.Struct, frozen=True):
    """One setting and the values it takes, as they were written."""

    setting: str  # "nat.ports"
    values: tuple[str, ...]


class Job(msgspec.Struct, frozen=True):
    """One simulation of a sweep."""

    point: int
    replication: int
    seed: int
    scenario: Scenario


class Done(msgspec.Struct, frozen=True):
    """What came of it."""

    point: int
    replication: int
    figures: dict[str, float]


class Plan(msgspec.Struct, frozen=True):
    """What a sweep is to do."""

    scenario: Scenario
    axes: tuple[Axis, ...]
    seed: int
    replications: int
    figure: str = "failed"  # what it is to answer with

    def points(self) -> list[tuple[str, ...]]:
        """The values of each point, the last axis fastest."""
        return list(itertools.product(*(axis.values for axis in self.axes)))

    def jobs(self, done: Sequence[Done] = ()) -> list[Job]:
        """What is still to do, the longest first, so that no process is left with a long one at the end. Raises
        ScenarioError where a point is no possible scenario."""
        finished = {(one.point, one.replication) for one in done}
        found = []
        for number, values in enumerate(self.points()):
            names = [axis.setting for axis in self.axes]
            scenario = with_settings(self.scenario, dict(zip(names, values, strict=True)))
            found += [
                Job(number, replication, seed_of(self.seed, replication), scenario)
                for replication in range(self.replications)
                if (number, replication) not in finished
            ]
        return sorted(found, key=lambda job: -limits.rate_of(job.scenario) * job.scenario.duration)


def parse_axis(text: str) -> Axis:
    """`nat.ports=64,256,1k` -> Axis. Raises ScenarioError."""
    name, values = parse_setting(text, "--sweep")
    found = tuple(value.strip() for value in values.split(","))
    if not all(found):
        raise ScenarioError(f"--sweep {text!r}: a value is missing; write {name}=64,256,1k")
    twice = [value for value in found if found.count(value) > 1]
    if twice:
        raise ScenarioError(f"--sweep {text!r}: {twice[0]} stands there twice")
    return Axis(name, found)


def plan(scenario: Scenario, axes: Sequence[Axis], ask: Ask) -> Plan:
    """A sweep all of whose points are possible. Raises ScenarioError, WorldError."""
    names = [axis.setting for axis in axes]
    if len(set(names)) < len(names):
        raise ScenarioError(f"--sweep {max(names, key=names.count)} is given twice; write all its values in one")
    made = Plan(scenario, tuple(axes), ask.seed, ask.replications, ask.figure)
    points = math.prod(len(axis.values) for axis in axes)
    if points > MOST_POINTS:
        raise ScenarioError(f"--sweep makes {points:,} points; {MOST_POINTS:,} are the most")
    made.jobs()
    return made


def simulate(scenario: Scenario, seed: int, progress: Callable[[float], None], stop: Callable[[], bool]) -> Outcome:
    """One simulation, here. `progress` gets the share done; what `stop` cuts short is an outcome all the same."""
    from timewait.simulate.engine.run import run_world  # compiled code is loaded only by whoever runs it

    return run_world(scenario, seed, progress=lambda now: progress(now.simulated / now.duration), stop=stop)


def together(jobs: Sequence[Job], wanted: int) -> int:
    """How many of these may run at once on this machine: as many as wanted, or as fit into its memory, one at least.

    Raises WorldError where one alone does not fit.
    """
    from timewait.simulate.engine.run import available_memory

    available = available_memory()
    scenarios = {job.point: job.scenario for job in jobs}.values()
    for scenario in scenarios:
        limits.refuse_if_too_large(scenario, available)
    largest = max((sum(limits.memory(scenario).values()) for scenario in scenarios), default=1)
    return max(1, min(wanted, len(jobs), available // largest))


def warm() -> None:
    """Compiles what is not compiled yet, so that worker processes find it done: a minute, once on a machine."""
    simulate(Scenario(duration=0.01, clients=Clients(count=1)), 1, lambda share: None, lambda: False)


def is_compiled() -> bool:
    """Whether machine code of this engine is kept already; then a simulation begins in two seconds."""
    from timewait.simulate.engine.run import is_kept

    return is_kept()


def play(job: Job) -> Done:
    """A job's figures."""
    return play_whole(job).done


class Whole(NamedTuple):
    """A job's figures; of a first replication the whole outcome."""

    done: Done
    outcome: Outcome | None


def play_whole(job: Job) -> Whole:
    outcome = simulate(job.scenario, job.seed, lambda share: None, lambda: False)
    done = Done(job.point, job.replication, figures(outcome))
    return Whole(done, None if job.replication else outcome)


class Point(msgspec.Struct, frozen=True):
    """One combination and what its replications say together; `figures` is empty where none was done."""

    values: tuple[str, ...]
    figures: dict[str, Estimate]
    replications: int


def table(plan: Plan, done: Sequence[Done]) -> list[Point]:
    """All points in order, whatever order they were done in."""
    by_point: dict[int, list[Done]] = {}
    for one in sorted(done, key=lambda one: (one.point, one.replication)):
        by_point.setdefault(one.point, []).append(one)
    return [
        Point(values, estimates([one.figures for one in by_point.get(number, [])]), len(by_point.get(number, [])))
        for number, values in enumerate(plan.points())
    ]


# --- the file -----------------------------------------------------------------------------------------------------


class _Head(msgspec.Struct, tag="sweep"):
    format: int
    version: str
    plan: Plan


class _Row(msgspec.Struct, tag="done"):
    done: Done


class SweepFileError(ValueError):
    """A file that is no sweep, or of another timewait: one sentence."""


class SweepFile:
    """Writes a sweep as it goes; each line is whole when written."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream

    @classmethod
    def create(cls, path: Path, plan: Plan, version: str) -> SweepFile:
        made = cls(path.open("wb"))
        made._line(_Head(FORMAT, version, plan))
        return made

    @classmethod
    def go_on(cls, path: Path) -> SweepFile:
        """Appends, after the last whole line."""
        stream = path.open("r+b")
        whole = stream.read().rfind(b"\n") + 1
        stream.seek(whole)
        stream.truncate()
        return cls(stream)

    def add(self, done: Done) -> None:
        self._line(_Row(done))

    def close(self) -> None:
        self._stream.close()

    def _line(self, row: _Head | _Row) -> None:
        self._stream.write(msgspec.json.encode(row) + b"\n")
        self._stream.flush()


def read(path: Path, version: str) -> tuple[Plan, list[Done]]:
    """A sweep and what of it is done. Raises SweepFileError, OSError."""
    lines = path.read_bytes().split(b"\n")[:-1]  # a line without its end was cut short
    try:
        head = msgspec.json.decode(lines[0] if lines else b"", type=_Head)
    except msgspec.DecodeError:
        raise SweepFileError(f"{path} is no saved sweep; it does not begin with one") from None
    if (head.format, head.version) != (FORMAT, version):
        raise SweepFileError(
            f"{path} was begun by timewait {head.version}; this is {version}, whose figures may differ: begin anew"
        )
    done: dict[tuple[int, int], Done] = {}
    for number, line in enumerate(lines[1:], 2):
        try:
            one = msgspec.json.decode(line, type=_Row).done
        except msgspec.DecodeError:
            raise SweepFileError(f"{path} is damaged at line {number}") from None
        done[one.point, one.replication] = one
    return head.plan, list(done.values())
