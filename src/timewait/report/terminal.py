"""The report of one run for the terminal: totals, latency, statuses, who closed, ports, errors, why.

It fits 80 columns and folds itself for fewer. The headline is the rate of successes: an error answered fast is
no throughput.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.table import Table
from rich.text import Text

from timewait.diagnose import missed
from timewait.report import figures, words
from timewait.report.layout import BAD, DIM, GOOD, STRONG, WARN, Flow, Rows, Trimmed
from timewait.report.why import why
from timewait.run import PortUse, Run, Step

if TYPE_CHECKING:
    from timewait.diagnose import Finding

MOST_ERRORS, MOST_DETAILS, MOST_PORT_ROWS = 12, 5, 4


def summary(run: Run, findings: list[Finding]) -> RenderableType:
    """The whole report."""
    parts: list[RenderableType] = [*heading(run), Text(), headline(run), Text(), _totals(run), Text()]
    parts += [LatencyTable(figures.latencies(run.total)), Text()]
    parts.append(_fates(run))
    if run.steps:
        parts += [Text(), _steps(run.steps)]
    if run.total.errors:
        parts += [Text(), _errors(run)]
    parts += _limits(run) + _notes(run)
    if findings:
        parts += [Text(), why(findings)]
    return Trimmed(Group(*parts))


def heading(run: Run) -> list[RenderableType]:
    """What was asked, in two lines."""
    title = Text(words.target(run.plan), style=STRONG)
    title.overflow = "fold"
    return [title, Flow(words.wish(run.plan), style=DIM)]


def headline(run: Run) -> RenderableType:
    """The rate of successes and what became of the rest."""
    total = run.total
    ended = total.succeeded + total.failed
    if not ended:
        return Text("nothing came to an end: no success, no failure", style=BAD)
    speed = words.rate(figures.per_second(total.succeeded, total.seconds))[:-2]
    colour = GOOD if not total.failed else BAD if not total.succeeded else WARN
    first = Text(f"{speed} successes per second", style=f"{STRONG} {colour}")
    if not total.failed:
        return Flow([first, f"all {words.count(ended)} succeeded"])
    failed = Text(f"{words.share(figures.failed_share(total))} failed", style=f"{STRONG} {BAD}")
    failed.append(f" ({words.count(total.failed)} of {words.count(ended)})", style="not bold")
    return Flow([first, failed])


def _totals(run: Run) -> RenderableType:
    total, rows = run.total, Rows()
    pieces = [f"{words.count(total.requests)} sent", f"{words.count(total.succeeded)} succeeded"]
    pieces += (
        _if(total.failed, "{} failed") + _if(total.unfinished, "{} unfinished") + _if(total.unsent, "{} never sent")
    )
    rows.add("Requests", Flow(pieces))
    held = figures.concurrency(run)
    pieces = [f"{words.count(total.started)} started", f"{words.count(total.connected)} connected"]
    pieces += _if(total.resumed, "{} TLS sessions resumed")
    rows.add("Connections", Flow(pieces))
    rows.add("Held", _held(held))
    if run.plan.rate is not None:
        rows.add("Schedule", _schedule(run))
    pieces = [f"{words.size(total.bytes_in)} in", f"{words.size(total.bytes_out)} out", words.duration(total.seconds)]
    rows.add("Traffic", Flow(pieces))
    return rows


def _if(number: int, text: str) -> list[str]:
    return [text.format(words.count(number))] if number else []


def _held(held: figures.Concurrency) -> Flow:
    short = held.asked > 0 and held.held < 0.9 * held.asked
    text = f"{words.count(held.held)} of {words.count(held.asked)} asked, on average"
    return Flow([Text(text, style=WARN if short else ""), f"{words.count(held.peak)} at most"])


def _schedule(run: Run) -> Flow:
    asked, late = figures.asked_rate(run) or 0.0, figures.latency(run.total.late)
    pieces = [f"{words.rate(asked)} asked", f"{words.rate(figures.sent_rate(run))} started"]
    if late:
        pieces.append(f"late p99 {words.seconds(late['p99'])}, max {words.seconds(late['max'])}")
    return Flow(pieces)


class LatencyTable:
    """Phases by quantiles; where the terminal is narrow only the quantiles that say most."""

    def __init__(self, latencies: dict[str, dict[str, float] | None]) -> None:
        self.latencies = {name: found for name, found in latencies.items() if found}

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        if not self.latencies:
            yield Text("no latency: nothing succeeded", style=DIM)
            return
        room = (options.max_width - 11) // 10
        shown = list(figures.QUANTILES) if room >= 5 else ["p50", "p99", "max"] if room >= 3 else ["p50", "p99"]
        table = Table.grid(padding=(0, 1))
        table.add_column(width=11 if room >= 5 else 10, no_wrap=True)
        for _ in shown:
            table.add_column(width=9, justify="right", no_wrap=True)
        table.add_row(Text("Latency", style=DIM), *(Text(name.replace("_", "."), style=DIM) for name in shown))
        for name, found in self.latencies.items():
            style = STRONG if name == "total" else ""
            table.add_row(
                Text(figures.LATENCIES[name], style=style),
                *(Text(words.seconds(found[quantile]), style=style) for quantile in shown),
            )
        yield table


def _fates(run: Run) -> RenderableType:
    """Statuses, who closed first, where TIME_WAIT went, ports."""
    total, rows = run.total, Rows()
    if total.status:
        ranked = sorted(total.status.items(), key=lambda item: -item[1])
        pieces = [Text(f"{code}: {words.count(n)}", style=WARN if code >= 400 else "") for code, n in ranked]
        rows.add("Status", Flow(pieces[:8] + [Text(f"{len(pieces) - 8} more")] * (len(pieces) > 8)))
    rows.add("Closed first", _closed(run))
    time_wait = _time_wait(run)
    if time_wait is not None:
        rows.add("TIME_WAIT", time_wait)
    for label, flow in _ports(run):
        rows.add(label, flow)
    return rows


def _closed(run: Run) -> Flow:
    total = run.total
    pieces = _if(total.closed_peer, "target {}") + _if(total.closed_us, "we {}")
    if total.closed_reset:
        ours = f" ({words.count(total.reset_by_us)} by us)" if total.reset_by_us else ""
        pieces.append(f"reset {words.count(total.closed_reset)}{ours}")
    if total.close_ignored:
        pieces.append(f"close ignored {words.count(total.close_ignored)}")
    return Flow(pieces or ["no connection was closed"])


def _time_wait(run: Run) -> Flow | None:
    use = figures.ports(run.after)
    if use is None:
        return None
    pieces = [f"{words.count(use.time_wait)} here"]
    pieces += _if(figures.residue(run), "{} were here before the run")
    if use.peer_time_wait is not None:
        pieces.append(f"{words.count(use.peer_time_wait)} at the target")
    elif run.total.closed_peer:
        pieces.append("the target holds those it closed first")
    return Flow(pieces)


def _ports(run: Run) -> list[tuple[str, Flow]]:
    uses = sorted(run.after.ports, key=lambda use: use.free / use.capacity if use.capacity else 1.0)
    shown = uses[:MOST_PORT_ROWS]
    rows = [("" if number else "Ports", _port_row(use, run)) for number, use in enumerate(shown)]
    if len(uses) > len(shown):
        rows.append(("", Flow([f"{len(uses) - len(shown)} more destinations with more free ports"])))
    return rows


def _port_row(use: PortUse, run: Run) -> Flow:
    taken = [other for snapshot in run.snapshots for other in snapshot.ports if other.destination == use.destination]
    least = min((other.free for other in (*taken, use)), default=use.free)
    free = Text(f"{words.count(use.free)} free", style=BAD if use.capacity and not use.free else "")
    pieces: list[Text | str] = [f"{words.count(use.capacity)} toward {words.clean(use.destination)}"]
    pieces += [f"{words.count(use.in_use)} in use", free]
    if least < use.free:
        pieces.append(Text(f"{words.count(least)} free at worst", style="" if least else BAD))
    return Flow(pieces)


def _errors(run: Run) -> RenderableType:
    """Phase, errno, cause, count; and the texts that came with them."""
    failures = figures.failures(run.total)
    table = Table.grid(padding=(0, 2, 0, 0))
    for justify in ("right", "left", "left"):
        table.add_column(justify=justify, no_wrap=True)
    table.add_column(overflow="fold", ratio=1)
    table.add_row(*(Text(head, style=DIM) for head in ("Errors", "phase", "errno", "cause")))
    for failure in failures[:MOST_ERRORS]:
        table.add_row(
            Text(words.count(failure.count), style=BAD),
            words.phase(failure.phase),
            Text(words.clean(failure.errno) or "-"),
            Text(words.cause(failure.cause)),
        )
    parts: list[RenderableType] = [table]
    if len(failures) > MOST_ERRORS:
        rest = sum(failure.count for failure in failures[MOST_ERRORS:])
        parts.append(Text(f"and {words.count(rest)} of {len(failures) - MOST_ERRORS} rarer kinds", style=DIM))
    ranked = sorted(run.total.details.items(), key=lambda item: -item[1])
    for text, number in ranked[:MOST_DETAILS]:
        parts.append(Text(f"{words.count(number)} x {words.clean(text, 200)}", style=DIM, overflow="fold"))
    return Group(*parts)


def steps(found: list[Step]) -> list[tuple[str, str, str, str, str]]:
    """What --find-max tried: asked, succeeded, failed, p99, verdict."""
    return [
        (
            words.rate(step.rate),
            words.rate(step.succeeded_per_second),
            words.share(step.failed_share),
            words.seconds(step.p99),
            "held" if step.held else f"stopped by {words.clean(step.stopped_by)}",
        )
        for step in found
    ]


def _steps(found: list[Step]) -> RenderableType:
    table = Table.grid(padding=(0, 2, 0, 0))
    for _ in range(4):
        table.add_column(justify="right", no_wrap=True)
    table.add_column(overflow="fold")
    table.add_row(*(Text(head, style=DIM) for head in ("Step asked", "succeeded", "failed", "p99", "")))
    for step, cells in zip(found, steps(found), strict=True):
        table.add_row(*cells[:4], Text(cells[4], style=GOOD if step.held else BAD))
    return table


def _limits(run: Run) -> list[RenderableType]:
    """The thresholds of --fail-if."""
    if not run.plan.thresholds:
        return []
    rows, failed = Rows(), missed(run)
    for text in failed:
        rows.add("Missed", Text(words.clean(text)), style=BAD)
    if not failed:
        rows.add("Limits", Flow([*(threshold.text for threshold in run.plan.thresholds), Text("held", style=GOOD)]))
    return [Text(), rows]


def _notes(run: Run) -> list[RenderableType]:
    notes = [f"ended early by {run.interrupted} after {words.duration(run.total.seconds)}"] if run.interrupted else []
    notes += [words.clean(note) for note in (*run.notes, *run.host.unreadable)]
    if not notes:
        return []
    rows = Rows()
    for note in notes:
        rows.add("Note", Text(note), style=WARN)
    return [Text(), rows]


def side_by_side(runs: list[tuple[str, Run, list[Finding]]]) -> RenderableType:
    """Several runs as one table, a column each; as many tables below one another as the width asks for."""
    return Trimmed(_Compared(runs), widest=1000)


def _quantile(found: dict[str, float] | None, name: str) -> str:
    return words.seconds(found[name]) if found else "-"


def comparison(run: Run, findings: list[Finding]) -> list[tuple[str, str]]:
    """The lines of one run's column: label and value."""
    total, latency = run.total, figures.latencies(run.total)
    connect, whole = latency["connect"], latency["total"]
    use, least = figures.ports(run.after), figures.least_free(run)
    return [
        ("successes", words.rate(figures.per_second(total.succeeded, total.seconds))),
        ("failed", words.share(figures.failed_share(total))),
        ("requests", words.count(total.requests)),
        ("connections", words.count(total.started)),
        ("held of asked", "{} of {}".format(*map(words.count, _held_asked(run)))),
        ("connect p99", _quantile(connect, "p99")),
        ("total p50", _quantile(whole, "p50")),
        ("total p99", _quantile(whole, "p99")),
        ("total max", _quantile(whole, "max")),
        ("target closed", words.count(total.closed_peer)),
        ("we closed", words.count(total.closed_us)),
        ("reset", words.count(total.closed_reset)),
        ("TIME_WAIT here", words.count(use.time_wait) if use else "-"),
        ("fewest ports free", "-" if least is None else words.count(least)),
        ("findings", "\n".join(words.clean(finding.id) for finding in findings) or "none"),
    ]


