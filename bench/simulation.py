"""`timewait simulate`: attempts a second, memory, an hour of a busy balancer, start; and the same in SimPy."""

from __future__ import annotations

import json
import subprocess
import sys
import time

from bench.figures import Figure, Result, Values, ratio
from bench.place import pinned
from bench.settings import Settings
from timewait.simulate.engine.run import run_world
from timewait.simulate.outcome import Column, Outcome
from timewait.simulate.world import Arrivals, Clients, Nat, PortChoice, Scenario, Server
from timewait.tcp import rulebook

RECYCLE: dict[str, int | str] = {"tcp_tw_recycle": 1, "tcp_max_tw_buckets": 2**31 - 1}


def nat(duration: float, rate: float = 50_000.0, clients: int = 2_000) -> Scenario:
    """A carrier's NAT before a balancer with tcp_tw_recycle: most SYNs are dropped and sent again."""
    return Scenario(
        duration=duration,
        clients=Clients(count=clients, kernel="4.9", connect_timeout=4.0),
        nat=Nat(addresses=8),
        arrivals=Arrivals(rate=rate),
        server=Server(kernel="2.6.32", sysctls=RECYCLE),
    )


def small() -> Scenario:
    """Over at once."""
    return nat(1.0, rate=100.0, clients=100)


def hour(seconds: float) -> Scenario:
    """50,000 connections a second: 64 addresses, whose ports return after the TIME_WAIT at the balancer has ended."""
    return Scenario(
        duration=seconds,
        tick=10.0,
        clients=Clients(count=1_000_000),
        nat=Nat(addresses=64, choice=PortChoice.OLDEST),
        arrivals=Arrivals(rate=50_000.0),
        server=Server(sysctls={"tcp_max_tw_buckets": 2**31 - 1}),
    )


def crowd(clients: int) -> Scenario:
    """Ten million clients behind 160 addresses."""
    return Scenario(
        duration=10.0,
        clients=Clients(count=clients),
        nat=Nat(addresses=max(1, clients // 62_500)),
        arrivals=Arrivals(rate=clients / 100),
    )


def measured(scenario: Scenario, *, compiled: bool = True) -> tuple[Outcome, float]:
    """The outcome, and the CPU seconds it took: other programs on the machine count little that way."""
    began = time.process_time()
    found = run_world(scenario, 1, compiled=compiled)
    return found, time.process_time() - began


def simulation(settings: Settings) -> Result:
    """All figures but those of a sweep on several cores."""
    quick = settings.quick
    run_world(nat(0.01), 1)  # compiles where that was not done before
    attempts, syns, plain, beside, theirs, ours = [], [], [], [], [], []
    for _ in range(settings.rounds):
        found, took = measured(nat(0.2 if quick else 20.0))
        attempts.append(found.total(Column.STARTED) / took / 1e6)
        syns.append(found.total(Column.SYNS) / took / 1e6)
        found, took = measured(nat(0.02 if quick else 0.5), compiled=False)
        plain.append(found.total(Column.SYNS) / took / 1e6)
        simpy_rate, shares = _simpy(nat(0.05 if quick else 5.0))
        theirs.append(simpy_rate)
        found, took = measured(nat(0.2 if quick else 60.0))
        ours.append(found.total(Column.SYNS) / took)
        beside.append(_apart(run_world(nat(0.05 if quick else 5.0), 1), shares))
    figures = [
        Figure(what="SYNs a second and core, NAT with tcp_tw_recycle and TIME_WAIT rules, compiled", unit="million/s",
               values=syns, asked=">= 3"),
        Figure(what="connections attempted a second and core, the same", unit="million/s", values=attempts,
               asked=">= 3"),
        Figure(what="SYNs a second and core, the same interpreted", unit="million/s", values=plain),
        ratio("SYNs a second over the same written plainly in SimPy", ours, theirs, ">= 100"),
        *_large(settings),
        _start(settings),
    ]  # fmt: skip
    return Result(
        name="simulation",
        title="Simulating",
        how="CPU seconds of one process, arrays made anew each time, machine code cached. The plain SimPy program "
        "(bench/plain_simpy.py) asks the same rules; its shares of connections made at once and of SYNs dropped lie "
        "beside ours in the details.",
        figures=figures,
        details=[
            Values(name="SYNs a second, SimPy", unit="/s", values=theirs),
            Values(name="SYNs a second, ours, the same world", unit="/s", values=ours),
            Values(name="largest difference of a share to SimPy's", unit="", values=[max(1e-6, x) for x in beside]),
        ],
    )  # fmt: skip


def _simpy(scenario: Scenario) -> tuple[float, dict[str, float]]:
    """SYNs a CPU second, and the shares that came of it."""
    from bench.plain_simpy import World

    world = World(scenario, 1)
    began = time.process_time()
    counts = world.run()
    return counts.syns / (time.process_time() - began), counts.shares


def _apart(found: Outcome, shares: dict[str, float]) -> float:
    first = found.total(Column.FIRST) / max(1, found.total(Column.STARTED))
    dropped = int(found.drops[:, rulebook.RECYCLE_OLD_TS].sum()) / max(1, found.total(Column.SYNS))
    return max(abs(first - shares["first"]), abs(dropped - shares["dropped"]))


_CHILD = """
import json, resource, sys, time
from bench import simulation
from timewait.simulate.engine.run import run_world
from timewait.simulate.outcome import Column
what, size = sys.argv[1], float(sys.argv[2])
scenario = simulation.crowd(int(size)) if what == "crowd" else simulation.hour(size)
began = time.process_time()
found = run_world(scenario, 1)
took = time.process_time() - began
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
print(json.dumps({"seconds": took, "bytes": peak, "started": found.total(Column.STARTED)}))
"""


def _child(settings: Settings, what: str, size: float) -> dict[str, float]:
    """In a process of its own, for its memory."""
    words = pinned([sys.executable, "-c", _CHILD, what, str(size)], settings.cores.client)
    done = subprocess.run(words, capture_output=True, text=True, timeout=900, check=True)
    found: dict[str, float] = json.loads(done.stdout)
    return found


def _large(settings: Settings) -> list[Figure]:
    clients, seconds = (10_000, 1.0) if settings.quick else (10_000_000, 3600.0)
    crowd_, hour_ = _child(settings, "crowd", clients), _child(settings, "hour", seconds)
    return [
        Figure(what=f"{clients:,} clients: memory of the process at its highest", unit="MB",
               values=[crowd_["bytes"] / 1e6], asked="<= 2,000"),
        Figure(what=f"{seconds:,.0f} s at 50,000 connections a second, one core", unit="s",
               values=[hour_["seconds"]], asked="<= 120"),
    ]  # fmt: skip


def _start(settings: Settings) -> Figure:
    """From fork to exit of a small scenario."""
    code = "from bench import simulation as s; s.run_world(s.small(), 1)"
    values = []
    for _ in range(2 if settings.quick else settings.rounds):
        began = time.perf_counter()
        subprocess.run(pinned([sys.executable, "-c", code], settings.cores.client), check=True)
        values.append(time.perf_counter() - began)
    return Figure(
        what="start and end of a small scenario, machine code cached", unit="s", values=values, asked="<= 2"
    )
