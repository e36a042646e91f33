"""Sentences that answer questions."""

from __future__ import annotations

import pytest

from timewait.cli.simulate import shown
from timewait.simulate.answers import FIGURES
from timewait.simulate.replicate import Estimate
from timewait.simulate.scenario_file import Ask, find
from timewait.simulate.sweep import Done, parse_axis, plan, table


def of(mean: float, slack: float = 0.0, count: int = 1) -> Estimate:
    return Estimate(mean, mean - slack, mean + slack, count)


@pytest.mark.parametrize(
    ("name", "estimate", "sentence"),
    [
        ("failed", of(0.123), "12.3% of the connects fail."),
        ("failed", of(0.123, 0.01, 10), "12.3% (11.3% to 13.3%) of the connects fail."),
        ("failed", of(0.0, 0.0, 10), "No connect fails."),
        ("failed", of(1.0), "All of the connects fail."),
        ("never", of(0.0), "Every client that tries gets a connection."),
        ("wall", of(2.0), "The first connect without a port comes after 2 s."),
        ("connected", of(1000), "1,000 connections are made."),
    ],
)
def test_answers(name: str, estimate: Estimate, sentence: str) -> None:
    assert shown.answer(name, {name: estimate}) == sentence


def test_an_answer_without_its_figure() -> None:
    assert shown.answer("wall", {}) == "No connect lacks a source port."
    assert "nothing to measure" in shown.answer("connect_p99", {})


def test_every_figure_has_a_sentence_with_one_place() -> None:
    assert all(figure.sentence.count("{}") == 1 for figure in FIGURES.values())
    assert set(FIGURES) >= shown.FEARED
    assert all(FIGURES[name].none for name in shown.FEARED)


def sentence(axis: str, *means: float | None) -> str:
    sweep = plan(find("nat").scenario, [parse_axis(axis)], Ask())
    done = [Done(at, 0, {"failed": mean}) for at, mean in enumerate(means) if mean is not None]
    return shown.grid(sweep, table(sweep, done), "failed").answer


def test_where_it_begins_and_ends() -> None:
    ports = "nat.ports=40k,50k,60k"
    assert sentence(ports, 0.5, 0.1, 0.0) == "Connects failed: 50.0% at nat.ports=40k, none from nat.ports=60k on."
    assert sentence(ports, 0.0, 0.0, 0.2) == "Connects failed: none up to nat.ports=50k, 20.0% at nat.ports=60k."
    assert sentence(ports, 0.3, 0.1, 0.2) == "Connects failed: 30.0% at nat.ports=40k, 10.0% at nat.ports=50k."
    assert sentence(ports, 0.3, 0.3, 0.3) == "Connects failed: 30.0% at every point."
    assert sentence(ports, 0.3, None, None) == "Connects failed: 30.0% at every point that is done."
    assert sentence(ports, None, None, None) == "No point is done."
    # Versions are no scale, and neither are names.
    assert "on." not in sentence("server.kernel=3.10,4.19", 0.5, 0.0)
    assert "on." not in sentence("clients.closing=client,server", 0.5, 0.0)


def test_what_is_swept_is_not_told_as_given() -> None:
    scenario = find("nat").scenario
    whole = ", ".join(shown.world(scenario))
    swept = ", ".join(
        shown.world(scenario, ["arrivals.rate", "server.timestamps", "nat.addresses", "clients.kernel"])
    )
    for text in ("20,000/s", "timestamps=1", "64 addresses", "1,000,000 clients with Linux 6.12"):
        assert text in whole
        assert text not in swept
