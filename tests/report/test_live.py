"""The live view and the line a second, fed with ticks by hand."""

from __future__ import annotations

import io

import msgspec
from rich.console import Console, RenderableType

from report import samples
from timewait.plan import Rate
from timewait.report.layout import Flow, StackedBar, sparkline
from timewait.report.line import line
from timewait.report.live import LiveView
from timewait.run import Snapshot, Tick


class Clock:
    def __init__(self) -> None:
        self.time = 0.0

    def __call__(self) -> float:
        return self.time


def text(content: RenderableType, width: int = 80) -> str:
    console = Console(width=width, color_system=None, highlight=False)
    with console.capture() as caught:
        console.print(content)
    return caught.get()


def screen() -> Console:
    return Console(file=io.StringIO(), width=80, height=40, force_terminal=True, highlight=False)


def drawn(seconds: int, width: int = 80) -> str:
    """The picture after so many seconds of the run whose ports run out."""
    run, clock, total = samples.exhausted(), Clock(), Tick()
    with LiveView(run.plan, run.host, screen(), clock) as view:
        for tick, snapshot in list(zip(run.ticks, run.snapshots, strict=True))[:seconds]:
            clock.time += 1
            total.add(tick, side_by_side=False)
            view.update(tick, snapshot, total)
        return text(view._live.renderable, width)


def test_it_says_when_the_ports_run_out() -> None:
    shown = drawn(2)
    assert "11,950 free, gone in 1 s" in shown
    assert "▒ 16,232 TIME_WAIT" in shown
    assert "2 s of 10 s" in shown


def test_it_shows_the_errors_once_there_are_some() -> None:
    assert "no source port left" not in drawn(3)
    shown = drawn(6)
    assert "1,500 connect: no source port left EADDRNOTAVAIL" in shown
    assert "0 free" in shown
    assert "gone in" not in shown


def test_a_pace_the_ports_can_bear_has_no_end() -> None:
    run, clock = samples.healthy(), Clock()
    view = LiveView(run.plan, run.host, screen(), clock)
    for second, time_wait in ((1.0, 100), (2.0, 200)):
        clock.time += 1
        view.update(samples.tick(second), samples.snapshot(second, time_wait), samples.tick(second))
    assert "gone in" not in text(view._live.renderable)


def test_it_draws_at_most_four_times_a_second() -> None:
    run, clock, console = samples.healthy(), Clock(), screen()
    assert isinstance(console.file, io.StringIO)
    with LiveView(run.plan, run.host, console, clock) as view:
        lengths = set()
        for step in range(20):
            clock.time = 100 + step * 0.01
            view.update(run.ticks[0], run.snapshots[0], run.total)
            lengths.add(len(console.file.getvalue()))
        assert len(lengths) == 1
        clock.time += 1
        view.update(run.ticks[0], run.snapshots[0], run.total)
        assert len(console.file.getvalue()) > lengths.pop()


def test_the_open_loop_shows_its_lateness() -> None:
    run = samples.healthy()
    plan = msgspec.structs.replace(run.plan, rate=Rate(8000))
    tick = msgspec.structs.replace(run.ticks[0], late=samples.sparse(0.002))
    view = LiveView(plan, run.host, screen(), Clock())
    view.update(tick, run.snapshots[0], tick)
    assert "late p99 2.00 ms" in text(view._live.renderable)


def test_a_narrow_terminal_folds_between_the_pieces() -> None:
    assert max(map(len, drawn(6, width=40).splitlines())) <= 40


def test_nothing_known_is_no_error() -> None:
    run = samples.healthy()
    view = LiveView(msgspec.structs.replace(run.plan, duration=None), run.host, screen(), Clock())
    view.update(Tick(), Snapshot(), Tick())
    assert "Succeeded" in text(view._live.renderable)


def test_a_line_a_second() -> None:
    run = samples.exhausted()
    assert line(run.ticks[0], run.snapshots[0], run.plan) == (
        "   1 s    8,000/s ok  0 failed  p99 5.00 ms  50 open  8,232 TIME_WAIT, 19,950 ports free"
    )
    last = line(run.ticks[-1], run.snapshots[-1], run.plan)
    assert last.endswith("0 of 50 open  28,232 TIME_WAIT, 0 ports free  500 x connect EADDRNOTAVAIL")


def test_a_line_marks_the_warm_up() -> None:
    run = samples.healthy()
    plan = msgspec.structs.replace(run.plan, warm_up=2.0)
    marked = ["(warm-up)" in line(tick, Snapshot(), plan) for tick in run.ticks[:4]]
    assert marked == [True, True, False, False]


def test_a_bar_never_hides_a_part_and_never_overflows() -> None:
    bar = StackedBar([(1, "█", ""), (9998, "▒", "")], 9999, width=10)
    assert bar.cells(10) == [1, 9]
    assert StackedBar([(0, "█", ""), (0, "▒", "")], 100).cells(10) == [0, 0]
    assert StackedBar([(5, "█", ""), (500, "▒", "")], 100).cells(10) == [1, 9]
    assert text(bar, 10) == "█▒▒▒▒▒▒▒▒▒\n"


def test_a_sparkline_stands_on_zero() -> None:
    assert sparkline([0, 50, 100], 10) == "▁▄█"
    assert sparkline([0, 0], 10) == "▁▁"
    assert sparkline([1, 2, 3], 2) == "▆█"


def test_pieces_stay_whole() -> None:
    shown = text(Flow(["28,232 in TIME_WAIT", "1.23 ms", "12 free"]), 22).splitlines()
    assert shown == ["28,232 in TIME_WAIT", "1.23 ms · 12 free"]
