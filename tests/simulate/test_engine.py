"""The engine against closed forms, against itself, and compiled against interpreted."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulate import worlds
from timewait.run import Cause
from timewait.simulate.engine import build, lines
from timewait.simulate.engine import memory as engine_memory
from timewait.simulate.engine.run import Progress, run_world
from timewait.simulate.limits import WorldError, memory, refuse_if_too_large
from timewait.simulate.outcome import Column, Outcome
from timewait.simulate.record import recorded
from timewait.simulate.world import (
    Arrivals,
    Clients,
    Closing,
    Nat,
    Network,
    PortChoice,
    Process,
    Scenario,
    Server,
    Settings,
)
from timewait.tcp import rulebook

replace = msgspec.structs.replace
pytestmark = pytest.mark.timeout(300)  # whichever test comes first compiles the engine


def played(scenario: Scenario, seed: int = 1, width: int | None = None) -> Outcome:
    return run_world(scenario, seed, compiled=False, width=width)


def same(one: Outcome, other: Outcome) -> None:
    assert np.array_equal(one.ticks, other.ticks)
    assert np.array_equal(one.drops, other.drops)
    assert np.array_equal(one.counters, other.counters)
    assert one.connect == other.connect
    assert np.array_equal(one.suffering.never_by_clock, other.suffering.never_by_clock)
    assert one.events == other.events


# Closed forms.


@pytest.mark.parametrize(("rate", "ports"), [(500.0, 1000), (100.0, 300), (333.0, 28)])
def test_the_wall_comes_after_ports_over_rate(rate: float, ports: int) -> None:
    found = played(replace(worlds.wall(rate, ports), tick=0.01, duration=ports / rate + 1))
    assert found.total(Column.FIRST) == ports
    wall = recorded(found).first(Cause.NO_PORT)
    assert wall == pytest.approx(ports / rate, abs=0.01)


def test_stationary_time_wait_is_rate_times_its_length() -> None:
    """Linux 4.1 has a timer for each: 60 s exactly."""
    scenario = Scenario(
        duration=120.0,
        clients=Clients(count=100),
        nat=Nat(addresses=1, choice=PortChoice.OLDEST),  # no tuple comes back while its TIME_WAIT lasts
        arrivals=Arrivals(rate=100.0),
        server=Server(kernel="4.1"),
    )
    waits = played(scenario).ticks[70:, Column.SERVER_TIME_WAIT]
    assert waits.mean() == pytest.approx(6000, rel=0.02)  # Poisson: a standard deviation of 77 at each moment


@pytest.mark.parametrize(
    ("kernel", "sysctls", "counter"), [("4.1", {}, "TW"), ("2.6.32", {}, "TW"), ("3.10", worlds.RECYCLE, "TWKilled")]
)
def test_every_time_wait_that_ran_out_is_counted_as_the_kernel_counts_it(
    kernel: str, sysctls: Settings, counter: str
) -> None:
    scenario = Scenario(
        duration=150.0,
        clients=Clients(count=1, kernel="4.9"),
        nat=Nat(addresses=1, choice=PortChoice.OLDEST),
        arrivals=Arrivals(rate=20.0),
        server=Server(kernel=kernel, sysctls=sysctls),
    )
    found = played(scenario)
    ran_out = found.total(Column.SUCCEEDED) - found.total(Column.SERVER_TIME_WAIT)
    assert found.counted() == {counter: ran_out}
    assert ran_out > 1000


def test_half_of_the_unrelated_hosts_pass_by_their_sequence_number() -> None:
    """Without timestamps a SYN that meets a TIME_WAIT passes when its sequence number lies ahead: a toss."""
    scenario = Scenario(
        duration=50.0,
        clients=Clients(count=2000, sysctls={"tcp_timestamps": 0}, connect_timeout=0.5),
        nat=Nat(addresses=1, low=1024, high=3023, choice=PortChoice.OLDEST),
        arrivals=Arrivals(rate=100.0),
        network=Network(eats_ack=1.0),
        server=Server(sysctls={"tcp_timestamps": 0}),
    )
    found = played(scenario)
    met, dropped = found.total(Column.TUPLE_MET), found.dropped().get(rulebook.SYN_OLD_SEQ, 0)
    assert met > 1500
    assert dropped / met == pytest.approx(0.5, abs=4 * 0.5 / met**0.5)


def test_of_two_hosts_behind_one_address_the_slower_clock_is_locked_out() -> None:
    """tcp_tw_recycle while the faster one keeps its record fresh: all SYNs of the slower are dropped, none of its."""
    scenario = Scenario(
        duration=50.0,
        clients=Clients(count=2, kernel="4.9", uptime_low=1000.0, uptime_high=90_000.0, connect_timeout=2.0),
        nat=Nat(addresses=1),
        arrivals=Arrivals(process=Process.CONSTANT, rate=2.0),
        network=Network(access=0.0),
        server=Server(kernel="2.6.32", sysctls=worlds.RECYCLE, answer=0.0, answer_spread="constant"),
    )
    found = played(scenario)
    total = found.total(Column.STARTED) // 2
    slower_first = found.total(Column.FIRST) - total
    assert slower_first in (0, 1)  # it may come first, when nothing is remembered yet
    assert found.dropped()[rulebook.RECYCLE_OLD_TS] >= 2 * (total - 2)
    assert found.suffering.never == 1 - slower_first
    assert found.counted()["PAWSPassive"] == found.dropped()[rulebook.RECYCLE_OLD_TS]


@pytest.mark.parametrize("name", ["recycle", "tuples come back"])
def test_waits_in_line_happen_in_the_order_of_the_wheel(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    lined = played(worlds.ALL[name])
    monkeypatch.setattr(lines, "MOST_LINES", 0)
    same(played(worlds.ALL[name]), lined)


def test_nobody_is_dropped_once_the_kernel_has_no_recycle_or_no_timestamps() -> None:
    of = worlds.ALL["recycle"]
    quiet = replace(of, network=Network(loss=0.0))
    for server in (Server(kernel="4.12"), Server(kernel="2.6.32", sysctls={**worlds.RECYCLE, "tcp_timestamps": 0})):
        assert rulebook.RECYCLE_OLD_TS not in played(replace(quiet, server=server)).dropped()
    assert rulebook.RECYCLE_OLD_TS in played(quiet).dropped()


def test_connects_of_lost_syns_take_one_and_three_seconds_more() -> None:
    scenario = Scenario(
        duration=60.0,
        clients=Clients(count=100, kernel="4.9"),
        nat=Nat(),
        arrivals=Arrivals(rate=100.0),
        network=Network(loss=0.2, access=0.0, delay=0.005),
    )
    run = recorded(played(scenario))
    from timewait.histogram import Histogram

    whole = Histogram()
    whole.add(run.total.connect)
    shares = [whole.between(at, at + 0.05) / whole.total for at in (0.0, 1.0, 3.0, 7.0)]
    through = 0.8 * 0.8  # the SYN and its answer; later a lost answer is sent again for the next SYN
    assert shares[0] == pytest.approx(through, abs=0.03)
    assert sum(shares) > 0.98
    assert shares[1] > shares[2] > shares[3] > 0


def test_tw_reuse_makes_the_wall_ports_per_second() -> None:
    below = played(worlds.wall(rate=900.0, tcp_tw_reuse=1))
    assert below.total(Column.NO_PORT) == 0
    assert below.total(Column.REUSED) > 20_000
    above = played(worlds.wall(rate=2000.0, tcp_tw_reuse=1))
    assert above.total(Column.NO_PORT) > 0.3 * above.total(Column.STARTED)


# Against itself.


@pytest.mark.parametrize("name", worlds.ALL)
def test_every_attempt_ends_in_exactly_one_way(name: str) -> None:
    worlds.conserved(played(worlds.ALL[name]))


@pytest.mark.parametrize("name", worlds.ALL)
def test_neither_ticks_nor_buckets_change_what_happens(name: str) -> None:
    of = worlds.ALL[name]
    one, other = played(of), played(replace(of, tick=0.37), width=26)
    assert one.events == other.events
    assert [one.total(column) for column in Column if column < Column.CONNECTING] == [
        other.total(column) for column in Column if column < Column.CONNECTING
    ]
    assert one.dropped() == other.dropped()


def test_a_seed_is_a_world_and_another_seed_another() -> None:
    of = worlds.ALL["recycle"]
    same(played(of, 7), played(of, 7))
    assert not np.array_equal(played(of, 7).ticks, played(of, 8).ticks)


@pytest.mark.parametrize("name", worlds.ALL)
def test_compiled_and_interpreted_agree_event_for_event(name: str) -> None:
    same(run_world(worlds.ALL[name], 3, compiled=True), played(worlds.ALL[name], 3))


small = st.builds(
    Scenario,
    duration=st.just(8.0),
    clients=st.builds(
        Clients,
        count=st.integers(1, 50),
        kernel=st.sampled_from(["2.6.32", "3.10", "4.10", "6.6", "6.18"]),
        closing=st.sampled_from(list(Closing)),
        requests=st.integers(1, 3),
        connect_timeout=st.sampled_from([0.0, 2.5]),
    ),
    arrivals=st.builds(
        Arrivals,
        process=st.sampled_from([Process.POISSON, Process.CONSTANT, Process.THINK]),
        rate=st.floats(1.0, 60.0),
        think=st.floats(0.2, 3.0),
    ),
    nat=st.builds(
        Nat,
        addresses=st.integers(1, 3),
        high=st.integers(1074, 1100),
        choice=st.sampled_from(list(PortChoice)),
        block=st.integers(1, 20),
        rest=st.sampled_from([0.0, 1.5]),
        per_client=st.integers(0, 2),
    ),
    network=st.builds(Network, loss=st.sampled_from([0.0, 0.2]), eats_ack=st.sampled_from([0.0, 1.0])),
    server=st.builds(
        Server,
        kernel=st.sampled_from(["2.6.32", "el7", "4.9", "6.18"]),
        boxes=st.integers(1, 2),
        accepts=st.sampled_from([0.0, 20.0]),
        backlog=st.integers(1, 9),
    ),
)


@settings(max_examples=40, deadline=None)
@given(small, st.integers(0, 2**40))
def test_any_small_world_conserves_its_attempts(scenario: Scenario, seed: int) -> None:
    found = played(scenario, seed)
    worlds.conserved(found)
    assert found.ticks.min() >= 0
    assert found.ticks[:, Column.PORTS_TAKEN].max() <= found.port_capacity


# At the edge.


def test_stopped_it_keeps_what_was_done() -> None:
    heard: list[Progress] = []
    found = run_world(worlds.ALL["recycle"], 1, compiled=False, progress=heard.append, stop=lambda: len(heard) >= 5)
    assert found.interrupted
    assert len(found.ends) == 5 and found.seconds == pytest.approx(5.0)
    assert recorded(found).interrupted
    worlds.conserved(found)


def test_what_does_not_fit_is_refused_with_the_estimate() -> None:
    large = Scenario(clients=Clients(count=1_000_000), nat=Nat(addresses=100))
    needed = sum(memory(large).values())
    assert needed > 600e6
    with pytest.raises(WorldError, match=r"needs about 0\.7 GB .* and 0\.1 GB are free"):
        refuse_if_too_large(large, 100_000_000)
    with pytest.raises(WorldError, match=r"0\.1 GB are free"):
        run_world(large, 1, compiled=False, available=100_000_000)


@pytest.mark.parametrize("name", worlds.ALL)
def test_the_estimate_is_what_is_taken(name: str) -> None:
    of = worlds.ALL[name]
    taken = sum(engine_memory.octets(build.fixed(of, 1)._asdict()).values())
    estimate = memory(of)
    counted = sum(octets for part, octets in estimate.items() if part not in ("open", "resting", "program"))
    assert taken <= 1.1 * counted + 100_000
    assert counted <= 1.1 * taken + 100_000


def test_more_clients_than_tuples_is_said_with_the_numbers() -> None:
    with pytest.raises(WorldError, match=r"2,000,000 clients are more than the 64,512 tuples .* 32 addresses"):
        run_world(Scenario(clients=Clients(count=2_000_000), nat=Nat(addresses=1)), 1)
