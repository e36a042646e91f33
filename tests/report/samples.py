"""Runs with known numbers, as the engine and the watcher would have recorded them."""

from __future__ import annotations

from timewait.diagnose import Evidence, Finding, Remedy
from timewait.histogram import Histogram, Sparse
from timewait.plan import Closing, Plan, Rate, Request, parse_url
from timewait.run import Cause, Host, Phase, PortUse, Run, Series, Snapshot, Tick, error_key

DESTINATION = "10.0.0.1:8080"
CAPACITY = 28_232


def sparse(*seconds: float, times: int = 1) -> Sparse:
    histogram = Histogram()
    histogram.record(list(seconds) * times)
    return histogram.sparse()


def tick(at: float, succeeded: int = 8000, *, no_port: int = 0, closing: Closing = Closing.SERVER) -> Tick:
    """One second of one worker holding 50 connections, one request each; every fifth answer took 5 ms."""
    fate = {Closing.SERVER: "closed_peer", Closing.CLIENT: "closed_us", Closing.RESET: "closed_reset"}[closing]
    errors = {error_key(Phase.CONNECT, "EADDRNOTAVAIL", Cause.NO_PORT): no_port} if no_port else {}
    made = Tick(
        at=at,
        seconds=1.0,
        started=succeeded + no_port,
        connected=succeeded,
        requests=succeeded,
        succeeded=succeeded,
        failed=no_port,
        bytes_in=succeeded * 240,
        bytes_out=succeeded * 90,
        open=50 if succeeded else 0,
        asked=50,
        errors=errors,
        status={200: succeeded} if succeeded else {},
        workers=1,
        cpu=0.6,
    )
    setattr(made, fate, succeeded)
    if succeeded:
        made.connect = sparse(40e-6, 60e-6, 80e-6, times=100)
        made.first_byte = sparse(0.9e-3, 1.2e-3, times=100)
        made.total = sparse(1e-3, 1e-3, 1.1e-3, 1.2e-3, 5e-3, times=100)
    return made


def snapshot(at: float, time_wait: int, in_use: int = 50, peer: int | None = None) -> Snapshot:
    use = PortUse(
        destination=DESTINATION,
        capacity=CAPACITY,
        in_use=in_use,
        time_wait=time_wait,
        free=CAPACITY - time_wait - in_use,
        peer_time_wait=peer,
    )
    return Snapshot(at=at, ports=[use], counters={"Tcp.ActiveOpens": int(at * 8000)}, open_files=70)


def plan(url: str = "http://10.0.0.1:8080/", closing: Closing = Closing.SERVER, rate: Rate | None = None) -> Plan:
    return Plan(
        requests_list=(parse_url(url),) if "\n" not in url else (Request("GET", url, "http", "x", 80),),
        duration=10.0,
        requests_per_connection=1,
        closing=closing,
        rate=rate,
    )


def assemble(made: Plan, ticks: list[Tick], snapshots: list[Snapshot], residue: int = 0) -> Run:
    run = Run(plan=made, host=Host(kernel="6.1.0", cores=2, nofile_soft=1024), version="0.1.0")
    run.started_at = "2026-01-02T03:04:05+00:00"
    series = Series()
    for one, seen in zip(ticks, snapshots, strict=True):
        run.total.add(one, side_by_side=False)
        series.append(one, seen)
    run.ticks, run.snapshots = series.ticks, series.snapshots
    run.before = snapshot(0.0, residue, in_use=0)
    run.after = snapshots[-1]
    run.peak_open = max(one.open for one in ticks)
    return run


def healthy() -> Run:
    """Ten seconds, 80,000 answers, the server closes: no port of ours is held."""
    times = [float(second) for second in range(1, 11)]
    return assemble(plan(), [tick(at) for at in times], [snapshot(at, 0, peer=int(7000 * at)) for at in times])


def exhausted() -> Run:
    """We close first: after three and a half seconds all 28,232 ports are in TIME_WAIT, 232 of them from before."""
    ticks, snapshots, taken = [], [], 232
    for second in range(1, 11):
        good = min(8000, CAPACITY - taken)
        taken += good
        ticks.append(tick(float(second), good, no_port=0 if good == 8000 else 500, closing=Closing.CLIENT))
        held = min(50, CAPACITY - taken)
        snapshots.append(snapshot(float(second), taken, in_use=held))
    return assemble(plan(closing=Closing.CLIENT), ticks, snapshots, residue=232)


def finding(text: str = "All 28,232 source ports toward 10.0.0.1:8080 were taken after 4 s.") -> Finding:
    return Finding(
        id="ports-exhausted",
        summary=text,
        evidence=[
            Evidence(text="28,232 sockets in TIME_WAIT toward 10.0.0.1:8080", source="NETLINK_SOCK_DIAG"),
            Evidence(text="EADDRNOTAVAIL 3,500", source="connect()"),
        ],
        remedy=[
            Remedy(action="timewait stress --close server URL", effect="needs no port of this host", cost="none"),
            Remedy(action="sysctl -w net.ipv4.tcp_tw_reuse=1", effect="a port rests 1 s instead of 60", cost="root"),
        ],
        wrong=["lowering tcp_fin_timeout: it is the time of FIN_WAIT_2, TIME_WAIT stays 60 s"],
        confidence="certain",
        blame="machine",
    )
