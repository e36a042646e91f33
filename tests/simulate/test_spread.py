"""Where simulations run: the same results everywhere, and what is done is kept when the place is lost."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from kit.labs import wait_until
from simulate import jobs
from simulate.clusters import Dask, dask
from timewait import __version__
from timewait.simulate.spread import Cluster, LostError, Processes, UnreachableError, alone

NUMBERS = list(range(12))
SQUARES = sorted(number * number for number in NUMBERS)


def never() -> bool:
    return False


def test_alone_and_in_processes_it_is_the_same() -> None:
    assert sorted(alone(jobs.square, NUMBERS, never)) == SQUARES
    assert sorted(Processes(2)(jobs.square, NUMBERS, never)) == SQUARES


def test_it_stops_when_asked_and_leaves_nobody_behind() -> None:
    done: list[int] = []
    for number in Processes(2)(jobs.slowly, list(range(50)), lambda: len(done) >= 2):
        done.append(number)
    assert 2 <= len(done) < 10
    assert list(alone(jobs.square, NUMBERS, lambda: True)) == []
    wait_until(lambda: children() == [], "the end of the processes")


def children() -> list[str]:
    """Processes of ours that still run spawned work."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
            command = path.with_name("cmdline").read_bytes()
        except OSError:
            continue
        if int(fields[1]) == os.getpid() and b"spawn_main" in command:
            found.append(path.parent.name)
    return found


def test_a_worker_that_dies_is_told() -> None:
    done: list[int] = []
    with pytest.raises(LostError, match="died"):
        done += Processes(1)(jobs.dies, NUMBERS, never)
    wait_until(lambda: children() == [], "the end of the processes")


@pytest.fixture
def cluster(free_port: Callable[[], int]) -> Iterator[Dask]:
    with dask(free_port) as made:
        yield made


def test_a_cluster_gives_the_same(cluster: Dask) -> None:
    assert sorted(Cluster(cluster.address, __version__)(jobs.square, NUMBERS, never)) == SQUARES


def test_a_worker_of_another_version_is_refused(cluster: Dask) -> None:
    with pytest.raises(UnreachableError, match=r"its scheduler needs timewait 9\.9\.9; it is"):
        list(Cluster(cluster.address, "9.9.9")(jobs.square, NUMBERS, never))


def test_what_a_cluster_cannot_do_is_told(cluster: Dask) -> None:
    with pytest.raises(LostError, match="ArithmeticError: no such number"):
        list(Cluster(cluster.address, __version__)(jobs.fails, NUMBERS, never))


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM])
def test_a_scheduler_that_goes_leaves_what_was_done(cluster: Dask, end: signal.Signals) -> None:
    done: list[int] = []
    with pytest.raises(LostError, match="is gone"):
        for number in Cluster(cluster.address, __version__)(jobs.slowly, list(range(50)), never):
            done.append(number)
            if len(done) == 2:
                cluster.scheduler.send_signal(end)
    assert 2 <= len(done) < 50


def test_a_cluster_without_workers(cluster: Dask) -> None:
    cluster.worker.kill()
    cluster.worker.wait()
    deadline = time.monotonic() + 90
    while True:  # until the scheduler has noticed
        try:
            list(Cluster(cluster.address, __version__)(jobs.square, [1], lambda: True))
        except UnreachableError as error:
            assert "no workers" in str(error)
            return
        assert time.monotonic() < deadline


@pytest.mark.parametrize(("address", "words"), [("nonsense", "write its address"), ("tcp://127.0.0.1:1", "no dask")])
def test_there_is_no_cluster(address: str, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("timewait.simulate.spread._CONNECT", 1.0)
    with pytest.raises(UnreachableError, match=words):
        list(Cluster(address, __version__)(jobs.square, NUMBERS, never))
