"""The rate each closing sustains, against the numbers of the kernel's rules."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from timewait.doctor.rates import FILES, PORTS, TIME_WAIT, Sustainable, at_once, sustainable
from timewait.run import Host, PortUse
from timewait.stress.probe import Behaviour, Ending, How

ALL = 28_232


def host(reuse: int = 2, *, loopback: bool = False, files: int = 1_000_000, timestamps: int = 1) -> Host:
    sysctls = {"net.ipv4.tcp_tw_reuse": str(reuse), "net.ipv4.tcp_timestamps": str(timestamps)}
    return Host(kernel="6.18.1", nofile_hard=files, sysctls=sysctls, loopback=loopback)


def seen(*, timestamps: bool = True, how: How = How.PEER, lifetime: float = 0.001) -> Behaviour:
    behaviour = Behaviour(address="10.0.0.1", port=80, reachable=True, timestamps=timestamps, lifetime=lifetime)
    behaviour.on_close = Ending(how, 0.1)
    return behaviour


def rows(here: Host, behaviour: Behaviour | None, capacity: int = ALL) -> dict[str, Sustainable]:
    use = PortUse(destination="10.0.0.1:80", capacity=capacity, free=capacity)
    return {row.flags.removeprefix("--close "): row for row in sustainable(here, use, behaviour)}


def test_a_client_that_closes_first_has_470_a_second() -> None:
    row = rows(host(), seen())["client"]
    assert row.per_second == pytest.approx(ALL / 60.001)
    assert (row.closes_first, row.limit) == ("us", TIME_WAIT)
    assert "941/s" in row.note and "30 s" in row.note and "235/s" in row.note


def test_tw_reuse_lifts_it_where_it_applies() -> None:
    assert rows(host(reuse=1), seen())["client"].per_second == pytest.approx(ALL / 1.001)
    assert rows(host(reuse=2, loopback=True), seen())["client"].per_second == pytest.approx(ALL / 1.001)
    assert "470/s" in rows(host(reuse=2, loopback=True), seen())["client"].note
    assert rows(host(reuse=0, loopback=True), seen())["client"].per_second == pytest.approx(ALL / 60.001)


@pytest.mark.parametrize(
    ("here", "behaviour"), [(host(reuse=1), seen(timestamps=False)), (host(reuse=1, timestamps=0), seen())]
)
def test_without_timestamps_nothing_is_taken_over(here: Host, behaviour: Behaviour) -> None:
    found = rows(here, behaviour)
    assert found["client"].per_second == pytest.approx(ALL / 60.001)
    assert found["client --ports oldest"].per_second == pytest.approx(ALL / 60.001)
    assert "without timestamps" in found["client --ports oldest"].note


def test_bound_ports_are_back_at_once() -> None:
    row = rows(host(), seen())["client --ports oldest"]
    assert row.per_second == pytest.approx(ALL / 0.001)
    assert row.limit == PORTS


def test_the_server_takes_time_wait_upon_itself_only_if_it_closes() -> None:
    willing = rows(host(), seen())["server"]
    assert willing.closes_first == "peer"
    assert willing.per_second == pytest.approx(ALL / 0.001)
    ignoring = rows(host(), seen(how=How.OPEN))["server"]
    assert ignoring.closes_first == "us"
    assert ignoring.per_second == pytest.approx(ALL / 60.001)
    assert "ignores" in ignoring.note


def test_long_lives_bind_every_closing() -> None:
    found = rows(host(), seen(lifetime=2.0))
    assert found["reset"].per_second == pytest.approx(ALL / 2)
    assert found["client"].per_second == pytest.approx(ALL / 62)


def test_few_files() -> None:
    row = rows(host(files=1024), seen(lifetime=1.0))["reset"]
    assert row.per_second == pytest.approx(992)
    assert row.limit == FILES


def test_without_a_target_the_lifetime_is_not_guessed() -> None:
    found = rows(host(), None)
    assert found["reset"].per_second is None
    assert found["client"].per_second == pytest.approx(ALL / 60)


@given(
    capacity=st.integers(0, 2_000_000),
    files=st.integers(0, 2_000_000),
    lifetime=st.floats(0, 100),
    reuse=st.integers(0, 2),
    timestamps=st.booleans(),
    how=st.sampled_from(How),
)
def test_no_closing_promises_more_than_ports_and_files_hold(
    capacity: int, files: int, lifetime: float, reuse: int, timestamps: bool, how: How
) -> None:
    here = host(reuse=reuse, files=files)
    found = rows(here, seen(timestamps=timestamps, how=how, lifetime=lifetime), capacity)
    most = at_once(here, PortUse(destination="", capacity=capacity))
    assert 0 <= most <= min(capacity, files)
    for row in found.values():
        assert row.per_second is not None
        assert 0 <= row.per_second * max(lifetime, 1e-6) <= most * 1.001
    client, reset = found["client"].per_second, found["reset"].per_second
    assert client is not None and reset is not None and client <= reset
