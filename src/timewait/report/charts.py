"""The charts of the HTML page: one bokeh figure per run and subject, drawn from the ticks.

No text of the run enters a chart; legends and captions are HTML beside it, where the template escapes them. Colours
of axes are a grey that reads on white and on black, since a canvas does not follow the page's colour scheme.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import msgspec
from bokeh.models import ColumnDataSource, DataRange1d, HoverTool, NumeralTickFormatter, Range1d
from bokeh.models.annotations import BoxAnnotation
from bokeh.models.renderers import DataRenderer
from bokeh.plotting import figure

from timewait.report import figures, words
from timewait.run import Cause, Run, Tick

GREY = "#808a96"
GREEN, RED, BLUE, AMBER, PURPLE = "#2f9e6e", "#d64550", "#3d84c6", "#dd9a1f", "#8a6bbf"
CAUSE_COLOURS = (RED, AMBER, PURPLE, BLUE, "#c2577f", "#4aa5a0", "#9a7b4f", GREY)
MOST_DOTS = 60  # ticks; a value that stands alone between gaps shows only as a dot, but many dots hide the line
MOST_CAUSES = len(CAUSE_COLOURS)


class Chart(msgspec.Struct):
    """A figure and its legend as (name, colour, dashed); `figure` is None where there is nothing to draw."""

    figure: figure | None
    legend: list[tuple[str, str, bool]]


def rate(run: Run) -> Chart:
    """Successes and failures per second, and what the open loop was asked for."""
    ticks, _ = figures.whole_ticks(run)
    if not ticks:
        return Chart(None, [])
    source = {
        "succeeded": [figures.per_second(tick.succeeded, tick.seconds) for tick in ticks],
        "failed": [figures.per_second(tick.failed, tick.seconds) for tick in ticks],
    }
    legend = [("succeeded/s", GREEN, False), ("failed/s", RED, False)]
    if run.plan.rate is not None:
        source["asked"] = [run.plan.rate.per_second] * len(ticks)
        legend.append((f"asked, {run.plan.rate.unit}/s", GREY, True))
    plot, data = _plot(run), _stretches(ticks, source)
    plot.varea_step(x="at", y1=0, y2="succeeded", step_mode="before", source=data, color=GREEN, alpha=0.15)
    plot.step("at", "succeeded", mode="before", source=data, color=GREEN, line_width=2)
    plot.step("at", "failed", mode="before", source=data, color=RED, line_width=2)
    if "asked" in source:
        plot.step("at", "asked", mode="before", source=data, color=GREY, line_dash="dashed")
    _hover(plot, _unseen(plot, data, "succeeded"), [(name, f"@{name}{{0,0}}/s") for name in source])
    return Chart(plot, legend)


def latency(run: Run) -> Chart:
    """Quantiles of the total latency of successes per tick, in milliseconds, on a logarithmic axis."""
    ticks, _ = figures.whole_ticks(run)
    found = [figures.latency(tick.total) for tick in ticks]
    if not any(found):
        return Chart(None, [])
    shown = {"p50": BLUE, "p90": PURPLE, "p99": AMBER, "max": RED}
    source: dict[str, list[float]] = {"at": [tick.at for tick in ticks]}
    for name in shown:
        # A logarithmic axis has no zero: a latency below the clock's resolution stands as one nanosecond.
        source[name] = [max(1e-6, 1000 * quantiles[name]) if quantiles else float("nan") for quantiles in found]
    plot = _plot(run, y_axis_type="log")
    plot.yaxis.formatter = NumeralTickFormatter(format="0,0.[000]")
    data = ColumnDataSource(source)
    lines = [plot.line("at", name, source=data, color=colour, line_width=2) for name, colour in shown.items()]
    if len(ticks) <= MOST_DOTS:
        for name, colour in shown.items():
            plot.scatter("at", name, source=data, color=colour, size=4)
    _hover(plot, lines[0], [(name, f"@{name}{{0,0.[000]}} ms") for name in shown])
    return Chart(plot, [(name, colour, False) for name, colour in shown.items()])


def ports(run: Run) -> Chart:
    """Source ports in use and in TIME_WAIT, one on the other, below the capacity."""
    ticks, snapshots = figures.whole_ticks(run)
    uses = [(tick.at, figures.ports(snapshot)) for tick, snapshot in zip(ticks, snapshots, strict=False)]
    known = [(at, use) for at, use in [(0.0, figures.ports(run.before)), *uses] if use is not None]
    if len(known) < 2:
        return Chart(None, [])
    source: dict[str, list[float]] = {
        "at": [at for at, _ in known],
        "in_use": [use.in_use for _, use in known],
        "time_wait": [use.time_wait for _, use in known],
        "taken": [use.in_use + use.time_wait for _, use in known],
        "capacity": [use.capacity for _, use in known],
    }
    legend = [("TIME_WAIT here", AMBER, False), ("in use", BLUE, False), ("capacity", RED, True)]
    plot, data = _plot(run), ColumnDataSource(source)
    peers = [use.peer_time_wait for _, use in known]
    plot.varea(x="at", y1=0, y2="time_wait", source=data, color=AMBER, alpha=0.45)
    plot.varea(x="at", y1="time_wait", y2="taken", source=data, color=BLUE, alpha=0.45)
    lead = plot.line("at", "taken", source=data, color=BLUE, line_width=2)
    # A capacity far above what is taken would press everything else flat: then it is only told, in the hover.
    if max(source["taken"]) > 0.1 * max(source["capacity"]):
        plot.line("at", "capacity", source=data, color=RED, line_dash="dashed")
    else:
        legend.pop()
    tips = [("in use", "@in_use{0,0}"), ("TIME_WAIT here", "@time_wait{0,0}"), ("capacity", "@capacity{0,0}")]
    if any(peer is not None for peer in peers):
        data.data["peer"] = [float("nan") if peer is None else float(peer) for peer in peers]
        plot.line("at", "peer", source=data, color=PURPLE, line_width=2)
        legend.append(("TIME_WAIT at the target", PURPLE, False))
        tips.append(("at the target", "@peer{0,0}"))
    _hover(plot, lead, tips)
    return Chart(plot, legend)


def errors(run: Run) -> Chart:
    """Failures per second by cause, one on the other."""
    by_cause: dict[str, list[float]] = {}
    ticks, _ = figures.whole_ticks(run)
    for number, tick in enumerate(ticks):
        for failure in figures.failures(tick):
            name = failure.cause if failure.cause in set(Cause) else Cause.OTHER.value
            row = by_cause.setdefault(name, [0.0] * len(ticks))
            row[number] += figures.per_second(failure.count, tick.seconds)
    if not by_cause:
        return Chart(None, [])
    ranked = sorted(by_cause, key=lambda name: -sum(by_cause[name]))
    if len(ranked) > MOST_CAUSES:
        rest = [sum(values) for values in zip(*(by_cause[name] for name in ranked[MOST_CAUSES - 1 :]), strict=True)]
        ranked = [*ranked[: MOST_CAUSES - 1], "rarer"]
        by_cause["rarer"] = rest
    # Columns are numbered: only the legend carries names. t1 is the top of the first layer, and so on.
    columns = [f"c{number}" for number in range(len(ranked))]
    source = {column: by_cause[name] for column, name in zip(columns, ranked, strict=True)}
    tops = {"t0": [0.0] * len(ticks)}
    for number, column in enumerate(columns):
        tops[f"t{number + 1}"] = [a + b for a, b in zip(tops[f"t{number}"], source[column], strict=True)]
    plot, data = _plot(run), _stretches(ticks, source | tops)
    colours = CAUSE_COLOURS[: len(columns)]
    for number, colour in enumerate(colours):
        below, above = f"t{number}", f"t{number + 1}"
        plot.varea_step(x="at", y1=below, y2=above, step_mode="before", source=data, color=colour, alpha=0.6)
    top = f"t{len(columns)}"
    plot.step("at", top, mode="before", source=data, color=colours[0])
    names = [words.CAUSES.get(name, "rarer causes") for name in ranked]
    lead = _unseen(plot, data, top)
    _hover(plot, lead, [(name, f"@{column}{{0,0}}/s") for name, column in zip(names, columns, strict=True)])
    return Chart(plot, [(name, colour, False) for name, colour in zip(names, colours, strict=True)])


def share_scales(charts: Sequence[Chart], logarithmic: bool = False) -> None:
    """The same span of y for the same subject of several runs, so that heights can be compared."""
    plots = [chart.figure for chart in charts if chart.figure is not None]
    if not plots:
        return
    shared = DataRange1d(range_padding=0.1) if logarithmic else DataRange1d(start=0, range_padding=0.1)
    for plot in plots:
        plot.y_range = shared


def _stretches(ticks: Sequence[Tick], columns: dict[str, list[float]]) -> ColumnDataSource:
    """Values that hold for the whole stretch before `at`: the first one also stands at the first stretch's start."""
    start = ticks[0].at - ticks[0].seconds
    whole = {name: [values[0], *values] for name, values in columns.items()}
    return ColumnDataSource({"at": [start, *(tick.at for tick in ticks)], **whole})


