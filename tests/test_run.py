"""The record adds up, survives a file, and says when the file was cut."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from timewait.histogram import Histogram
from timewait.plan import Plan, parse_url
from timewait.run import MOST_TICKS, Host, Run, RunFile, RunFileError, Series, Snapshot, Tick, load


def a_run() -> Run:
    return Run(plan=Plan(requests_list=(parse_url("http://127.0.0.1/"),)), host=Host(kernel="6.18"))


def a_tick(second: int, succeeded: int = 10) -> Tick:
    histogram = Histogram()
    histogram.record([0.001] * succeeded)
    return Tick(
        at=float(second), seconds=1.0, started=succeeded, succeeded=succeeded, open=second, workers=1,
        total=histogram.sparse(), errors={"connect ECONNREFUSED refused": 2}, status={200: succeeded},
    )  # fmt: skip


def test_ticks_add_up_in_time_and_side_by_side() -> None:
    total = a_tick(1)
    total.add(a_tick(2), side_by_side=False)
    assert (total.at, total.seconds, total.succeeded, total.open, total.workers) == (2.0, 2.0, 20, 2, 1)
    both = a_tick(1)
    both.add(a_tick(1), side_by_side=True)
    assert (both.at, both.seconds, both.succeeded, both.open, both.workers) == (1.0, 1.0, 20, 2, 2)
    assert both.errors == {"connect ECONNREFUSED refused": 4}
    assert both.status == {200: 20}
    assert sum(both.total.count) == 20
    assert both.failures()[0].count == 4


@given(st.integers(1, 4 * MOST_TICKS + 7))
def test_a_series_is_bounded_and_loses_nothing(length: int) -> None:
    series = Series()
    for second in range(1, length + 1):
        series.append(Tick(at=float(second), seconds=1.0, succeeded=1), Snapshot(at=float(second)))
    assert len(series.ticks) == len(series.snapshots) <= MOST_TICKS + 1
    assert sum(tick.succeeded for tick in series.ticks) == length
    assert sum(tick.seconds for tick in series.ticks) == length
    assert [tick.at for tick in series.ticks] == [snapshot.at for snapshot in series.snapshots]
    assert series.ticks[-1].at == length


def saved(ticks: int = 3, *, end: bool = True) -> bytes:
    stream = Kept()
    file = RunFile(stream)
    run = a_run()
    file.start(run)
    for second in range(1, ticks + 1):
        tick = a_tick(second)
        run.total.add(tick, side_by_side=False)
        file.tick(tick, Snapshot(at=tick.at))
    if end:
        file.end(run)
    return stream.kept or stream.getvalue()


class Kept(io.BytesIO):
    """Remembers its bytes when closed."""

    kept = b""

    def close(self) -> None:
        self.kept = self.getvalue()
        super().close()


def test_a_saved_run_comes_back() -> None:
    run = load(io.BytesIO(saved()), "run.jsonl")
    assert run.total.succeeded == 30
    assert len(run.ticks) == len(run.snapshots) == 3
    assert not run.notes


@given(st.integers(1, len(saved()) - 1))
def test_every_cut_leaves_the_readable_part_and_says_so(at: int) -> None:
    data = saved()[:at]
    first = data.find(b"\n")
    if first < 0 and data != saved().split(b"\n")[0]:
        with pytest.raises(RunFileError):
            load(io.BytesIO(data), "run.jsonl")
        return
    run = load(io.BytesIO(data), "run.jsonl")
    whole_lines = data.count(b"\n") - 1
    if run.notes:
        assert "run.jsonl" in run.notes[0]
        # A last line that lacks only its newline is whole.
        assert run.total.succeeded in (10 * min(3, max(0, whole_lines)), 10 * min(3, max(0, whole_lines + 1)))
    else:
        assert run.total.succeeded == 30


@pytest.mark.parametrize("data", [b"", b"hello\n", b"{}\n", b'{"kind":"tick"}\n', b"\xff\xfe\n", b"[1]\n"])
def test_what_is_no_saved_run_is_refused(data: bytes) -> None:
    with pytest.raises(RunFileError, match="x"):
        load(io.BytesIO(data), "x")


def test_another_format_is_refused() -> None:
    with pytest.raises(RunFileError, match="format 99"):
        load(io.BytesIO(saved().replace(b'"format":1', b'"format":99', 1)), "x")


def test_a_full_disk_ends_the_writing_not_the_run() -> None:
    class Full(io.BytesIO):
        def write(self, data: object) -> int:
            raise OSError(28, "No space left on device")

    file = RunFile(Full())
    file.start(a_run())
    file.tick(a_tick(1), Snapshot())
    assert file.error is not None
    assert file.error.errno == 28


def test_full_disk_at_close_is_kept_too() -> None:
    file = RunFile(Path("/dev/full").open("wb"))  # noqa: SIM115  `end` closes it
    file.start(a_run())
    file.end(a_run())
    assert file.error is not None
