"""What a benchmark leaves behind: medians, spreads, ratios, and whether what was asked is reached."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

import msgspec


class Values(msgspec.Struct, kw_only=True):
    """One quantity, measured once a round."""

    name: str
    unit: str
    values: list[float]

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    @property
    def low(self) -> float:
        return min(self.values)

    @property
    def high(self) -> float:
        return max(self.values)


class Figure(msgspec.Struct, kw_only=True):
    """One line of the table. `asked` is empty where a figure is only reported."""

    what: str
    unit: str  # "x" for a ratio
    values: list[float]  # one a round
    asked: str = ""  # ">= 1.0"
    counts: str = "median"  # what of the values is held against `asked`: median or max

    @property
    def value(self) -> float:
        return max(self.values) if self.counts == "max" else statistics.median(self.values)

    @property
    def reached(self) -> bool | None:
        """None where nothing was asked. A ratio of 0 is one that was not measured, which reaches nothing."""
        if not self.asked:
            return None
        if self.unit == "x" and not self.value:
            return False
        relation, limit = self.asked.split()
        value, bound = self.value, float(limit.replace(",", ""))
        return {">=": value >= bound, "<=": value <= bound, ">": value > bound}[relation]


class Result(msgspec.Struct, kw_only=True):
    """One benchmark: its lines of the table, everything behind them, and what a reader must know."""

    name: str
    title: str
    how: str  # in a few sentences
    figures: list[Figure]
    details: list[Values]
    notes: list[str] = []
    machine: dict[str, str] = {}
    measured_at: str = ""


def ratio(what: str, ours: Sequence[float], theirs: Sequence[float], asked: str = "") -> Figure:
    """Ours over theirs, round by round: what disturbs the machine for longer than a round disturbs both. A round in
    which nothing was counted, as in a short look at a busy machine, is left out; without any it is 0, and what was
    asked is not reached."""
    pairs = zip(ours, theirs, strict=True)
    values = [mine / other for mine, other in pairs if other and math.isfinite(mine / other)]
    return Figure(what=what, unit="x", values=values or [0.0], asked=asked)
