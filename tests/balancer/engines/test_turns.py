"""Weights as rings and tables."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from timewait.balancer.nftables.turns import LONGEST, SLOTS, by_hash, in_turn, ranges, reduced

WEIGHTS = st.lists(st.integers(0, 100), min_size=1, max_size=8).map(
    lambda found: [(f"10.0.0.{number}:80", weight) for number, weight in enumerate(found)]
)


def test_a_ring_is_as_short_as_its_weights_allow_and_smooth() -> None:
    assert reduced([("a", 60), ("b", 40), ("c", 0)]) == [("a", 3), ("b", 2)]
    assert in_turn([("a", 50), ("b", 10), ("c", 10)]) == list("aabacaa")  # nginx's own example
    assert in_turn([("a", 0)]) == []


@given(WEIGHTS)
def test_a_ring_has_each_target_as_often_as_its_weight_says(weights: list[tuple[str, int]]) -> None:
    ring = in_turn(weights)
    assert Counter(ring) == dict(reduced(weights))
    assert len(ring) <= LONGEST
    shares = ranges(ring)
    assert [address for turn, address in shares for _ in range(_length(turn))] == ring


def _length(turn: str) -> int:
    first, _, last = turn.partition("-")
    return int(last or first) - int(first) + 1


def test_many_targets_share_the_longest_ring() -> None:
    weights = [(f"t{number}", 100 if number % 2 else 99) for number in range(100)]
    ring = in_turn(weights)
    assert LONGEST - 100 < len(ring) <= LONGEST
    assert set(ring) == {address for address, _ in weights}


@given(WEIGHTS, st.integers(0, 7), st.integers(0, 100))
def test_another_weight_moves_only_clients_of_that_target(
    weights: list[tuple[str, int]], which: int, weight: int
) -> None:
    which %= len(weights)
    changed = [*weights[:which], (weights[which][0], weight), *weights[which + 1 :]]
    before, after = _table(weights), _table(changed)
    moved = {pair for pair in zip(before, after, strict=True) if pair[0] != pair[1]}
    # A table of one target has one slot for all; and where all are gone there is none.
    assert all(weights[which][0] in pair or "" in pair for pair in moved)


def _table(weights: list[tuple[str, int]]) -> list[str]:
    found = by_hash(weights)
    return found * SLOTS if len(found) == 1 else found or [""] * SLOTS


def test_a_table_of_sources_keeps_to_the_weights() -> None:
    shares = Counter(by_hash([("a", 30), ("b", 10)]))
    assert 0.7 < shares["a"] / SLOTS < 0.8
