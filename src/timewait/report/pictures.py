"""The pictures of simulations and sweeps: who is shut out when, behind which address, with which clock.

As in charts.py no foreign text enters a figure: columns are numbered, names stand in the HTML beside it. Settings and
their values on the axes of a sweep are ours or the user's own, drawn on a canvas, never as HTML.
"""

from __future__ import annotations

from collections.abc import Sequence

from bokeh.models import (
    ColumnDataSource,
    DataRange1d,
    FactorRange,
    LinearColorMapper,
    NumeralTickFormatter,
    Range1d,
)
from bokeh.models.annotations import Whisker
from bokeh.models.tools import HoverTool
from bokeh.plotting import figure

from timewait.report.charts import AMBER, BLUE, CAUSE_COLOURS, GREEN, GREY, PURPLE, RED, Chart, canvas, timeline
from timewait.report.simulated import SECONDS, SHARE, Grid, Simulation, Value

MOST_REASONS = 6
GAUGES = (AMBER, PURPLE, BLUE, GREEN, "#c2577f", "#4aa5a0")
HEAT = [
    "#5fbf95", "#84c78a", "#a7cd80", "#c8d078", "#e2cd70", "#ecbd68", "#eda766", "#ec9168", "#e97d6d", "#e56b72",
]  # fmt: skip
"""From none to all; the share itself stands in every cell, so that colour never carries it alone."""


def failed(shown: Simulation) -> Chart:
    """Share of the connects that fail, and that need a later SYN, over time."""
    series = shown.series
    if len(series.ends) < 2:
        return Chart(None, [])
    plot = timeline(series.ends[-1])
    _percent(plot)
    data = _steps(series.ends, series.lengths, {"failed": series.failed, "retried": series.retried})
    for name, colour in (("retried", AMBER), ("failed", RED)):
        plot.step("at", name, mode="before", source=data, color=colour, line_width=2)
    plot.varea_step(x="at", y1=0, y2="failed", step_mode="before", source=data, color=RED, alpha=0.15)
    _hover(plot, data, "failed", [("failed", "@failed{0.00%}"), ("by a later SYN", "@retried{0.00%}")])
    return Chart(plot, [("failed", RED, False), ("connected by a later SYN", AMBER, False)])


def drops(shown: Simulation) -> Chart:
    """SYNs a second that bring no connection, by reason, one on the other."""
    series = shown.series
    ranked = series.drops[:MOST_REASONS]
    if not ranked or len(series.ends) < 2:
        return Chart(None, [])
    columns: dict[str, list[float]] = {"t0": [0.0] * len(series.ends)}
    for number, (_, values) in enumerate(ranked):
        columns[f"t{number + 1}"] = [a + b for a, b in zip(columns[f"t{number}"], values, strict=True)]
        columns[f"c{number}"] = values
    plot, data = timeline(series.ends[-1]), _steps(series.ends, series.lengths, columns)
    for number in range(len(ranked)):
        colour, below, above = CAUSE_COLOURS[number], f"t{number}", f"t{number + 1}"
        plot.varea_step(x="at", y1=below, y2=above, step_mode="before", source=data, color=colour, alpha=0.6)
    tips = [(f"{number + 1}", f"@c{number}{{0,0.[0]}}/s") for number in range(len(ranked))]
    _hover(plot, data, f"t{len(ranked)}", tips)
    legend = [(f"{number + 1}: {name}", CAUSE_COLOURS[number], False) for number, (name, _) in enumerate(ranked)]
    return Chart(plot, legend)


def latency(shown: Simulation) -> Chart:
    """How long a connect takes, on a logarithmic axis: the steps of SYNs sent again stand out."""
    series = shown.series
    known = [value for values in series.latency.values() for value in values if value]
    if not known or len(series.ends) < 2:
        return Chart(None, [])
    plot = timeline(series.ends[-1], "log")
    plot.yaxis.formatter = NumeralTickFormatter(format="0,0.[000]")
    source: dict[str, list[float]] = {"at": series.ends}
    for name, values in series.latency.items():
        source[name] = [1000 * value if value else float("nan") for value in values]
    data = ColumnDataSource(source)
    colours = dict(zip(series.latency, (BLUE, AMBER, RED), strict=False))
    for name, colour in colours.items():
        lead = plot.line("at", name, source=data, color=colour, line_width=2)
    tips = [(name, f"@{name}{{0,0.[00]}} ms") for name in colours]
    plot.add_tools(HoverTool(renderers=[lead], mode="vline", tooltips=[("at", "@at{0,0} s"), *tips]))
    return Chart(plot, [(name, colour, False) for name, colour in colours.items()])


