"""Replications: seeds, intervals, spans."""

from __future__ import annotations

import math
import random
import statistics

import pytest

from timewait.simulate.replicate import estimate, estimates, seed_of, span


def test_seeds_are_many_and_the_first_is_the_users() -> None:
    assert seed_of(7, 0) == 7
    seeds = {seed_of(seed, replication) for seed in range(20) for replication in range(1, 200)}
    assert len(seeds) == 20 * 199
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_an_estimate_of_known_values() -> None:
    found = estimate([1.0, 2.0, 3.0, 4.0])
    slack = 3.182 * statistics.stdev([1, 2, 3, 4]) / 2
    assert (found.mean, found.count, found.known) == (2.5, 4, True)
    assert (found.low, found.high) == pytest.approx((2.5 - slack, 2.5 + slack))


def test_one_value_is_no_interval() -> None:
    found = estimate([0.3])
    assert (found.mean, found.low, found.high, found.known) == (0.3, 0.3, 0.3, False)
    with pytest.raises(ValueError, match="at least one"):
        estimate([])


def test_an_interval_of_shares_stays_one() -> None:
    assert estimate([0.0, 0.0, 0.01]).low == 0.0
    assert estimate([1.0, 1.0, 0.99]).high == 1.0
    assert estimate([100.0, 1.0]).low == 0.0


@pytest.mark.parametrize("count", [3, 10, 40])
def test_the_interval_covers_the_mean_nineteen_times_of_twenty(count: int) -> None:
    rng = random.Random(1)
    hits = 0
    for _ in range(2000):
        found = estimate([rng.gauss(100, 5) for _ in range(count)])
        hits += found.low <= 100 <= found.high
    assert hits / 2000 == pytest.approx(0.95, abs=0.02)


def test_a_span_holds_nineteen_of_twenty() -> None:
    values = [float(number) for number in range(201)]
    low, high = span(values)
    assert (low, high) == (5.0, 195.0)
    assert span([3.0]) == (3.0, 3.0)
    assert math.isclose(span([1.0, 2.0])[1], 2.0)


def test_figures_that_some_lack() -> None:
    found = estimates([{"a": 1.0}, {"a": 3.0, "b": 5.0}])
    assert (found["a"].mean, found["a"].count) == (2.0, 2)
    assert (found["b"].mean, found["b"].count) == (5.0, 1)
