"""Simulations as one JSON object. Names and units are a contract: seconds, counts, shares 0..1; null: not known."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from timewait import __version__
from timewait.report.simulated import Comparison, Grid, Simulation
from timewait.simulate.outcome import Outcome
from timewait.simulate.replicate import Estimate
from timewait.simulate.scenario_file import Ask
from timewait.simulate.sweep import Done, Plan, table
from timewait.simulate.world import Scenario


def write(found: Any) -> None:
    sys.stdout.write(msgspec.json.encode(found).decode() + "\n")


def _estimates(found: Mapping[str, Estimate]) -> dict[str, Any]:
    return {name: {"mean": one.mean, "low": one.low, "high": one.high} for name, one in found.items()}


def simulation(
    shown: Simulation, outcome: Outcome, ask: Ask, found: Mapping[str, Estimate], interrupted: str
) -> dict[str, Any]:
    """One scenario."""
    series = shown.series
    return {
        "version": __version__,
        "scenario": msgspec.to_builtins(outcome.scenario),
        "seed": ask.seed,
        "replications": next(iter(found.values())).count if found else 0,
        "figure": ask.figure,
        "answer": shown.answer,
        "figures": _estimates(found),
        "drops": [
            {"syns": drop.syns, "share": drop.share, "why": drop.why, "function": drop.counter}
            for drop in shown.drops
        ],
        "counters": outcome.counted(),
        "over_time": {
            "ends": series.ends,
            "started_per_second": series.started,
            "failed": series.failed,
            "retried": series.retried,
            "gauges": dict(series.gauges),
        },
        "never": {"by_address": shown.suffering.by_address, "by_clock": shown.suffering.by_clock},
        "port_capacity": outcome.port_capacity,
        "events": outcome.events,
        "wall_seconds": outcome.wall_seconds,
        "findings": [msgspec.to_builtins(one) for one in shown.findings],
        "notes": shown.notes,
        "interrupted": interrupted or None,
    }


def grid(shown: Grid, plan: Plan, done: Sequence[Done], cut_short: str) -> dict[str, Any]:
    """A sweep: every point with all of its figures."""
    names = [axis.setting for axis in plan.axes]
    return {
        "version": __version__,
        "scenario": msgspec.to_builtins(plan.scenario),
        "seed": plan.seed,
        "replications": plan.replications,
        "figure": plan.figure,
        "answer": shown.answer,
        "axes": [{"setting": axis.setting, "values": axis.values} for axis in plan.axes],
        "points": [
            {
                "settings": dict(zip(names, point.values, strict=True)),
                "replications": point.replications,
                "figures": _estimates(point.figures),
            }
            for point in table(plan, done)
        ],
        "notes": shown.notes,
        "interrupted": cut_short or None,
    }


def comparison(
    shown: Comparison,
    columns: Mapping[str, Mapping[str, Estimate]],
    scenarios: Mapping[str, Scenario],
    changed: Mapping[str, str],
    interrupted: str = "",
) -> dict[str, Any]:
    """A measured run beside simulations of it."""
    return {
        "version": __version__,
        "run": shown.name,
        "changed": dict(changed),
        "answer": shown.answer,
        "columns": {name: _estimates(found) for name, found in columns.items()},
        "scenarios": {name: msgspec.to_builtins(one) for name, one in scenarios.items()},
        "notes": shown.notes,
        "interrupted": interrupted or None,
    }
