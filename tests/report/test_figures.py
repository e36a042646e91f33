"""What the renderers compute alike."""

from __future__ import annotations

import msgspec
import pytest

from report import samples
from timewait.plan import Rate, RateUnit
from timewait.report import figures
from timewait.run import PortUse, Run, Snapshot, Tick


def with_stub() -> Run:
    run = samples.healthy()
    stub = Tick(at=10.02, seconds=0.02, succeeded=7, asked=50)
    run.ticks, run.snapshots = [*run.ticks, stub], [*run.snapshots, samples.snapshot(10.02, 5)]
    return run


def test_a_stub_at_the_end_joins_its_predecessor() -> None:
    run = with_stub()
    ticks, snapshots = figures.whole_ticks(run)
    assert len(ticks) == len(snapshots) == 10
    assert (ticks[-1].succeeded, ticks[-1].at) == (8007, 10.02)
    assert snapshots[-1].ports[0].time_wait == 5
    assert len(run.ticks) == 11
    assert run.ticks[9].succeeded == 8000


def test_whole_ticks_stay() -> None:
    run = samples.healthy()
    assert figures.whole_ticks(run) == (run.ticks, run.snapshots)


def test_concurrency_leaves_out_the_warm_up_and_the_end() -> None:
    run = with_stub()
    run.ticks[0].open = 0
    run.plan = msgspec.structs.replace(run.plan, warm_up=1.0)
    assert figures.concurrency(run) == figures.Concurrency(50.0, 50.0, 50)


def test_the_fullest_destination_is_the_one_with_the_smallest_free_share() -> None:
    uses = [
        PortUse(destination="a:1", capacity=100, free=50),
        PortUse(destination="b:1", capacity=1000, free=100),
        PortUse(destination="c:1"),
    ]
    found = figures.fullest(Snapshot(ports=uses))
    assert found is not None
    assert found.destination == "b:1"
    both = figures.ports(Snapshot(ports=uses))
    assert both is not None
    assert (both.destination, both.capacity, both.free, both.peer_time_wait) == ("3 destinations", 1100, 150, None)


@pytest.mark.parametrize(("unit", "rate"), [(RateUnit.CONNECTIONS, 20.0), (RateUnit.REQUESTS, 100.0)])
def test_the_started_rate_is_in_the_unit_asked_for(unit: RateUnit, rate: float) -> None:
    run = samples.healthy()
    run.plan = msgspec.structs.replace(run.plan, rate=Rate(100, unit))
    run.total = Tick(seconds=10.0, started=200, requests=1000)
    assert figures.sent_rate(run) == rate


def test_progress_is_of_whichever_end_comes_first() -> None:
    plan = msgspec.structs.replace(samples.plan(), duration=10.0, requests=100)
    assert figures.progress(plan, Tick(at=2.0), Tick(succeeded=40, failed=10)) == 0.5
    assert figures.progress(plan, Tick(at=8.0), Tick(succeeded=40)) == 0.8
    assert figures.progress(plan, Tick(at=12.0), Tick()) == 1.0
    assert figures.progress(msgspec.structs.replace(plan, duration=None, requests=None), Tick(at=2.0), Tick()) is None
