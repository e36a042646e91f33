"""What a simulation leaves: counts by tick, gauges, drops by rule, latencies, and who never got through."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

import numpy as np

from timewait.histogram import Sparse, merged
from timewait.simulate.world import Scenario
from timewait.tcp import counters
from timewait.tcp.rulebook import RULES

Array = np.ndarray[Any, np.dtype[np.int64]]


class Column(IntEnum):
    """Columns of `Outcome.ticks`. Counts of the tick first, then gauges at its end.

    Every attempt ends in exactly one of FIRST, RETRIED, NO_PORT, GAVE_UP, REFUSED, or is still connecting; every
    connection (FIRST + RETRIED) in one of SUCCEEDED, BACKEND_FAILED, OVERFLOWED, or is still open.
    """

    STARTED = 0  # connections attempted
    FIRST = 1  # connected by the first SYN
    RETRIED = 2  # connected by a later one
    NO_PORT = 3  # connect() found no source port
    GAVE_UP = 4  # connect() timed out
    REFUSED = 5  # a RST answered the SYN
    SUCCEEDED = 6  # connections that ended after all their requests were answered
    BACKEND_FAILED = 7  # the balancer found no source port toward its servers
    OVERFLOWED = 8  # established for the client, never accepted: the accept queue stayed full
    SYNS = 9  # SYNs sent, the later ones included
    REUSED = 10  # five-tuples taken over by tcp_tw_reuse at connect()
    TUPLE_MET = 11  # SYNs that met a TIME_WAIT at the balancer
    SEARCHED = 12  # ports looked at by connect()
    BACKEND_OPENED = 13  # connections the balancer opened to its servers
    ACKS_EATEN = 14  # ACKs of a TIME_WAIT that the way back dropped
    CONNECTING = 15  # gauge
    OPEN = 16  # gauge: established
    SERVER_TIME_WAIT = 17  # gauge: at the balancer, all boxes
    SERVER_TIME_WAIT_MOST = 18  # gauge: at the box with most
    CLIENT_TIME_WAIT = 19  # gauge: at the clients
    PORTS_TAKEN = 20  # gauge: source ports in use or at rest, all addresses
    PORTS_TAKEN_MOST = 21  # gauge: at the address with most
    BACKEND_TAKEN = 22  # gauge: the balancer's source ports toward its servers, in use or in TIME_WAIT
    BACKEND_TIME_WAIT = 23  # gauge: of these, in TIME_WAIT
    ACCEPT_QUEUE = 24  # gauge: connections that wait in the longest accept queue


GAUGES = tuple(range(Column.CONNECTING, len(Column)))

# Why a SYN brought no connection where it is not a rule of the kernel's: beside the numbers of tcp.rulebook.
NAT_FULL = 200
NAT_LIMIT = 201
SYN_LOST = 202
ANSWER_LOST = 203
WHYS: dict[int, str] = {
    NAT_FULL: "the NAT has no free port toward this destination",
    NAT_LIMIT: "the NAT lets one client have no more ports",
    SYN_LOST: "the SYN was lost on its way",
    ANSWER_LOST: "the answer to the SYN was lost on its way",
}
REASONS = 256  # length of a row of `Outcome.drops`
POSITIONS = 32  # of the clock: see Suffering


def why(number: int) -> str:
    """The sentence for a column of `Outcome.drops`."""
    return WHYS[number] if number in WHYS else RULES[number].text


@dataclass
class Suffering:
    """Clients that tried, and those of them that never got through, up to the end.

    A client counts as tried when its first attempt has ended, one way or the other.
    """

    tried_by_address: Array
    never_by_address: Array
    tried_by_clock: Array  # POSITIONS slices of the range of clocks, the slowest first
    never_by_clock: Array

    @property
    def tried(self) -> int:
        return int(self.tried_by_clock.sum())

    @property
    def never(self) -> int:
        return int(self.never_by_clock.sum())


@dataclass
class Outcome:
    """One simulation. Rows are ticks; `ends` are their ends in simulated seconds."""

    scenario: Scenario
    seed: int
    ends: np.ndarray[Any, np.dtype[np.float64]]
    ticks: Array  # rows x Column
    drops: Array  # rows x REASONS: SYNs that brought no connection, by why
    counters: Array  # rows x 32: bit numbers of tcp.counters, of all the balancer's boxes
    connect: list[Sparse]  # one per row: seconds from the first SYN to the connection
    suffering: Suffering
    events: int = 0  # handled in all
    wall_seconds: float = 0.0  # it took; the only figure here that depends on the machine
    interrupted: bool = False  # `stop` said so
    port_capacity: int = 0  # source ports toward one destination, all addresses
    backend_capacity: int = 0
    notes: list[str] = field(default_factory=list)

    @property
    def seconds(self) -> float:
        """Simulated."""
        return float(self.ends[-1]) if len(self.ends) else 0.0

    def total(self, column: Column) -> int:
        """Sum of a count over all ticks; of a gauge the last value."""
        values = self.ticks[:, column]
        if column in GAUGES:
            return int(values[-1]) if len(values) else 0
        return int(values.sum())

    def dropped(self) -> dict[int, int]:
        """SYNs that brought no connection, by why; most frequent first."""
        sums = self.drops.sum(axis=0)
        found = {int(number): int(sums[number]) for number in np.flatnonzero(sums)}
        return dict(sorted(found.items(), key=lambda item: -item[1]))

    def counted(self) -> dict[str, int]:
        """The balancer's counters that moved, under the kernel's names."""
        sums = self.counters.sum(axis=0)
        return {
            name: int(sums[bit.bit_length() - 1])
            for bit, name in counters.NAMES.items()
            if sums[bit.bit_length() - 1]
        }

    def latency(self) -> Sparse:
        """Connect latency of the whole."""
        whole = Sparse()
        for part in self.connect:
            whole = merged(whole, part)
        return whole

    def figures(self) -> dict[str, float]:
        """Single figures for replications and sweeps: shares 0..1 of attempts that ended, or of clients."""
        connected = self.total(Column.FIRST) + self.total(Column.RETRIED)
        lost = self.total(Column.NO_PORT) + self.total(Column.GAVE_UP) + self.total(Column.REFUSED)
        ended = max(1, connected + lost)
        syns = max(1, self.total(Column.SYNS))
        return {
            "failed": lost / ended,
            "first_try": self.total(Column.FIRST) / ended,
            "retried": self.total(Column.RETRIED) / ended,
            "no_port": self.total(Column.NO_PORT) / ended,
            "gave_up": self.total(Column.GAVE_UP) / ended,
            "backend_failed": self.total(Column.BACKEND_FAILED) / max(1, connected),
            "syns_dropped": int(self.drops.sum()) / syns,
            "never": self.suffering.never / max(1, self.suffering.tried),
            "server_time_wait": float(self.ticks[:, Column.SERVER_TIME_WAIT].max(initial=0)),
            "ports_taken": float(self.ticks[:, Column.PORTS_TAKEN].max(initial=0)),
        }
