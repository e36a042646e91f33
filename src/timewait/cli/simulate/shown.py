"""What came out of simulations, put into the plain values that reports show."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from timewait.diagnose import diagnose
from timewait.histogram import Sparse, quantiles
from timewait.report.simulated import SHARE, Axis, Comparison, Drop, Grid, Series, Simulation, Suffering, Value
from timewait.report.words import count, duration, plural, rate
from timewait.run import Run
from timewait.simulate.answers import FIGURES
from timewait.simulate.measured import Measured
from timewait.simulate.outcome import GAUGES, Column, Outcome, why
from timewait.simulate.replicate import Estimate
from timewait.simulate.scenario_file import Ask
from timewait.simulate.sweep import Axis as Swept
from timewait.simulate.sweep import Plan, Point
from timewait.simulate.world import Closing, Process, Scenario
from timewait.tcp import kernels, rulebook
from timewait.tcp.kernels import Kernel
from timewait.tcp.profiles import INET_PEER, METRICS
from timewait.tcp.rulebook import RULES

# Shares that nobody wants: none of them is good news, more than a hundredth is bad.
FEARED = frozenset({"failed", "no_port", "gave_up", "backend_failed", "never", "syns_dropped", "retried"})
QUANTILES = {"p50": 0.5, "p99": 0.99, "max": 1.0}


def value(name: str, estimate: Estimate) -> Value:
    figure = FIGURES[name]
    return Value(name, figure.label, figure.kind, estimate.mean, estimate.low, estimate.high, estimate.count)


def values(found: Mapping[str, Estimate]) -> list[Value]:
    """In the order of FIGURES."""
    return [value(name, found[name]) for name in FIGURES if name in found]


def plain(found: Mapping[str, float]) -> dict[str, Estimate]:
    """The figures of one simulation, or of a measurement."""
    return {name: Estimate(number, number, number, 1) for name, number in found.items()}


def answer(name: str, found: Mapping[str, Estimate]) -> str:
    """The sentence that answers a question with this figure."""
    figure = FIGURES[name]
    if name not in found:
        return {"wall": "No connect lacks a source port"}.get(name, f"{figure.label}: nothing to measure") + "."
    one = value(name, found[name])
    if figure.none and one.mean == 0:
        return f"{figure.none}."
    text = "all" if one.kind == SHARE and one.mean == 1 else one.text
    if one.interval:
        text += f" ({one.interval})"
    sentence = figure.sentence.format(text)
    return f"{sentence[0].upper()}{sentence[1:]}."


def _good(name: str, found: Mapping[str, Estimate]) -> bool | None:
    if name not in FEARED or name not in found:
        return None
    mean = found[name].mean
    return True if mean == 0 else False if mean > 0.01 else None


def certainty(replications: int) -> str:
    if replications == 1:
        return "One replication; --replications 10 tells how far chance moves these figures."
    return f"Means of {replications} independent replications, 95% intervals in brackets."


def reached(outcome: Outcome, done: int, asked: int) -> str:
    """How far a simulation came that was cut short."""
    if asked > 1:
        return f"{done} of {asked} replications are done"
    return f"{duration(outcome.seconds)} of {duration(outcome.scenario.duration)} are simulated"


def world(scenario: Scenario, swept: Sequence[str] = ()) -> list[str]:
    """The scenario in a few short pieces; what is swept is left out."""
    clients, nat, server, backend = scenario.clients, scenario.nat, scenario.server, scenario.backend
    who, where = plural(clients.count, "client"), "balancer" if server.layer == 7 else "servers behind layer 4"
    who += "" if "clients.kernel" in swept else f" with Linux {clients.kernel}"
    where += "" if "server.kernel" in swept else f": Linux {server.kernel}"
    pieces = [_with(who, kernels.kernel(clients.kernel), clients.sysctls, swept, "clients")]
    if "arrivals.rate" not in swept:
        pieces.append(_arrivals(scenario))
    if "clients.closing" not in swept:
        pieces.append(CLOSINGS[clients.closing])
    if nat is not None:
        addresses = "1 address" if nat.addresses == 1 else f"{count(nat.addresses)} addresses"
        told = {"nat.addresses": addresses, "nat.ports": f"ports {nat.low}-{nat.high}", "nat.choice": f"{nat.choice}"}
        pieces.append("NAT: " + ", ".join(text for name, text in told.items() if name not in swept))
    pieces.append(_with(where, kernels.kernel(server.kernel), server.sysctls, swept, "server"))
    if backend is not None:
        told = {
            "backend.sources": plural(backend.sources, "source"),
            "backend.servers": plural(backend.servers, "server"),
            "backend.pool": f"pool {backend.pool}",
        }
        pieces.append("behind it: " + ", ".join(text for name, text in told.items() if name not in swept))
    if scenario.network.eats_ack and "network.eats_ack" not in swept:
        pieces.append(f"{scenario.network.eats_ack:.0%} of a TIME_WAIT's ACKs dropped")
    if scenario.network.loss:
        pieces.append(f"{scenario.network.loss:.2%} lost")
    return [*pieces, f"{duration(scenario.duration)} simulated"]


CLOSINGS = {Closing.SERVER: "server closes", Closing.CLIENT: "client closes", Closing.RESET: "closed by reset"}


MANY = 3  # sysctls; of more only those that are not the kernel's defaults are told


def _with(text: str, kernel: Kernel, sysctls: Mapping[str, Any], swept: Sequence[str], part: str) -> str:
    usual = kernel.defaults._asdict() if len(sysctls) > MANY else {}
    told = [
        f"{name.removeprefix('tcp_').replace('ip_local_port_range', 'ports')}={setting}"
        for name, setting in sysctls.items()
        if usual.get(name) != setting
        and not any(axis.startswith(f"{part}.") and axis.rpartition(".")[2] in name for axis in swept)
    ]
    return text + (f" ({', '.join(told)})" if told else "")


def _arrivals(scenario: Scenario) -> str:
    arrivals = scenario.arrivals
    if arrivals.process is Process.TRACE:
        return f"{count(len(arrivals.times))} moments of a trace"
    if arrivals.process is Process.THINK:
        return f"{duration(arrivals.think)} between connections of a client"
    steady = " steady" if arrivals.process is Process.CONSTANT else ""
    mean = " on average over a day" if arrivals.process is Process.DIURNAL else ""
    return f"{rate(arrivals.rate)}{steady}{mean}"


def simulation(outcome: Outcome, run: Run, ask: Ask, found: Mapping[str, Estimate], replications: int) -> Simulation:
    """One scenario: its first replication in full, the figures over all."""
    scenario = outcome.scenario
    return Simulation(
        name=scenario.name,
        question=scenario.title,
        world=[*world(scenario), f"seed {ask.seed}"],
        answer=answer(ask.figure, found),
        good=_good(ask.figure, found),
        certainty=certainty(replications),
        values=values(found),
        drops=_drops(outcome),
        series=_series(outcome),
        suffering=_suffering(outcome),
        findings=diagnose(run),
        notes=list(outcome.notes),
    )


def _drops(outcome: Outcome) -> list[Drop]:
    dropped = outcome.dropped()
    whole, kernel = max(1, sum(dropped.values())), outcome.scenario.server.kernel
    return [Drop(number, number / whole, why(reason), _source(reason, kernel)) for reason, number in dropped.items()]


def _source(reason: int, kernel: str) -> str:
    """The kernel function whose rule it is; empty where it is none."""
    if reason not in RULES:
        return ""
    row = kernels.kernel(kernel)
    return rulebook.source(reason, row.version, old=row.rules.record_store in (INET_PEER, METRICS)).partition(",")[0]


def _series(outcome: Outcome) -> Series:
    ends = [float(end) for end in outcome.ends]
    lengths = [end - start for start, end in zip([0.0, *ends], ends, strict=False)]
    ticks = outcome.ticks
    good = ticks[:, Column.FIRST] + ticks[:, Column.RETRIED]
    lost = ticks[:, Column.NO_PORT] + ticks[:, Column.GAVE_UP] + ticks[:, Column.REFUSED]
    ended = [max(1, int(number)) for number in good + lost]
    return Series(
        ends=ends,
        lengths=lengths,
        failed=[int(number) / whole for number, whole in zip(lost, ended, strict=True)],
        retried=[int(number) / whole for number, whole in zip(ticks[:, Column.RETRIED], ended, strict=True)],
        started=_rates(ticks[:, Column.STARTED], lengths),
        drops=[(why(reason), _rates(outcome.drops[:, reason], lengths)) for reason in outcome.dropped()],
        latency=_latency(outcome.connect),
        gauges=_gauges(outcome),
        capacity=float(outcome.port_capacity),
    )


def _rates(counts: Any, lengths: Sequence[float]) -> list[float]:
    return [int(number) / length for number, length in zip(counts, lengths, strict=True)]


def _latency(parts: Sequence[Sparse]) -> dict[str, list[float | None]]:
    found: dict[str, list[float | None]] = {name: [] for name in QUANTILES}
    for part in parts:
        read = quantiles(part, tuple(QUANTILES.values())) if part.index else [None] * len(QUANTILES)
        for name, one in zip(QUANTILES, read, strict=True):
            found[name].append(one)
    return found


_GAUGES = {
    Column.SERVER_TIME_WAIT: "TIME_WAIT at the balancer",
    Column.CLIENT_TIME_WAIT: "TIME_WAIT at the clients",
    Column.PORTS_TAKEN: "source ports taken",
    Column.BACKEND_TIME_WAIT: "TIME_WAIT toward the servers",
    Column.BACKEND_TAKEN: "the balancer's ports taken",
    Column.OPEN: "open connections",
}


def _gauges(outcome: Outcome) -> list[tuple[str, list[float]]]:
    assert set(_GAUGES) <= {Column(number) for number in GAUGES}
    shown = [(name, [float(number) for number in outcome.ticks[:, column]]) for column, name in _GAUGES.items()]
    return [(name, numbers) for name, numbers in shown if any(numbers)]


def _suffering(outcome: Outcome) -> Suffering:
    suffering = outcome.suffering
    pairs = zip(suffering.never_by_address, suffering.tried_by_address, strict=True)
    clocks = zip(suffering.never_by_clock, suffering.tried_by_clock, strict=True)
    shares = sorted((int(never) / int(tried) for never, tried in pairs if tried), reverse=True)
    return Suffering(
        by_address=shares if outcome.scenario.nat is not None else [],
        by_clock=[int(never) / int(tried) if tried else None for never, tried in clocks],
    )


# --- sweeps -------------------------------------------------------------------------------------------------------


def grid(plan: Plan, points: Sequence[Point], figure: str) -> Grid:
    """A sweep, whole or cut short."""
    settings = [axis.setting for axis in plan.axes]
    cells = [value(figure, point.figures[figure]) if figure in point.figures else None for point in points]
    scenario = plan.scenario
    return Grid(
        name=scenario.name,
        question=scenario.title,
        world=[*world(scenario, settings), f"seed {plan.seed}"],
        axes=[Axis(axis.setting, axis.values) for axis in plan.axes],
        label=FIGURES[figure].label,
        kind=FIGURES[figure].kind,
        cells=cells,
        answer=_grid_answer(plan, points, cells, figure),
        certainty=certainty(plan.replications),
        others=[values(point.figures) for point in points],
    )


def _grid_answer(plan: Plan, points: Sequence[Point], cells: Sequence[Value | None], figure: str) -> str:
    done = [(_named(plan, point), cell) for point, cell in zip(points, cells, strict=True) if cell is not None]
    label = FIGURES[figure].label
    label = label[0].upper() + label[1:]
    if not done:
        nothing = any(point.replications for point in points)
        return f"{label}: no point has such a figure." if nothing else "No point is done."
    if len({cell.mean for _, cell in done}) == 1:
        which = "at every point" if len(done) == len(points) else "at every point that is done"
        return f"{label}: {done[0][1].text} {which}."
    shares = FIGURES[figure].kind == SHARE
    if shares and len(plan.axes) == 1 and _ascending(plan.axes[0]):
        told = _edge(done)
        if told:
            return f"{label}: {told}."
    most, least = max(done, key=lambda pair: pair[1].mean), min(done, key=lambda pair: pair[1].mean)
    return f"{label}: {most[1].text} at {most[0]}, {least[1].text} at {least[0]}."


def _ascending(axis: Swept) -> bool:
    """Whether its values are numbers, each above the one before; versions are none."""
    found = []
    for text in () if axis.setting.endswith(".kernel") else axis.values:
        match = re.match(r"[0-9.]+", text)
        if match is None:
            return False
        found.append(float(match[0]) * {"k": 1e3, "M": 1e6, "m": 60, "h": 3600, "d": 86400}.get(text[-1], 1))
    return bool(found) and found == sorted(found)


def _edge(done: Sequence[tuple[str, Value]]) -> str:
    """Where along a scale it begins or ends; empty where it does neither."""
    clean = [cell.mean == 0 for _, cell in done]
    last = len(done) - 1
    if clean[last] and not clean[0]:
        first = last
        while clean[first - 1]:
            first -= 1
        return f"{done[0][1].text} at {done[0][0]}, none from {done[first][0]} on"
    if clean[0] and not clean[last]:
        end = clean.index(False) - 1
        return f"none up to {done[end][0]}, {done[last][1].text} at {done[last][0]}"
    return ""


def _named(plan: Plan, point: Point) -> str:
    return ", ".join(f"{axis.setting}={text}" for axis, text in zip(plan.axes, point.values, strict=True))


# --- a measured run -----------------------------------------------------------------------------------------------


def comparison(
    name: str, run: Run, columns: Mapping[str, Mapping[str, Estimate]], measured: Measured, changed: str, figure: str
) -> Comparison:
    """`columns`: figures of the run itself, of a simulation as it was, and under other settings."""
    scenario = measured.scenario
    rows = []
    for one in FIGURES:
        found = [column.get(one) for column in columns.values()]
        if found[0] is not None and any(estimate.mean for estimate in found if estimate):
            rows.append((FIGURES[one].label, [value(one, estimate) if estimate else None for estimate in found]))
    heads = {"measured": "measured", "simulated": "simulated", "changed": f"with {changed}"}
    texts = [
        f"{value(figure, found[figure]).text} {heads[column]}" for column, found in columns.items() if figure in found
    ]
    label = FIGURES[figure].label
    return Comparison(
        name=name,
        question=scenario.title,
        world=[*_asked(run), *world(scenario), *([f"changed: {changed}"] if changed else [])],
        columns=list(columns),
        rows=rows,
        answer=f"{label[0].upper()}{label[1:]}: {', '.join(texts)}.",
        notes=[f"{sentence[0].upper()}{sentence[1:]}." for sentence in measured.assumed],
    )


def _asked(run: Run) -> list[str]:
    return [run.plan.requests_list[0].url]
