"""A simulation becomes the record of a run, so that findings and reports work on it as on a real one.

The run is told from the end that opens connections: the clients, or, where the balancer opens some to its servers
and that is what fails, the balancer. Counters are those of the balancer, which a simulation sees too.
"""

from __future__ import annotations

import msgspec

from timewait import __version__
from timewait.histogram import Histogram, Sparse
from timewait.plan import Closing as PlanClosing
from timewait.plan import Plan, Rate, RateUnit, parse_url
from timewait.run import Cause, Host, Phase, PortUse, Run, Series, Snapshot, Tick, error_key
from timewait.simulate.limits import Side, rate_of, side
from timewait.simulate.outcome import Column, Outcome, why
from timewait.simulate.world import Closing, Process, ports_of
from timewait.tcp import counters
from timewait.tcp.syn import schedule

ENGINE = "simulation"
BALANCER, SERVERS = "192.0.2.1:80", "192.0.2.129:80"  # TEST-NET-1, RFC 5737
_CLOSING = {
    Closing.SERVER: PlanClosing.SERVER,
    Closing.CLIENT: PlanClosing.CLIENT,
    Closing.RESET: PlanClosing.RESET,
}
MOST_SOURCES = 4096  # addresses that are written out


def recorded(outcome: Outcome) -> Run:
    """The run; `engine` says that nothing of it was measured."""
    teller = _Teller(outcome)
    series, total = Series(), Tick()
    for at in range(len(outcome.ends)):
        tick, snapshot = teller.tick(at), teller.snapshot(at)
        total.add(tick, side_by_side=False)
        series.append(msgspec.structs.replace(tick), snapshot)
    before = Snapshot(counters=dict.fromkeys(teller.counted, 0))
    before.ports = [teller.empty()]
    run = Run(
        plan=teller.plan(),
        host=teller.host(),
        version=__version__,
        engine=ENGINE,
        before=before,
        after=teller.snapshot(len(outcome.ends) - 1) if len(outcome.ends) else Snapshot(),
        total=total,
        ticks=series.ticks,
        snapshots=series.snapshots,
        peak_open=total.open_most,
        interrupted="SIGINT" if outcome.interrupted else "",
    )
    run.notes = [*teller.notes(), *outcome.notes]
    return run


def _slow(connect: Sparse) -> int:
    """Connects of 0.9 s and more: what a run counts as such. Since 5.6 a SYN that met a TIME_WAIT is sent again at
    once, which nobody would see."""
    found = Histogram()
    found.add(connect)
    return found.above(0.9)


