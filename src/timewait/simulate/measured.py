"""A measured run as a scenario: what it would have met under other settings.

What the run says of both ends is taken over; what nobody measured has a default, and `Measured.assumed` names it. The
same figures stand for the run itself, so that a simulation of it as it was can be held against it.
"""

from __future__ import annotations

import math

import msgspec

from timewait.histogram import Sparse, quantiles
from timewait.plan import Closing as Ending
from timewait.plan import PortPolicy, RateUnit
from timewait.run import Cause, Run
from timewait.simulate import limits
from timewait.simulate.settings import ScenarioError, is_sysctl
from timewait.simulate.world import Arrivals, Clients, Closing, Network, Process, Scenario, Server, Settings
from timewait.tcp import kernels
from timewait.tcp.kernels import Kernel
from timewait.tcp.knobs import SPANS


class Measured(msgspec.Struct, frozen=True):
    """A run, as a scenario and as figures."""

    scenario: Scenario
    figures: dict[str, float]
    assumed: tuple[str, ...]  # one sentence each


MOST_TRIP = 0.19  # seconds one way: what the engine takes at most


def measured(run: Run, name: str) -> Measured:
    """Raises ScenarioError where the run says too little, or did what no scenario does."""
    total = run.total
    if total.started <= 0 or total.seconds <= 0:
        raise ScenarioError(f"{name}: the run started no connection, so there is nothing to simulate")
    if run.plan.ports.policy is not PortPolicy.KERNEL:
        raise ScenarioError(
            f"{name}: its ports were bound by timewait (--ports {run.plan.ports.policy}); a simulation leaves the "
            "choice to the kernel, so it can say nothing about this run"
        )
    assumed: list[str] = []
    kernel = kernels.running(run.host.kernel)
    trip = min(MOST_TRIP, _median(total.connect) / 2)
    scenario = Scenario(
        name=name, title="What would this run have met?", duration=_seconds(run), tick=_tick(run),
        clients=Clients(
            count=max(1, len(run.plan.sources)), kernel=kernel.name, sysctls=_sysctls(run, kernel),
            requests=_requests(run), pause=0.0, closing=_closing(run), connect_timeout=run.plan.connect_timeout,
        ),
        arrivals=Arrivals(process=Process.CONSTANT, rate=_rate(run, assumed)),
        network=Network(access=0.0, delay=trip, loss=_loss(run, assumed)),
        server=_server(run, kernel, trip, assumed),
    )  # fmt: skip
    residue = sum(use.time_wait for use in run.before.ports)
    if residue:
        assumed.append(f"{residue:,} TIME_WAIT stood there before the run; a simulation begins with none")
    try:
        limits.check(scenario)
    except limits.WorldError as error:
        raise ScenarioError(f"{name}: {error}") from None
    return Measured(scenario, figures(run), tuple(assumed))


def full_name(name: str) -> str:
    """`tcp_tw_reuse` means this run's own host: `clients.tcp_tw_reuse`."""
    return f"clients.{name}" if is_sysctl(name) else name


def figures(run: Run) -> dict[str, float]:
    """The run's own, under the names of answers.FIGURES."""
    total, started = run.total, max(1, run.total.started)
    short = sum(count for key, count in total.errors.items() if key.endswith(f" {Cause.NO_PORT}"))
    found = {
        "failed": max(0, total.started - total.connected) / started,
        "no_port": short / started,
        "connected": float(total.connected),
        "served": float(total.succeeded),
    }
    held = [
        sum(use.time_wait for use in snapshot.ports) for snapshot in (*run.snapshots, run.after) if snapshot.ports
    ]
    if held:
        found["client_time_wait"] = float(max(held))
    taken_over = run.moved().get("TcpExt.TWRecycled")
    if taken_over is not None:
        found["taken_over"] = float(taken_over)
    wall = run.first(Cause.NO_PORT)
    if wall is not None:
        found["wall"] = wall
    if total.connect.index:
        found["connect_p50"], found["connect_p99"] = quantiles(total.connect, (0.5, 0.99))
    return found


