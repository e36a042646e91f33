"""Exit codes and thresholds."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from diagnose.synthetic import SICK, healthy, short_lived, times
from timewait.diagnose import Exit, diagnose, exit_code, measure, missed
from timewait.diagnose import exit_codes as module
from timewait.histogram import Sparse
from timewait.plan import METRICS, parse_threshold
from timewait.run import Cause, Phase, Run, Step

FAILED = [(Phase.BODY, "ECONNRESET", Cause.RESET, 100)]


def code(run: Run) -> int:
    return exit_code(run, diagnose(run))


EXPECTED = {
    "ports-exhausted": 3, "ports-held-open": 3, "open-files": 3, "client-limited": 3, "conntrack-full": None,
    "syn-retransmitted": None, "accept-queue-overflow": None, "refused": 1, "reset": 1, "timeout": 1,
    "bad-response": 1, "tls-failed": 1, "paws-rejected": 0, "close-ignored": 0, "port-search-slow": 0, "residue": 0,
    "tw-reuse-loopback-only": 0, "time-wait-overflow": 0, "harmful-sysctl": 0,
}  # fmt: skip


@pytest.mark.parametrize("id_", SICK)
def test_each_cause_has_its_code(id_: str) -> None:
    for make in SICK[id_]:
        run = make()
        failed = run.total.failed > 0 or run.total.succeeded == 0
        expected = EXPECTED[id_]
        if expected is None:  # by whether connections failed, or were only slow
            expected = (3 if id_ == "conntrack-full" else 1) if failed else 0
        if diagnose(run)[0].confidence == "possible" and id_ == "client-limited":  # perhaps the target, or only slow
            expected = 1 if run.total.unsent else 0
        assert code(run) == expected


@pytest.mark.parametrize(
    ("changes", "thresholds", "expected"),
    [
        ({}, [], Exit.WELL),
        ({"failures": FAILED}, [], Exit.TARGET_FAILED),
        ({"failures": FAILED}, ["failed>1%"], Exit.WELL),
        ({"failures": FAILED}, ["failed>0.01%"], Exit.THRESHOLD_MISSED),
        ({}, ["p99>50ms", "failed>0"], Exit.WELL),
        ({}, ["p99>50ms", "rate<20k"], Exit.THRESHOLD_MISSED),
        ({"failures": FAILED, "interrupted": "SIGTERM"}, ["failed>0"], Exit.INTERRUPTED),
        ({"succeeded": 0, "failed": 0}, [], Exit.TARGET_FAILED),  # connections, and not one answer
        ({"succeeded": 0, "failed": 0, "total": Sparse()}, ["p99>50ms"], Exit.THRESHOLD_MISSED),
    ],
)
def test_precedence(changes: dict[str, Any], thresholds: list[str], expected: Exit) -> None:
    plan = {"thresholds": tuple(parse_threshold(text) for text in thresholds)}
    assert code(healthy(plan=plan, **changes)) == expected


def test_a_limit_of_this_machine_comes_before_a_threshold() -> None:
    run = SICK["open-files"][0]()
    run.plan = healthy(plan={"thresholds": (parse_threshold("failed>50%"),)}).plan
    assert code(run) == Exit.MACHINE_LIMITED


def step(rate: float, stopped_by: str = "") -> Step:
    return Step(
        rate=rate, succeeded_per_second=rate, failed_share=0, p99=0.01, held=not stopped_by, stopped_by=stopped_by
    )


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        ([step(100)], Exit.WELL),
        ([step(100), step(200, "latency")], Exit.WELL),
        ([step(100), step(400, "ports-exhausted"), step(200, "failures")], Exit.WELL),
        ([step(100), step(400, "failures"), step(200, "ports-exhausted")], Exit.MACHINE_LIMITED),
        ([step(100, "failures"), step(50, "failures")], Exit.TARGET_FAILED),
    ],
)
def test_failures_that_end_a_search_are_its_result(steps: list[Step], expected: Exit) -> None:
    assert code(healthy(failures=FAILED, steps=steps)) == expected


def test_the_table_names_every_code() -> None:
    rows = [line.split("|")[1].strip() for line in (module.__doc__ or "").splitlines() if line.startswith("| ")]
    assert [int(row) for row in rows if row.isdigit()] == [int(code) for code in Exit]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("failed>0.05%", ["failed>0.05%: 0.10%"]),
        ("failed>0.2%", []),
        ("p50>0.1ms", ["p50>0.1ms: 400 µs"]),
        ("p99>1s", []),
        ("max>1s", ["max>1s: 2 s"]),
        ("p99.9>1s", ["p99.9>1s: 2 s"]),
        ("rate<20k/s", ["rate<20k/s: 9,990/s"]),
        ("rate<5k/s", []),
        ("connect_p99>100us", ["connect_p99>100us: 200 µs"]),
        ("tls_p99>1s", ["tls_p99>1s: nothing measured"]),
    ],
)
def test_thresholds(text: str, expected: list[str]) -> None:
    run = healthy(
        plan={"thresholds": (parse_threshold(text),)}, failures=FAILED, succeeded=99_900,
        total=times((0.0004, 900), (2.0, 5)),
    )  # fmt: skip
    assert missed(run) == expected


@given(st.sampled_from(METRICS))
def test_every_metric_can_be_measured(metric: str) -> None:
    everything = {name: times((0.25, 10)) for name in ("connect", "tls", "first_byte", "total")}
    value = measure(short_lived(**everything).total, metric)
    assert value is not None
    if metric not in ("failed", "rate"):
        assert value == pytest.approx(0.25, rel=0.01)
