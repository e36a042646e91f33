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


def screen(view: Overview, rows: int) -> RenderableType:
    """The same for a terminal, at most this many ends."""
    names = [name for name in _STATES if name in view.states]
    table = Table(box=None, pad_edge=False, header_style="bold", expand=True)
    table.add_column("", width=3)
    table.add_column("end", ratio=1, overflow="fold")
    for name in names:
        table.add_column(name, justify="right")
    table.add_column("source ports in use", justify="right")
    table.add_column("accept queue", justify="right")
    for one in view.ends[:rows]:
        counts = [f"{one.states[name]:,}" if name in one.states else "" for name in names]
        way = "to" if one.direction == "out" else "at"
        table.add_row(way, one.end, *counts, Text(ports(one), _ports_style(one)), Text(queue(one), _queue_style(one)))
    parts: list[RenderableType] = [_heading(view), "", table]
    hidden = sum(view.states.values()) - sum(one.total for one in view.ends[:rows])
    if hidden:
        parts.append(Text(f"and {_plural(hidden, 'socket')} elsewhere", style="dim"))
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


def _ports_style(one: End) -> str:
    if one.ports is None or not one.ports.capacity:
        return ""
    share = 1 - one.ports.free / one.ports.capacity
    return "red" if share > _NEARLY else "yellow" if share > _TIGHT else ""


def _queue_style(one: End) -> str:
    return "red" if one.queue and one.queue_max is not None and one.queue > one.queue_max / 2 else ""


def _states(states: dict[str, int]) -> str:
    return ", ".join(f"{name} {states[name]:,}" for name in _STATES if name in states)


def _plural(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"
