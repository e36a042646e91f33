"""What is known of a five-tuple's past."""

from __future__ import annotations

from timewait.stress.tuples import Tuples


def test_tracked_from_the_start_everything_is_known() -> None:
    tuples = Tuples(active=True)
    assert tuples.past(1, 0.0) is False
    tuples.ended(1, 10.0)
    assert tuples.past(1, 69.9) is True
    assert tuples.past(1, 70.0) is False


def test_begun_late_the_unseen_is_unknown_for_a_minute() -> None:
    tuples = Tuples(active=False)
    tuples.begin(100.0)
    tuples.begin(150.0)  # has begun already
    assert tuples.past(1, 159.0) is None
    assert tuples.past(1, 160.0) is False
    tuples.ended(1, 110.0)
    assert tuples.past(1, 120.0) is True
