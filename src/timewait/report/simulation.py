"""A simulation, a sweep or a comparison for the terminal: the question, the answer in a sentence, figures, why.

One screen of 80 columns; narrower ones fold, and a sweep that is too wide becomes a list.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from timewait.report import words
from timewait.report.layout import BAD, DIM, GOOD, STRONG, WARN, Flow, Rows, Trimmed, sparkline
from timewait.report.simulated import QUIET, SHARE, Axis, Comparison, Grid, Simulation, Value, with_interval

if TYPE_CHECKING:
    from timewait.diagnose import Finding

MOST_DROPS = 4
BLOCKS = " ▁▂▃▄▅▆▇█"


def simulation(shown: Simulation) -> RenderableType:
    """The whole report of one scenario."""
    parts: list[RenderableType] = [*_heading(shown.name, shown.question, shown.world), Text()]
    parts += [Text(words.clean(shown.answer, 600), style=_style(shown.good)), Text(), _figures(shown)]
    if shown.drops:
        parts += [Text(), _drops(shown)]
    parts += _notes([shown.certainty, *shown.notes])
    if shown.findings:
        parts += [Text(), *_why(shown.findings)]
    return Trimmed(Group(*parts))


def _why(findings: Sequence[Finding]) -> list[RenderableType]:
    """Each cause in a sentence and what to do about it; the evidence stands in --json and --html."""
    parts: list[RenderableType] = [Text("Why", style=STRONG)]
    for finding in findings:
        head = Text(finding.id, style=f"{STRONG} {WARN}").append(f"  {finding.confidence}", style=DIM)
        rows = Rows(label=4)
        if finding.remedy:
            rows.add("do", Flow([words.clean(remedy.action) for remedy in finding.remedy]), style=GOOD)
        parts += [head, Padding(Group(Text(words.clean(finding.summary, 600)), rows), (0, 0, 0, 2))]
    return parts


def listed(scenarios: Sequence[tuple[str, str]]) -> RenderableType:
    """Ready-made scenarios: name and question."""
    rows = Rows(max((len(name) for name, _ in scenarios), default=0) + 1)
    for name, question in scenarios:
        rows.add(name, Text(question), style=STRONG)
    return Trimmed(Group(rows, Text(), Text("timewait simulate NAME; NAME --check shows every setting", style=DIM)))


def _heading(name: str, question: str, world: Sequence[str]) -> list[RenderableType]:
    title = Text(words.clean(question or name), style=STRONG)
    return [title, Flow([words.clean(piece) for piece in (name, *world)], style=DIM)]


def _style(good: bool | None) -> str:
    return f"{STRONG} {GOOD}" if good else f"{STRONG} {BAD}" if good is False else STRONG


_GROUPS: tuple[tuple[str, tuple[tuple[str, str], ...]], ...] = (
    ("Connects", (("connected", "{} made"), ("failed", "{} failed"), ("no_port", "{} without a port"))),
    ("By SYN", (("first_try", "{} by the first"), ("retried", "{} by a later one"), ("gave_up", "{} given up"))),
    ("Clients", (("never", "{} never connect"),)),
    ("Latency", (("connect_p50", "p50 {}"), ("connect_p99", "p99 {}"))),
    (
        "TIME_WAIT",
        (
            ("server_time_wait", "{} at the balancer at most"),
            ("client_time_wait", "{} at the clients at most"),
            ("backend_time_wait", "{} toward the servers at most"),
            ("taken_over", "{} taken over"),
        ),
    ),
    (
        "Ports",
        (
            ("ports_taken", "{} taken at most"),
            ("backend_failed", "{} lacked one toward the servers"),
            ("wall", "first lack after {}"),
        ),
    ),
)


def _figures(shown: Simulation) -> Rows:
    by_name, rows = {value.name: value for value in shown.values}, Rows()
    for label, pieces in _GROUPS:
        told = [
            text.format(with_interval(value))
            for name, text in pieces
            if (value := by_name.get(name)) is not None and (value.mean or name not in QUIET)
        ]
        if told:
            rows.add(label, Flow(told))
    worst = _worst(shown)
    if worst:
        rows.add("Who", Flow(worst))
    if any(shown.series.failed):
        rows.add("Over time", Spark(shown.series.failed, "failed"))
    elif any(shown.series.retried):
        rows.add("Over time", Spark(shown.series.retried, "by a later SYN"))
    return rows


def _worst(shown: Simulation) -> list[str]:
    """Whom it meets: the worst address, the clocks."""
    found, suffering = [], shown.suffering
    if suffering.by_address and suffering.by_address[0] > 0:
        least = suffering.by_address[-1]
        found.append(
            f"never connect: {words.share(suffering.by_address[0])} behind the worst address, "
            f"{words.share(least)} behind the best"
        )
    known = [share for share in suffering.by_clock if share is not None]
    if len(known) > 1 and max(known) > 0:
        found.append(f"{words.share(known[0])} of the slowest clocks, {words.share(known[-1])} of the fastest")
    return found


class Spark:
    """Shares over time as blocks, as wide as there is room; `0 to 31.2%` behind."""

    def __init__(self, values: Sequence[float], what: str) -> None:
        self.values, self.what = list(values), what

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        told = f" {words.share(min(self.values))} to {words.share(max(self.values))} {self.what}"
        width = max(8, min(60, options.max_width - len(told)))
        values = self.values
        if len(values) > width:
            step = len(values) / width
            values = [
                max(values[int(at * step) : max(int(at * step) + 1, int((at + 1) * step))]) for at in range(width)
            ]
        yield Text(sparkline(values, width) + told)


def _drops(shown: Simulation) -> RenderableType:
    table = Table.grid(padding=(0, 1))
    table.add_column(justify="right", no_wrap=True, min_width=7, style=WARN)
    table.add_column(overflow="fold")
    for drop in shown.drops[:MOST_DROPS]:
        line = Text(f"{words.count(drop.syns)}: {words.clean(drop.why)}")
        if drop.counter:
            line.append(f" ({drop.counter})", style=DIM)
        table.add_row(words.share(drop.share), line)
    if len(shown.drops) > MOST_DROPS:
        more = f"{len(shown.drops) - MOST_DROPS} rarer reasons in --json and --html"
        table.add_row("", Text(more, style=DIM))
    return Group(Text("SYNs that brought no connection", style=STRONG), table)


def _notes(notes: Sequence[str]) -> list[RenderableType]:
    told = [Text(words.clean(note, 600), style=DIM) for note in notes if note]
    return [Text(), *told] if told else []


# --- sweeps -------------------------------------------------------------------------------------------------------


def grid(shown: Grid) -> RenderableType:
    """A sweep: a line for each value, or a table of two axes; further axes lie in front of the rows."""
    parts: list[RenderableType] = [*_heading(shown.name, shown.question, shown.world), Text()]
    parts += [
        Text(words.clean(shown.answer, 600), style=STRONG),
        Text(),
        Matrix(shown) if len(shown.axes) > 1 else Bars(shown),
    ]
    parts += _notes([shown.certainty, *shown.notes])
    return Trimmed(Group(*parts))


def _scale(cells: Sequence[Value | None], kind: str) -> float:
    """What a full bar stands for."""
    top = max((cell.mean for cell in cells if cell is not None), default=0.0)
    return 1.0 if kind == SHARE and top > 0.5 else top


class Bars:
    """One axis: a line for each value, with a bar where there is room for one."""

    def __init__(self, shown: Grid) -> None:
        self.shown = shown

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        shown = self.shown
        setting, values = words.clean(shown.axes[0].setting), [words.clean(value) for value in shown.axes[0].values]
        yield Text(f"{setting}: {shown.label}", style=DIM)
        texts = [(cell.text, cell.interval) if cell else ("not done", "") for cell in shown.cells]
        widths = [max(map(len, values)), *(max(len(pair[at]) for pair in texts) for at in (0, 1))]
        room = min(24, options.max_width - sum(widths) - 8)
        top = _scale(shown.cells, shown.kind)
        for value, (text, interval), cell in zip(values, texts, shown.cells, strict=True):
            line = Text(f"{value:>{widths[0]}}  ")
            line.append(f"{text:>{widths[1]}}", style=STRONG if cell else DIM)
            line.append(f"  {interval:<{widths[2]}}" if widths[2] else "", style=DIM)
            if cell and top and room >= 6:
                line.append("  " + "█" * round(room * cell.mean / top), style=WARN)
            yield line


class Matrix:
    """Two axes as a table, or one line for each point where that is too wide."""

    def __init__(self, shown: Grid) -> None:
        self.shown = shown
        self.axes = [Axis(words.clean(axis.setting), tuple(map(words.clean, axis.values))) for axis in shown.axes]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        shown, last = self.shown, self.axes[-1]
        heads = [" ".join(map(words.clean, head)) for head, _ in shown.rows()]
        texts = [cell.text if cell else "-" for cell in shown.cells]
        cell_width = max([*map(len, last.values), *(len(text) + 2 for text in texts)])
        names = " ".join(axis.setting for axis in self.axes[:-1])
        wide = max([len(names), *map(len, heads)]) + (cell_width + 1) * len(last.values)
        yield Text(f"{shown.label}; across: {last.setting}", style=DIM)
        if wide > options.max_width:
            yield from self._lines()
            return
        table = Table.grid(padding=(0, 1))
        table.add_column(justify="right", no_wrap=True)
        for _ in last.values:
            table.add_column(justify="right", no_wrap=True, min_width=cell_width)
        table.add_row(Text(names, style=DIM), *(Text(value, style=DIM) for value in last.values))
        top = _scale(shown.cells, shown.kind)
        for head, (_, cells) in zip(heads, shown.rows(), strict=True):
            table.add_row(head, *(self._cell(cell, top) for cell in cells))
        yield table

    def _cell(self, cell: Value | None, top: float) -> Text:
        if cell is None:
            return Text("-", style=DIM)
        level = min(8, round(8 * cell.mean / top)) if top else 0
        style = GOOD if not cell.mean else WARN if cell.mean < 0.5 * top else BAD
        return Text(f"{BLOCKS[level]} {cell.text}", style=style if self.shown.kind == SHARE else "")

    def _lines(self) -> RenderResult:
        for head, cells in self.shown.rows():
            told = [f"{axis.setting}={words.clean(value)}" for axis, value in zip(self.axes, head, strict=False)]
            yield Text(", ".join(told))
            for value, cell in zip(self.axes[-1].values, cells, strict=True):
                yield Padding(Text(f"{value}: {with_interval(cell) if cell else 'not done'}"), (0, 0, 0, 2))


# --- measured and simulated ---------------------------------------------------------------------------------------


def comparison(shown: Comparison) -> RenderableType:
    """A measured run beside simulations of it."""
    parts: list[RenderableType] = [*_heading(shown.name, shown.question, shown.world), Text()]
    parts += [Text(words.clean(shown.answer, 600), style=STRONG), Text(), Beside(shown)]
    return Trimmed(Group(*parts, *_notes(shown.notes)))


class Beside:
    """A column for each; on a narrow terminal a paragraph for each."""

    def __init__(self, shown: Comparison) -> None:
        self.shown = shown

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        shown, columns = self.shown, [words.clean(column) for column in self.shown.columns]
        label = max(len(row) for row, _ in shown.rows)
        if label + sum(max(12, len(column)) + 2 for column in columns) > options.max_width:
            for number, column in enumerate(columns):
                yield Text(column, style=STRONG)
                for name, values in shown.rows:
                    yield Padding(Text(f"{name}: {_shown(values[number])}"), (0, 0, 0, 2))
            return
        table = Table.grid(padding=(0, 2))
        table.add_column(no_wrap=True)
        for _ in columns:
            table.add_column(justify="right", no_wrap=True, min_width=10)
        table.add_row("", *(Text(column, style=DIM) for column in columns))
        for name, values in shown.rows:
            table.add_row(name, *(_shown(value) for value in values))
        yield table


def _shown(value: Value | None) -> str:
    return value.text if value is not None else "-"