def boxes(shown: Simulation) -> Chart:
    """TIME_WAIT and source ports at each box, below what there are."""
    series = shown.series
    if not series.gauges or len(series.ends) < 2:
        return Chart(None, [])
    plot = timeline(series.ends[-1])
    columns = {f"c{number}": values for number, (_, values) in enumerate(series.gauges)}
    highest = max(max(values) for values in columns.values())
    source = ColumnDataSource({"at": series.ends, **columns})
    legend = []
    for number, (name, _) in enumerate(series.gauges):
        plot.line("at", f"c{number}", source=source, color=GAUGES[number], line_width=2)
        legend.append((name, GAUGES[number], False))
    if series.capacity and highest > 0.1 * series.capacity:
        plot.line([0, series.ends[-1]], [series.capacity] * 2, color=RED, line_dash="dashed")
        legend.append(("source ports there are", RED, True))
    _hover(plot, source, "c0", [(name, f"@c{number}{{0,0}}") for number, (name, _) in enumerate(series.gauges)])
    return Chart(plot, legend)


def by_clock(shown: Simulation) -> Chart:
    """Share of clients that never connect, by the position of their clock."""
    shares = shown.suffering.by_clock
    known = [share for share in shares if share is not None]
    if len(known) < 2 or not any(known):
        return Chart(None, [])
    edges = [100 * at / len(shares) for at in range(len(shares) + 1)]
    plot = canvas(Range1d(start=0, end=100))
    plot.xaxis.axis_label = "clock: 0 slowest, 100 fastest"
    _percent(plot)
    data = ColumnDataSource({"left": edges[:-1], "right": edges[1:], "top": [share or 0.0 for share in shares]})
    bars = plot.quad(left="left", right="right", top="top", bottom=0, source=data, color=RED, alpha=0.7)
    plot.add_tools(HoverTool(renderers=[bars], tooltips=[("never connect", "@top{0.00%}")]))
    return Chart(plot, [("clients that never connect", RED, False)])


def by_address(shown: Simulation) -> Chart:
    """Share of clients that never connect behind each public address, the worst first."""
    shares = shown.suffering.by_address
    if len(shares) < 2 or not any(shares):
        return Chart(None, [])
    plot = canvas(Range1d(start=0, end=len(shares)))
    plot.xaxis.axis_label = "public addresses, the worst first"
    _percent(plot)
    data = ColumnDataSource(
        {"left": list(range(len(shares))), "right": list(range(1, len(shares) + 1)), "top": shares}
    )
    bars = plot.quad(left="left", right="right", top="top", bottom=0, source=data, color=RED, alpha=0.7)
    plot.add_tools(HoverTool(renderers=[bars], tooltips=[("never connect", "@top{0.00%}")]))
    return Chart(plot, [("clients that never connect", RED, False)])


# --- sweeps -------------------------------------------------------------------------------------------------------


def curve(shown: Grid) -> Chart:
    """One axis: the figure over its values, with its 95 % interval."""
    done = [(text, cell) for text, cell in zip(shown.axes[0].values, shown.cells, strict=True) if cell is not None]
    if not done:
        return Chart(None, [])
    plot = canvas(FactorRange(factors=[text for text, _ in done]))
    plot.xaxis.axis_label = shown.axes[0].setting
    data = ColumnDataSource({
        "x": [text for text, _ in done],
        "mean": [cell.mean for _, cell in done],
        "low": [cell.low for _, cell in done],
        "high": [cell.high for _, cell in done],
    })  # fmt: skip
    lead = plot.line("x", "mean", source=data, color=BLUE, line_width=2)
    plot.scatter("x", "mean", source=data, color=BLUE, size=7)
    plot.add_layout(Whisker(source=data, base="x", upper="high", lower="low", line_color=GREY))
    form = _format(plot, shown.kind)
    _from_zero(plot)
    tips = [
        (shown.axes[0].setting, "@x"),
        (shown.label, f"@mean{{{form}}}"),
        ("95 %", f"@low{{{form}}} to @high{{{form}}}"),
    ]
    plot.add_tools(HoverTool(renderers=[lead], mode="vline", tooltips=tips))
    return Chart(plot, [(shown.label, BLUE, False)])


