"""Claims about the source ports of a client that closes first."""

from __future__ import annotations

import errno
import socket

from timewait.claims.claim import claim
from timewait.claims.places import HIGH, LOW, NO_TIMESTAMPS, PORTS, Pair, pair
from timewait.claims.stage import Stage
from timewait.histogram import quantiles
from timewait.plan import Closing, PortPolicy, Ports
from timewait.run import Cause, Run
from timewait.tcp.ports import capacity, rest, seconds_to_wall
from timewait.verdict import Measure, Outcome, between, exactly

RATE = 500.0  # new connections a second: half of what PORTS carry when a port rests one second
COUNT = 1_500
REUSE_ON = {"net.ipv4.tcp_tw_reuse": "1"}
SLACK = 0.35  # seconds: how far a moment read from ticks and timers may lie from the exact one


def no_port(run: Run) -> int:
    """Connections that found no source port."""
    return sum(row.count for row in run.total.failures() if row.cause == Cause.NO_PORT)


def errnos(run: Run) -> str:
    """The errnos of the failures, most frequent first."""
    return ", ".join(dict.fromkeys(row.errno or row.cause for row in run.total.failures())) or "none"


def wall(run: Run, *, what: str = "connections until the first failure") -> list[Measure]:
    """The wall of a range of PORTS ports in which nothing is reused: every port once, then EADDRNOTAVAIL."""
    most = capacity(LOW, HIGH, 0, 1)
    return [
        exactly(what, most, run.total.succeeded, "connections"),
        Measure("errno of connect() afterwards", "EADDRNOTAVAIL", errnos(run), errnos(run) == "EADDRNOTAVAIL"),
    ]


@claim(
    "port-wall",
    "A client that closes first runs out of source ports, and connect() fails.",
    topology="direct",
)
def port_wall(stage: Stage) -> Outcome:
    with pair(stage) as here:
        run = stage.load(here.client, here.url, Closing.CLIENT, rate=RATE, count=COUNT)
        held = stage.time_wait(here.client, to=here.target)
        bound = _bind_any(here)
    expected = seconds_to_wall(PORTS, RATE, PORTS)
    first = run.first(Cause.NO_PORT)
    slack = SLACK + quantiles(run.total.late, (1.0,))[0]  # a busy machine starts connections late
    assert expected is not None
    measures = wall(run)
    measures.append(exactly("TIME_WAIT the client holds", PORTS, held))
    if first is None:
        measures.append(Measure("seconds until the first failure", f"{expected:g}", "none failed", False))
    else:
        measures.append(between("seconds until the first failure", expected - slack, first, expected + slack, " s"))
    measures.append(Measure("errno of bind() to port 0 afterwards", "EADDRINUSE", bound, bound == "EADDRINUSE"))
    return Outcome(measures=tuple(measures))


def _bind_any(here: Pair) -> str:
    """The errno of bind(address, 0) at the client."""
    with here.client.entered(), socket.socket() as sock:
        try:
            sock.bind((here.client.address, 0))
        except OSError as error:
            return errno.errorcode.get(error.errno or 0, str(error.errno))
    return "none"


@claim(
    "tw-reuse",
    "tcp_tw_reuse=1 lets a connection take over a TIME_WAIT older than one second, with timestamps at both ends.",
    topology="direct",
)
def tw_reuse(stage: Stage) -> Outcome:
    second = rest(tw_reuse=1, loopback=False, timestamps=True)
    limit = PORTS / second
    rate = 1.5 * limit
    with pair(stage, client=REUSE_ON) as here, stage.counted(here.client) as moved:
        below = stage.load(here.client, here.url, Closing.CLIENT, rate=RATE, count=COUNT)
        held = stage.time_wait(here.client, to=here.target)
    with pair(stage, client=REUSE_ON) as here:
        above = stage.load(here.client, here.url, Closing.CLIENT, rate=rate, count=round(3 * rate))
    lasted = above.total.seconds
    return Outcome(
        measures=(
            exactly(f"failures at {RATE:g}/s over {PORTS:,} ports", 0, below.total.failed, "failures"),
            # Each connection used a fresh port, still held, or took one over; nothing else can have happened.
            exactly("TIME_WAIT taken over (TWRecycled)", below.total.started - held, moved["TcpExt.TWRecycled"]),
            Measure(
                f"failures at {rate:g}/s",
                "some",
                f"{no_port(above):,} without a port",
                no_port(above) > 0,
            ),
            # The first second takes each port once, each further one as many as have rested.
            between(
                f"successes in {lasted:.1f} s at {rate:g}/s",
                0.8 * limit * 3,
                above.total.succeeded,
                limit * (lasted + second),
            ),
        ),
        condition=f"a port is used no more than once a second: {limit:,.0f}/s over {PORTS:,} ports",
    )


@claim(
    "tw-reuse-void",
    "Against a layer-7 balancer that does not negotiate timestamps, tcp_tw_reuse has no effect.",
    topology="direct",
)
def tw_reuse_void(stage: Stage) -> Outcome:
    with pair(stage, client=REUSE_ON, balancer=NO_TIMESTAMPS) as here, stage.counted(here.client) as moved:
        run = stage.load(here.client, here.url, Closing.CLIENT, rate=RATE, count=COUNT)
    taken = moved.get("TcpExt.TWRecycled", 0)
    return Outcome(measures=(*wall(run), exactly("TIME_WAIT taken over (TWRecycled)", 0, taken)))


@claim(
    "tw-reuse-loopback",
    "The default tcp_tw_reuse=2 hides all this on loopback.",
    topology="direct",
)
def tw_reuse_loopback(stage: Stage) -> Outcome:
    default = {"net.ipv4.tcp_tw_reuse": "2"}
    with pair(stage, client=default) as here:
        network = stage.load(here.client, here.url, Closing.CLIENT, rate=RATE, count=COUNT)
    with pair(stage, client=default, loopback=True) as here:
        local = stage.load(here.client, here.url, Closing.CLIENT, rate=RATE, count=COUNT)
    return Outcome(
        measures=(
            exactly("failures over 127.0.0.1", 0, local.total.failed, "failures"),
            *wall(network, what="connections across the network until the first failure"),
        ),
        notes=("A load test on loopback alone shows a wall that is not there, or none where there is one.",),
    )


@claim(
    "bound-port",
    "A port bound before connect() is taken over at once, whatever tcp_tw_reuse says, if the old connection had "
    "timestamps.",
    topology="direct",
)
def bound_port(stage: Stage) -> Outcome:
    laps, ports = 3 * PORTS, Ports(PortPolicy.SEQUENTIAL, LOW, HIGH)
    runs = []
    for settings in ({}, NO_TIMESTAMPS):
        with pair(stage, balancer=settings) as here:
            # Open loop: a closed one slows down when connections fail.
            runs.append(stage.load(here.client, here.url, Closing.CLIENT, rate=1_500, count=laps, ports=ports))
    kept, void = runs
    most = capacity(LOW, HIGH, 0, 1)
    return Outcome(
        measures=(
            exactly(
                "of 3,000 connections over 1,000 ports, timestamps on: succeeded",
                laps,
                kept.total.succeeded,
                "succeeded",
            ),
            exactly("timestamps off: succeeded", most, void.total.succeeded),
            Measure("errno without timestamps", "EADDRNOTAVAIL", errnos(void), errnos(void) == "EADDRNOTAVAIL"),
        ),
        condition="both ends negotiated timestamps",
    )
