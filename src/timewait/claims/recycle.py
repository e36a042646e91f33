"""Claims about tcp_tw_recycle, gone in 4.12: shown by a wire that applies older rules to real packets.

The clients' clocks are those of one machine (tcp_timestamps=2: no offset), moved apart by the wires of their links.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from timewait.claims.claim import claim
from timewait.claims.stage import InconclusiveError, Stage
from timewait.histogram import quantiles
from timewait.lab import topologies
from timewait.lab.crafted import Crafted
from timewait.lab.network import LabHost, Network
from timewait.lab.wire import Counts, End, OldKernel, Wire, WireSpec
from timewait.plan import Closing
from timewait.run import Run
from timewait.tcp import length
from timewait.tcp.kernels import kernel, knobs
from timewait.tcp.recycle import Record, drops_syn
from timewait.tcp.segment import RST, SYN, Segment, s32, u32
from timewait.verdict import Measure, Outcome, between, exactly

RECYCLES = OldKernel("2.6.32", {"tcp_tw_recycle": 1})
LATER = OldKernel("4.12")  # the first without tcp_tw_recycle
FAST, SLOW, LOST = "client-1", "client-2", "client-3"
BEHIND = {SLOW: 2_950, LOST: 100_000}  # ms: three SYNs too old and the fourth not; and none that anyone waits for
FEW = 20  # connections of each client
PATIENCE = {SLOW: 6.0, LOST: 2.5}  # seconds for connect()
SAME_CLOCK = {"net.ipv4.tcp_timestamps": "2"}
TICKS = 1_000  # a second
SLACK = 0.5  # seconds a retransmission timer may be late, and a busy machine: half of what lies between two SYNs
ATTEMPTS = 3  # to begin the second load so soon after the first that it is clear which SYNs are too old


@dataclass(frozen=True)
class Scene:
    """Three clients behind one address, and the wire before the balancer."""

    stage: Stage
    network: Network
    wire: Wire

    @property
    def balancer(self) -> LabHost:
        return self.network["balancer"]

    def load(self, client: str, closing: Closing) -> Run:
        return self.stage.load(
            self.network[client], f"http://{self.balancer.address}/", closing, count=FEW, at_once=FEW,
            connect_timeout=PATIENCE.get(client, 5.0),
        )  # fmt: skip

    def counts(self) -> Counts:
        """Of the wire, which tells of itself every millisecond in which it gets its turn."""
        self.stage.wait(0.1, "what the wire has counted")
        return self.wire.counts()

    def paws_passive(self) -> int:
        """SYNs the old kernel dropped."""
        return self.counts().counters[1].get("PAWSPassive", 0)


@contextmanager
def scene(stage: Stage, rules: OldKernel, balancer: dict[str, str] | None = None) -> Iterator[Scene]:
    topology = topologies.nat(3, 1).changed("balancer", sysctls=balancer or {})
    for client in (FAST, SLOW, LOST):
        topology = topology.changed(client, sysctls=SAME_CLOCK)
        if client in BEHIND:
            shift = WireSpec(a=End(clock_shift=-BEHIND[client]))
            topology = topology.wired(client, "gateway", shift)
    topology = topology.wired("gateway", "balancer", WireSpec(b=End(kernel=rules)))
    with stage.network(topology) as network:
        stage.answering(network["balancer"])
        wire = next(wire for wire in network.wires if wire.spec.b.kernel is not None)
        yield Scene(stage, network, wire)


@claim(
    "recycle-nat",
    "tcp_tw_recycle with timestamps drops clients behind one NAT address whose clocks are not the furthest ahead.",
    topology="nat",
    needs=("balancer", "nft"),
)
def recycle_nat(stage: Stage) -> Outcome:
    measures = []
    with scene(stage, RECYCLES) as here:
        measures += _stalled(here)
        before = here.paws_passive()
        lost = here.load(LOST, Closing.SERVER)
        syns = sum(at < PATIENCE[LOST] for at in stage.syn_schedule.sends)
        measures += [
            exactly("clock 100 s behind: connections that failed", FEW, lost.total.failed, "failures"),
            exactly("... SYNs dropped (PAWSPassive)", syns * FEW, here.paws_passive() - before),
            exactly("clock ahead: connections that failed", 0, here.load(FAST, Closing.SERVER).total.failed),
        ]
    measures += _never_dropped(stage, RECYCLES, Closing.CLIENT, "the clients close first: SYNs dropped")
    measures += _never_dropped(stage, LATER, Closing.SERVER, f"rules of {LATER.name}: SYNs dropped")
    measures += _one_tick(stage)
    return Outcome(
        measures=tuple(measures),
        condition="the server closed first within the last 60 s, and runs a kernel before 4.12 with tcp_tw_recycle=1",
    )


def _stalled(here: Scene) -> list[Measure]:
    """A clock so far behind that some SYNs are dropped, until its time has caught up with the record."""
    sends = here.stage.syn_schedule.sends
    for _ in range(ATTEMPTS):
        before, known = here.paws_passive(), len(here.wire.events())
        here.load(FAST, Closing.SERVER)
        run = here.load(SLOW, Closing.SERVER)
        told = here.wire.events()[known:]
        events = [event for event in told if event.tsval is not None and event.record_ts is not None]
        if not events:
            return [exactly("clock 2.95 s behind: SYNs dropped (PAWSPassive)", 3 * FEW, 0)]
        record, first = Record(events[0].record_ts or 0, stamp=1), events[0].tsval or 0
        lag = s32(record.ts - first)
        if min(abs(lag - at * TICKS) for at in sends) >= 50:  # ms; else a timer's lateness would decide
            break
    else:
        raise InconclusiveError(f"this machine took {BEHIND[SLOW] - lag} ms from one load to the next: too slow")
    row = kernel(RECYCLES.name)
    settings = knobs(row, RECYCLES.knobs)
    dropped = sum(
        drops_syn(row.rules, settings, record, True, u32(first + round(at * TICKS)), record.stamp + int(at))
        for at in sends
    )
    fastest, slowest = quantiles(run.total.connect, (0.001, 1.0))
    due = sends[dropped]
    return [
        exactly(
            "clock 2.95 s behind: SYNs dropped (PAWSPassive)", dropped * FEW, here.paws_passive() - before, "SYNs"
        ),
        exactly("... connections that failed", 0, run.total.failed),
        between("... the fastest of their connects", due - 0.01, fastest, due + SLACK, " s"),
        between("... the slowest", due - 0.01, slowest, due + SLACK, " s"),
    ]


def _never_dropped(stage: Stage, rules: OldKernel, closing: Closing, what: str) -> list[Measure]:
    with scene(stage, rules) as here:
        here.load(FAST, closing)
        lost = here.load(LOST, closing)
        return [
            exactly(what, 0, here.paws_passive()),
            exactly("... connections that failed", 0, lost.total.failed),
        ]


def _one_tick(stage: Stage) -> list[Measure]:
    """Single SYNs with chosen timestamps, right after a connection that the server closed first."""
    topology = topologies.direct().wired("client", "balancer", WireSpec(b=End(kernel=RECYCLES)))
    with stage.network(topology) as network:
        balancer = network["balancer"]
        with balancer.entered():
            listener = socket.create_server((balancer.address, 80))
        address = "10.0.0.99"  # nobody's
        client = network["client"]
        with listener, Crafted(client.namespace, "eth0", address=address, target=balancer.address) as peer:
            talk = peer.connect(to=80, port=40_000, tsval=100_000)
            connection, _ = listener.accept()
            connection.close()
            peer.close_by_other(talk)
            found = []
            for step, expected in ((-1, "SYN-ACK"), (-2, "nothing")):
                port = 40_000 - step
                peer.send(Segment(flags=SYN, has_ts=True, tsval=100_000 + step), port=port, to=80)
                seen = peer.receive(0.5 if expected == "nothing" else 5.0)
                got = "SYN-ACK" if seen and seen.segment.flags & SYN and seen.port == port else "nothing"
                peer.send(Segment(1, flags=RST), port=port, to=80)
                what = f"a SYN {-step} tick{'s' if step < -1 else ''} behind the record is answered by"
                found.append(Measure(what, expected, got, expected == got))
            return found


_SHORT_WAIT = 2.0  # seconds: the short TIME_WAIT is over, one of 60 s is not


@claim(
    "recycle-or-timestamps",
    "tcp_timestamps and tcp_tw_recycle cannot both be on for public clients; without timestamps nobody is dropped, "
    "and nothing is recycled fast.",
    topology="nat",
    needs=("balancer", "nft"),
)
def recycle_or_timestamps(stage: Stage) -> Outcome:
    measures = []
    for timestamps, word in (("1", "on"), ("0", "off")):
        with scene(stage, RECYCLES, {"net.ipv4.tcp_timestamps": timestamps}) as here:
            here.load(FAST, Closing.SERVER)
            stage.wait(_SHORT_WAIT, "which TIME_WAIT are over")
            ended = here.counts().counters[1].get("TWKilled", 0)
            lost = here.load(LOST, Closing.SERVER)
            on = timestamps == "1"
            short = _nominal(on) < _SHORT_WAIT
            measures += [
                exactly(
                    f"timestamps {word}: connections that failed", FEW if on else 0, lost.total.failed, "failures"
                ),
                exactly(
                    f"... TIME_WAIT of {_nominal(on):g} s, ended within {_SHORT_WAIT:g} s (TWKilled)",
                    FEW if short else 0,
                    ended,
                ),
            ]
    return Outcome(measures=tuple(measures))


def _nominal(timestamps: bool) -> float:
    """Seconds of a TIME_WAIT by the rules of RECYCLES, on a link as fast as this."""
    row = kernel(RECYCLES.name)
    return length.time_wait(row.rules, knobs(row, RECYCLES.knobs), 200, 1 if timestamps else 0).nominal_ms / 1000
