"""Who closes first, on every engine that offers it: TIME_WAIT by sock_diag in the namespaces of all three hosts."""

from __future__ import annotations

from typing import Any

from balancer.conformance.engines import LAYER_4, LAYER_7, USUAL, played, scene

MANY = 8  # connections of each kind (closing.MANY)
NONE, CLIENT, BALANCER = [0, 0], [MANY, 0], [0, MANY]


POLICIES = {"embedded": ["fin", "fin-rst", "peer"], "haproxy": ["fin", "fin-rst"]}


@played(*(scene("closing.toward_clients", engine, POLICIES[engine]) for engine in LAYER_7))
def test_toward_clients(engine: str, told: Any) -> None:
    """[at the client, at the balancer's listening port]."""
    asked = {
        "fin": {"close": BALANCER, "http/1.0": BALANCER, "client first": CLIENT, "idle": BALANCER},
        "fin-rst": {"close": NONE, "http/1.0": NONE, "idle": NONE},
        "peer": {"close": CLIENT, "http/1.0": CLIENT, "client first": CLIENT, "idle": BALANCER},
    }
    if engine == "embedded":  # HAProxy's nolinger answers the client's FIN with a reset as well
        asked["fin-rst"]["client first"] = CLIENT
    for policy in POLICIES[engine]:
        assert {name: told[policy][name] for name in asked[policy]} == asked[policy], policy


UNSIZED = {"embedded": ["rst", "fin", "peer"], "haproxy": ["rst", "peer"]}


@played(*(scene("closing.toward_targets", engine, UNSIZED[engine], sized=False) for engine in LAYER_7))
def test_toward_targets(engine: str, told: Any) -> None:
    """[at the balancer, where it costs a port, at the target], where the target's FIN is the end of its answer."""
    assert told["peer"]["each"] == [0, MANY]
    assert told["rst"]["each"][0] == 0
    if "fin" in told:
        assert sum(told["fin"]["each"]) >= MANY  # the target's FIN may be the faster one


SIZED = {"embedded": ["rst", "fin", "peer"], "haproxy": ["rst"]}


@played(*(scene("closing.toward_targets", engine, SIZED[engine], sized=True) for engine in LAYER_7))
def test_toward_targets_whose_answers_have_a_length(engine: str, told: Any) -> None:
    """Here the balancer knows the end of an answer before the target says anything more."""
    assert told["rst"] == {"each": [0, 0], "kept": [0, 0]}
    if engine == "embedded":
        assert told["fin"] == {"each": [MANY, 0], "kept": [1, 0]}
        assert told["peer"]["each"] == [0, MANY]


@played(*(scene("closing.at_layer_4", engine, "") for engine in LAYER_4))
def test_at_layer_4(engine: str, told: Any) -> None:
    """[client, balancer's front, balancer's back, target] by who closes first: a FIN is passed on."""
    assert told["reset"] == [0, 0, 0, 0]
    assert told["client"][:2] == [MANY, 0] and told["client"][3] == 0
    assert told["server"][0] == 0 and told["server"][3] == MANY
    back = 0 if engine == "nftables" else told["client"][2]
    assert told["client"][2] == back <= MANY
    assert told["server"][2] == 0


@played(*(scene("closing.keeps_nothing", *case) for case in USUAL))
def test_with_connection_close_the_client_keeps_nothing(engine: str, told: Any) -> None:
    """CLB's operations note, "Excessive clients in TIME_WAIT": 450 connections from 150 ports."""
    assert (told["failed"], told["succeeded"], told["client"]) == (0, 450, 0)
    assert told["closed_first"]["peer"] == 450
    if engine != "nftables":
        assert 0 < told["balancer"] <= 150  # tuples that came back took over their own
        assert told["toward_target"] == 0


@played(*(scene("closing.strips", *case) for case in USUAL))
def test_without_timestamps_tcp_tw_reuse_is_void(engine: str, told: Any) -> None:
    """The same note: CLB's layer 7 does not negotiate timestamps, so a client that closes first runs out of ports."""
    keep, strip = told["keep"], told["strip"]
    assert (keep["failed"], keep["errors"]) == (0, [])
    assert strip["succeeded"] == 150 and strip["failed"] > 50
    assert [row["cause"] for row in strip["errors"]] == ["no-port"]
