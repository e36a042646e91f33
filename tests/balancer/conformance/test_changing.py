"""Targets that leave, come back and fail, and files that change, on every engine, under load."""

from __future__ import annotations

from typing import Any

from balancer.conformance.engines import LAYER_4, LAYER_7, USUAL, played, scene


@played(*(scene("changing.drains", engine) for engine in LAYER_4))
def test_a_drain_leaves_connections_be_until_its_time_is_over(engine: str, told: Any) -> None:
    assert told["goes_on"] and told["others"]
    assert (told["said"], told["cut"]) == ("cut", 1)
    assert told["ended"] == "rst" or engine == "haproxy"  # HAProxy ends the client's side with a FIN


@played(*(scene("changing.drains_in_peace", engine) for engine in LAYER_7))
def test_a_drain_lets_requests_come_to_their_end(engine: str, told: Any) -> None:
    assert told == {"statuses": [200] * 4, "said": "idle", "cut": 0, "more": [200] * 4, "came": 0}


@played(*(scene("changing.targets_change", *case) for case in USUAL))
def test_targets_come_and_go(engine: str, told: Any) -> None:
    assert told["found"] == [["server-1", "server-2"], ["server-2"], ["server-2", "server-3"], ["server-3"]]
    assert ": 400 " in told["refused"] and "100" in told["refused"]


LOADS = (
    *(("embedded", "http", ""), ("embedded", "http", "server"), ("embedded", "tcp", "server")),
    *(("haproxy", "http", ""), ("haproxy", "http", "server"), ("nftables", "tcp", "server")),
)


@played(*(scene("changing.reloads_under_load", *case, times=4) for case in LOADS))
def test_no_request_is_lost_by_reloads_and_changes_of_targets(engine: str, told: Any) -> None:
    assert (told["totals"]["failed"], told["errors"]) == (0, [])
    assert told["totals"]["succeeded"] > 50
    assert "line 2" in told["refused"]  # a bad file: the old configuration goes on
    assert told["still"] == 2 and told["process"]


@played(*(scene("changing.health", *case) for case in USUAL))
def test_health_as_clb_computes_it(engine: str, told: Any) -> None:
    """Intervals of 1 s counted from send to send: two failures or successes in a row lie a second apart at least."""
    assert told["down_after"] > 0.9 and told["up_after"] > 0.9
    assert told["after_that"] == {"server-1": 8}
    assert told["both"] == ["server-1", "server-2"]
    assert told["residue"][:2] == [0, 0]  # checks end with a reset: no TIME_WAIT toward any target
    assert told["all_down"]


FAILURES = (
    *(("embedded", "http", "killed"), ("embedded", "http", "blackholed"), ("haproxy", "http", "killed")),
    *(("haproxy", "http", "blackholed"), ("nftables", "tcp", "blackholed")),
)


@played(*(scene("enduring.target_fails", *case) for case in FAILURES))
def test_a_target_that_fails_costs_what_was_in_flight_at_most(engine: str, told: Any) -> None:
    """16 connections at once. The kernel knows no retry: it loses every new one too, until health checks notice."""
    assert told["after"] == {"server-2": 8}
    assert told["totals"]["succeeded"] > 100
    if engine != "nftables":
        assert told["totals"]["failed"] <= 16
    if (engine, told["how"]) == ("embedded", "killed"):
        assert told["errors"] == []  # nothing was answered, and a GET may be sent again


@played(*(scene("enduring.slow_headers", engine, 2_000) for engine in LAYER_7))
def test_slow_heads_do_not_touch_a_normal_load(engine: str, told: Any) -> None:
    assert (told["totals"]["failed"], told["still"]) == (0, 2_000)
    assert told["totals"]["succeeded"] > 100
