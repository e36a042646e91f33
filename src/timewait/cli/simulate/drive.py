"""Runs what `timewait simulate` was asked for and shows what came out; the answer is its exit code."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from timewait import __version__
from timewait.cli import INTERRUPTED, USAGE
from timewait.cli.simulate import files, json_out, shown
from timewait.cli.simulate.progress import Interrupt, Told, progress
from timewait.cli.simulate.wishes import Wishes, asked, refuse_contradictions, what_if, workers
from timewait.report.simulated import Comparison, Grid, Simulation
from timewait.simulate import sweep
from timewait.simulate.answers import figures
from timewait.simulate.limits import WorldError
from timewait.simulate.measured import measured
from timewait.simulate.outcome import Outcome
from timewait.simulate.replicate import Estimate, estimates
from timewait.simulate.scenario_file import Asked, effective, find, names, with_settings
from timewait.simulate.settings import ScenarioError
from timewait.simulate.spread import Cluster, LostError, Processes, Spread, UnreachableError, alone, cores
from timewait.simulate.sweep import Done, Job, Plan, SweepFileError
from timewait.simulate.world import Scenario

COMPILING = "compiling, once on this machine: about half a minute"
LOST = 3  # this machine's or the cluster's fault, as of every command


def drive(wishes: Wishes) -> int:
    """The whole command; returns the exit code."""
    interrupt = Interrupt()
    try:
        refuse_contradictions(wishes)
        files.writable(wishes)
        workers(wishes, 1)
        return _work(wishes, interrupt)
    except (ScenarioError, WorldError, SweepFileError, UnreachableError, files.FileError) as error:
        print(f"timewait: {error}", file=sys.stderr)
        return USAGE
    except LostError as error:
        print(f"timewait: {error}", file=sys.stderr)
        return LOST
    finally:
        interrupt.restore()


def _work(wishes: Wishes, interrupt: Interrupt) -> int:
    if wishes.scenario == "list":
        return _list(wishes)
    if wishes.run is not None:
        return _what_if(wishes, interrupt)
    if wishes.resume is not None:
        plan, done = files.read_sweep(wishes.resume)
        figure = wishes.figure or plan.figure
        return _sweep(wishes, plan, figure, done, interrupt)
    wanted = asked(wishes)
    if wanted.ask.sweep:
        axes = [sweep.parse_axis(text) for text in wanted.ask.sweep]
        plan = sweep.plan(wanted.scenario, axes, wanted.ask)
        return _check(wanted) if wishes.check else _sweep(wishes, plan, wanted.ask.figure, [], interrupt)
    return _check(wanted) if wishes.check else _single(wishes, wanted, interrupt)


def _check(wanted: Asked) -> int:
    print(effective(wanted), end="")
    return 0


def _list(wishes: Wishes) -> int:
    from timewait.cli.consoles import Console, quiet_pipe
    from timewait.report.simulation import listed

    found = [(name, find(name)) for name in names()]
    with quiet_pipe():
        if wishes.json:
            json_out.write(
                [{"name": name, "question": one.scenario.title, "sweep": one.ask.sweep} for name, one in found]
            )
        else:
            Console(highlight=False).print(listed([(name, one.scenario.title) for name, one in found]))
    return 0


# --- one scenario -------------------------------------------------------------------------------------------------


def _single(wishes: Wishes, wanted: Asked, interrupt: Interrupt) -> int:
    from timewait.simulate.record import recorded

    ask = wanted.ask
    plan = Plan(wanted.scenario, (), ask.seed, ask.replications, ask.figure)
    outcome, rows = _replicated(wishes, plan, interrupt)
    if outcome is None:
        print("timewait: interrupted before anything was simulated", file=sys.stderr)
        return INTERRUPTED
    run = recorded(outcome)
    found = estimates(rows)
    made = shown.simulation(outcome, run, ask, found, len(rows))
    if interrupt.name:
        reached = f"Interrupted by {interrupt.name}: {shown.reached(outcome, len(rows), ask.replications)}"
        made.notes.append(reached)
    _show(wishes, made, lambda: json_out.simulation(made, outcome, ask, found, interrupt.name))
    if wishes.save:  # after the answer, which a full disk shall not cost
        files.save_run(wishes.save, run)
    return INTERRUPTED if interrupt.name else 0


def _replicated(wishes: Wishes, plan: Plan, interrupt: Interrupt) -> tuple[Outcome | None, list[dict[str, float]]]:
    """The first replication in full, and the figures of all that came to their end."""
    spread = _spread(wishes, plan.jobs())
    if plan.replications == 1 and not isinstance(spread, Cluster):
        with progress(wishes.quiet) as told:
            told(0.0, _beginning(plan.scenario.name))
            outcome = sweep.simulate(
                plan.scenario, plan.seed, lambda share: told(share, plan.scenario.name), interrupt
            )
        return outcome, [figures(outcome)]
    first: Outcome | None = None
    rows: dict[int, dict[str, float]] = {}
    jobs = plan.jobs()
    with progress(wishes.quiet) as told:
        _warm(spread, told)
        for whole in spread(sweep.play_whole, jobs, interrupt):
            first = whole.outcome or first
            rows[whole.done.replication] = whole.done.figures
            told(len(rows) / len(jobs), f"{len(rows)} of {len(jobs)} replications")
    if first is None and rows:  # the one that is shown in full was not among those that were done
        first = sweep.simulate(plan.scenario, plan.seed, lambda share: None, lambda: False)
    return first, [rows[at] for at in sorted(rows)]


def _warm(spread: Spread, told: Told) -> None:
    if isinstance(spread, Processes):
        told(0.0, _beginning("simulating"))
        sweep.warm()
        told(0.0, "simulating")


def _beginning(text: str) -> str:
    """What is done first."""
    return text if sweep.is_compiled() else COMPILING


def _spread(wishes: Wishes, jobs: list[Job]) -> Spread:
    if wishes.scheduler is not None:
        return Cluster(wishes.scheduler, __version__)
    many = sweep.together(jobs, workers(wishes, cores()))
    return Processes(many) if many > 1 else alone


# --- sweeps -------------------------------------------------------------------------------------------------------


def _sweep(wishes: Wishes, plan: Plan, figure: str, done: list[Done], interrupt: Interrupt) -> int:
    jobs = plan.jobs(done)
    spread = _spread(wishes, jobs)
    whole = len(jobs) + len(done)
    kept = files.Kept(wishes, plan, done)
    lost = ""
    try:
        with progress(wishes.quiet) as told:
            _warm(spread, told)
            for one in spread(sweep.play, jobs, interrupt):
                done.append(one)
                kept.add(one)
                told(len(done) / whole, f"{len(done)} of {whole} simulations")
    except LostError as error:
        lost = str(error)
    made = shown.grid(plan, sweep.table(plan, done), figure)
    if len(done) < whole:
        why = lost or f"interrupted by {interrupt.name}"
        reached = f"{why[0].upper()}{why[1:]}: {len(done)} of {whole} simulations done"
        name = kept.rescue(done) if done else ""
        go_on = f" and kept; go on with `timewait simulate --resume {name}`" if done and not kept.error else ""
        made.notes.append(f"{reached}{go_on}.")
    _show(wishes, made, lambda: json_out.grid(made, plan, done, interrupt.name or lost))
    if lost:
        print(f"timewait: {made.notes[-1]}", file=sys.stderr)
    try:
        kept.close()
    except files.FileError as error:
        print(f"timewait: {error}", file=sys.stderr)
        return INTERRUPTED if interrupt.name else USAGE
    return INTERRUPTED if interrupt.name else LOST if lost else 0


# --- a measured run -----------------------------------------------------------------------------------------------


def _what_if(wishes: Wishes, interrupt: Interrupt) -> int:
    run = files.read_run(str(wishes.run))
    name = Path(str(wishes.run)).name
    before = measured(run, name)
    changed = what_if(wishes)
    ask = files.ask_of(wishes)
    columns: dict[str, dict[str, Estimate]] = {"measured": shown.plain(before.figures)}
    scenarios = {"simulated": before.scenario}
    if changed:
        scenarios["changed"] = with_settings(before.scenario, changed)
    if wishes.check:
        return _check(Asked(scenario=list(scenarios.values())[-1], ask=ask))
    for column, scenario in scenarios.items():
        plan = Plan(scenario, (), ask.seed, ask.replications, ask.figure)
        outcome, rows = _replicated(wishes, plan, interrupt)
        if rows and not (outcome and outcome.interrupted and ask.replications == 1):
            columns[column] = estimates(rows)  # a simulation of half the run is not to be held against all of it
        if interrupt.name:
            break
    if len(columns) == 1:
        print("timewait: interrupted before anything was simulated", file=sys.stderr)
        return INTERRUPTED
    told = ", ".join(f"{setting.removeprefix('clients.')}={text}" for setting, text in changed.items())
    made = shown.comparison(name, run, columns, before, told if "changed" in columns else "", ask.figure)
    if interrupt.name:
        made.notes.append(_cut_short(interrupt.name, columns, scenarios, ask.replications))
    _show(wishes, made, lambda: json_out.comparison(made, columns, scenarios, changed, interrupt.name))
    return INTERRUPTED if interrupt.name else 0


def _cut_short(
    signal: str, columns: Mapping[str, Mapping[str, Estimate]], scenarios: Mapping[str, Scenario], replications: int
) -> str:
    """What is missing of a comparison."""
    done = {column: max(one.count for one in columns[column].values()) for column in scenarios if column in columns}
    told = [f"{column}: {done.get(column, 0)} of {replications}" for column in scenarios]
    return f"Interrupted by {signal}; simulations done: {', '.join(told)}."


# --- what is shown ------------------------------------------------------------------------------------------------


def _show(wishes: Wishes, made: Simulation | Grid | Comparison, as_json: Callable[[], Any]) -> None:
    from timewait.cli.consoles import quiet_pipe

    with quiet_pipe():
        _print(wishes, made, as_json)
    if wishes.html:  # after the answer, which a full disk shall not cost
        files.save_page(wishes.html, made)


def _print(wishes: Wishes, made: Simulation | Grid | Comparison, as_json: Callable[[], Any]) -> None:
    from timewait.cli.consoles import Console
    from timewait.report import simulation

    if wishes.json:
        json_out.write(as_json())
        return
    console = Console(highlight=False)
    if isinstance(made, Simulation):
        console.print(simulation.simulation(made))
    elif isinstance(made, Grid):
        console.print(simulation.grid(made))
    else:
        console.print(simulation.comparison(made))
