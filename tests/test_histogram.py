"""Batches, the sparse form and the quantiles say what HdrHistogram itself says."""

from __future__ import annotations

import numpy as np
from hdrh.histogram import HdrHistogram
from hypothesis import given
from hypothesis import strategies as st

from timewait.histogram import DIGITS, HIGHEST_NS, LOWEST_NS, Histogram, Sparse, indices, merged, quantiles

durations = st.lists(st.floats(0, 3600, allow_nan=False), min_size=1, max_size=60)


@given(st.lists(st.integers(0, HIGHEST_NS), min_size=1, max_size=50))
def test_indices_are_those_of_the_library(values: list[int]) -> None:
    library = HdrHistogram(LOWEST_NS, HIGHEST_NS, DIGITS)
    ours = indices(np.array(values, dtype=np.int64)).tolist()
    assert ours == [library._counts_index_for(value) for value in values]


@given(durations)
def test_quantiles_are_those_of_the_library(values: list[float]) -> None:
    ours, library = Histogram(), HdrHistogram(LOWEST_NS, HIGHEST_NS, DIGITS)
    ours.record(values)
    for value in values:
        library.record_value(int(value * 1e9))
    for share in (0.5, 0.9, 0.99, 0.999):
        expected = min(library.get_value_at_percentile(share * 100), ours.max_ns) / 1e9
        assert ours.quantile(share) == expected
    assert ours.quantile(1.0) == ours.max_ns / 1e9


@given(durations, durations)
def test_merged_parts_are_the_whole(first: list[float], second: list[float]) -> None:
    parts = []
    whole = Histogram()
    for values in (first, second):
        part = Histogram()
        part.record(values)
        whole.record(values)
        parts.append(part.sparse())
    assert merged(*parts) == whole.sparse()
    again = Histogram()
    again.add(parts[0])
    again.add(parts[1])
    assert again.sparse() == whole.sparse()


def test_empty() -> None:
    assert quantiles(Sparse(), (0.5, 0.99)) == [0.0, 0.0]
    histogram = Histogram()
    histogram.record([])
    assert histogram.total == 0


def test_above_and_between() -> None:
    histogram = Histogram()
    histogram.record([0.01] * 90 + [1.02] * 7 + [3.05] * 3)
    assert histogram.above(0.9) == 10
    assert histogram.between(0.9, 1.5) == 7


def test_what_is_out_of_range_is_clamped() -> None:
    histogram = Histogram()
    histogram.record([-1.0, 1e9])
    assert histogram.total == 2
