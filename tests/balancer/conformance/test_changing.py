"""Targets that leave, come back and fail, and files that change, on every engine, under load."""

from __future__ import annotations

from typing import Any

import pytest

from balancer.conformance.engines import LAYER_4, LAYER_7, LONGEST, USUAL, played, scene

pytestmark = pytest.mark.timeout(LONGEST)

TARGETS = [scene("changing.targets", *case) for case in USUAL]


@played(*TARGETS)
def test_a_drain_leaves_connections_be_until_its_time_is_over(engine: str, told: Any) -> None:
    drained = told["drained"]
    assert drained["goes_on"] and drained["elsewhere"]
    assert (drained["said"], drained["cut"]) == ("cut", 1)
    assert drained["ended"] == "rst" or engine == "haproxy"  # HAProxy ends the client's side with a FIN


@played(*TARGETS[:2])
def test_a_drain_lets_requests_come_to_their_end(engine: str, told: Any) -> None:
    assert told["calm"] == {"statuses": [200] * 4, "said": "idle", "cut": 0, "more": [200] * 4, "came": 0}


@played(*TARGETS)
def test_targets_come_and_go(engine: str, told: Any) -> None:
    assert told["found"] == [["server-1", "server-2"], ["server-2"], ["server-2", "server-3"], ["server-3"]]
    assert ": 400 " in told["refused"] and "100" in told["refused"]


PORTS = {"embedded": [80, 81, 82], "haproxy": [80, 81, 82], "nftables": [82]}  # of changing.LOADS


@played(*(scene("changing.reloads_under_load", engine, PORTS[engine], 3) for engine in LAYER_4))
def test_no_request_is_lost_by_reloads_and_changes_of_targets(engine: str, told: Any) -> None:
    """Requests on kept connections, on new ones, and streams at layer 4, where the engine offers them."""
    assert told["errors"] == [[]] * len(PORTS[engine])
    assert set(told["failed"]) == {0}
    assert min(told["succeeded"]) > 20
    assert "line 2" in told["refused"]  # a bad file: the old configuration goes on
    assert told["still"] == 2 and told["process"]


@played(*(scene("changing.health", *case) for case in USUAL))
def test_health_as_clb_computes_it(engine: str, told: Any) -> None:
    """A check a second; `fall` and `rise` are 2, so that one alone decides nothing."""
    assert told["down_after"] >= 2 and told["up_after"] >= 2
    assert not told["too_many"]
    assert told["after_that"] == {"server-1": 8}
    assert told["both"] == ["server-1", "server-2"]
    assert told["residue"][:2] == [0, 0]  # checks end with a reset: no TIME_WAIT toward any target
    assert told["all_down"]


@played(*(scene("enduring.targets_fail", *case) for case in USUAL))
def test_a_target_that_fails_costs_what_was_in_flight_at_most(engine: str, told: Any) -> None:
    """16 connections at once. The kernel knows no retry: it loses every new one too, until health checks notice."""
    assert told["after"] == {"killed": {"server-3": 8}, "blackholed": {"server-3": 8}}
    assert min(told["succeeded"].values()) > 50
    if engine != "nftables":
        assert max(told["failed"].values()) <= 16
    if engine == "embedded":
        assert told["errors"]["killed"] == []  # nothing was answered, and a GET may be sent again


@played(*(scene("enduring.slow_headers", engine, 2_000) for engine in LAYER_7))
def test_slow_heads_do_not_touch_a_normal_load(engine: str, told: Any) -> None:
    assert (told["totals"]["failed"], told["still"]) == (0, 2_000)
    assert told["totals"]["succeeded"] > 100
