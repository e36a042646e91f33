"""The report in the terminal: what stands in it, in which order, and that it fits."""

from __future__ import annotations

import msgspec
import pytest
from rich.cells import cell_len
from rich.console import Console, RenderableType

from report import samples
from timewait.diagnose import Finding, Remedy
from timewait.plan import parse_threshold
from timewait.report.terminal import side_by_side, summary
from timewait.run import Host, Run, Step, Tick


def lines(content: RenderableType, width: int = 80) -> list[str]:
    console = Console(width=width, highlight=False, color_system=None)
    with console.capture() as caught:
        console.print(content)
    return caught.get().splitlines()


def test_a_healthy_run_is_one_short_screen() -> None:
    shown = lines(summary(samples.healthy(), []))
    assert len(shown) <= 22
    assert "8,000 successes per second · all 80,000 succeeded" in shown
    assert "Closed first target 80,000" in shown
    assert not any("Why" in line or "Errors" in line for line in shown)


def test_the_parts_stand_in_their_order() -> None:
    shown = "\n".join(lines(summary(samples.exhausted(), [samples.finding()])))
    order = ["successes per second", "Requests", "Latency", "Status", "Closed first", "TIME_WAIT", "Ports"]
    order += ["Errors", "Why"]
    places = [shown.index(word) for word in order]
    assert places == sorted(places)


def test_the_headline_counts_successes_only() -> None:
    shown = lines(summary(samples.exhausted(), []))
    assert "2,800 successes per second · 11.1% failed (3,500 of 31,500)" in shown


def test_a_run_of_failures_has_rate_zero() -> None:
    run = samples.assemble(samples.plan(), [samples.tick(1.0, 0, no_port=500)], [samples.snapshot(1.0, 0)])
    shown = lines(summary(run, []))
    assert "0 successes per second · 100% failed (500 of 500)" in shown
    assert "no latency: nothing succeeded" in shown


def test_errors_name_phase_errno_cause_and_count() -> None:
    shown = lines(summary(samples.exhausted(), []))
    assert " 3,500  connect  EADDRNOTAVAIL  no source port left" in shown


def test_latency_shows_the_five_quantiles() -> None:
    shown = lines(summary(samples.healthy(), []))
    assert ["Latency", "p50", "p90", "p99", "p99.9", "max"] in [line.split() for line in shown]
    row = next(line for line in shown if line.startswith("total")).split()
    assert row == ["total", "1.10", "ms", "5.00", "ms", "5.00", "ms", "5.00", "ms", "5.00", "ms"]


def test_a_finding_shows_evidence_remedy_and_what_not_to_try() -> None:
    shown = "\n".join(lines(summary(samples.exhausted(), [samples.finding()])))
    for part in ("ports-exhausted  certain, this machine", "(NETLINK_SOCK_DIAG)", "--close server", "costs: root"):
        assert part in shown
    assert "not      lowering tcp_fin_timeout" in shown


def test_residue_and_the_worst_moment_of_the_ports() -> None:
    run = samples.exhausted()
    run.after = samples.snapshot(70.0, 1000, in_use=0)
    shown = lines(summary(run, []), 100)
    assert "TIME_WAIT    1,000 here · 232 were here before the run" in shown
    assert any("27,232 free · 0 free at worst" in line for line in shown)


def test_asked_and_held_concurrency_differ() -> None:
    run = samples.exhausted()
    assert any(line.startswith("Held         22 of 50 asked") for line in lines(summary(run, [])))


def test_notes_and_interruption_are_told() -> None:
    run = samples.healthy()
    run.interrupted, run.notes = "SIGINT", ["worker 2 died"]
    shown = "\n".join(lines(summary(run, [])))
    assert "ended early by SIGINT after 10 s" in shown
    assert "worker 2 died" in shown


