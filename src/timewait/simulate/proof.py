"""Simulations held against the lab: the same experiment in both, the measured figure inside the simulation's span.

The lab's side is a claim of `timewait lab run`: real hosts, a real kernel, one number. The simulation plays the same
world many times with different seeds; its span is where 95 % of those single runs lie, since one measurement is one
run. What both count exactly has a span of one value.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import msgspec

from timewait.simulate.answers import figures
from timewait.simulate.engine.run import run_world
from timewait.simulate.outcome import Column, Outcome
from timewait.simulate.replicate import seed_of, span
from timewait.simulate.world import (
    Arrivals,
    Backend,
    Clients,
    Closing,
    Nat,
    Network,
    PortChoice,
    Process,
    Scenario,
    Server,
)
from timewait.tcp import rulebook
from timewait.tcp.kernels import running
from timewait.verdict import Result

REPLICATIONS = 200
KERNEL = running(os.uname().release).name  # both ends of the lab run the kernel of this machine
LINK = Network(access=0.0, delay=0.00005)  # a pair of virtual interfaces
PORTS, LAP = "20000-20999", 1_000
TUPLES, FILTERED, FEW = 600, 100, 20  # as in the claims


class Row(NamedTuple):
    """One figure that both give."""

    name: str
    claim: str  # id
    measure: str  # how the claim's measure begins
    scenario: Scenario
    figure: Callable[[Outcome], float]
    of: float = 1.0  # what the measured count is a part of, where the simulation's figure is a share


class Proof(msgspec.Struct, frozen=True):
    """A row, measured and simulated. `resolution`: the last digit the measured figure was told with."""

    name: str
    claim: str
    measure: str
    measured: float
    resolution: float
    mean: float
    low: float
    high: float
    kernel: str

    @property
    def inside(self) -> bool:
        return self.low - self.resolution / 2 <= self.measured <= self.high + self.resolution / 2


def _count(figure: str) -> Callable[[Outcome], float]:
    def read(outcome: Outcome) -> float:
        return figures(outcome)[figure]

    return read


def _dropped(tuples: int, *rules: int) -> Callable[[Outcome], float]:
    """SYNs that these rules turned away, as a share of the tuples that came back."""

    def read(outcome: Outcome) -> float:
        dropped = outcome.dropped()
        return sum(dropped.get(rule, 0) for rule in rules) / tuples

    return read


def _failed(outcome: Outcome) -> float:
    return float(outcome.total(Column.NO_PORT) + outcome.total(Column.GAVE_UP) + outcome.total(Column.REFUSED))


def _filtered(outcome: Outcome) -> float:
    return _failed(outcome) / FILTERED


def client(rate: float, *, seconds: float = 3.0, reuse: int = 0, server: Server | None = None) -> Scenario:
    """The place of the claims about ports: one client with 1,000 of them, which closes first."""
    return Scenario(
        duration=seconds, tick=0.1,
        clients=Clients(
            count=1, kernel=KERNEL, closing=Closing.CLIENT,
            sysctls={"ip_local_port_range": PORTS, "tcp_tw_reuse": reuse},
        ),
        arrivals=Arrivals(process=Process.CONSTANT, rate=rate), network=LINK,
        server=server or _server(),
    )  # fmt: skip


def _server(**sysctls: int) -> Server:
    return Server(kernel=KERNEL, sysctls={**sysctls}, answer=0.0002)


def behind_nat(tuples: int, server: Server, *, eats: float = 0.0, patience: float = 0.0) -> Scenario:
    """Two laps over all five-tuples of one address, so that each comes back within 60 s, from another host but for
    one time in as many as there are."""
    return Scenario(
        duration=2 * tuples / 200 + 4 + patience, tick=0.5,
        clients=Clients(count=tuples, kernel=KERNEL, connect_timeout=patience),
        arrivals=Arrivals(process=Process.TRACE, times=tuple(at / 200 for at in range(2 * tuples))),
        nat=Nat(addresses=1, low=20_000, high=20_000 + tuples - 1, choice=PortChoice.SEQUENTIAL, rest=1.0),
        network=msgspec.structs.replace(LINK, eats_ack=eats), server=server,
    )  # fmt: skip


PATIENCE, BEFORE = 2.5, 20.0  # seconds: for a connect, as in the claim; and for the load


def recycled(timestamps: int) -> Scenario:
    """Two clients behind one address with clocks far apart, in turn; the server recycles and closes first."""
    return Scenario(
        duration=BEFORE + PATIENCE, tick=PATIENCE,
        clients=Clients(
            count=2, kernel=KERNEL, sysctls={"tcp_timestamps": 2}, uptime_low=3600, uptime_high=2 * 86400,
            connect_timeout=PATIENCE,
        ),
        arrivals=Arrivals(process=Process.CONSTANT, rate=4), nat=Nat(addresses=1), network=LINK,
        server=Server(
            kernel="2.6.32", sysctls={"tcp_tw_recycle": 1, "tcp_timestamps": timestamps}, answer=0.0002
        ),
    )  # fmt: skip


def _slow_failed(outcome: Outcome) -> float:
    """The share of the slower client's connects that failed: every second was its, and those of the last stretch are
    not at their end."""
    theirs = int(outcome.ticks[:-1, Column.STARTED].sum()) / 2
    return int(outcome.ticks[:, Column.GAVE_UP].sum()) / theirs


def relayed(sources: int) -> Scenario:
    """A balancer with 1,000 ports toward its one server, twice as many requests, and it closes first."""
    return Scenario(
        duration=2.0, tick=0.1, clients=Clients(count=1, kernel=KERNEL),
        arrivals=Arrivals(process=Process.CONSTANT, rate=1_000), network=LINK,
        server=_server(ip_local_port_range=PORTS, tcp_tw_reuse=0),  # type: ignore[arg-type]
        backend=Backend(sources=sources),
    )  # fmt: skip


def rows() -> list[Row]:
    """Every figure that is held against the lab."""
    wall, reuse, fast = client(500), client(500, reuse=1), client(1_500, reuse=1)
    off = _server(tcp_timestamps=0)
    closed = msgspec.structs.replace(wall, clients=msgspec.structs.replace(wall.clients, closing=Closing.SERVER))
    nat = behind_nat(TUPLES, _server())
    return [
        Row("port wall: connections", "port-wall", "connections until", wall, _count("connected")),
        Row("port wall: seconds", "port-wall", "seconds until", wall, _count("wall")),
        Row("port wall: TIME_WAIT at the client", "port-wall", "TIME_WAIT the", wall, _count("client_time_wait")),
        Row("tcp_tw_reuse=1, 500/s: failures", "tw-reuse", "failures at 500", reuse, _failed),
        Row("tcp_tw_reuse=1, 1,500/s: successes", "tw-reuse", "successes in", fast, _count("connected")),
        Row(
            "tcp_tw_reuse=1, no timestamps: connections", "tw-reuse-void", "connections until",
            client(500, reuse=1, server=off), _count("connected"),
        ),
        Row("server closes: failures", "server-closes", "failures", closed, _failed),
        Row(
            "tuples come back, timestamps on: SYNs rejected", "nat-tuple-reuse", "SYNs rejected", nat,
            _dropped(TUPLES, rulebook.TW_PAWS),
        ),
        Row(
            "the same, the ACK filtered: share that failed", "nat-tuple-reuse", "gateway drops ACKs that",
            behind_nat(FILTERED, _server(), eats=1.0, patience=PATIENCE), _filtered,
        ),
        Row(
            "tuples come back, timestamps off: SYNs not accepted", "timestamps-off-is-half", "SYNs not accepted",
            behind_nat(TUPLES, off), _dropped(TUPLES, rulebook.SYN_OLD_SEQ),
        ),
        Row(
            "recycle: share of the slower client's connects that failed", "recycle-nat", "clock 100 s behind",
            recycled(1), _slow_failed, FEW,
        ),
        Row(
            "recycle, timestamps off: share that failed", "recycle-or-timestamps", "timestamps off: connections",
            recycled(0), _slow_failed, FEW,
        ),
        Row(
            "balancer as client: answered", "balancer-is-a-client", "balancer closes first (FIN)", relayed(1),
            _count("served"),
        ),
        Row(
            "balancer as client, four addresses: answered", "balancer-is-a-client", "balancer closes first, four",
            relayed(4), _count("served"),
        ),
    ]  # fmt: skip


def claims(chosen: Sequence[Row]) -> list[str]:
    """The claims that these rows need, each once."""
    return list(dict.fromkeys(row.claim for row in chosen))


class MissingMeasureError(ValueError):
    """The lab's result lacks the figure: the experiment was inconclusive, or is another one by now."""