def _seconds(run: Run) -> float:
    """How long connections were started: as planned, unless it ended early."""
    if run.plan.duration is not None and not run.interrupted:
        return run.plan.duration
    return max((tick.at for tick in run.ticks), default=run.total.seconds) or run.total.seconds


def _tick(run: Run) -> float:
    return max(0.1, min(1.0, _seconds(run) / 20))


def _median(part: Sparse) -> float:
    return quantiles(part, (0.5,))[0]


def _sysctls(run: Run, kernel: Kernel) -> Settings:
    found: Settings = {}
    for name in SPANS:
        text = run.host.sysctls.get(f"net.ipv4.{name}", "").strip()
        if text.isdecimal() and kernels.has_knob(kernel, name):
            found[name] = int(text)
    low, high = run.plan.ports.low or run.host.port_low, run.plan.ports.high or run.host.port_high
    high = max(low, high - run.host.reserved_ports)
    return found | {"ip_local_port_range": f"{low}-{high}"}


def _requests(run: Run) -> int:
    """On one connection: as asked for, or as it came out."""
    asked = run.plan.requests_per_connection
    return asked if asked is not None else max(1, round(run.total.requests / max(1, run.total.connected)))


def _closing(run: Run) -> Closing:
    """Who really closed first most often; where nothing was closed, who was asked to."""
    total = run.total
    seen = {
        Closing.CLIENT: total.closed_us, Closing.SERVER: total.closed_peer, Closing.RESET: total.reset_by_us,
    }  # fmt: skip
    if any(seen.values()):
        return max(seen, key=lambda who: seen[who])
    return {Ending.RESET: Closing.RESET, Ending.CLIENT: Closing.CLIENT, Ending.HALF: Closing.CLIENT}.get(
        run.plan.closing, Closing.SERVER
    )


def _rate(run: Run, assumed: list[str]) -> float:
    """New connections a second: the open loop's, else what the closed one reached before anything failed."""
    rate = run.plan.rate
    if rate is not None:
        per_connection = 1 if rate.unit is RateUnit.CONNECTIONS else _requests(run)
        return rate.per_second / per_connection
    good = []
    for tick in run.ticks:
        if tick.errors:
            break
        good.append(tick)
    seconds = math.fsum(tick.seconds for tick in good)
    assumed.append(
        "the closed loop is taken as a steady rate: the one it reached before anything failed"
        if seconds
        else "the closed loop is taken as a steady rate: its mean"
    )
    return sum(tick.started for tick in good) / seconds if seconds else run.total.started / run.total.seconds


def _loss(run: Run, assumed: list[str]) -> float:
    """From connects with SYNs sent again: either the SYN or its answer was lost."""
    share = run.total.syn_slow / max(1, run.total.started)
    if not share:
        return 0.0
    assumed.append("SYNs that were sent again are taken as lost on the way, by chance")
    return 1 - math.sqrt(max(0.0, 1 - share))


def _server(run: Run, kernel: Kernel, trip: float, assumed: list[str]) -> Server:
    sysctls: Settings = {}
    if run.total.sampled > 0:
        sysctls["tcp_timestamps"] = int(2 * run.total.sampled_timestamps >= run.total.sampled)
    else:
        assumed.append("the target is taken to negotiate timestamps; the run sampled no connection")
    name = kernel.name if run.host.local_target else Server().kernel
    if not run.host.local_target:
        assumed.append(f"the target is taken for a Linux {name} with default sysctls; the run could not see it")
    answer = max(0.0, _median(run.total.total) - 2 * trip)
    return Server(
        kernel=name, sysctls=sysctls, destinations=max(1, len(run.before.ports)), answer=answer,
        answer_spread="constant",
    )  # fmt: skip
