"""Independent replications: the seeds they run with, and what they say together.

An interval over replications tells how far the mean may be from that of endlessly many (Student's t, 95 %); a span
tells where nineteen of twenty single runs lie, which is what one measurement is to be held against.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import msgspec

_MASK = (1 << 64) - 1
_GOLDEN = 0x9E3779B97F4A7C15

# 97.5 % quantiles of Student's t for 1, 2, ... degrees of freedom; past the last the normal distribution's 1.96 is
# off by less than 4 %.
_T = (
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131, 2.120,
    2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042,
)  # fmt: skip
_NORMAL = 1.960


def seed_of(seed: int, replication: int) -> int:
    """The seed of a replication (splitmix64); the first has the seed itself, so that one run is a replication too.

    It does not depend on the point of a sweep: all points meet the same arrivals, and differ by their settings alone.
    """
    if replication == 0:
        return seed
    mixed = (seed + replication * _GOLDEN) & _MASK
    mixed = ((mixed ^ (mixed >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    mixed = ((mixed ^ (mixed >> 27)) * 0x94D049BB133111EB) & _MASK
    return (mixed ^ (mixed >> 31)) >> 1  # positive in 64 signed bits


class Estimate(msgspec.Struct, frozen=True):
    """The mean of a figure over replications, and the ends of its 95 % interval; of one replication they are one."""

    mean: float
    low: float
    high: float
    count: int

    @property
    def known(self) -> bool:
        """Whether the interval says anything."""
        return self.count > 1


def estimate(values: Sequence[float]) -> Estimate:
    """Mean and 95 % interval of the mean. Raises ValueError when there are no values."""
    if not values:
        raise ValueError("an estimate needs at least one value")
    count = len(values)
    mean = math.fsum(values) / count
    if count == 1:
        return Estimate(mean, mean, mean, 1)
    spread = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (count - 1))
    factor = _T[count - 2] if count - 2 < len(_T) else _NORMAL
    slack = factor * spread / math.sqrt(count)
    least, most = (0.0, 1.0) if all(0 <= value <= 1 for value in values) else (min(0.0, *values), math.inf)
    return Estimate(mean, max(least, mean - slack), min(most, mean + slack), count)


def span(values: Sequence[float]) -> tuple[float, float]:
    """Where 95 % of single runs lie: the 2.5 % and 97.5 % quantiles of the values, outward to the next value."""
    ranked = sorted(values)
    last = len(ranked) - 1
    return ranked[math.floor(0.025 * last)], ranked[math.ceil(0.975 * last)]


def estimates(rows: Sequence[dict[str, float]]) -> dict[str, Estimate]:
    """The figures of all replications, each over those that have it."""
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: estimate([row[name] for row in rows if name in row]) for name in names}
