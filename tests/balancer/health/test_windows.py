"""Health windows: the times that CLB's documentation computes, with a clock of our own."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from timewait.balancer.config.model import CheckType, Health
from timewait.balancer.health.windows import Window, seconds_to_fall
from timewait.balancer.rotation import State

DEFAULT = Health()
Target = Callable[[float], tuple[float, bool | None]]
"""A target: for a check sent at a time, how long its answer takes and whether it is a good one."""


def silent(at: float) -> tuple[float, bool | None]:
    return DEFAULT.timeout, False


def refusing(at: float) -> tuple[float, bool | None]:
    return 0.0, False


def well(at: float) -> tuple[float, bool | None]:
    return 0.1, True


def starved(at: float) -> tuple[float, bool | None]:
    return 0.0, None


def play(window: Window, target: Target, until: float) -> tuple[list[float], list[tuple[float, State]]]:
    """When checks were sent, and when the state became what."""
    sent, states = [], []
    while window.due < until:
        now = window.due
        window.sent(now)
        sent.append(now)
        took, passed = target(now)
        if window.answered(now + took, passed, "" if passed else "why"):
            states.append((round(now + took, 6), window.state))
    return sent, states


def healthy(kind: CheckType, rules: Health = DEFAULT) -> Window:
    """A window of a healthy target whose next check is due at 0."""
    window = Window(rules, kind, -1000.0, first_decides=True)
    window.sent(-1000.0)
    window.answered(-1000.0, True)
    window.due = window._slot = 0.0
    return window


@pytest.mark.parametrize(
    ("kind", "target", "sends", "falls"),
    [
        (CheckType.TCP, refusing, [0, 5, 10], 10.0),  # interval x (fall - 1), as CLB says for layer 4
        (CheckType.TCP, silent, [0, 5, 10], 12.0),  # ... counted from the first failure, which is at 2
        (CheckType.PING, silent, [0, 5, 10], 12.0),
        (CheckType.CUSTOM, refusing, [0, 5, 10], 10.0),
        (CheckType.HTTP, silent, [0, 7, 14], 16.0),  # timeout x fall + interval x (fall - 1), as CLB says for layer 7
        (CheckType.HTTP, refusing, [0, 5, 10], 10.0),
    ],
)
def test_a_dead_target_falls_when_clb_says(kind: CheckType, target: Target, sends: list[float], falls: float) -> None:
    sent, states = play(healthy(kind), target, falls + 0.5)
    assert sent == sends
    assert states == [(falls, State.UNHEALTHY)]


@pytest.mark.parametrize(("kind", "seconds"), [(CheckType.TCP, 10.0), (CheckType.HTTP, 16.0)])
def test_the_window_as_a_number(kind: CheckType, seconds: float) -> None:
    assert seconds_to_fall(DEFAULT, kind) == seconds


@pytest.mark.parametrize(
    ("kind", "sends", "rises"),
    [
        (CheckType.TCP, [5, 10, 15], 15.1),  # interval x rise, and the answer
        (CheckType.HTTP, [5, 10.1, 15.2], 15.3),  # interval x rise + rtt x rise
    ],
)
def test_a_new_target_waits_interval_times_rise(kind: CheckType, sends: list[float], rises: float) -> None:
    window = Window(DEFAULT, kind, 0.0)
    assert window.state is State.PROBING
    sent, states = play(window, well, rises)
    assert sent == pytest.approx(sends)
    assert states == [(rises, State.HEALTHY)]


def test_a_new_target_that_fails_was_never_healthy() -> None:
    _, states = play(Window(DEFAULT, CheckType.TCP, 0.0), refusing, 15.5)
    assert states == [(15.0, State.UNHEALTHY)]


@pytest.mark.parametrize(("target", "state"), [(well, State.HEALTHY), (refusing, State.UNHEALTHY)])
def test_at_the_start_the_first_check_decides_alone(target: Target, state: State) -> None:
    window = Window(DEFAULT, CheckType.TCP, 0.0, first_decides=True)
    sent, states = play(window, target, 1.0)
    assert sent == [0.0]
    assert [state for _, state in states] == [state]


def test_the_second_check_needs_company() -> None:
    window = Window(DEFAULT, CheckType.TCP, 0.0, first_decides=True)
    play(window, refusing, 1.0)
    sent, states = play(window, well, 16.0)
    assert sent == [5, 10, 15]
    assert states == [(15.1, State.HEALTHY)]


def test_one_good_answer_begins_the_count_anew() -> None:
    window = healthy(CheckType.TCP)
    for at, passed in ((0, False), (5, False), (10, True), (15, False), (20, False)):
        window.sent(at)
        assert not window.answered(at, passed, "refused")
    assert window.state is State.HEALTHY
    assert (window.failed, window.reason) == (2, "refused")
    window.sent(25)
    assert window.answered(25, False, "refused")
    assert (window.state, window.since) == (State.UNHEALTHY, 25)


def test_want_of_ports_here_says_nothing_about_the_target() -> None:
    window = healthy(CheckType.TCP)
    sent, states = play(window, starved, 100.0)
    assert (len(sent), states, window.state) == (20, [], State.HEALTHY)
    first = Window(DEFAULT, CheckType.TCP, 0.0, first_decides=True)
    play(first, starved, 4.0)
    play(first, well, 6.0)
    assert first.state is State.HEALTHY  # the first that says anything decides


def test_a_late_check_does_not_move_those_after_it() -> None:
    window = healthy(CheckType.TCP)
    window.sent(0.4)
    window.answered(0.5, True)
    assert window.due == 5.0
    window.sent(19.0)  # the machine slept
    window.answered(19.0, True)
    assert window.due == 24.0


def test_other_rules_keep_the_state_and_count_anew() -> None:
    window = healthy(CheckType.TCP)
    for at in (0, 5):
        window.sent(at)
        window.answered(at, False)
    window.retuned(Health(interval=2.0, timeout=1.0, fall=2), CheckType.TCP)
    assert (window.state, window.failed, window.due) == (State.HEALTHY, 0, 7.0)
    sent, states = play(window, refusing, 9.5)
    assert (sent, states) == ([7, 9], [(9, State.UNHEALTHY)])