def heat(shown: Grid) -> Chart:
    """Two axes or more: a map, its first axes downward, the last across; the figure stands in each cell."""
    rows = shown.rows()
    names = [", ".join(head) for head, _ in rows]
    across = shown.axes[-1]
    cells = [
        (x, y, cell)
        for y, (_, row) in zip(names, rows, strict=True)
        for x, cell in zip(across.values, row, strict=True)
    ]
    done = [(x, y, cell) for x, y, cell in cells if cell is not None]
    if not done:
        return Chart(None, [])
    plot = canvas(FactorRange(factors=list(across.values)), "auto", y_range=FactorRange(factors=names[::-1]))
    plot.height = 120 + 34 * len(names)
    plot.xaxis.axis_label, plot.yaxis.axis_label = across.setting, ", ".join(axis.setting for axis in shown.axes[:-1])
    plot.ygrid.grid_line_alpha = 0
    top = max(cell.mean for _, _, cell in done) or 1.0
    data = ColumnDataSource({
        "x": [x for x, _, _ in done],
        "y": [y for _, y, _ in done],
        "mean": [cell.mean for _, _, cell in done],
        "text": [_short(cell) for _, _, cell in done],
        "low": [cell.low for _, _, cell in done],
        "high": [cell.high for _, _, cell in done],
    })  # fmt: skip
    colours = LinearColorMapper(palette=HEAT, low=0.0, high=1.0 if shown.kind == SHARE and top > 0.5 else top)
    boxes = plot.rect(
        "x", "y", 0.98, 0.94, source=data, fill_color={"field": "mean", "transform": colours}, line_alpha=0
    )
    plot.text(
        "x", "y", text="text", source=data, text_align="center", text_baseline="middle", text_color="#14191f",
        text_font_size="13px",
    )  # fmt: skip
    form = FORMS.get(shown.kind, "0,0")
    tips = [
        (across.setting, "@x"),
        ("", "@y"),
        (shown.label, f"@mean{{{form}}}"),
        ("95 %", f"@low{{{form}}} to @high{{{form}}}"),
    ]
    plot.add_tools(HoverTool(renderers=[boxes], tooltips=tips))
    return Chart(plot, [])


FORMS = {SHARE: "0.00%", SECONDS: "0,0.[000]"}


def _short(cell: Value) -> str:
    return cell.text.replace(" ", "\u2009")


def _format(plot: figure, kind: str) -> str:
    """The number format of a kind, set on the y axis."""
    form = FORMS.get(kind, "0,0")
    if kind == SHARE:
        _percent(plot)
    else:
        plot.yaxis.formatter = NumeralTickFormatter(format=form)
    return form


def _percent(plot: figure) -> None:
    plot.yaxis.formatter = NumeralTickFormatter(format="0.[000]%")
    _from_zero(plot)


def _from_zero(plot: figure) -> None:
    plot.y_range = DataRange1d(start=0, range_padding=0.1)


def _steps(ends: Sequence[float], lengths: Sequence[float], columns: dict[str, list[float]]) -> ColumnDataSource:
    """Values of stretches: the first also stands where the first stretch begins."""
    whole = {name: [values[0], *values] for name, values in columns.items()}
    return ColumnDataSource({"at": [ends[0] - lengths[0], *ends], **whole})


def _hover(plot: figure, data: ColumnDataSource, column: str, tips: list[tuple[str, str]]) -> None:
    lead = plot.line("at", column, source=data, line_alpha=0)
    plot.add_tools(HoverTool(renderers=[lead], mode="vline", tooltips=[("at", "@at{0,0.[0]} s"), *tips]))
