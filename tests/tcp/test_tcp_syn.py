"""SYN schedules of the kernels, and their mark in connect times."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from timewait.tcp import syn
from timewait.tcp.kernels import KERNELS, Kernel, running


@pytest.mark.parametrize(
    ("release", "retries", "sends", "gives_up"),
    [
        ("2.6.32", None, (0, 3, 9, 21, 45, 93), 189),
        ("3.10.65", None, (0, 1, 3, 7, 15, 31, 63), 127),
        ("3.10.0", 5, (0, 1, 3, 7, 15, 31), 63),
        ("6.4.9", None, (0, 1, 3, 7, 15, 31, 63), 127),
        ("6.6.0", None, (0, 1, 2, 3, 4, 5, 7, 11, 19, 35, 67), 131),
        ("6.18.44", None, (0, 1, 2, 3, 4, 5, 7, 11, 19, 35, 67), 131),
        ("6.18.44", 0, (0, 1, 2, 3, 4), 5),
        ("5.10.0", 0, (0,), 1),
    ],
)
def test_schedule(release: str, retries: int | None, sends: tuple[float, ...], gives_up: float) -> None:
    found = syn.schedule(running(release), retries=retries)
    assert found.sends == sends
    assert found.gives_up == gives_up


def test_the_linear_timeouts_can_be_switched_off() -> None:
    assert syn.schedule(running("6.18.44"), linear=0) == syn.schedule(running("5.10.0"))


@given(st.sampled_from(KERNELS), st.integers(-1, 300), st.integers(-1, 300))
def test_a_schedule_always_moves_on(kernel: Kernel, retries: int, linear: int) -> None:
    found = syn.schedule(kernel, retries=retries, linear=linear)
    times = (*found.sends, found.gives_up)
    assert all(later > earlier for earlier, later in pairwise(times))
    assert max(b - a for a, b in pairwise(times)) <= syn.TCP_RTO_MAX


def _print(values: list[float], release: str) -> syn.Fingerprint:
    return syn.fingerprint(
        lambda low, high: sum(low <= value < high for value in values), syn.schedule(running(release))
    )


def test_doubling_timeouts_leave_clusters_at_1_3_7() -> None:
    found = _print([0.001] * 90 + [1.01, 1.02, 3.03, 7.05], "5.10.0")
    assert found.clusters == ((1.0, 2), (3.0, 1), (7.0, 1))
    assert (found.matched, found.slow, found.share) == (4, 4, 1.0)
    assert syn.shape(found.clusters) == "exponential"


def test_linear_timeouts_leave_clusters_at_every_second() -> None:
    found = _print([1.01, 2.02, 3.03, 4.04, 5.05, 7.07], "6.18.0")
    assert [at for at, _ in found.clusters] == [1, 2, 3, 4, 5, 7]
    assert syn.shape(found.clusters) == "linear"


def test_a_slow_peer_leaves_no_clusters() -> None:
    found = _print([1.6, 1.7, 2.6, 2.7, 4.6, 5.5], "5.10.0")
    assert found.matched == 0
    assert found.slow == 6


def test_one_cluster_alone_cannot_tell() -> None:
    assert syn.shape([(1.0, 5)]) == ""
    assert syn.shape([]) == ""
    assert syn.shape([(1.0, 5), (2.0, 0)]) == ""


def test_a_kernel_that_never_resends_has_no_fingerprint() -> None:
    nothing = syn.fingerprint(lambda low, high: 3, syn.schedule(running("5.10.0"), retries=0))
    assert nothing == syn.Fingerprint((), 0, 0)
    assert nothing.share == 0.0


@pytest.mark.parametrize(
    ("release", "expected"), [("2.6.32", 3.02), ("4.19.78", 1.02), ("5.4.286", 1.02), ("6.18.0", 0.048)]
)
def test_a_syn_that_meets_time_wait(release: str, expected: float) -> None:
    assert syn.seconds_until_connected(running(release).rules, 0.02) == pytest.approx(expected)
