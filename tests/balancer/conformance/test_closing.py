"""Who closes first, on every engine that offers it: TIME_WAIT by sock_diag in the namespaces of all three hosts."""

from __future__ import annotations

from typing import Any

import pytest

from balancer.conformance.engines import LAYER_4, LAYER_7, LONGEST, USUAL, played, scene

pytestmark = pytest.mark.timeout(LONGEST)

MANY = 8  # connections of each kind (closing.MANY)
NONE, CLIENT, BALANCER = [0, 0], [MANY, 0], [0, MANY]
AT_TARGET = [0, MANY]


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


# HAProxy answers the target's FIN by one where that is the end of the answer, and may be first where it is not.
SIZED = {"embedded": ["rst", "fin", "peer"], "haproxy": ["rst"]}
UNSIZED = {"embedded": ["rst", "peer"], "haproxy": ["rst", "peer"]}


@played(*(scene("closing.toward_targets", engine, SIZED[engine], UNSIZED[engine]) for engine in LAYER_7))
def test_toward_targets(engine: str, told: Any) -> None:
    """[at the balancer, where it costs a port, at the target]."""
    assert told["rst each"] == told["rst kept"] == NONE
    assert told["peer each, no length"] == AT_TARGET
    assert told["rst each, no length"][0] == told["rst kept, no length"][0] == 0
    if engine == "embedded":
        assert (told["fin each"], told["fin kept"]) == ([MANY, 0], [1, 0])
        assert told["peer each"] == AT_TARGET


@played(*(scene("closing.at_layer_4", engine, "") for engine in LAYER_4))
def test_at_layer_4(engine: str, told: Any) -> None:
    """[client, balancer's front, balancer's back, target] by who closes first: a FIN is passed on."""
    assert told["reset"] == [0, 0, 0, 0]
    assert told["client"][:2] == [MANY, 0] and told["client"][3] == 0
    assert told["server"][0] == 0 and told["server"][3] == MANY
    back = 0 if engine == "nftables" else told["client"][2]
    assert told["client"][2] == back <= MANY
    assert told["server"][2] == 0


PROMISES = [scene("closing.promises", *case) for case in USUAL]


@played(*PROMISES)
def test_with_connection_close_the_client_keeps_nothing(engine: str, told: Any) -> None:
    """CLB's operations note, "Excessive clients in TIME_WAIT": 450 connections from 150 ports."""
    assert (told["closes"]["failed"], told["closes"]["succeeded"]) == (0, 450)
    assert told["closes"]["ends"]["peer"] == 450
    assert told["time_wait"]["client"] == 0
    if engine != "nftables":
        assert 0 < told["time_wait"]["balancer"] <= 150  # tuples that came back took over their own
        assert told["time_wait"]["toward_target"] == 0


@played(*PROMISES)
def test_without_timestamps_tcp_tw_reuse_is_void(engine: str, told: Any) -> None:
    """The same note: CLB's layer 7 does not negotiate timestamps, so a client that closes first runs out of ports."""
    keep, strip = told["keep"], told["strip"]
    assert (keep["failed"], keep["causes"]) == (0, [])
    assert strip["succeeded"] == 150 and strip["failed"] > 50
    assert strip["causes"] == ["no-port"]