def canvas(x_range: Any, y_axis_type: Literal["linear", "log", "auto"] = "linear", **options: Any) -> figure:
    """An empty figure; dragging stays with the page, which a phone needs for scrolling."""
    plot = figure(
        height=240,
        sizing_mode="stretch_width",
        toolbar_location=None,
        tools="",
        x_range=x_range,
        min_width=200,
        background_fill_alpha=0,
        border_fill_alpha=0,
        outline_line_alpha=0,
        y_axis_type=y_axis_type,
        **options,
    )
    plot.min_border_right = 16
    for axis in (*plot.xaxis, *plot.yaxis):
        axis.axis_line_color = axis.major_tick_line_color = axis.major_label_text_color = GREY
        axis.axis_label_text_color = GREY
        axis.minor_tick_line_alpha = 0
        axis.major_label_text_font_size = "12px"
        axis.axis_label_text_font_style = "normal"
    plot.xgrid.grid_line_alpha = 0
    plot.ygrid.grid_line_color, plot.ygrid.grid_line_alpha = GREY, 0.25
    return plot


def timeline(end: float, y_axis_type: Literal["linear", "log"] = "linear") -> figure:
    """An empty figure over so many seconds."""
    plot = canvas(Range1d(start=0, end=end), y_axis_type)
    plot.xaxis.formatter = NumeralTickFormatter(format="0,0.[0]")
    plot.yaxis.formatter = NumeralTickFormatter(format="0,0.[0]")
    plot.xaxis.axis_label = "seconds"
    return plot


def _plot(run: Run, y_axis_type: Literal["linear", "log"] = "linear") -> figure:
    """An empty figure over the run's time."""
    plot = timeline(max((tick.at for tick in run.ticks), default=1.0), y_axis_type)
    if run.plan.warm_up:
        plot.add_layout(BoxAnnotation(left=0, right=run.plan.warm_up, fill_color=GREY, fill_alpha=0.12))
    return plot


def _unseen(plot: figure, data: ColumnDataSource, column: str) -> DataRenderer:
    """A line for the pointer to find: bokeh finds neither steps nor areas."""
    return plot.line("at", column, source=data, line_alpha=0)


def _hover(plot: figure, lead: DataRenderer, tips: list[tuple[str, str]]) -> None:
    tooltips = [("at", "@at{0,0.[0]} s"), *tips]
    plot.add_tools(HoverTool(renderers=[lead], mode="vline", tooltips=tooltips))
