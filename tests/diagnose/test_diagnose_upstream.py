"""The balancer's own wall: what is said of ports toward a target."""

from __future__ import annotations

import pytest

from timewait.diagnose.upstream import AHEAD, EXHAUSTED, HELD, Upstream, seconds_left, upstream_ports
from timewait.run import PortUse


def use(*, in_use: int = 0, time_wait: int = 0, capacity: int = 28_232) -> PortUse:
    return PortUse(
        destination="10.2.1.2:80",
        capacity=capacity,
        in_use=in_use,
        time_wait=time_wait,
        free=capacity - in_use - time_wait,
    )


@pytest.mark.parametrize(
    ("one", "left", "found"),
    [
        (Upstream(use(), 0.0, 0), None, None),
        (Upstream(use(time_wait=9_000), 470.0, 0), None, None),  # 470/s are carried for ever
        (Upstream(use(time_wait=8_232), 2_000.0, 0), 10.0, AHEAD),
        (Upstream(use(), 472.0, 0), 59.8, AHEAD),
        (Upstream(use(time_wait=8_232), 2_000.0, 0, rest=1.0), None, None),  # tcp_tw_reuse is in force
        (Upstream(use(), 2_000.0, 0, sources=2), 14.1, AHEAD),
        (Upstream(use(time_wait=28_000), 500.0, 7), 0.5, EXHAUSTED),
        (Upstream(use(time_wait=28_000), 0.0, 0), None, EXHAUSTED),
        (Upstream(use(in_use=28_000), 0.0, 7), None, HELD),
        (Upstream(use(capacity=0), 10.0, 7), 0.0, None),
        (Upstream(use(time_wait=28_232), 2_000.0, 0, rest=0.0, conntrack=True), None, None),  # evicted at need
        (Upstream(use(in_use=27_000, time_wait=1_232), 2_000.0, 0, rest=0.0, conntrack=True), None, HELD),
    ],
)
def test_when_ports_run_out(one: Upstream, left: float | None, found: str | None) -> None:
    assert seconds_left(one) == (left if left is None else pytest.approx(left, abs=0.05))
    finding = upstream_ports(one)
    assert (finding.id if finding else None) == found


def test_the_forecast_has_the_numbers_and_the_best_way_out() -> None:
    finding = upstream_ports(Upstream(use(time_wait=8_232), 2_000.0, 0))
    assert finding is not None
    assert finding.summary == (
        "Toward 10.2.1.2:80 the balancer needs 2,000 ports a second for 60 s each, has 20,000 of 28,232 free: "
        "connections fail after 10 s."
    )
    assert [remedy.action for remedy in finding.remedy] == [
        'upstream.keepalive = true with upstream.reuse = "always"',
        'upstream.close = "rst"',
        'upstream.close = "peer" with upstream.keepalive = false',
        "upstream.source with 5 addresses",
    ]


def test_what_failed_is_told_as_certain() -> None:
    finding = upstream_ports(Upstream(use(in_use=28_232), 0.0, 7))
    assert finding is not None
    assert finding.summary == (
        "Toward 10.2.1.2:80 7 connections found no source port: open connections hold 28,232 of 28,232 ports."
    )
    assert [remedy.action for remedy in finding.remedy] == ["upstream.source with 2 addresses"]


def test_ports_of_conntrack_are_not_spared_by_how_connections_close() -> None:
    finding = upstream_ports(Upstream(use(time_wait=8_232), 2_000.0, 0, rest=120.0, conntrack=True))
    assert finding is not None
    assert finding.id == AHEAD
    assert "needs 2,000 ports a second for 120 s each" in finding.summary
    assert {evidence.source for evidence in finding.evidence} == {"conntrack", "its own counters"}
    assert [remedy.action for remedy in finding.remedy] == [
        "upstream.source with 9 addresses",
        'nat = "dnat" in the pool',
    ]
