"""What a simulation or a sweep shows, as plain values: the terminal, the page and the JSON are made from these."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from timewait.report import words

if TYPE_CHECKING:
    from timewait.diagnose import Finding

SHARE, SECONDS, COUNT = "share", "seconds", "count"


class Value(NamedTuple):
    """A figure: its mean over replications and the ends of the 95 % interval, which are the mean of one alone."""

    name: str
    label: str
    kind: str  # share, seconds, count
    mean: float
    low: float
    high: float
    replications: int = 1

    @property
    def text(self) -> str:
        """`12.3%`, `1.2 s`, `4,096`."""
        return number(self.kind, self.mean)

    @property
    def interval(self) -> str:
        """`12.1% to 12.5%`; empty for one replication, or where all agree."""
        if self.replications < 2 or self.low == self.high:
            return ""
        low, high = number(self.kind, self.low), number(self.kind, self.high)
        return f"{low} to {high}" if low != high else ""


QUIET = frozenset({
    "no_port", "gave_up", "backend_failed", "backend_time_wait", "server_time_wait", "client_time_wait", "taken_over",
})  # fmt: skip
"""Figures that say nothing where they are none: not every world has what they count."""


def number(kind: str, value: float) -> str:
    if kind == SHARE:
        return words.share(value)
    if kind == SECONDS:
        return words.seconds(value) if value < 1 else words.duration(value)
    return words.count(value)


def with_interval(value: Value) -> str:
    """`12.3% (12.1% to 12.5%)`."""
    return f"{value.text} ({value.interval})" if value.interval else value.text


class Drop(NamedTuple):
    """SYNs that brought no connection, for one reason."""

    syns: int
    share: float  # of all of them
    why: str
    counter: str = ""


@dataclass(frozen=True)
class Series:
    """A value of each stretch of time; `ends` are the stretches' ends in seconds."""

    ends: list[float]
    lengths: list[float]
    failed: list[float]  # share of the connects that ended
    retried: list[float]
    started: list[float]  # a second
    drops: list[tuple[str, list[float]]]  # why, a second; the most frequent first
    latency: dict[str, list[float | None]]  # quantile -> seconds
    gauges: list[tuple[str, list[float]]]  # TIME_WAIT and ports at each box
    capacity: float = 0.0  # source ports, all addresses


@dataclass(frozen=True)
class Suffering:
    """Shares of clients that tried and never connected; None where nobody tried."""

    by_address: list[float]  # the worst first
    by_clock: list[float | None]  # the slowest clocks first


@dataclass(frozen=True)
class Simulation:
    """One scenario, simulated."""

    name: str
    question: str
    world: list[str]
    answer: str  # a sentence
    good: bool | None  # whether the answer is none of what was feared; None: neither
    certainty: str
    values: list[Value]
    drops: list[Drop]
    series: Series
    suffering: Suffering
    findings: list[Finding] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


class Axis(NamedTuple):
    setting: str
    values: tuple[str, ...]


@dataclass(frozen=True)
class Grid:
    """A sweep: `cells` hold the figure that was asked for, in the order of the axes' product; None: not done."""

    name: str
    question: str
    world: list[str]
    axes: list[Axis]
    label: str  # of the figure
    kind: str
    cells: list[Value | None]
    answer: str
    certainty: str
    notes: list[str] = field(default_factory=list)
    others: list[list[Value]] = field(default_factory=list)  # all figures of each point

    def rows(self) -> list[tuple[tuple[str, ...], list[Value | None]]]:
        """Cells by the values of all axes but the last, which runs along a row."""
        width = len(self.axes[-1].values) if len(self.axes) > 1 else 1
        heads = _product([axis.values for axis in (self.axes[:-1] if len(self.axes) > 1 else self.axes)])
        return [(head, self.cells[at * width : (at + 1) * width]) for at, head in enumerate(heads)]


def _product(values: list[tuple[str, ...]]) -> list[tuple[str, ...]]:
    found: list[tuple[str, ...]] = [()]
    for one in values:
        found = [(*head, value) for head in found for value in one]
    return found


@dataclass(frozen=True)
class Comparison:
    """A measured run, simulated as it was and under other settings."""

    name: str
    question: str
    world: list[str]
    columns: list[str]  # "measured", "simulated as it was", "with tcp_tw_reuse=1"
    rows: list[tuple[str, list[Value | None]]]  # label, a value for each column
    answer: str
    notes: list[str] = field(default_factory=list)
