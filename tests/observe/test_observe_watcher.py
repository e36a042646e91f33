"""Snapshots of a load test: ports, queues, files, and what they cost."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from observe.traffic import Traffic, agreed, ss, until
from timewait.observe import netlink, port_use, watcher
from timewait.observe.watcher import Watcher
from timewait.run import PortUse
from timewait.tcp.states import State

MakeTraffic = Callable[..., Traffic]
LOW, HIGH = map(int, Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split())
WIDTH = HIGH - LOW + 1


def use(target: Traffic, *, host: str = "", sources: tuple[str, ...] = (), **span: int) -> PortUse:
    bounds = {"low": LOW, "high": HIGH, "reserved": 0, **span}
    with Watcher([(host or target.host, target.port)], sources, **bounds) as watching:
        snapshot = watching.snapshot(0.0)
        assert watching.unreadable == []
    (found,) = snapshot.ports
    return found


def listeners_in_range() -> int:
    """Ports of the range on which somebody listens, here and now: connect() passes over them."""
    found: set[int] = set()
    for name in ("tcp", "tcp6"):
        for line in Path(f"/proc/thread-self/net/{name}").read_text().splitlines()[1:]:
            local, _, state = line.split()[1:4]
            port = int(local.rpartition(":")[2], 16)
            if state == "0A" and LOW <= port <= HIGH:
                found.add(port)
    return len(found)


@pytest.mark.parametrize("family", ["ipv4", "ipv6"])
def test_port_use_is_what_ss_says(
    traffic: MakeTraffic, loopback: Callable[[], str], needs: Callable[[str], str], family: str
) -> None:
    needs("ss")
    target = traffic("::1" if family == "ipv6" else loopback())
    source = {} if family == "ipv6" else {"source": "127.0.0.1"}
    target.hold(3, **source)
    target.close_by_client(6, **source)
    target.close_by_server(2, **source)
    end = f"[::1]:{target.port}" if family == "ipv6" else f"{target.host}:{target.port}"
    sources = tuple(source.values())
    theirs, ours = agreed(
        lambda: (ss("dst", end), ss("src", end), listeners_in_range()), lambda: use(target, sources=sources)
    )
    toward, at, listening = theirs
    assert toward == {State.ESTABLISHED: 3, State.TIME_WAIT: 6}
    assert (ours.in_use, ours.time_wait, ours.peer_time_wait) == (3, 6, at[State.TIME_WAIT])
    assert (ours.destination, ours.capacity) == (end, WIDTH)
    assert ours.free == WIDTH - 9 - listening


def test_only_our_sources_count(traffic: MakeTraffic, loopback: Callable[[], str]) -> None:
    target, ours, other = traffic(loopback()), loopback(), loopback()
    target.hold(2, source=ours)
    target.close_by_client(3, source=ours)
    target.hold(1, source=other)
    found = use(target, sources=(ours,))
    assert (found.in_use, found.time_wait, found.capacity) == (2, 3, WIDTH)
    both = use(target, sources=(ours, other))
    assert (both.in_use, both.time_wait, both.capacity) == (3, 3, 2 * WIDTH)


def test_without_sources_the_one_that_the_kernel_chooses_counts(
    traffic: MakeTraffic, loopback: Callable[[], str]
) -> None:
    target = traffic(loopback())
    target.hold(1)
    chosen = target.open[0].getsockname()[0]
    target.hold(4, source=loopback())
    assert use(target).in_use == 1
    assert use(target, sources=(chosen,)).in_use == 1


def test_only_ports_of_the_range_count(traffic: MakeTraffic, loopback: Callable[[], str]) -> None:
    target = traffic(loopback())
    target.hold(5, source="127.0.0.1")
    ports = sorted(one.getsockname()[1] for one in target.open[::2])
    found = use(target, sources=("127.0.0.1",), low=ports[0], high=ports[2], reserved=1)
    assert found.in_use == 3
    assert found.capacity == ports[2] - ports[0]


def test_sources_of_the_other_family_make_no_ports(traffic: MakeTraffic) -> None:
    assert use(traffic("::1"), sources=("127.0.0.1", "127.0.0.2")).capacity == WIDTH


def test_several_destinations_are_told_apart(traffic: MakeTraffic, loopback: Callable[[], str]) -> None:
    targets = [traffic(loopback()) for _ in range(3)] + [traffic("::1")]
    for number, target in enumerate(targets, 1):
        target.hold(number)
        target.close_by_server(number)
    pairs = [(target.host, target.port) for target in targets]
    with Watcher(pairs, (), LOW, HIGH, 0) as watching:
        found = watching.snapshot(0.0).ports
    assert [one.in_use for one in found] == [1, 2, 3, 4]
    assert [one.peer_time_wait for one in found] == [1, 2, 3, 4]


def test_many_destinations_are_counted_without_the_kernels_filter(
    traffic: MakeTraffic, loopback: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(port_use, "_MOST_IN_KERNEL", 1)
    targets = [traffic(loopback()), traffic("::1")]
    for number, target in enumerate(targets, 1):
        target.hold(number)
    with Watcher([(one.host, one.port) for one in targets], (), LOW, HIGH, 0) as watching:
        assert [one.in_use for one in watching.snapshot(0.0).ports] == [1, 2]


def test_a_destination_elsewhere_has_no_peer_here() -> None:
    with Watcher([("192.0.2.1", 80)], (), LOW, HIGH, 0) as watching:  # RFC 5737: nobody
        snapshot = watching.snapshot(0.0)
    assert snapshot.ports[0].peer_time_wait is None
    assert snapshot.accept_queue is None and snapshot.accept_queue_max is None


def test_a_mapped_or_unspecified_destination_is_the_address_meant(traffic: MakeTraffic) -> None:
    target = traffic("127.0.0.1")
    target.hold(2)
    assert use(target, host="::ffff:127.0.0.1").in_use == 2
    assert use(target, host="0.0.0.0").in_use == 2


@pytest.mark.parametrize(("bound", "host"), [("127.0.0.1", "127.0.0.1"), ("0.0.0.0", "127.0.0.3"), ("::", "::1")])
def test_the_accept_queue_is_that_of_the_target(traffic: MakeTraffic, bound: str, host: str) -> None:
    target = traffic(bound, backlog=5)
    with Watcher([(host, target.port)], (), LOW, HIGH, 0) as watching:
        assert watching.snapshot(0.0).accept_queue == 0
        for _ in range(3):
            client = socket.create_connection((host, target.port), 5)
            target.open.append(client)
        until(lambda: watching.snapshot(0.0).accept_queue == 3, "three connections in the accept queue")
        assert watching.snapshot(0.0).accept_queue_max == 5


def test_the_rest_of_a_snapshot() -> None:
    with Watcher([("127.0.0.1", 9)], (), LOW, HIGH, 0) as watching:
        snapshot = watching.snapshot(1.5, [os.getpid()])
    assert snapshot.at == 1.5 and snapshot.cost > 0
    assert snapshot.open_files is not None and snapshot.open_files >= 3
    assert {"Tcp.ActiveOpens", "TcpExt.TW", "TcpExt.ListenOverflows"} <= snapshot.counters.keys()


def test_a_dear_dump_is_not_repeated_every_second(
    traffic: MakeTraffic, loopback: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    target = traffic(loopback())
    with Watcher([(target.host, target.port)], (), LOW, HIGH, 0) as watching:
        monkeypatch.setattr(watcher, "_SHARE", 1e-9)  # every dump is too dear now
        assert watching.snapshot(0.0).ports[0].in_use == 0
        target.hold(2)
        oldest = watcher._LONGEST
        assert watching.snapshot(oldest - 0.1).ports[0].in_use == 0  # as it was
        assert watching.snapshot(oldest).ports[0].in_use == 2
        target.hold(1)
        assert watching.snapshot(oldest + 0.1).ports[0].in_use == 2
        assert watching.snapshot(oldest + 0.2, fresh=True).ports[0].in_use == 3


def test_a_forbidden_table_leaves_ports_empty_and_says_so_once(monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(*_: object) -> netlink.Wire:
        raise netlink.error(1)

    monkeypatch.setattr(netlink, "connect", forbidden)
    with Watcher([("127.0.0.1", 9)], (), LOW, HIGH, 0) as watching:
        for at in (0.0, 1.0):
            snapshot = watching.snapshot(at)
            assert snapshot.ports == [] and snapshot.counters
        (sentence,) = watching.unreadable
    assert "EPERM" in sentence
