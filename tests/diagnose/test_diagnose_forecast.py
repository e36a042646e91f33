"""The sentence before the first packet."""

# ruff: noqa: E501  one row, one case: a table reads better than it folds

from __future__ import annotations

from typing import Any

import pytest

from diagnose.synthetic import CLIENT, RESET, SERVER, host, plan, use
from timewait.diagnose import forecast
from timewait.plan import Closing, PortPolicy, Ports, Rate, RateUnit
from timewait.run import PortUse, Snapshot

CPS: dict[str, Any] = {"rate": Rate(1000.0, RateUnit.CONNECTIONS)}
OFF: dict[str, Any] = {"sysctls": {"net.ipv4.tcp_tw_reuse": "0"}}
ON: dict[str, Any] = {"sysctls": {"net.ipv4.tcp_tw_reuse": "1"}}
LOCAL: dict[str, Any] = {"loopback": True}
NEEDS_NONE = "`--close server` or `--close reset` needs none"


def said(the_plan: dict[str, Any], the_host: dict[str, Any] | None = None, *uses: PortUse) -> str | None:
    return forecast(plan(**the_plan), host(**(the_host or {})), Snapshot(ports=list(uses or (use(0, 0),))))


@pytest.mark.parametrize(
    ("the_plan", "the_host", "uses", "expected"),
    [
        # open loop, we close first
        ({**CLIENT, **CPS, "duration": 60.0}, OFF, [], f"needs 1,000 ports a second for 60 s each, has 28,232: fails after 28 s; {NEEDS_NONE}."),
        ({**CLIENT, **CPS, "duration": 60.0}, {}, [], "fails after 28 s"),  # 2 does not cover 10.0.0.1
        ({**CLIENT, **CPS, "duration": 20.0}, OFF, [], "has 28,232: enough."),
        ({**CLIENT, **CPS, "duration": None}, OFF, [], "fails after 28 s"),
        ({**CLIENT, **CPS, "duration": None, "requests": 20_000}, OFF, [], ": enough."),
        ({**CLIENT, "rate": Rate(470.0), "duration": None}, OFF, [], "needs 470 ports a second for 60 s each, has 28,232: enough."),
        ({**CLIENT, "rate": Rate(5000.0), "requests_per_connection": 10, "duration": 600.0}, OFF, [], "needs 500 ports a second for 60 s each, has 28,232: fails after 56 s"),
        ({"rate": Rate(5000.0), "requests_per_connection": 10, "duration": 600.0}, OFF, [], "fails after 56 s"),  # -r without --close
        ({**CLIENT, **CPS, "closing": Closing.HALF, "duration": 60.0}, OFF, [], "fails after 28 s"),
        ({**CLIENT, **CPS, "url": "tcp://10.0.0.1:80", "duration": 60.0}, OFF, [], "fails after 28 s; `--close reset` needs none."),
        # what an earlier run has left
        ({**CLIENT, **CPS, "duration": 60.0}, OFF, [use(18_232, 0)], "has 10,000 (18,232 still in TIME_WAIT): fails after 10 s"),
        ({**CLIENT, "rate": Rate(400.0), "duration": 60.0}, OFF, [use(20_232, 0)], "enough once they have ended; may fail after 20 s until then."),
        ({**CLIENT, **CPS}, OFF, [use(28_232, 0)], "none of 28,232 ports is free (28,232 in TIME_WAIT): fails at once"),
        # tcp_tw_reuse
        ({**CLIENT, **CPS, "duration": 60.0}, ON, [], "enough if the target negotiates timestamps, for tcp_tw_reuse gives a port back after 1 s; if not, fails after 28 s"),
        ({**CLIENT, **CPS, "duration": 60.0}, LOCAL, [], "for tcp_tw_reuse on loopback gives a port back after 1 s"),
        ({**CLIENT, **CPS, "duration": 60.0}, ON, [use(0, 0, 200)], "has 200: fails after 200 ms"),
        ({**CLIENT, **CPS, "duration": 60.0}, {"sysctls": {"net.ipv4.tcp_tw_reuse": "1", "net.ipv4.tcp_timestamps": "0"}}, [], "has 28,232: fails after 28 s"),
        # our own ports
        ({**CLIENT, **CPS, "duration": 60.0, "ports": Ports(PortPolicy.OLDEST)}, OFF, [], "for a port bound by `--ports oldest` is taken over at once; if not, fails after 28 s"),
        # several sources, several destinations
        ({**CLIENT, **CPS, "duration": 60.0, "sources": ("10.0.0.2", "10.0.0.3", "10.0.0.4")}, OFF, [use(0, 0, 84_696)], "has 84,696: enough."),
        ({**CLIENT, **CPS, "duration": 600.0}, OFF, [use(0, 0), use(0, 0, destination="10.0.0.2:80")], "needs 500 ports a second for 60 s each, has 28,232: fails after 56 s"),
        # closed loop: the rate is not known
        (CLIENT, OFF, [], f"needs a port for 60 s per connection, has 28,232: enough up to 2,823/s for 10 s; faster fails after 28,232 connections; {NEEDS_NONE}."),
        ({**CLIENT, "duration": 600.0}, OFF, [], "enough up to 470/s for ever"),
        ({**CLIENT, "duration": None, "requests": 5000}, OFF, [], "needs at most 5,000 ports, has 28,232: enough."),
        ({**CLIENT, "duration": None, "requests": 50_000}, OFF, [], "enough up to 470/s for ever; faster fails after 28,232"),
        (CLIENT, LOCAL, [], "enough up to 28,232/s if the target negotiates timestamps, for tcp_tw_reuse on loopback"),
        ({**CLIENT, "ports": Ports(PortPolicy.RANDOM)}, OFF, [], "enough at any rate if the target negotiates timestamps"),
        # nothing stays behind
        (SERVER, OFF, [], "needs 50 ports at once, has 28,232: enough; the target closes first and holds TIME_WAIT."),
        ({**RESET, **CPS}, OFF, [], "needs at most 10,000 ports at once, has 28,232: enough; a reset leaves no TIME_WAIT."),
        ({**RESET, **CPS}, OFF, [use(0, 0, 200)], "has 200: fails past that many at once"),
        ({}, OFF, [], "needs 50 ports at once, has 28,232: enough; connections are kept."),
        ({"connections": 50_000}, OFF, [], "needs 50,000 ports at once, has 28,232: 21,768 connections will not open; `--source` with 2 addresses would do."),
        ({**SERVER, "connections": 300}, OFF, [use(0, 0, 200)], "100 connections will not open; `--source` with 2 addresses would do."),
    ],
)  # fmt: skip
def test_forecast(the_plan: dict[str, Any], the_host: dict[str, Any], uses: list[PortUse], expected: str) -> None:
    sentence = said(the_plan, the_host, *uses)
    assert sentence is not None
    assert expected in sentence


def test_without_a_reading_the_range_is_known_from_plan_and_host() -> None:
    the_plan = plan(**CLIENT, **CPS, duration=60.0)
    assert "has 28,232: fails" in str(forecast(the_plan, host(**OFF), Snapshot()))
    assert "has 28,200: fails" in str(forecast(the_plan, host(**OFF, reserved_ports=32), Snapshot()))
    narrow = plan(**CLIENT, **CPS, duration=60.0, ports=Ports(PortPolicy.KERNEL, 40_000, 40_199))
    assert "has 200: fails" in str(forecast(narrow, host(**OFF), Snapshot()))


def test_no_range_no_forecast() -> None:
    assert forecast(plan(**CLIENT), host(port_low=60_000, port_high=50_000), Snapshot()) is None
