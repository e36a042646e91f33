"""Numbers as people read them, and foreign text made harmless."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from timewait.plan import Closing, Plan, Ports, Rate, RateUnit, parse_url
from timewait.report import words
from timewait.run import Cause, Phase


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0 s"),
        (2e-9, "0.00 µs"),
        (31e-6, "31.0 µs"),
        (0.9994e-3, "999 µs"),
        (0.9996e-3, "1.00 ms"),
        (0.00123, "1.23 ms"),
        (0.009999, "10.0 ms"),
        (0.1234, "123 ms"),
        (3.004, "3.00 s"),
        (61.25, "61.2 s"),
    ],
)
def test_seconds(value: float, text: str) -> None:
    assert words.seconds(value) == text


@given(st.floats(1e-6, 900))
def test_seconds_keep_three_digits(value: float) -> None:
    number, unit = words.seconds(value).split()
    assert len(number.replace(".", "")) == 3
    assert float(number) * {"µs": 1e-6, "ms": 1e-3, "s": 1.0}[unit] == pytest.approx(value, rel=0.006)


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0/s"), (8412.4, "8,412/s"), (12.34, "12.3/s"), (99.97, "100/s"), (5.0, "5/s"), (0.001, "<0.01/s")],
)
def test_rate(value: float, text: str) -> None:
    assert words.rate(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0%"),
        (1.0, "100%"),
        (0.111, "11.1%"),
        (0.05, "5.00%"),
        (0.001, "0.10%"),
        (1e-9, "<0.01%"),
        (1 - 1e-9, ">99.99%"),
        (0.9987, "99.87%"),
    ],
)
def test_share(value: float, text: str) -> None:
    assert words.share(value) == text


@given(st.integers(1, 10**9), st.integers(0, 10**9))
def test_only_nothing_is_zero_and_only_all_is_hundred(whole: int, part: int) -> None:
    part = min(part, whole)
    text = words.share(part / whole)
    assert (text == "0%") == (part == 0)
    assert (text == "100%") == (part == whole)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (10, "10 s"),
        (10.02, "10.0 s"),
        (0.5, "0.50 s"),
        (90, "90 s"),
        (150, "2 min 30 s"),
        (3600, "60 min"),
        (7500, "2 h 5 min"),
    ],
)
def test_duration(value: float, text: str) -> None:
    assert words.duration(value) == text


@pytest.mark.parametrize(("value", "text"), [(0, "0 B"), (999, "999 B"), (1000, "1.00 kB"), (28_100_000, "28.1 MB")])
def test_size(value: float, text: str) -> None:
    assert words.size(value) == text


def test_every_cause_and_phase_has_words() -> None:
    assert set(words.CAUSES) == set(Cause)
    assert set(words.PHASES) == set(Phase)


@given(st.text())
def test_clean_text_cannot_steer_a_terminal(text: str) -> None:
    assert words.clean(text).isprintable()


def test_clean_text_is_bounded_and_keeps_what_it_can() -> None:
    assert words.clean("größe \x1b[31m\u202e") == "größe \\x1b[31m\\u202e"
    assert len(words.clean("x" * 10_000)) == 400


def test_a_plan_in_words() -> None:
    plan = Plan(
        requests_list=(parse_url("http://a/"), parse_url("http://b/")),
        rate=Rate(5000, RateUnit.CONNECTIONS),
        duration=60.0,
        requests_per_connection=1,
        closing=Closing.CLIENT,
        sources=("127.0.0.1", "127.0.0.2"),
        ports=Ports(low=20000, high=20999),
    )
    assert words.target(plan) == "GET http://a/ and 1 more"
    assert words.wish(plan) == [
        "5,000 new connections/s",
        "at most 10,000 connections",
        "60 s",
        "1 request each",
        "client closes first",
        "2 source addresses",
        "ports kernel 20000-20999",
    ]
