"""Due times: fixed, even, interleaved over workers, and counted without drift."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from timewait.stress.pacing import Schedule, share


def test_constant_rate() -> None:
    schedule = Schedule(1000.0)
    assert [schedule.due(k) for k in (0, 1, 1000)] == [0.0, 0.001, 1.0]


def test_workers_interleave() -> None:
    both = sorted(Schedule(10.0, 0.0, worker, 2).due(k) for worker in (0, 1) for k in range(5))
    assert both == pytest.approx([k / 10 for k in range(10)])


def test_the_ramp_grows_linearly_and_meets_the_rate() -> None:
    schedule = Schedule(100.0, ramp_up=10.0)  # 500 arrivals in the ramp
    assert schedule.due(125) == pytest.approx(5.0)  # a quarter of them in the first half
    assert schedule.due(500) == pytest.approx(10.0)
    assert schedule.due(600) == pytest.approx(11.0)


@given(
    st.floats(0.1, 1e5), st.floats(0, 30), st.integers(0, 3), st.integers(1, 4), st.floats(0, 100)
)  # fmt: skip
def test_count_agrees_with_due(rate: float, ramp: float, worker: int, workers: int, elapsed: float) -> None:
    schedule = Schedule(rate, ramp, worker % workers, workers)
    count = schedule.count(elapsed)
    assert count == 0 or schedule.due(count - 1) < elapsed
    assert elapsed <= 0 or schedule.due(count) >= elapsed


@given(st.integers(0, 10**6), st.integers(1, 64))
def test_shares_add_up(total: int, workers: int) -> None:
    parts = [share(total, worker, workers) for worker in range(workers)]
    assert sum(parts) == total
    assert max(parts) - min(parts) <= 1
