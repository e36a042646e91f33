"""Sweeps: their points, their file, and going on where one was cut short."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from timewait.simulate.scenario_file import Ask, find
from timewait.simulate.settings import ScenarioError
from timewait.simulate.sweep import Done, Plan, SweepFile, SweepFileError, parse_axis, plan, read, table


def made(*axes: str, replications: int = 2) -> Plan:
    ask = Ask(replications=replications, seed=5)
    return plan(find("nat").scenario, [parse_axis(text) for text in axes], ask)


def answered(sweep: Plan) -> list[Done]:
    return [
        Done(job.point, job.replication, {"failed": float(job.point * 10 + job.replication)}) for job in sweep.jobs()
    ]


def test_every_combination_and_the_same_seeds_at_each() -> None:
    sweep = made("nat.ports=60k,61k", "server.timestamps=on,off")
    assert sweep.points() == [("60k", "on"), ("60k", "off"), ("61k", "on"), ("61k", "off")]
    jobs = sweep.jobs()
    assert [(job.point, job.replication) for job in jobs] == [(point, at) for point in range(4) for at in range(2)]
    assert {job.seed for job in jobs if job.replication == 0} == {5}
    assert len({job.seed for job in jobs}) == 2
    last = jobs[-1].scenario
    assert last.nat is not None
    assert (last.nat.high - last.nat.low + 1, last.server.sysctls["tcp_timestamps"]) == (61_000, 0)


def test_an_impossible_point_is_refused_at_once() -> None:
    with pytest.raises(Exception, match="1,000,000 clients are more"):
        made("nat.ports=60k,1k")


def test_the_order_of_work_does_not_matter() -> None:
    sweep = made("nat.ports=60k,61k,62k")
    done = answered(sweep)
    shuffled = done.copy()
    random.Random(3).shuffle(shuffled)
    assert table(sweep, shuffled) == table(sweep, done)
    assert [point.figures["failed"].mean for point in table(sweep, done)] == [0.5, 10.5, 20.5]


def test_a_sweep_goes_on_from_its_file(tmp_path: Path) -> None:
    sweep, path = made("nat.ports=60k,61k,62k"), tmp_path / "sweep.jsonl"
    done = answered(sweep)
    file = SweepFile.create(path, sweep, "1")
    for one in done[:3]:
        file.add(one)
    file.close()
    with path.open("ab") as stream:
        stream.write(b'{"type":"done","do')  # the machine went down here
    again, kept = read(path, "1")
    assert (again, kept) == (sweep, done[:3])
    left = again.jobs(kept)
    assert [(job.point, job.replication) for job in left] == [(1, 1), (2, 0), (2, 1)]
    file = SweepFile.go_on(path)
    for one in done[3:]:
        file.add(one)
    file.close()
    assert table(*read(path, "1")) == table(sweep, done)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"", "no saved sweep"),
        (b'{"kind":"start"}\n', "no saved sweep"),
        (b"\x00\xff\n", "no saved sweep"),
    ],
)
def test_files_that_are_none(tmp_path: Path, text: bytes, words: str) -> None:
    path = tmp_path / "sweep.jsonl"
    path.write_bytes(text)
    with pytest.raises(SweepFileError, match=words):
        read(path, "1")


def test_files_of_another_version_and_damaged_ones(tmp_path: Path) -> None:
    path = tmp_path / "sweep.jsonl"
    file = SweepFile.create(path, made("nat.ports=60k,61k"), "1")
    file.close()
    with pytest.raises(SweepFileError, match="begun by timewait 1; this is 2"):
        read(path, "2")
    with path.open("ab") as stream:
        stream.write(b"nonsense\n")
    with pytest.raises(SweepFileError, match="damaged at line 2"):
        read(path, "1")


def test_points_without_a_figure() -> None:
    sweep = made("nat.ports=60k,61k", replications=1)
    points = table(sweep, [Done(1, 0, {"never": 0.0})])
    assert (points[0].figures, points[0].replications) == ({}, 0)
    assert points[1].figures["never"].mean == 0.0


def test_values_are_checked_before() -> None:
    with pytest.raises(ScenarioError, match="whole number"):
        made("nat.addresses=64,many")


def test_the_longest_comes_first() -> None:
    """With as many processes as points, order is nothing; with fewer, a long one at the end is waited for alone."""
    sweep = made("arrivals.rate=100,300,200", "arrivals.process=poisson", replications=1)
    assert [job.point for job in sweep.jobs()] == [1, 2, 0]
