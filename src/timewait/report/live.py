"""The live view: what the run does now, and how long the ports will last.

Drawn when a tick arrives and never by a thread of its own, at most four times a second: the engine's workers are
other processes, but they share the machine's cores.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from types import TracebackType

from rich.console import Console, Group, RenderableType
from rich.constrain import Constrain
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from timewait.histogram import quantiles
from timewait.plan import Plan
from timewait.report import figures, words
from timewait.report.layout import BAD, DIM, GOOD, STRONG, WARN, WIDEST, Flow, Rows, StackedBar, sparkline
from timewait.run import Host, PortUse, Snapshot, Tick
from timewait.tcp.ports import seconds_to_wall

LEAST_BETWEEN = 0.25  # seconds between two drawings
HISTORY = 60  # ticks of the rate's sparkline
MOST_ERRORS = 3


class LiveView:
    """A context manager; `update` after each tick. Leaves nothing on the screen: the report follows."""

    def __init__(self, plan: Plan, host: Host, console: Console, now: Callable[[], float] = time.monotonic) -> None:
        self._plan, self._host, self._now = plan, host, now
        self._rates: deque[float] = deque(maxlen=HISTORY)
        self._previous: tuple[float, PortUse] | None = None
        self._drawn = float("-inf")
        self._live = Live(console=console, auto_refresh=False, transient=True, redirect_stderr=False)

    def __enter__(self) -> LiveView:
        self._live.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.__exit__(kind, error, trace)

    def update(self, tick: Tick, snapshot: Snapshot, total: Tick) -> None:
        """Shows this tick and the sum so far; a tick that comes too soon after a drawing only feeds the history."""
        if tick.seconds >= figures.STUB or not self._rates:
            self._rates.append(figures.per_second(tick.succeeded, tick.seconds))
        left = self._seconds_left(tick, snapshot)
        if self._now() - self._drawn < LEAST_BETWEEN:
            return
        self._drawn = self._now()
        self._live.update(self.view(tick, snapshot, total, left), refresh=True)

    def _seconds_left(self, tick: Tick, snapshot: Snapshot) -> float | None:
        """Until the fullest destination has no free port, at the pace of the last tick; None: not in sight."""
        use = figures.fullest(snapshot)
        previous, self._previous = self._previous, (tick.at, use) if use else None
        if use is None or previous is None or previous[1].destination != use.destination:
            return None
        taken = figures.per_second(previous[1].free - use.free, tick.at - previous[0])
        return seconds_to_wall(use.free, taken, use.capacity) if taken > 0 else None

    def view(self, tick: Tick, snapshot: Snapshot, total: Tick, left: float | None) -> RenderableType:
        """The picture of one moment; `left` are the seconds until the ports run out."""
        rows = Rows()
        self._rate_rows(rows, tick, total)
        self._latency_rows(rows, tick, total)
        rows.add("Connections", self._connections(tick, total))
        for use in filter(None, [figures.fullest(snapshot)]):
            self._port_rows(rows, use, left)
        self._file_row(rows, snapshot)
        rows.add("Closed first", self._closed(snapshot, total))
        if self._plan.rate is not None:
            rows.add("Schedule", self._schedule(tick, total))
        for number, failure in enumerate(figures.failures(total)[:MOST_ERRORS]):
            text = Text(words.count(failure.count), style=BAD)
            text.append(f" {words.phase(failure.phase)}: {words.cause(failure.cause)}", style="not red")
            text.append(f" {words.clean(failure.errno)}" if failure.errno else "", style=DIM)
            rows.add("" if number else "Errors", text)
        title = Text(words.target(self._plan), style=STRONG, no_wrap=True, overflow="ellipsis")
        return Constrain(Group(title, self._progress(tick, total), rows), WIDEST)

    def _progress(self, tick: Tick, total: Tick) -> RenderableType:
        done = figures.progress(self._plan, tick, total)
        text = words.duration(round(tick.at))
        if self._plan.duration is not None:
            text += f" of {words.duration(self._plan.duration)}"
        if self._plan.warm_up and not tick.after(self._plan.warm_up):
            text += ", warming up"
        bar = Table.grid(padding=(0, 1))
        if done is not None:
            bar.add_column(width=30)
            bar.add_row(ProgressBar(completed=100 * done, width=30), text)
        else:
            bar.add_row(text)
        rows = Rows()
        rows.add("Progress", bar)
        return rows

    def _rate_rows(self, rows: Rows, tick: Tick, total: Tick) -> None:
        speed = Text(f"{words.rate(self._rates[-1] if self._rates else 0.0)} ", style=f"{STRONG} {GOOD}")
        speed.append(sparkline(list(self._rates), 30), style=GOOD)
        rows.add("Succeeded", Flow([speed, f"{words.count(total.succeeded)} in all"]))
        ended = total.succeeded + total.failed
        share = words.share(total.succeeded / ended) if ended else "-"
        failed = Text(
            f"{words.rate(figures.per_second(tick.failed, tick.seconds))} now", style=BAD if tick.failed else ""
        )
        rows.add("Failed", Flow([failed, f"{words.count(total.failed)} in all", f"{share} of all succeeded"]))

    def _latency_rows(self, rows: Rows, tick: Tick, total: Tick) -> None:
        for name in ("connect", "first_byte", "total"):
            now, whole = getattr(tick, name), getattr(total, name)
            if not whole.index:
                continue
            p50, p99 = (words.seconds(value) for value in quantiles(now, (0.5, 0.99)))
            label = figures.LATENCIES[name].capitalize()
            pieces = [f"p50 {p50:>7}", f"p99 {p99:>7}"] if now.index else ["none now"]
            overall = words.seconds(quantiles(whole, (0.99,))[0])
            rows.add(label, Flow([*pieces, f"whole run p99 {overall}", f"max {words.seconds(whole.max_ns / 1e9)}"]))

    def _connections(self, tick: Tick, total: Tick) -> Flow:
        short = tick.open < 0.9 * tick.asked
        held = Text(f"{words.count(tick.open)} open of {words.count(tick.asked)} asked", style=WARN if short else "")
        return Flow([held, f"{words.rate(figures.per_second(tick.started, tick.seconds))} new"])

    def _port_rows(self, rows: Rows, use: PortUse, left: float | None) -> None:
        rows.add("Ports", StackedBar([(use.in_use, "█", "blue"), (use.time_wait, "▒", WARN)], use.capacity))
        free = Text(f"{words.count(use.free)} free", style="" if use.free else f"{STRONG} {BAD}")
        if left is not None and use.free:
            free.append(f", gone in {words.duration(max(1, round(left)))}", style=f"{STRONG} {BAD}")
        rows.add("", Flow([f"█ {words.count(use.in_use)} in use", f"▒ {words.count(use.time_wait)} TIME_WAIT", free]))

    def _file_row(self, rows: Rows, snapshot: Snapshot) -> None:
        limit, used = self._host.nofile_soft, snapshot.open_files
        if used is not None and limit:
            text = f"{words.count(used)} of {words.count(limit)}"
            rows.add("Open files", Text(text, style=WARN if used > 0.9 * limit else ""))

    def _closed(self, snapshot: Snapshot, total: Tick) -> Flow:
        here = sum(use.time_wait for use in snapshot.ports)
        there = [use.peer_time_wait for use in snapshot.ports if use.peer_time_wait is not None]
        pieces = [f"target {words.count(total.closed_peer)}", f"we {words.count(total.closed_us)}"]
        pieces.append(f"reset {words.count(total.closed_reset)}")
        where = f"TIME_WAIT here {words.count(here)}" + (f", there {words.count(sum(there))}" if there else "")
        return Flow([*pieces, where])

    def _schedule(self, tick: Tick, total: Tick) -> Flow:
        late = quantiles(tick.late, (0.99,))[0] if tick.late.index else 0.0
        style = BAD if late > 0.1 else WARN if late > 0.01 else ""
        pieces: list[Text | str] = [Text(f"late p99 {words.seconds(late)}", style=style)]
        return Flow([*pieces, f"max {words.seconds(total.late.max_ns / 1e9)}"])