def test_thresholds_held_and_missed() -> None:
    run = samples.exhausted()
    run.plan = msgspec.structs.replace(run.plan, thresholds=(parse_threshold("failed>1%"),))
    assert any(line.startswith("Missed       failed>1%: 11") for line in lines(summary(run, [])))
    run.plan = msgspec.structs.replace(run.plan, thresholds=(parse_threshold("failed>50%"),))
    assert "Limits       failed>50% · held" in lines(summary(run, []))


def test_steps_of_a_search() -> None:
    run = samples.healthy()
    run.steps = [
        Step(rate=1000, succeeded_per_second=1000, failed_share=0, p99=0.001, held=True),
        Step(rate=2000, succeeded_per_second=1500, failed_share=0.25, p99=0.1, held=False, stopped_by="latency"),
    ]
    shown = [line.split() for line in lines(summary(run, []))]
    assert ["1,000/s", "1,000/s", "0%", "1.00", "ms", "held"] in shown
    assert any(row[-3:] == ["stopped", "by", "latency"] for row in shown)


@pytest.mark.parametrize("width", [20, 30, 40, 56, 80, 200])
@pytest.mark.parametrize("run", [samples.healthy(), samples.exhausted()], ids=["healthy", "exhausted"])
def test_it_fits_any_width(run: Run, width: int) -> None:
    run.total.details = {"x" * 300: 1, "\x1b[2J": 2}
    shown = lines(summary(run, [samples.finding("y" * 200)]), width)
    assert max(cell_len(line) for line in shown) <= width
    assert not any(line != line.rstrip() for line in shown)
    assert "\x1b" not in "".join(shown)


def test_an_empty_run_is_shown_too() -> None:
    shown = lines(summary(Run(plan=samples.plan(), host=Host()), []))
    assert "nothing came to an end: no success, no failure" in shown


def test_no_colour_without_colours() -> None:
    console = Console(width=80, no_color=True, force_terminal=True, highlight=False)
    with console.capture() as caught:
        console.print(summary(samples.exhausted(), [samples.finding()]))
    assert "\x1b[31m" not in caught.get()
    assert "\x1b[32m" not in caught.get()


def test_rendering_changes_nothing() -> None:
    run = samples.exhausted()
    before = msgspec.json.encode(run)
    lines(summary(run, [samples.finding()]))
    assert msgspec.json.encode(run) == before


def test_several_runs_stand_side_by_side() -> None:
    runs = [("a.jsonl", samples.healthy(), []), ("b.jsonl", samples.exhausted(), [samples.finding()])]
    shown = [line.split() for line in lines(side_by_side(runs))]
    assert ["a.jsonl", "b.jsonl"] in shown
    assert ["successes", "8,000/s", "2,800/s"] in shown
    assert ["findings", "none", "ports-exhausted"] in shown


@pytest.mark.parametrize("width", [45, 80, 120])
def test_many_runs_are_broken_into_tables_that_fit(width: int) -> None:
    runs: list[tuple[str, Run, list[Finding]]] = [(f"{number}.jsonl", samples.healthy(), []) for number in range(7)]
    shown = lines(side_by_side(runs), width)
    assert max(map(cell_len, shown)) <= width
    assert all(any(f"{number}.jsonl" in line for line in shown) for number in range(7))


def test_a_tick_without_anything_is_no_division_by_zero() -> None:
    run = samples.assemble(samples.plan(), [Tick()], [samples.snapshot(0.0, 0)])
    assert lines(summary(run, []))


def test_the_best_remedies_in_full_and_the_rest_by_name() -> None:
    many = [Remedy(action=f"flag {number}", effect=f"effect {number}", cost="") for number in range(7)]
    finding = msgspec.structs.replace(samples.finding(), remedy=many)
    shown = "\n".join(lines(summary(samples.exhausted(), [finding])))
    assert [f"effect {number}" in shown for number in range(7)] == [True] * 4 + [False] * 3
    assert "also     flag 4 · flag 5 · flag 6" in shown
