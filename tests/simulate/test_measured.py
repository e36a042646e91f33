"""A measured run as a scenario."""

from __future__ import annotations

import msgspec
import pytest

from report import samples
from timewait.plan import Closing as Ending
from timewait.plan import PortPolicy, Ports, Rate, RateUnit
from timewait.simulate.measured import full_name, measured
from timewait.simulate.scenario_file import with_settings
from timewait.simulate.settings import ScenarioError
from timewait.simulate.world import Closing, Process


def test_what_the_run_says_is_taken_over() -> None:
    run = samples.exhausted()
    run.host.kernel, run.host.port_low, run.host.port_high = "6.18.44", 32768, 60999
    run.host.sysctls = {"net.ipv4.tcp_tw_reuse": "0", "net.ipv4.tcp_timestamps": "1", "net.ipv4.ip_forward": "1"}
    run.total.sampled, run.total.sampled_timestamps = 10, 1
    found = measured(run, "run.jsonl")
    scenario = found.scenario
    assert scenario.clients.kernel == "6.18"
    assert scenario.clients.closing is Closing.CLIENT
    assert scenario.clients.sysctls == {
        "tcp_tw_reuse": 0, "tcp_timestamps": 1, "ip_local_port_range": "32768-60999",
    }  # fmt: skip
    assert scenario.server.sysctls == {"tcp_timestamps": 0}
    assert scenario.duration == 10.0
    assert (scenario.arrivals.process, scenario.arrivals.rate) == (Process.CONSTANT, 8000.0)
    assert scenario.network.delay == pytest.approx(30e-6, rel=0.05)
    assert scenario.server.answer > 0
    assert any("closed loop" in sentence for sentence in found.assumed)
    assert any("232 TIME_WAIT" in sentence for sentence in found.assumed)


def test_its_own_figures_stand_beside() -> None:
    figures = measured(samples.exhausted(), "run.jsonl").figures
    assert figures["connected"] == 28_000
    assert figures["no_port"] == pytest.approx(3_500 / 31_500)
    assert figures["client_time_wait"] == 28_232
    assert figures["wall"] == pytest.approx(3.9, abs=0.2)


def test_an_open_loop_keeps_its_rate_and_requests() -> None:
    run = samples.healthy()
    rate = Rate(9_000, RateUnit.REQUESTS)
    run.plan = msgspec.structs.replace(
        run.plan, rate=rate, requests_per_connection=3, sources=("10.0.0.1", "10.0.0.2")
    )
    scenario = measured(run, "a").scenario
    assert (scenario.arrivals.rate, scenario.clients.requests, scenario.clients.count) == (3_000, 3, 2)
    assert scenario.clients.closing is Closing.SERVER


def test_nothing_closed_means_what_was_asked() -> None:
    run = samples.healthy()
    run.plan = msgspec.structs.replace(run.plan, closing=Ending.RESET)
    run.total.closed_peer = run.total.closed_us = run.total.closed_reset = 0
    assert measured(run, "a").scenario.clients.closing is Closing.RESET


def test_syns_sent_again_are_loss() -> None:
    run = samples.healthy()
    run.total.syn_slow = run.total.started // 4
    found = measured(run, "a")
    assert 1 - (1 - found.scenario.network.loss) ** 2 == pytest.approx(0.25)
    assert any("lost on the way" in sentence for sentence in found.assumed)


def test_runs_that_cannot_be_simulated() -> None:
    run = samples.healthy()
    run.plan = msgspec.structs.replace(run.plan, ports=Ports(PortPolicy.RANDOM, 1000, 2000))
    with pytest.raises(ScenarioError, match="--ports random"):
        measured(run, "a")
    run = samples.healthy()
    run.total.started = 0
    with pytest.raises(ScenarioError, match="no connection"):
        measured(run, "a")


def test_a_sysctl_without_an_owner_is_the_clients() -> None:
    assert full_name("tcp_tw_reuse") == "clients.tcp_tw_reuse"
    assert full_name("timestamps") == "clients.timestamps"
    assert full_name("server.timestamps") == "server.timestamps"
    scenario = measured(samples.healthy(), "a").scenario
    assert with_settings(scenario, {full_name("tcp_tw_reuse"): "1"}).clients.sysctls["tcp_tw_reuse"] == 1
