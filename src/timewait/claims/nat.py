"""Claims about clients that share an address behind a NAT, and bring its five-tuples back within 60 s."""

from __future__ import annotations

import math
from dataclasses import dataclass

import msgspec

from timewait.claims.claim import claim
from timewait.claims.places import LOW, NO_TIMESTAMPS
from timewait.claims.stage import Stage
from timewait.lab import topologies
from timewait.lab.topology import Topology
from timewait.plan import Closing, PortPolicy, Ports
from timewait.run import Run
from timewait.tcp.profiles import PER_TUPLE
from timewait.verdict import Measure, Outcome, exactly

TUPLES = 600  # the issue of a share needs hundreds: with 600 it is known to +-10 %
FILTERED = 100
FORGETS = 1  # seconds after which the gateway gives a closed connection's port away again
PATIENCE = 2.5  # seconds: three SYNs on a kernel whose first timeouts are 1 s
SIGMAS = 5.0  # a right prediction is called wrong once in 1.7 million runs


@dataclass(frozen=True)
class Returned:
    """What came of tuples that another host brought back while the balancer held their TIME_WAIT."""

    run: Run
    held: int  # TIME_WAIT at the balancer before
    held_after: int
    paws: int  # SYNs the balancer rejected for their timestamp
    resent: int  # SYNs the second host had to send again
    slowest: float  # seconds


def gateway_of(tuples: int, **firewall: bool) -> Topology:
    """The topology `nat` with so many external ports, given away again FORGETS seconds after a close.

    The port a client uses is kept where it is free, and the clients here use the very ports of the gateway: so each
    five-tuple of the first client is one of the second's. `firewall`: what the gateway drops, fields of `Nat`.
    """
    topology = topologies.nat(2, 1)
    nat = topology.host("gateway").nat
    assert nat is not None
    timeouts = {**nat.timeouts, "time_wait": FORGETS, "close": FORGETS, "last_ack": FORGETS}
    nat = msgspec.structs.replace(nat, ports=(LOW, LOW + tuples - 1), timeouts=timeouts, **firewall)
    return topology.changed("gateway", nat=nat)


def returned(stage: Stage, topology: Topology, tuples: int, *, patience: float = 5.0) -> Returned:
    """The first client uses every tuple once and lets the balancer close; then the second one does."""
    ports = Ports(PortPolicy.SEQUENTIAL, LOW, LOW + tuples - 1)
    with stage.network(topology) as network:
        balancer, second = network["balancer"], network["client-2"]
        stage.answering(balancer)
        url, here = f"http://{balancer.address}/", (balancer.address, 80)
        stage.load(network["client-1"], url, Closing.SERVER, count=tuples, at_once=20, ports=ports)
        held = stage.time_wait(balancer, at=here)
        stage.wait(FORGETS + 0.5, "the gateway forgets")
        with stage.counted(balancer) as there, stage.counted(second) as moved:
            run = stage.load(
                second, url, Closing.SERVER, count=tuples, at_once=min(tuples, 100), ports=ports,
                connect_timeout=patience,
            )  # fmt: skip
        return Returned(
            run,
            held,
            stage.time_wait(balancer, at=here),
            there.get("TcpExt.PAWSTimewait", 0) + there.get("TcpExt.PAWSEstab", 0),
            moved.get("TcpExt.TCPSynRetrans", 0),
            stage.slowest_connect(run),
        )


def half(what: str, accepted: int, of: int) -> Measure:
    """Whether so many of these are half of them, as a coin would have it."""
    slack = SIGMAS / (2 * math.sqrt(of))
    share, low, high = accepted / of, 0.5 - slack, 0.5 + slack
    return Measure(what, f"50% ({low:.0%} to {high:.0%})", f"{share:.1%} of {of:,}", low <= share <= high)


def unrelated_clocks(stage: Stage, what: str, accepted: int, of: int) -> Measure:
    """Half of the tuples where a TSval's offset belongs to the tuple; all or none where it belongs to the host."""
    if stage.kernel.rules.ts_offset == PER_TUPLE:
        return half(what, accepted, of)
    return Measure(what, f"all {of:,} or none", f"{accepted:,}", accepted in (0, of))


ONE_BOOT = (
    "Offsets of timestamps and initial sequence numbers are hashes with a secret of this boot: run again before the "
    "next boot, the same five-tuples meet the same fate."
)


@claim(
    "nat-tuple-reuse",
    "A NAT that brings a five-tuple back within 60 s with a lower timestamp has its SYN rejected by the balancer.",
    topology="nat",
    needs=("balancer", "nft"),
)
def nat_tuple_reuse(stage: Stage) -> Outcome:
    plain = returned(stage, gateway_of(TUPLES), TUPLES)
    invalid = returned(stage, gateway_of(FILTERED, drop_invalid=True), FILTERED)
    filtered = returned(stage, gateway_of(FILTERED, drop_acks_to_syns=True), FILTERED, patience=PATIENCE)
    syns = sum(at < PATIENCE for at in stage.syn_schedule.sends)
    return Outcome(
        measures=(
            unrelated_clocks(stage, "SYNs accepted, their timestamp being newer", TUPLES - plain.paws, TUPLES),
            exactly("five-tuples the balancer held in TIME_WAIT when they came back", TUPLES, plain.held),
            exactly("unfiltered: SYNs sent again, one for each that was rejected", plain.paws, plain.resent),
            exactly("... connections that failed in the end", 0, plain.run.total.failed),
            # nf_conntrack_proto_tcp.c: an ACK in reply to a SYN is ignored, not invalid.
            exactly(
                "gateway drops what conntrack calls invalid: connections that failed", 0, invalid.run.total.failed
            ),
            unrelated_clocks(
                stage,
                "gateway drops ACKs that answer a SYN: connections that succeeded",
                filtered.run.total.succeeded,
                FILTERED,
            ),
            exactly(
                f"... SYNs rejected, {syns} of each in {PATIENCE:g} s",
                syns * filtered.run.total.failed,
                filtered.paws,
            ),
        ),
        condition="the new timestamp is older; for good only where the balancer's ACK is filtered on its way back",
        notes=(
            "Unfiltered, the client answers the balancer's ACK with a RST and its next SYN gets through: the slowest "
            f"connect took {plain.slowest * 1000:.0f} ms. Where a firewall eats that ACK, every SYN is rejected.",
            ONE_BOOT,
        ),
    )


@claim(
    "timestamps-off-is-half",
    "Switching timestamps off at the balancer takes them out of the decision, which leaves the sequence number.",
    topology="nat",
    needs=("balancer", "nft"),
)
def timestamps_off_is_half(stage: Stage) -> Outcome:
    topology = gateway_of(TUPLES).changed("balancer", sysctls=NO_TIMESTAMPS)
    found = returned(stage, topology, TUPLES)
    return Outcome(
        measures=(
            half("SYNs accepted, their sequence number being ahead", TUPLES - found.resent, TUPLES),
            exactly("SYNs rejected for their timestamp", 0, found.paws),
            exactly("five-tuples the balancer held in TIME_WAIT when they came back", TUPLES, found.held),
            exactly("connections that failed in the end", 0, found.run.total.failed),
        ),
        condition="the new sequence number is ahead, which for unrelated hosts is every second time",
        notes=(ONE_BOOT,),
    )