def _held_asked(run: Run) -> tuple[float, float]:
    found = figures.concurrency(run)
    return found.held, found.asked


class _Compared:
    LABEL, COLUMN = 17, 22  # the longest finding id has 21 letters

    def __init__(self, runs: list[tuple[str, Run, list[Finding]]]) -> None:
        self.runs = runs

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        fit = max(1, (options.max_width - self.LABEL) // (self.COLUMN + 2))
        for start in range(0, len(self.runs), fit):
            if start:
                yield Text()
            yield self._table(self.runs[start : start + fit])

    def _table(self, runs: list[tuple[str, Run, list[Finding]]]) -> Table:
        table = Table.grid(padding=(0, 2, 0, 0))
        table.add_column(width=self.LABEL, no_wrap=True)
        for _ in runs:
            table.add_column(justify="right", overflow="fold", max_width=self.COLUMN)
        table.add_row("", *(Text(words.clean(name), style=STRONG) for name, _, _ in runs))
        table.add_row("", *(Text("\n".join(words.wish(run.plan)), style=DIM) for _, run, _ in runs))
        for lines in zip(*(comparison(run, findings) for _, run, findings in runs), strict=True):
            style = STRONG if lines[0][0] == "successes" else ""
            table.add_row(Text(lines[0][0], style=DIM), *(Text(value, style=style) for _, value in lines))
        return table
