"""What `timewait demo` shows: the load, the forecast, a bar per round while it runs, one table, the finding."""

from __future__ import annotations

from rich import box
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from timewait import demo
from timewait.demo import Round
from timewait.diagnose import Finding
from timewait.plan import Closing
from timewait.report import words
from timewait.report.layout import BAD, DIM, GOOD, STRONG, WARN, Flow, Rows, StackedBar, Trimmed
from timewait.report.words import clean, count
from timewait.run import Cause, Run, Snapshot, Tick

CLOSINGS = {**words.CLOSINGS, Closing.SERVER: "balancer closes first"}


def opening(reason: str, hidden: list[str], *, loopback: bool) -> RenderableType:
    """What is about to happen, and where."""
    ports = demo.LOOPBACK_PORTS if loopback else demo.PORTS
    text = Text("One load, three ways to close: ", style=STRONG)
    text.append(
        f"{demo.PER_SECOND} new connections/s for {demo.SECONDS:g} s from {count(ports)} source ports, ",
        style="not bold",
    )
    text.append("through `timewait balance` to a server, ", style="not bold")
    text.append("over loopback." if loopback else "in network namespaces made for it.", style="not bold")
    rows = Rows(label=9)
    if reason:
        rows.add("Loopback", Text(f"because {reason}."), style=WARN)
    for sentence in hidden:
        rows.add("Hides" if sentence is hidden[0] else "", Text(sentence), style=WARN)
    return Trimmed(Group(text, *([rows] if rows.rows else [])))


class Progress:
    """The forecast of each round when it begins; on a terminal also a bar that moves, gone at the end."""

    def __init__(self, console: Console) -> None:
        self._console = console
        # No thread of its own (auto_refresh): the engine forks its workers while this is shown.
        self._live = Live(console=console, transient=True, auto_refresh=False)
        self._bars: dict[Closing, RenderableType] = {}

    def __enter__(self) -> Progress:
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def start(self, closing: Closing, forecast: str | None) -> None:
        if forecast and closing is demo.CLOSINGS[0]:  # the others have nothing to fear
            rows = Rows(label=9)
            rows.add("Forecast", Text(f"{CLOSINGS[closing]}: {forecast}"), style=WARN)
            self._console.print(Trimmed(rows))
        self.tick(closing, Tick(), Snapshot())

    def tick(self, closing: Closing, total: Tick, snapshot: Snapshot) -> None:
        asked = demo.PER_SECOND * demo.SECONDS
        line = Table.grid(padding=(0, 2, 0, 0))
        line.add_column(width=21)
        parts = [(float(total.succeeded), "━", GOOD), (float(total.failed), "╌", BAD)]
        failed = Text(f"{count(total.failed)} failed", style=BAD if total.failed else DIM)
        free = f"{count(snapshot.ports[0].free)} free" if snapshot.ports else ""
        line.add_row(
            CLOSINGS[closing], StackedBar(parts, asked, 24), Flow([f"{count(total.succeeded)} ok", failed, free])
        )
        self._bars[closing] = line
        if self._console.is_terminal:
            self._live.update(Group(*self._bars.values()), refresh=True)


def closing(rounds: list[Round]) -> RenderableType:
    """The table, and why the first round that failed did."""
    parts: list[RenderableType] = [Text(), table(rounds)]
    if any(_taken_over(one) for one in rounds):
        told = "A TIME_WAIT at the balancer stops nobody: the client's next SYN takes it over."
        parts.append(Text(told, style=DIM))
    failed = next((one for one in rounds if one.findings), None)
    if failed is not None:
        parts += [Text(), why(failed)]
    notes = [note for one in rounds for note in one.run.notes]
    notes += [f"ended early by {one.run.interrupted}" for one in rounds if one.run.interrupted]
    parts += [Text(clean(note), style=WARN) for note in notes]
    return Trimmed(Group(*parts))


def table(rounds: list[Round]) -> Table:
    """A row per way of closing."""
    made = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), show_edge=False)
    made.add_column("closed\nfirst by")
    for head in ("\nasked", "\nsucceeded", "\nfailed", "TIME_WAIT\nat client", "TIME_WAIT\nat balancer"):
        made.add_column(head, justify="right", no_wrap=True)
    made.add_column("\nverdict")
    for one in rounds:
        total = one.run.total
        numbers = (one.client_time_wait, one.balancer_time_wait)
        made.add_row(
            closed_first(one.run),
            count(demo.PER_SECOND * demo.SECONDS),
            Text(count(total.succeeded), style=GOOD if not total.failed else ""),
            Text(count(total.failed), style=BAD if total.failed else DIM),
            *(Text(count(number), style="" if number else DIM) for number in numbers),
            verdict(one.run),
        )
    return made


def closed_first(run: Run) -> str:
    """Who really did, counted per connection; with counts where it was not always the same end."""
    total = run.total
    ends = {"client": total.closed_us, "balancer": total.closed_peer, "reset": total.closed_reset}
    seen = {name: number for name, number in ends.items() if number}
    if len(seen) == 1:
        return next(iter(seen))
    return ", ".join(f"{name} {count(number)}" for name, number in seen.items()) or "nobody"


def verdict(run: Run) -> Text:
    """In a few words; the moment of the first missing port to the tick, interpolated within it."""
    if run.interrupted:
        return Text("cut short", style=WARN)
    if not run.total.failed:
        made = Text("no wall", style=GOOD) if run.total.succeeded else Text("no result", style=WARN)
        for number, what in ((run.total.unsent, "not sent"), (run.total.unfinished, "unfinished")):
            made.append(f", {count(number)} {what}" if number else "", style=WARN)  # a machine busy with other things
        return made
    first = run.first(Cause.NO_PORT)
    return Text("failures" if first is None else f"no port after {first:.1f} s", style=BAD)


def _taken_over(one: Round) -> bool:
    """Whether the balancer closed more connections than it holds TIME_WAIT, because their tuples came back."""
    return one.run.total.closed_peer > one.balancer_time_wait > 0


def why(one: Round) -> RenderableType:
    """The first finding in short: what `timewait stress` says in full, with the effect and cost of every remedy."""
    finding: Finding = one.findings[0]
    head = Text("Why  ", style=STRONG)
    head.append(finding.id, style=f"{STRONG} {BAD}")
    head.append(f"  {finding.confidence}", style=DIM)
    rows = Rows(label=4)
    for evidence in finding.evidence[:1]:
        rows.add("seen", Text(f"{evidence.text} ({evidence.source})"))
    if finding.remedy:
        rows.add("do", Flow([Text(remedy.action, style=STRONG) for remedy in finding.remedy]), style=GOOD)
    for wrong in finding.wrong[:1]:
        rows.add("not", Text(wrong), style=BAD)
    return Group(head, Text(finding.summary), rows)
