"""How a verdict comes about: from measurements only."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from timewait.verdict import (
    DOES_NOT_HOLD,
    HOLDS,
    INCONCLUSIVE,
    Measure,
    Outcome,
    Result,
    between,
    exactly,
    telling,
    verdict,
)

RIGHT, WRONG = Measure("a", "1", "1", True), Measure("b", "1", "2", False)


@pytest.mark.parametrize(
    ("measures", "condition", "expected"),
    [
        ((RIGHT,), "", HOLDS),
        ((RIGHT, RIGHT), "the moon is full", "holds only if the moon is full"),
        ((RIGHT, WRONG), "", DOES_NOT_HOLD),
        ((RIGHT, WRONG), "the moon is full", DOES_NOT_HOLD),
        ((), "", INCONCLUSIVE),  # a prediction alone is no measurement
        ((), "the moon is full", INCONCLUSIVE),
    ],
)
def test_the_verdict_follows_from_the_measures(measures: tuple[Measure, ...], condition: str, expected: str) -> None:
    assert verdict(Outcome(measures=measures, condition=condition)) == expected


@given(st.integers(), st.integers())
def test_an_exact_count_agrees_with_itself_only(predicted: int, measured: int) -> None:
    assert exactly("x", predicted, measured).agrees == (predicted == measured)


@given(st.floats(-1e9, 1e9), st.floats(-1e9, 1e9), st.floats(-1e9, 1e9))
def test_a_range_includes_its_ends_and_nothing_beyond(low: float, value: float, high: float) -> None:
    assert between("x", low, value, high).agrees == (low <= value <= high)


def test_where_there_is_room_for_one_the_one_that_disagrees_is_shown() -> None:
    assert telling([RIGHT, WRONG]) is WRONG
    assert telling([RIGHT, RIGHT]) is RIGHT


def test_the_kind_is_the_verdict_without_its_condition() -> None:
    result = Result(
        claim="c", title="t", predicted="", measured="", verdict="holds only if x", seconds=1, kernel="6.18"
    )
    assert result.kind == "holds only if"
