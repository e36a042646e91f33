"""The benchmarks still run. Their figures are not looked at: a busy machine must not fail a test."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from bench.figures import Figure, Result, Values, ratio
from bench.place import tree

import peers
from bench import machine, table
from kit.namespace import needs_namespaces

TOP = Path(__file__).resolve().parents[2]
LONGEST = 300.0  # seconds on a busy machine; the longest takes twenty on a quiet one
PEERS = ("nginx", "haproxy", "nft", "wrk", "ab", "h2load", "hey", "siege")


@pytest.mark.timeout(LONGEST)
@pytest.mark.parametrize("name", table.ORDER)
def test_each_benchmark_measures_something(name: str, tmp_path: Path) -> None:
    for peer in PEERS:
        peers.needs(peer)
    needs_namespaces()
    words = [sys.executable, "-m", "bench", "--quick", "--out", str(tmp_path), name]
    done = subprocess.run(words, cwd=TOP, capture_output=True, text=True, timeout=LONGEST - 10)
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads((tmp_path / "results" / f"{name}.json").read_text())
    assert result["figures"], result["notes"]
    measured = [row for row in result["details"] if "late p" not in row["name"]]
    # The kernel books CPU by ticks of 10 ms: in a short look at a busy machine there may be none.
    none = [row for row in measured if min(row["values"]) <= 0 and "CPU" not in row["name"]]
    assert measured and not none
    page = (tmp_path / "README.md").read_text()
    assert all(figure["what"] in page for figure in result["figures"])


def test_a_quick_run_never_replaces_real_figures(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "bench", "--quick"], cwd=TOP, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 2
    assert "--out" in done.stderr


def test_a_ratio_is_taken_round_by_round() -> None:
    figure = ratio("ours", [10.0, 1.0, 30.0], [5.0, 1.0, 10.0], ">= 2.0")
    assert figure.values == [2.0, 1.0, 3.0]
    assert figure.value == 2.0
    assert figure.reached is True


def test_a_round_in_which_nothing_was_counted_has_no_ratio() -> None:
    assert ratio("ours", [10.0, 1.0, float("nan")], [5.0, 0.0, 1.0], ">= 2.0").values == [2.0]
    for asked in (">= 2.0", "<= 2.0"):
        nothing = ratio("ours", [1.0], [float("nan")], asked)
        assert (nothing.values, nothing.reached) == ([0.0], False)


@pytest.mark.parametrize(
    ("asked", "values", "reached"),
    [
        (">= 1.0", [1.0], True),
        (">= 1.0", [0.99], False),
        ("> 1.0", [1.0], False),
        ("<= 1.1", [1.0, 1.1, 9.0], True),  # the median counts
        ("<= 1.1", [1.2], False),
        ("", [7.0], None),
    ],
)
def test_what_was_asked_is_held_against_the_median(asked: str, values: list[float], reached: bool | None) -> None:
    assert Figure(what="", unit="x", values=values, asked=asked).reached is reached


def test_the_highest_counts_where_a_limit_must_never_be_passed() -> None:
    assert Figure(what="", unit="MB", values=[90.0, 101.0], asked="<= 100", counts="max").reached is False


def test_the_page_shows_the_spread_and_what_fell_short() -> None:
    result = Result(
        name="connections",
        title="New connections",
        how="Somehow.",
        figures=[
            Figure(what="against wrk", unit="x", values=[0.8, 0.9, 1.3], asked=">= 1.0"),
            Figure(what="watching", unit="share", values=[0.012], asked="<= 0.03"),
            Figure(what="https", unit="x", values=[0.5]),
        ],
        details=[Values(name="timewait", unit="connections/s", values=[12_345.6, 20_000.0])],
        machine={"kernel": "6.1", "load before": "0.10 0.20 0.30"},
        measured_at="2026-01-02T03:04:05+00:00",
    )
    page = table.text([result])
    assert "| against wrk | >= 1.0x | 0.90x | 0.80x - 1.30x | **fell short** |" in page
    assert "| watching | <= 3% | 1.2% | one run | reached |" in page
    assert "| https | report | 0.50x | one run |  |" in page
    assert "| timewait | 16,173 connections/s | 12,346 connections/s | 20,000 connections/s | 2 |" in page
    assert "| kernel | 6.1 |" in page
    assert "0.10 to 0.10" in page


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (0.0215, "share", "2.1%"),
        (-0.01, "share", "-1.0%"),
        (1.234, "x", "1.23x"),
        (28.44, "x", "28.4x"),
        (0.1234, "s", "0.123 s"),
        (99.4, "MB", "99.4 MB"),
        (123456.7, "/s", "123,457 /s"),
    ],
)
def test_numbers_show_three_digits(value: float, unit: str, text: str) -> None:
    assert table.shown(value, unit) == text


def test_client_and_target_have_cores_of_their_own_where_there_are_two() -> None:
    where = machine.cores()
    assert {where.client, where.target, where.driver} <= set(os.sched_getaffinity(0))
    assert (where.client == where.target) == (len(os.sched_getaffinity(0)) == 1)


def test_a_tree_of_processes_is_found() -> None:
    with subprocess.Popen(["sh", "-c", "sleep 60 & echo up; wait"], stdout=subprocess.PIPE) as shell:
        assert shell.stdout is not None
        shell.stdout.readline()
        found = tree(shell.pid)
        for pid in reversed(found):
            os.kill(pid, 9)
    assert found[0] == shell.pid
    assert len(found) == 2
