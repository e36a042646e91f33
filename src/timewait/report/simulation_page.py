"""One self-contained page for a simulation, a sweep or a comparison, by the rules of page.py."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from bokeh.embed import components
from bokeh.resources import Resources
from markupsafe import Markup

from timewait.report import pictures, words
from timewait.report.charts import Chart
from timewait.report.simulated import QUIET, Comparison, Grid, Simulation, Value, with_interval
from timewait.report.templates import environment
from timewait.report.why import BLAME

Shown = Simulation | Grid | Comparison

PICTURES: tuple[tuple[str, Callable[[Simulation], Chart]], ...] = (
    ("Connects that fail", pictures.failed),
    ("SYNs without effect, a second", pictures.drops),
    ("Who never connects, by clock", pictures.by_clock),
    ("Who never connects, by address", pictures.by_address),
    ("Connect, ms", pictures.latency),
    ("TIME_WAIT and source ports", pictures.boxes),
)


def write_html(shown: Shown, path: str | Path, version: str) -> None:
    """Writes the page. Raises OSError."""
    Path(path).write_text(html(shown, version), encoding="utf-8")


def html(shown: Shown, version: str) -> str:
    """The page as text."""
    drawn = [(title, chart) for title, chart in _charts(shown) if chart.figure is not None]
    figures: dict[str, Any] = {f"p{at}": chart.figure for at, (_, chart) in enumerate(drawn)}
    script, divs = components(figures) if drawn else ("", {})
    common: dict[str, Any] = {"state": "", "values": [], "drops": [], "findings": [], "table": None}
    return (
        environment()
        .get_template("simulation.html")
        .render(
            **{**common, **_facts(shown)},
            name=shown.name,
            question=shown.question,
            world=shown.world,
            answer=shown.answer,
            pictures=[
                {"key": f"p{at}", "title": title, "legend": chart.legend, "whole": len(drawn) == 1}
                for at, (title, chart) in enumerate(drawn)
            ],
            version=version,
            # Made by bokeh from numbers and from names of ours: the only parts that are not escaped.
            bokeh=Markup(Resources(mode="inline", components=["bokeh"]).render_js() if drawn else ""),
            script=Markup(script),
            divs={key: Markup(div) for key, div in divs.items()},
        )
    )


def _charts(shown: Shown) -> list[tuple[str, Chart]]:
    if isinstance(shown, Simulation):
        return [(title, draw(shown)) for title, draw in PICTURES]
    if isinstance(shown, Grid):
        return [(shown.label, pictures.curve(shown) if len(shown.axes) == 1 else pictures.heat(shown))]
    return []


def _facts(shown: Shown) -> dict[str, Any]:
    if isinstance(shown, Simulation):
        states = {True: "good", False: "bad", None: ""}
        return {
            "state": states[shown.good],
            "values": [
                (value.label, value.text, value.interval)
                for value in shown.values
                if value.mean or value.name not in QUIET
            ],
            "drops": [(words.share(one.share), words.count(one.syns), one.why, one.counter) for one in shown.drops],
            "findings": [{"finding": one, "blame": BLAME.get(one.blame, one.blame)} for one in shown.findings],
            "notes": [note for note in (shown.certainty, *shown.notes) if note],
        }
    if isinstance(shown, Grid):
        return {"table": _grid(shown), "notes": [note for note in (shown.certainty, *shown.notes) if note]}
    rows = [[label, *("-" if value is None else value.text for value in values)] for label, values in shown.rows]
    table = {"title": "Side by side", "heads": ["", *shown.columns], "rows": rows}
    return {"table": table, "notes": shown.notes}


def _grid(shown: Grid) -> dict[str, Any]:
    """Every point with all of its figures."""
    points = [", ".join(head) for head in _points(shown)]
    names: dict[str, str] = {
        value.name: value.label
        for values in shown.others
        for value in values
        if value.mean or value.name not in QUIET
    }
    rows = []
    for point, values in zip(points, shown.others, strict=False):
        by_name = {value.name: value for value in values}
        rows.append([point, *(_cell(by_name.get(name)) for name in names)])
    axes = ", ".join(axis.setting for axis in shown.axes)
    return {"title": "All points", "heads": [axes, *names.values()], "rows": rows}


def _points(shown: Grid) -> Sequence[tuple[str, ...]]:
    if len(shown.axes) == 1:
        return [(value,) for value in shown.axes[0].values]
    return [(*head, value) for head, _ in shown.rows() for value in shown.axes[-1].values]


def _cell(value: Value | None) -> str:
    return with_interval(value) if value is not None else "-"
