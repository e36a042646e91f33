"""Who gets traffic: a table."""

from __future__ import annotations

import pytest

from timewait.balancer.config.model import AllDown
from timewait.balancer.rotation import Member, State, changed, is_all_down, rotation

H, U, P, N = State.HEALTHY, State.UNHEALTHY, State.PROBING, State.UNCHECKED


@pytest.mark.parametrize(
    ("members", "all_down", "weights"),
    [
        ([("a", 10, H), ("b", 5, H)], AllDown.ALL, [10, 5]),
        ([("a", 10, U), ("b", 5, H)], AllDown.ALL, [0, 5]),
        ([("a", 10, P), ("b", 5, H)], AllDown.ALL, [0, 5]),  # a new one gets nothing before it was found healthy
        ([("a", 10, U), ("b", 5, U)], AllDown.ALL, [10, 5]),  # all dead, all live
        ([("a", 10, U), ("b", 5, U)], AllDown.REJECT, [0, 0]),
        ([("a", 10, P), ("b", 5, P)], AllDown.ALL, [10, 5]),  # at the start
        ([("a", 10, U), ("b", 5, P)], AllDown.ALL, [10, 5]),
        ([("a", 10, N), ("b", 5, N)], AllDown.REJECT, [10, 5]),  # checks are off
        ([("a", 10, U), ("b", 0, H)], AllDown.ALL, [10, 0]),  # weight 0 does not come back, and counts for nobody
        ([("a", 10, U), ("b", 0, H)], AllDown.REJECT, [0, 0]),
        ([("a", 0, H), ("b", 0, H)], AllDown.ALL, [0, 0]),
        ([("a", 10, U), ("b", 5, H, True)], AllDown.ALL, [10, 0]),  # one that leaves
        ([], AllDown.ALL, []),
    ],
)
def test_weights(members: list[tuple[str, int, State]], all_down: AllDown, weights: list[int]) -> None:
    found = rotation("app", all_down, [Member(*one) for one in members])
    assert found.weights == tuple((one[0], weight) for one, weight in zip(members, weights, strict=True))


@pytest.mark.parametrize(
    ("states", "down"), [((U, U), True), ((U, H), False), ((U, P), False), ((N, U), False), ((), False)]
)
def test_all_down_is_told_when_it_is_known(states: tuple[State, ...], down: bool) -> None:
    assert is_all_down([Member(str(number), 10, state) for number, state in enumerate(states)]) is down


def test_only_what_changed_is_told() -> None:
    a, b = (rotation("a", AllDown.ALL, [Member("x", 1, H)]), rotation("b", AllDown.ALL, [Member("x", 1, H)]))
    other = rotation("b", AllDown.ALL, [Member("x", 2, H)])
    assert changed({"a": a, "b": b}, {"a": a, "b": other}) == {"b": other}
    assert changed({}, {"a": a}) == {"a": a}