def prove(chosen: Sequence[Row], results: Mapping[str, Result], replications: int = REPLICATIONS) -> Iterator[Proof]:
    """Row by row; `results` by claim. Raises MissingMeasureError."""
    for row in chosen:
        result = results[row.claim]
        text = next((one.measured for one in result.measures if one.what.startswith(row.measure)), None)
        if text is None:
            raise MissingMeasureError(f"{row.claim} has no measure {row.measure!r}: {result.why or 'it changed'}")
        measured, resolution = (part / row.of for part in number(text))
        found = simulated(row, replications)
        low, high = span(found)
        yield Proof(
            row.name, row.claim, row.measure, measured, resolution, sum(found) / len(found), low, high, result.kernel
        )


def simulated(row: Row, replications: int, *, compiled: bool = True) -> list[float]:
    """The figure in so many independent runs."""
    return [row.figure(run_world(row.scenario, seed_of(1, at), compiled=compiled)) for at in range(replications)]


def number(text: str) -> tuple[float, float]:
    """`1,000 connections` -> (1000, 0); `2.01 s` -> (2.01, 0.01); `50.3% of 600` -> (0.503, 0.001)."""
    match = re.match(r"([0-9][0-9,]*)(\.([0-9]+))?(%?)", text)
    if match is None:
        raise MissingMeasureError(f"{text!r} holds no number")
    digits = len(match[3] or "")
    scale = 100 if match[4] else 1
    value = float(match[1].replace(",", "") + (match[2] or "")) / scale
    exact = not digits and not match[4] and not text.endswith(" s")
    return value, 0.0 if exact else 10.0**-digits / scale if digits or match[4] else 0.01
