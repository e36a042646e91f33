"""Which target is next."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from timewait.balancer.config.model import Scheduler
from timewait.balancer.routing.schedulers import IpHash, LeastConn, SmoothWrr, Weights, scheduler

WEIGHTS = st.lists(st.integers(0, 100), max_size=8).map(
    lambda weights: [(f"10.0.0.{number}:80", weight) for number, weight in enumerate(weights)]
)


def turns(weights: Weights, count: int, start: int = 0) -> str:
    """The first letters of the targets that a round robin gives."""
    wrr = SmoothWrr(weights, start)
    return "".join(str(wrr.next(b"", {})) for _ in range(count))


def test_round_robin_is_nginx_s() -> None:
    assert turns([("a", 5), ("b", 1), ("c", 1)], 14) == "aabacaa" * 2
    assert turns([("a", 50), ("b", 10), ("c", 10)], 14) == "aabacaa" * 2
    assert turns([("a", 1), ("b", 0), ("c", 1)], 4) == "acac"
    assert turns([("a", 1), ("b", 1), ("c", 1)], 4, start=1) == "bcab"


@given(WEIGHTS, st.integers(0, 200))
@settings(max_examples=60, deadline=None)
def test_every_cycle_is_exact(weights: Weights, start: int) -> None:
    wrr, total = SmoothWrr(weights, start), sum(weight for _, weight in weights)
    if not total:
        assert wrr.next(b"", {}) is None
        return
    for _ in range(2):
        counted = Counter(wrr.next(b"", {}) for _ in range(total))
        assert counted == {address: weight for address, weight in weights if weight}


def test_other_weights_count_at_once() -> None:
    wrr = SmoothWrr([("a", 1), ("b", 1)])
    wrr.next(b"", {})
    wrr.reweigh([("a", 0), ("b", 1)])
    assert [wrr.next(b"", {}) for _ in range(3)] == ["b", "b", "b"]
    wrr.reweigh([("a", 0), ("b", 0)])
    assert wrr.next(b"", {}) is None
    wrr.reweigh([("c", 3), ("b", 1)])
    assert Counter(wrr.next(b"", {}) for _ in range(8)) == {"c": 6, "b": 2}


def test_changes_before_every_turn_favour_nobody() -> None:
    wrr, weights = SmoothWrr([("a", 1), ("b", 1), ("c", 1)]), [("a", 1), ("b", 1), ("c", 1)]
    counted: Counter[str | None] = Counter()
    for _ in range(300):
        wrr.reweigh(weights)
        counted[wrr.next(b"", {})] += 1
    assert set(counted.values()) == {100}


def test_least_connections_by_weight() -> None:
    least = LeastConn([("a", 10), ("b", 1), ("c", 0)])
    assert least.next(b"", {"a": 10, "b": 2}) == "a"
    assert least.next(b"", {"a": 10}) == "b"
    assert least.next(b"", {"a": 9, "b": 1}) == "a"
    assert LeastConn([("c", 0)]).next(b"", {}) is None


def test_least_connections_shares_by_weight_among_equals() -> None:
    least = LeastConn([("a", 2), ("b", 1), ("c", 1)])
    assert Counter(least.next(b"", {}) for _ in range(40)) == {"a": 20, "b": 10, "c": 10}
    assert Counter(least.next(b"", {"a": 1}) for _ in range(40)) == {"b": 20, "c": 20}


@given(WEIGHTS.filter(lambda weights: any(weight for _, weight in weights)), st.integers(1, 200))
@settings(max_examples=30, deadline=None)
def test_least_connections_in_use_follow_the_weights(weights: Weights, count: int) -> None:
    """With connections that stay, each target's share is that of its weight, to the connection."""
    least, active = LeastConn(weights), Counter[str]()
    for _ in range(count):
        active[str(least.next(b"", active))] += 1
    total = sum(weight for _, weight in weights)
    for address, weight in weights:
        assert abs(active[address] - count * weight / total) <= 1 + len(weights) / 2


SOURCES = [b"10.%d.%d.%d" % (number >> 8, number & 255, number % 7) for number in range(4000)]


def places(hashed: IpHash) -> dict[bytes, str | None]:
    """Every source's target."""
    return {source: hashed.next(source, {}) for source in SOURCES}


def test_a_source_keeps_its_target() -> None:
    weights = [("a", 10), ("b", 20), ("c", 10)]
    hashed = IpHash(weights)
    first = places(hashed)
    assert places(hashed) == places(IpHash(list(reversed(weights)))) == first
    shares = Counter(first.values())
    assert shares["b"] == pytest.approx(2000, rel=0.1) and shares["a"] == pytest.approx(1000, rel=0.15)


@pytest.mark.parametrize(
    "changed",
    [
        [("a", 10), ("b", 20), ("c", 0)],
        [("a", 10), ("b", 20), ("c", 5)],
        [("a", 10), ("b", 20), ("c", 10), ("d", 10)],
        [("a", 10), ("b", 20)],
    ],
)
def test_only_sources_of_the_changed_target_move(changed: Weights) -> None:
    hashed = IpHash([("a", 10), ("b", 20), ("c", 10)])
    before = places(hashed)
    hashed.reweigh(changed)
    after = places(hashed)
    moved = {(before[source], after[source]) for source in SOURCES if before[source] != after[source]}
    assert moved
    assert all("c" in pair or "d" in pair for pair in moved)


def test_no_target_no_answer() -> None:
    assert IpHash([("a", 0)]).next(b"x", {}) is None


def test_kinds() -> None:
    kinds = {kind: type(scheduler(kind, [("a", 1)], 3)) for kind in Scheduler}
    assert kinds == {Scheduler.WRR: SmoothWrr, Scheduler.LEAST_CONN: LeastConn, Scheduler.IP_HASH: IpHash}
