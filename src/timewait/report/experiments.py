"""Results of experiments as a table for the terminal, as one self-contained page, and as Markdown for the docs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich import box
from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from timewait.report.layout import BAD, DIM, GOOD, STRONG, WARN, Trimmed
from timewait.verdict import DOES_NOT_HOLD, HOLDS, INCONCLUSIVE, ONLY_IF, Measure, Result

STYLES = {HOLDS: GOOD, ONLY_IF: GOOD, DOES_NOT_HOLD: BAD, INCONCLUSIVE: WARN}
_NARROW = 76  # columns: below that a result is a paragraph


def table(results: Sequence[Result], width: int) -> RenderableType:
    """One row per result; on a narrow terminal one paragraph."""
    if width < _NARROW:
        return Trimmed(Group(*[_paragraph(one) for one in results]))
    made = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), show_edge=False)
    made.add_column("claim", no_wrap=True)
    made.add_column("predicted", ratio=2)
    made.add_column("measured", ratio=2)
    made.add_column("verdict", ratio=3)
    made.add_column("s", justify="right", no_wrap=True)
    for one in results:
        made.add_row(one.claim, one.predicted, one.measured, _verdict(one), f"{one.seconds:.1f}")
    return Trimmed(made)


def details(result: Result) -> RenderableType:
    """Everything one experiment measured."""
    parts: list[RenderableType] = [Text(f"{result.claim}  ", style=STRONG).append(result.title, style="not bold")]
    for measure in result.measures:
        line = Text("ok   " if measure.agrees else "NOT  ", style=GOOD if measure.agrees else BAD)
        line.append(f"{measure.what}: ", style="default")
        line.append(measure.measured, style=STRONG)
        line.append(f" (predicted {measure.predicted})", style=DIM)
        parts.append(Padding(line, (0, 0, 0, 2)))
    parts += [Padding(Text(note, style=DIM), (0, 0, 0, 2)) for note in result.notes]
    parts.append(Padding(_verdict(result), (0, 0, 0, 2)))
    return Trimmed(Group(*parts))


def summary(results: Sequence[Result]) -> Text:
    """`13 hold, 2 hold under a condition, 1 inconclusive; Linux 6.18.44, 81 s`."""
    many = {HOLDS: "hold", ONLY_IF: "hold under a condition", DOES_NOT_HOLD: "do not hold"}
    one_of_it = {ONLY_IF: "holds under a condition"}
    counts = {kind: sum(one.kind == kind for one in results) for kind in STYLES}
    told = Text()
    for kind, count in counts.items():
        if count:
            told.append(", " if told.plain else "")
            words = one_of_it if count == 1 else many
            told.append(f"{count} {words.get(kind, kind)}", style=STYLES[kind])
    seconds = sum(one.seconds for one in results)
    if results:
        told.append(f"; Linux {results[-1].kernel}, {seconds:.0f} s", style=DIM)
    return told


def _verdict(result: Result) -> Text:
    told = Text(result.verdict, style=STYLES[result.kind])
    if result.why:
        told.append(f": {result.why}", style="default")
    return told


def _paragraph(result: Result) -> RenderableType:
    lines: list[RenderableType] = [Text(f"{result.claim}  {result.seconds:.1f} s", style=STRONG)]
    if result.measures:
        lines.append(Padding(Text(f"predicted {result.predicted}, measured {result.measured}"), (0, 0, 0, 2)))
    lines.append(Padding(_verdict(result), (0, 0, 0, 2)))
    return Group(*lines)


def write_html(results: Sequence[Result], path: str | Path, date: str) -> None:
    """Writes the page; `date` stands in its heading. Raises OSError."""
    Path(path).write_text(html(results, date), encoding="utf-8")


def html(results: Sequence[Result], date: str) -> str:
    """The page as text; it loads nothing and runs nothing."""
    from timewait.report.templates import environment

    return (
        environment()
        .get_template("experiments.html")
        .render(
            results=results,
            summary=summary(results).plain,
            date=date,
            states={HOLDS: "good", ONLY_IF: "good", DOES_NOT_HOLD: "bad", INCONCLUSIVE: "mixed"},
        )
    )


def markdown(results: Sequence[Result]) -> str:
    """A table of all, then each with all of its measures."""
    rows = ["| claim | predicted | measured | verdict | s |", "|---|---|---|---|---|"]
    rows += [
        f"| [{one.claim}](#{one.claim}) | {_cell(one.predicted)} | {_cell(one.measured)} | {_cell(_told(one))} "
        f"| {one.seconds:.1f} |"
        for one in results
    ]
    parts = ["\n".join(rows)]
    for one in results:
        shown_on = f" (balancer: {one.balancer})" if one.balancer else ""
        parts += [f"## {one.claim}", one.title, f"**{_told(one)}**{shown_on}"]
        if one.measures:
            lines = ["| measured | predicted | was | |", "|---|---|---|---|", *map(_line, one.measures)]
            parts.append("\n".join(lines))
        parts += list(one.notes)
    return "\n\n".join(parts)


def _told(result: Result) -> str:
    return result.verdict + (f": {result.why}" if result.why else "")


def _line(measure: Measure) -> str:
    cells = (measure.what, measure.predicted, measure.measured, "as predicted" if measure.agrees else "**not**")
    return "| " + " | ".join(map(_cell, cells)) + " |"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
