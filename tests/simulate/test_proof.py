"""Simulations held against the lab: what both count exactly is the same number; the page shows all of it."""

from __future__ import annotations

from pathlib import Path

import pytest

import peers
from kit.namespace import needs_namespaces
from timewait.claims import claims
from timewait.claims.runner import Settings, run_one
from timewait.simulate import proof
from timewait.simulate.scenario_file import names
from timewait.verdict import Measure, Result

pytestmark = pytest.mark.timeout(300)  # whichever test comes first compiles the engine
PAGE = Path(__file__).resolve().parents[2] / "docs" / "simulate.md"


def result(claim: str, *measures: Measure) -> Result:
    return Result(
        claim=claim,
        title="",
        predicted="",
        measured="",
        verdict="holds",
        seconds=1.0,
        kernel="6.18",
        measures=measures,
    )


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("1,000 connections", (1000.0, 0.0)),
        ("0", (0.0, 0.0)),
        ("2.01 s", (2.01, 0.01)),
        ("2 s", (2.0, 0.01)),
        ("50.3% of 600", (0.503, 0.001)),
    ],
)
def test_measured_figures_are_read(text: str, found: tuple[float, float]) -> None:
    assert proof.number(text) == pytest.approx(found)


def test_every_row_belongs_to_a_claim() -> None:
    rows = proof.rows()
    assert {row.claim for row in rows} <= set(claims())
    assert len({row.claim for row in rows}) >= 6
    assert len({row.name for row in rows}) == len(rows)


def test_a_figure_outside_is_told() -> None:
    row = proof.rows()[0]
    for text, inside in (("1,000 connections", True), ("999 connections", False)):
        measured = {row.claim: result(row.claim, Measure("connections until the first failure", "", text, True))}
        assert [one.inside for one in proof.prove([row], measured, 2)] == [inside]
    with pytest.raises(proof.MissingMeasureError, match="port-wall has no measure"):
        list(proof.prove([row], {row.claim: result(row.claim)}, 2))


@pytest.mark.slow
@pytest.mark.parametrize("claim", ["port-wall", "server-closes"])
def test_what_is_exact_is_the_same_in_the_lab_and_simulated(claim: str) -> None:
    needs_namespaces()
    peers.needs("nginx")
    rows = [row for row in proof.rows() if row.claim == claim and "seconds" not in row.name]
    measured = run_one(claims()[claim], Settings(time=2.0), lambda text: None)
    for one in proof.prove(rows, {claim: measured}, 3):
        assert one.measured == one.low == one.high, one.name


def test_the_page_is_whole_and_everything_lies_inside() -> None:
    text = PAGE.read_text()
    for row in proof.rows():
        assert f"| {row.name} |" in text, "run `make docs-simulate`"
    for name in names():
        assert f"| `{name}` |" in text, "run `make docs-simulate`"
    assert "**no**" not in text
