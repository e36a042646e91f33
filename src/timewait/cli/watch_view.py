"""How `timewait watch` looks: one overview as text lines, and as a screen of a terminal."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from timewait.observe.counters import TELLING
from timewait.observe.overview import End, Overview

_STATES = (
    "ESTABLISHED",
    "TIME_WAIT",
    "SYN_SENT",
    "SYN_RECV",
    "FIN_WAIT1",
    "FIN_WAIT2",
    "CLOSE_WAIT",
    "LAST_ACK",
    "CLOSING",
)
_ROWS, _COUNTERS = 20, 12  # of plain text
_OTHER_COLUMNS = 55  # width of a screen's columns beside the states
_TIGHT, _NEARLY = 0.5, 0.9  # share of the ports in use: past half the kernel's search grows slow


def text(view: Overview) -> str:
    """Some lines for one look, the first beginning with its time in seconds."""
    total = sum(view.states.values())
    lines = [f"{view.at:.1f}s  {_plural(total, 'socket')}" + (f": {_states(view.states)}" if total else "")]
    shown = [one for one in view.ends if one.total or one.queue][:_ROWS]
    width = max((len(one.end) for one in shown), default=0)
    for one in shown:
        parts = [f"  {'to' if one.direction == 'out' else 'at'} {one.end:<{width}}", _states(one.states)]
        lines.append("  ".join(part for part in (*parts, ports(one), queue(one)) if part))
    left = total - sum(one.total for one in shown)
    if left:
        lines.append(f"  and {_plural(left, 'socket')} elsewhere")
    if view.conntrack is not None:
        lines.append(f"  conntrack {view.conntrack:,} of {view.conntrack_max:,}")
    if view.counters:
        lines.append("  moved  " + ", ".join(f"{name} {change:+,}" for name, change in _moved(view, _COUNTERS)))
    return "\n".join(lines + [f"  {sentence}" for sentence in view.unreadable])


def screen(view: Overview, rows: int, width: int) -> RenderableType:
    """The same for a terminal, at most this many ends; states that are rare share a column where it is narrow."""
    names = [name for name in _STATES if name in view.states]
    common, rare = names, list[str]()
    if width < _OTHER_COLUMNS + sum(len(name) + 1 for name in names):
        common, rare = [name for name in names if name in _STATES[:2]], [n for n in names if n not in _STATES[:2]]
    table = Table(box=None, pad_edge=False, header_style="bold", expand=True)
    table.add_column("", width=2)
    table.add_column("end", ratio=1, min_width=15, overflow="fold")
    for name in [*common, *(["others"] if rare else []), "ports in use", "queue"]:
        table.add_column(name, justify="right", no_wrap=True)
    shown = view.ends[:rows]
    for one in shown:
        counts = [_count(one, [name]) for name in common] + ([_count(one, rare)] if rare else [])
        table.add_row("to" if one.direction == "out" else "at", one.end, *counts, _port_cell(one), _queue_cell(one))
    parts: list[RenderableType] = [_heading(view), "", table]
    hidden = sum(view.states.values()) - sum(one.total for one in shown)
    if hidden:
        parts.append(Text(f"and {_plural(hidden, 'socket')} elsewhere", style="dim"))
    if any(one.sources > 1 for one in shown):
        parts.append(Text("ports: of the source address that uses most", style="dim"))
    if view.counters:
        parts += ["", _counters(view)]
    parts += [Text(sentence, style="yellow") for sentence in view.unreadable]
    return Group(*parts)


def ports(one: End) -> str:
    """`1,220 of 28,232 ports` of the source that uses most; empty for an inbound end."""
    if one.ports is None:
        return ""
    used = one.ports.in_use + one.ports.time_wait
    of_source = f" of {one.source}, the fullest of {one.sources:,} sources" if one.sources > 1 else ""
    return f"{used:,} of {one.ports.capacity:,} ports{of_source}"


def queue(one: End) -> str:
    """`queue 3 of 511`; empty where nobody listens."""
    return "" if one.queue is None else f"queue {one.queue:,} of {one.queue_max:,}"


def _heading(view: Overview) -> Text:
    total = sum(view.states.values())
    heading = Text(f"{_plural(total, 'socket')}", style="bold")
    if total:
        heading.append(f"  {_states(view.states)}", style="not bold")
    if view.conntrack is not None:
        heading.append(f"  conntrack {view.conntrack:,} of {view.conntrack_max:,}", style="not bold dim")
    return heading


def _counters(view: Overview) -> Table:
    table = Table.grid(padding=(0, 2))
    for _ in range(4):
        table.add_column()
    cells: list[Text] = []
    for name, change in _moved(view, 16):
        style = "yellow" if name in TELLING else "dim"
        rate = f"{change / view.seconds:+,.0f}/s" if view.seconds else f"{change:+,}"
        cells += [Text(name, style), Text(rate, style, justify="right")]
    for start in range(0, len(cells), 4):
        table.add_row(*cells[start : start + 4])
    return table


def _moved(view: Overview, most: int) -> list[tuple[str, int]]:
    """The telling ones first, then by name, so that a counter keeps its place."""
    return sorted(view.counters.items(), key=lambda item: (item[0] not in TELLING, item[0]))[:most]


def _count(one: End, names: list[str]) -> str:
    count = sum(one.states.get(name, 0) for name in names)
    return f"{count:,}" if count else ""


def _port_cell(one: End) -> Text:
    if one.ports is None or not one.ports.capacity:
        return Text()
    share = 1 - one.ports.free / one.ports.capacity
    style = "red" if share > _NEARLY else "yellow" if share > _TIGHT else ""
    return Text(f"{one.ports.in_use + one.ports.time_wait:,}/{one.ports.capacity:,}", style)


def _queue_cell(one: End) -> Text:
    if one.queue is None or one.queue_max is None:
        return Text()
    return Text(f"{one.queue:,}/{one.queue_max:,}", "red" if one.queue > one.queue_max / 2 else "")


def _states(states: dict[str, int]) -> str:
    return ", ".join(f"{name} {states[name]:,}" for name in _STATES if name in states)


def _plural(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"
