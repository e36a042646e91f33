"""How `timewait balance top` looks: one look at a balancer as a page, and as text lines."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from timewait.balancer.rotation import State
from timewait.balancer.statistics import TargetStatistics
from timewait.balancer.views import Stats, TargetHealth
from timewait.balancer.words import seconds
from timewait.cli.balance.rates import Rates, rates
from timewait.cli.balance.shown import remark, weight
from timewait.port_use import PortUse
from timewait.report.layout import BAD, DIM, GOOD, STRONG, WARN, StackedBar

_STATES = {State.HEALTHY: GOOD, State.UNCHECKED: "", State.PROBING: WARN, State.UNHEALTHY: BAD}
_BAR = 16  # columns of the ports
_WIDE = 130  # columns of a terminal that has room for everything
_NARROW = 76  # and of one that has not even room for names beside all figures


def page(before: Stats | None, now: Stats, width: int = 120) -> RenderableType:
    """For a terminal."""
    moved = rates(before, now)
    parts: list[RenderableType] = [_heading(now), "", _listeners(now, moved, width), "", _targets(now, moved, width)]
    for one in now.kernel.findings:
        parts += ["", Text(one.summary, style=f"{STRONG} {BAD}")]
        parts += [Text(f"  {do}", style=WARN) for do in one.remedy[:2]]
    parts += [Text(sentence, style=WARN) for sentence in now.kernel.unreadable]
    if now.unknown:
        parts.append(Text(f"not counted by this engine: {', '.join(now.unknown)}", style=DIM))
    return Group(*parts)


def text(before: Stats | None, now: Stats) -> str:
    """Some lines for one look, for whoever is no terminal."""
    moved = rates(before, now)
    lines = [_heading(now).plain]
    for name, one in now.listeners.items():
        rate = moved[f"listener {name}"]
        lines.append(
            f"  listener {name}  open {one.active:,}  idle {one.idle:,}  {_rate(rate.connections)} new  "
            f"{_rate(rate.requests)} requests  {_statuses(rate)}failed {_rate(rate.failed)}  ended first: balancer "
            f"{_rate(rate.balancer_first)}, reset {_rate(rate.reset)}, client {_rate(rate.peer_first)}  "
            f"TIME_WAIT {now.kernel.time_wait.get(name, 0):,}"
        )
    for health in now.health:
        counted, rate = _counted(now, health), moved.get(f"target {health.pool}/{health.address}", Rates())
        ports = now.kernel.ports.get(health.address)
        parts = [
            f"  target {health.pool} {health.address}",
            health.state,
            f"weight {weight(health)}",
            f"in use {counted.active:,}",
            f"idle {counted.idle:,}",
            f"{_rate(rate.connections)} new",
            f"{_rate(rate.requests)} requests",
            f"failed {_rate(rate.failed)}",
            _ports(now, ports) if ports else "",
            _because(health),
        ]
        lines.append("  ".join(filter(None, parts)))
    lines += [f"  {one.id}: {one.summary}" for one in now.kernel.findings]
    return "\n".join(lines)


def _heading(now: Stats) -> Text:
    heading = Text(now.file, style=STRONG)
    heading.append(f"  process {now.pid}, up {_long(now.uptime)}", style="not bold")
    if now.stopping:
        heading.append("  stopping", style=f"{STRONG} {WARN}")
    return heading


def _table(*names: str) -> Table:
    """The first column is a name, the others are numbers."""
    table = Table(box=None, pad_edge=False, header_style=STRONG)
    for place, name in enumerate(names):
        # Where there is no room the name gives way, and is folded: what is cut from a figure makes it a wrong one.
        table.add_column(name, justify="left" if place == 0 else "right", no_wrap=place > 0, overflow="fold")
    return table


def _listeners(now: Stats, moved: dict[str, Rates], width: int) -> Table:
    """Where it is narrow, who closed first is told by TIME_WAIT alone."""
    wide = width >= _WIDE
    ends = ("FIN first/s", "reset/s", "client first/s") if wide else ()
    some = () if width < _NARROW else ("idle", "new/s")
    table = _table("listener", "open", *some, "requests/s", "failed/s", *ends, "TIME_WAIT")
    if wide:
        table.add_column("answers/s")
    for name, one in now.listeners.items():
        rate = moved[f"listener {name}"]
        closes = (rate.balancer_first, rate.reset, rate.peer_first) if wide else ()
        table.add_row(
            name,
            f"{one.active:,}",
            *((f"{one.idle:,}", _figure(rate.connections)) if some else ()),
            Text(_figure(rate.requests), style=f"{STRONG} {GOOD}" if rate.requests else ""),
            Text(_figure(rate.failed), style=BAD if rate.failed else ""),
            *(_figure(value) for value in closes),
            f"{now.kernel.time_wait.get(name, 0):,}",
            *([_statuses(rate).strip()] if wide else []),
        )
    return table


def _targets(now: Stats, moved: dict[str, Rates], width: int) -> RenderableType:
    """Where it is narrow, ports and what there is to remark stand below."""
    wide = width >= _WIDE
    some = () if width < _NARROW else ("in use", "new/s")
    names = ("target", "state", "weight", *some, "requests/s", "failed/s")
    table = _table(*names, *(("idle", "TIME_WAIT") if wide else ()))
    table.columns[0].no_wrap = wide
    table.columns[1].justify = "left"
    if wide:
        table.add_column("ports", width=_BAR + 1)
        table.add_column("", overflow="fold")
    remarks: list[RenderableType] = []
    pool = None
    for one in now.health:
        if one.pool != pool:
            pool = one.pool
            table.add_row(Text(f"pool {pool}", style=STRONG))
        use, remarked = now.kernel.ports.get(one.address), _remark(now, one)
        more = _more(now, one, use, remarked) if wide else ()
        table.add_row(*_row(now, one, moved.get(f"target {one.pool}/{one.address}", Rates()), bool(some)), *more)
        if not wide and (remarked or use):
            below = "; ".join(filter(None, [remarked, f"{use.free:,} of {use.capacity:,} ports free" if use else ""]))
            remarks.append(Text(f"{one.address}: {below}", style=DIM))
    return Group(table, *remarks)


def _row(now: Stats, one: TargetHealth, rate: Rates, room: bool) -> list[RenderableType]:
    return [
        f"  {one.address}",
        Text(one.state, style=_STATES[one.state]),
        weight(one),
        *((f"{_counted(now, one).active:,}", _figure(rate.connections)) if room else ()),
        _figure(rate.requests),
        Text(_figure(rate.failed), style=BAD if rate.failed else ""),
    ]


def _more(now: Stats, one: TargetHealth, use: PortUse | None, remarked: str) -> list[RenderableType]:
    bar: RenderableType = Text()
    if use:
        bar = StackedBar([(use.in_use, "█", "blue"), (use.time_wait, "▒", WARN)], use.capacity, _BAR)
    return [f"{_counted(now, one).idle:,}", f"{use.time_wait:,}" if use else "", bar, Text(remarked, style=DIM)]


def _remark(now: Stats, one: TargetHealth) -> str:
    left = now.kernel.seconds_left.get(one.address)
    return "; ".join(filter(None, [remark(one), "" if left is None else f"ports gone in {seconds(left)}"]))


def _counted(now: Stats, one: TargetHealth) -> TargetStatistics:
    return now.targets.get(f"{one.pool}/{one.address}") or TargetStatistics(pool=one.pool, address=one.address)


def _ports(now: Stats, use: PortUse) -> str:
    left = now.kernel.seconds_left.get(use.destination)
    gone = f", gone in {seconds(left)}" if left is not None else ""
    return f"ports {use.free:,} of {use.capacity:,} free, TIME_WAIT {use.time_wait:,}{gone}"


def _because(one: TargetHealth) -> str:
    why = remark(one)
    return f"({why})" if why else ""


def _statuses(rate: Rates) -> str:
    shown = " ".join(f"{kind} {_figure(value)}" for kind, value in rate.statuses.items())
    return f"{shown}  " if shown else ""


def _figure(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 or value == 0 else f"{value:.1f}"


def _rate(value: float) -> str:
    return f"{_figure(value)}/s"


def _long(value: float) -> str:
    """Up for how long: `42 s`, `12 min`, `3 h`, `5 d`."""
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if value >= 2 * size:
            return f"{value // size:.0f} {unit}"
    return f"{value:.0f} s"
