"""Capacity, the wall, and when a TIME_WAIT may be taken over."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from timewait.tcp import ports
from timewait.tcp.release import parse_release


@pytest.mark.parametrize(
    ("text", "release"),
    [
        ("6.18.44-fc-v669", (6, 18, 44)),
        ("5.10.0-28-amd64", (5, 10, 0)),
        ("2.6.32-642.6.2.el6.x86_64", (2, 6, 32)),
        ("6.1", (6, 1, 0)),
        ("", (0, 0, 0)),
        ("next", (0, 0, 0)),
    ],
)
def test_release(text: str, release: tuple[int, int, int]) -> None:
    assert parse_release(text) == release


@pytest.mark.parametrize(("release", "seconds"), [((6, 4, 16), 120.0), ((6, 5, 0), 0.0), ((0, 0, 0), 120.0)])
def test_nat_takes_time_wait_over_since_6_5(release: tuple[int, int, int], seconds: float) -> None:
    """nf_nat_used_tuple_harder(), nf_nat_core.c."""
    assert ports.conntrack_rest(release) == seconds


@pytest.mark.parametrize(
    ("low", "high", "reserved", "sources", "expected"),
    [
        (32768, 60999, 0, 1, 28232),
        (32768, 60999, 0, 0, 28232),  # no --source: the routing table's one address
        (32768, 61000, 0, 1, 28233),
        (32768, 60999, 32, 4, 112_800),
        (40000, 40199, 0, 1, 200),
        (40000, 40000, 0, 1, 1),
        (40000, 40009, 10, 3, 0),
        (40001, 40000, 0, 1, 0),
    ],
)
def test_capacity(low: int, high: int, reserved: int, sources: int, expected: int) -> None:
    assert ports.capacity(low, high, reserved, sources) == expected


@pytest.mark.parametrize(
    ("free", "rate", "capacity", "rest", "expected"),
    [
        (28232, 1000, 28232, 60, 28.232),
        (28232, 470, 28232, 60, None),  # 470 x 60 = 28,200: fits
        (28232, 471, 28232, 60, 28232 / 471),
        (10000, 1000, 28232, 60, 10.0),  # residue counts
        (0, 1000, 28232, 60, 0.0),
        (-5, 1000, 28232, 60, 0.0),
        (1000, 900, 1000, 1, None),  # tcp_tw_reuse: ports per second
        (1000, 2000, 1000, 1, 0.5),
        (1000, 1e9, 1000, 0, None),  # taken over at once
        (28232, 0, 28232, 60, None),
    ],
)
def test_seconds_to_wall(free: int, rate: float, capacity: int, rest: float, expected: float | None) -> None:
    found = ports.seconds_to_wall(free, rate, capacity, rest)
    assert found is None if expected is None else found == pytest.approx(expected)


@given(st.integers(1, 10**6), st.floats(0.1, 1e6))
def test_the_sustainable_rate_is_where_the_wall_begins(capacity: int, rate: float) -> None:
    wall = ports.seconds_to_wall(capacity, rate, capacity)
    assert (wall is None) == (rate * 60 <= capacity)
    if wall is not None:
        assert wall < 60
        assert rate > ports.sustainable(capacity) * 0.999


@given(st.floats(1, 1e6), st.integers(1, 64_000))
def test_the_sources_needed_are_enough_and_not_one_too_many(rate: float, per_source: int) -> None:
    needed = ports.sources_needed(rate, per_source)
    assert ports.seconds_to_wall(0, rate * 0.999999, needed * per_source) is None
    assert needed == 1 or ports.seconds_to_wall(0, rate, (needed - 1) * per_source) is not None


def test_no_ports_need_no_number_of_sources() -> None:
    assert ports.sources_needed(100, 0) == 0


@pytest.mark.parametrize(
    ("tw_reuse", "loopback", "timestamps", "bound", "expected"),
    [
        (0, True, True, False, 60.0),
        (1, False, True, False, 1.0),
        (1, False, False, False, 60.0),
        (2, True, True, False, 1.0),
        (2, False, True, False, 60.0),
        (0, False, True, True, 0.0),
        (0, False, False, True, 60.0),
    ],
)
def test_rest(tw_reuse: int, loopback: bool, timestamps: bool, bound: bool, expected: float) -> None:
    assert ports.rest(tw_reuse=tw_reuse, loopback=loopback, timestamps=timestamps, bound=bound) == expected
