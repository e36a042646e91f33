"""Numbers in sentences claim no more than is known."""

from __future__ import annotations

from math import inf, nan

import pytest

from timewait.diagnose import words


@pytest.mark.parametrize(
    ("part", "whole", "expected"),
    [
        (0, 10, "0%"), (0, 0, "0%"), (10, 10, "100%"), (1, 10**6, "<0.01%"), (999_999, 10**6, ">99.99%"),
        (1, 8, "12%"), (5, 1000, "0.50%"), (995, 1000, "99.50%"), (3, 2, "150%"), (nan, 1, "?"), (1, inf, "?"),
    ],
)  # fmt: skip
def test_share(part: float, whole: float, expected: str) -> None:
    assert words.share(part, whole) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0.0000004, "0 µs"), (0.00002, "20 µs"), (0.00123, "1.23 ms"), (0.5, "500 ms"), (1.05, "1.1 s"),
        (28.2, "28 s"), (3600, "3,600 s"), (nan, "? s"), (inf, "? s"),
    ],
)  # fmt: skip
def test_seconds(value: float, expected: str) -> None:
    assert words.seconds(value) == expected


def test_a_sustainable_rate_is_rounded_down() -> None:
    assert [words.rate(value) for value in (470.9, 3.37, 99.99, inf)] == ["470/s", "3.3/s", "99.9/s", "?/s"]
    assert [words.asked(value) for value in (1000.4, 3.333)] == ["1,000/s", "3.33/s"]


def test_plurals() -> None:
    found = [words.plural(n, noun) for n, noun in ((1, "port"), (0, "port"), (2000, "address"), (2, "entry"))]
    assert found == ["1 port", "0 ports", "2,000 addresses", "2 entries"]
