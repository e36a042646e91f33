"""Latencies in constant memory at three significant digits, fed in batches.

The layout and the arithmetic of values are HdrHistogram's; NumPy turns a batch of nanoseconds into indices at once.
`Sparse` is the part of a histogram that travels: in a worker's tick, in a saved run.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import msgspec
import numpy as np
from hdrh.histogram import HdrHistogram

LOWEST_NS, HIGHEST_NS, DIGITS = 1, 3_600_000_000_000, 3  # one nanosecond to one hour
_HALF_BITS = 10  # HdrHistogram's sub_bucket_half_count_magnitude at three digits: 1024 linear steps per doubling


Counts = np.ndarray[Any, np.dtype[np.int64]]


class Sparse(msgspec.Struct):
    """The non-zero counts of a histogram: `index` ascending, `count` beside it, largest value in ns."""

    index: list[int] = []
    count: list[int] = []
    max_ns: int = 0


@cache
def _layout() -> HdrHistogram:
    return HdrHistogram(LOWEST_NS, HIGHEST_NS, DIGITS)


def indices(values_ns: Counts) -> Counts:
    """HdrHistogram's counts index of each value (ns); what lies outside the range is clamped to its end."""
    values = np.clip(values_ns, 0, HIGHEST_NS)
    bits = np.frexp((values | (2 * (1 << _HALF_BITS) - 1)).astype(np.float64))[1].astype(np.int64)
    bucket = bits - (_HALF_BITS + 1)
    index: Counts = ((bucket + 1) << _HALF_BITS) + (values >> bucket) - (1 << _HALF_BITS)
    return index


def in_layout(part: Sparse) -> bool:
    """Whether every index, which may come from a file, is one of ours."""
    return not part.index or (min(part.index) >= 0 and max(part.index) < _layout().counts_len)


class Histogram:
    """Counts of latencies. `record` takes seconds in batches; quantiles come out in seconds."""

    __slots__ = ("counts", "max_ns")

    def __init__(self) -> None:
        self.counts: Counts = np.zeros(_layout().counts_len, dtype=np.int64)
        self.max_ns = 0

    def record(self, seconds: list[float]) -> None:
        """Adds a batch of durations in seconds; negative ones count as zero."""
        if seconds:
            values = (np.array(seconds) * 1e9).astype(np.int64)
            self.max_ns = max(self.max_ns, int(values.max()))
            self.counts += np.bincount(indices(values), minlength=len(self.counts))

    def add(self, part: Sparse) -> None:
        if part.index:
            np.add.at(self.counts, np.array(part.index), np.array(part.count))
            self.max_ns = max(self.max_ns, part.max_ns)

    def sparse(self) -> Sparse:
        index = np.flatnonzero(self.counts)
        return Sparse(index.tolist(), self.counts[index].tolist(), self.max_ns)

    def clear(self) -> None:
        self.counts.fill(0)
        self.max_ns = 0

    @property
    def total(self) -> int:
        return int(self.counts.sum())

    def quantile(self, share: float) -> float:
        """Seconds below or at which this share (0..1) of the values lie; 0.0 when empty."""
        return quantiles(self.sparse(), (share,))[0]

    def above(self, seconds: float) -> int:
        """How many values are at least this long, to the histogram's resolution."""
        return int(self.counts[int(indices(np.array([int(seconds * 1e9)]))[0]) :].sum())

    def between(self, low: float, high: float) -> int:
        """How many values lie in [low, high) seconds, to the histogram's resolution."""
        return self.above(low) - self.above(high)


def quantiles(part: Sparse, shares: tuple[float, ...]) -> list[float]:
    """Quantiles in seconds, HdrHistogram's rule: the highest value equivalent to the count that reaches the share."""
    if not part.index:
        return [0.0] * len(shares)
    reached = np.cumsum(np.array(part.count))
    layout = _layout()
    found = []
    for share in shares:
        wanted = max(1, int(share * float(reached[-1]) + 0.5))
        at = part.index[int(np.searchsorted(reached, wanted))]
        value = layout.get_highest_equivalent_value(layout.get_value_from_index(at))
        found.append(min(value, part.max_ns) / 1e9)
    return found


def merged(first: Sparse, second: Sparse) -> Sparse:
    """Both together; neither is changed."""
    if not first.index:
        return second
    if not second.index:
        return first
    counts = dict(zip(first.index, first.count, strict=True))
    for index, count in zip(second.index, second.count, strict=True):
        counts[index] = counts.get(index, 0) + count
    index_list = sorted(counts)
    return Sparse(index_list, [counts[index] for index in index_list], max(first.max_ns, second.max_ns))