class _Teller:
    def __init__(self, outcome: Outcome) -> None:
        self.outcome, self.scenario = outcome, outcome.scenario
        scenario = self.scenario
        self.clients = side("clients", scenario.clients.kernel, scenario.clients.sysctls, scenario.clients.hz)
        self.server = side("server", scenario.server.kernel, scenario.server.sysctls, scenario.server.hz)
        self.by_balancer = scenario.backend is not None and outcome.total(Column.BACKEND_FAILED) > 0
        self.opener: Side = self.server if self.by_balancer else self.clients
        self.counted = dict.fromkeys((f"TcpExt.{word}" for word in counters.NAMES.values()), 0)

    def plan(self) -> Plan:
        """What a load test would have been asked for."""
        scenario, clients = self.scenario, self.scenario.clients
        closing = scenario.backend.closing if self.by_balancer and scenario.backend else clients.closing
        sources: tuple[str, ...] = ()
        if scenario.nat is None and not self.by_balancer and clients.count > 1:
            sources = tuple(f"client-{number}" for number in range(min(clients.count, MOST_SOURCES)))
        thinks = scenario.arrivals.process is Process.THINK
        knobs = self.opener.knobs
        gives_up = schedule(
            self.opener.kernel, retries=knobs.tcp_syn_retries, linear=knobs.tcp_syn_linear_timeouts
        ).gives_up
        return Plan(
            requests_list=(parse_url(f"http://{SERVERS if self.by_balancer else BALANCER}/"),),
            connections=clients.count if thinks else None,
            rate=None if thinks else Rate(round(rate_of(scenario), 3), RateUnit.CONNECTIONS),
            duration=scenario.duration,
            requests_per_connection=clients.requests,
            closing=_CLOSING[closing],
            sources=sources,
            connect_timeout=clients.connect_timeout or gives_up,
        )

    def host(self) -> Host:
        low, high = self._range()
        knobs = self.opener.knobs._asdict()
        low_high = knobs.pop("ip_local_port_range")
        sysctls = {f"net.ipv4.{name}": str(value) for name, value in knobs.items()}
        sysctls["net.ipv4.ip_local_port_range"] = f"{low_high[0]}\t{low_high[1]}"
        return Host(
            kernel=self.opener.kernel.version,
            sysctls=sysctls,
            port_low=low,
            port_high=high,
            addresses={"balancer": [BALANCER.partition(":")[0]]},
            local_target=True,  # its counters and its accept queue are seen as well
        )

    def _range(self) -> tuple[int, int]:
        return (
            self.server.knobs.ip_local_port_range if self.by_balancer else ports_of(self.scenario, self.clients.knobs)
        )

    def notes(self) -> list[str]:
        found = [
            f"Simulated, seed {self.outcome.seed}: {self.scenario.clients.count:,} clients on Linux "
            f"{self.clients.kernel.version}, balancer on "
            f"Linux {self.server.kernel.version}. Nothing here was measured."
        ]
        dropped = self.outcome.dropped()
        found += [f"{count:,} SYNs brought no connection: {why(number)}." for number, count in dropped.items()]
        suffering = self.outcome.suffering
        if suffering.never:
            found.append(f"{suffering.never:,} of {suffering.tried:,} clients that tried never got through.")
        if self.by_balancer:
            found.append("Ports and TIME_WAIT are those of the balancer toward its servers.")
        return found

    def tick(self, at: int) -> Tick:
        """One row as the tick of a run."""
        row = {column: int(self.outcome.ticks[at, column]) for column in Column}
        ends, last = self.outcome.ends, at == len(self.outcome.ends) - 1
        answered = row[Column.SUCCEEDED] * self.scenario.clients.requests
        lost = row[Column.NO_PORT] + row[Column.GAVE_UP]
        failed = lost + row[Column.BACKEND_FAILED] + row[Column.OVERFLOWED]
        held = row[Column.CONNECTING] + row[Column.OPEN]
        has_ts = self._timestamps()
        connected = row[Column.FIRST] + row[Column.RETRIED]
        closing = self.scenario.clients.closing
        return Tick(
            at=float(ends[at]),
            seconds=float(ends[at] - (ends[at - 1] if at else 0.0)),
            started=row[Column.STARTED],
            connected=connected,
            requests=answered + row[Column.BACKEND_FAILED] + row[Column.OVERFLOWED],
            succeeded=answered,
            failed=failed,
            unfinished=held if last else 0,
            bytes_in=answered * self.scenario.clients.received,
            bytes_out=answered * self.scenario.clients.sent,
            open=held,
            open_most=held,
            asked=held,
            closed_us=row[Column.SUCCEEDED] if closing is Closing.CLIENT else 0,
            closed_peer=row[Column.SUCCEEDED] if closing is Closing.SERVER else 0,
            closed_reset=row[Column.SUCCEEDED] if closing is Closing.RESET else 0,
            reset_by_us=row[Column.SUCCEEDED] if closing is Closing.RESET else 0,
            errors=self._errors(row),
            status={200: answered} if answered else {},
            connect=self.outcome.connect[at],
            syn_slow=_slow(self.outcome.connect[at]) + row[Column.GAVE_UP],
            sampled=connected,
            sampled_timestamps=connected if has_ts else 0,
            workers=1,
        )

    def _timestamps(self) -> bool:
        if self.by_balancer and self.scenario.backend is not None:
            return self.scenario.backend.timestamps and self.server.knobs.tcp_timestamps != 0
        return self.clients.knobs.tcp_timestamps != 0 and self.server.knobs.tcp_timestamps != 0

    def _errors(self, row: dict[Column, int]) -> dict[str, int]:
        keys = {
            Column.NO_PORT: error_key(Phase.CONNECT, "EADDRNOTAVAIL", Cause.NO_PORT),
            Column.GAVE_UP: error_key(Phase.CONNECT, "ETIMEDOUT", Cause.TIMEOUT),
            Column.BACKEND_FAILED: error_key(Phase.CONNECT, "EADDRNOTAVAIL", Cause.NO_PORT),
            Column.OVERFLOWED: error_key(Phase.FIRST_BYTE, "ECONNRESET", Cause.RESET),
        }
        found: dict[str, int] = {}
        for column, key in keys.items():
            if row[column]:
                found[key] = found.get(key, 0) + row[column]
        return found

    def empty(self) -> PortUse:
        """All ports free, before anything happened."""
        destination = SERVERS if self.by_balancer else BALANCER
        capacity = self.outcome.backend_capacity if self.by_balancer else self.outcome.port_capacity
        return PortUse(destination=destination, capacity=capacity, free=capacity)

    def snapshot(self, at: int) -> Snapshot:
        """One row as the kernels would have told it."""
        row = {column: int(self.outcome.ticks[at, column]) for column in Column}
        use = self.empty()
        use.time_wait = row[Column.BACKEND_TIME_WAIT if self.by_balancer else Column.CLIENT_TIME_WAIT]
        taken = row[Column.BACKEND_TAKEN if self.by_balancer else Column.PORTS_TAKEN]
        if self.by_balancer or self.scenario.nat is None:
            use.in_use, use.free = max(0, taken - use.time_wait), max(0, use.capacity - max(taken, use.time_wait))
        else:
            use.time_wait, use.in_use, use.free = 0, taken, use.capacity - taken
        if not self.by_balancer:
            use.peer_time_wait = row[Column.SERVER_TIME_WAIT]
        queue = row[Column.ACCEPT_QUEUE] if self.scenario.server.accepts else None
        return Snapshot(
            at=float(self.outcome.ends[at]),
            ports=[use],
            counters=self._counters(at),
            accept_queue=queue,
            accept_queue_max=self.scenario.server.backlog if queue is not None else None,
        )

    def _counters(self, at: int) -> dict[str, int]:
        """Sums up to and with this row."""
        sums = self.outcome.counters[: at + 1].sum(axis=0)
        found = dict(self.counted)
        for bit, name in counters.NAMES.items():
            found[f"TcpExt.{name}"] = int(sums[bit.bit_length() - 1])
        retried = int(
            self.outcome.ticks[: at + 1, Column.SYNS].sum() - self.outcome.ticks[: at + 1, Column.STARTED].sum()
        )
        found["TcpExt.TCPSynRetrans"] = max(0, retried + int(self.outcome.ticks[: at + 1, Column.NO_PORT].sum()))
        return found
