"""All sockets by direction, end and state."""

from __future__ import annotations

import socket
from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from observe.traffic import Traffic, agreed, ss
from timewait.observe import netlink, overview
from timewait.observe.overview import End, Lookout, Overview
from timewait.observe.sock_diag import Rows, _layout
from timewait.tcp.states import State

MakeTraffic = Callable[..., Traffic]


def look() -> Overview:
    lookout = Lookout()
    try:
        return lookout.look()
    finally:
        lookout.close()


def end(view: Overview, direction: str, label: str) -> End:
    (found,) = [one for one in view.ends if (one.direction, one.end) == (direction, label)]
    return found


def test_sockets_are_counted_by_state_and_end(
    traffic: MakeTraffic, loopback: Callable[[], str], needs: Callable[[str], str]
) -> None:
    needs("ss")
    target, first, second = traffic(loopback(), backlog=77), loopback(), loopback()
    target.hold(2, source=first)
    target.close_by_client(5, source=first)
    target.close_by_client(1, source=second)
    target.close_by_server(4, source=second)
    totals, view = agreed(ss, look)
    assert view.states == {state.name: count for state, count in totals.items()}
    assert view.left_out == 0 and view.unreadable == [] and view.counters == {}
    label = f"{target.host}:{target.port}"
    out = end(view, "out", label)
    assert out.states == {"ESTABLISHED": 2, "TIME_WAIT": 6} and out.total == 8
    assert out.ports is not None and (out.ports.in_use, out.ports.time_wait) == (2, 5)
    assert (out.source, out.sources) == (first, 2)
    into = end(view, "in", label)
    assert into.states == {"ESTABLISHED": 2, "TIME_WAIT": 4} and into.ports is None
    assert (into.queue, into.queue_max) == (0, 77)


def test_ipv6_and_mapped_ends(traffic: MakeTraffic) -> None:
    target = traffic("::")
    target.hold(2, host="::1")
    target.hold(1, host="::ffff:127.0.0.1")
    view = look()
    assert end(view, "out", f"[::1]:{target.port}").states == {"ESTABLISHED": 2}
    assert end(view, "out", f"127.0.0.1:{target.port}").states == {"ESTABLISHED": 1}
    assert end(view, "in", f"[::1]:{target.port}").states == {"ESTABLISHED": 2}
    assert end(view, "in", f"127.0.0.1:{target.port}").states == {"ESTABLISHED": 1}
    assert end(view, "in", f"[::]:{target.port}").queue == 0


def test_a_service_keeps_its_line_after_its_listener_is_gone(
    traffic: MakeTraffic, loopback: Callable[[], str]
) -> None:
    target = traffic(loopback())
    target.close_by_server(6)
    target.reset()
    view = look()
    assert end(view, "in", f"{target.host}:{target.port}").states == {"TIME_WAIT": 6}
    assert not [one for one in view.ends if one.direction == "out" and one.end.startswith(f"{target.host}:")]


def test_a_local_port_used_toward_many_services_is_not_one(traffic: MakeTraffic, loopback: Callable[[], str]) -> None:
    source, shared = loopback(), 0
    targets = [traffic(loopback()) for _ in range(4)]
    for target in targets:
        client = socket.socket()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        client.bind((source, shared))
        shared = client.getsockname()[1]
        client.connect((target.host, target.port))
        target.open += [client, target.listener.accept()[0]]
    view = look()
    for target in targets:
        assert end(view, "out", f"{target.host}:{target.port}").source == source


def test_counters_are_those_that_moved_since_the_last_look(traffic: MakeTraffic, loopback: Callable[[], str]) -> None:
    lookout = Lookout()
    assert lookout.look().counters == {}
    traffic(loopback()).hold(3)
    view = lookout.look()
    lookout.close()
    assert view.counters["Tcp.ActiveOpens"] >= 3
    assert 0 not in view.counters.values()
    assert view.at >= view.seconds > 0


def test_more_ends_than_are_kept_are_counted(
    traffic: MakeTraffic, loopback: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(3):
        traffic(loopback()).hold(10 + number)
    monkeypatch.setattr(overview, "MOST_ENDS", 2)
    view = look()
    assert len(view.ends) == 2
    assert sum(one.total for one in view.ends) + view.left_out == sum(view.states.values())
    assert view.left_out >= 2 * 33 - 24


def test_a_forbidden_table_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(*_: object) -> netlink.Wire:
        raise netlink.error(1)

    monkeypatch.setattr(netlink, "connect", forbidden)
    view = look()
    assert view.ends == [] and len(view.unreadable) == 1 and "EPERM" in view.unreadable[0]


ADDRESS = st.sampled_from([(0, 0), (0x7F000001 << 32, 0), (0x7F000002 << 32, 0), (1, 2)])
SOCKET = st.tuples(
    st.sampled_from([State.ESTABLISHED, State.TIME_WAIT]),
    st.sampled_from([socket.AF_INET, socket.AF_INET6]),
    ADDRESS,
    ADDRESS,
    st.sampled_from([80, 443, 40000]),
    st.sampled_from([80, 40000, 50000]),
)


def rows_of(sockets: list[tuple[State, int, tuple[int, int], tuple[int, int], int, int]]) -> Rows:
    rows = np.zeros(len(sockets), dtype=_layout(96))
    for row, (state, family, local, remote, near, far) in zip(rows, sockets, strict=True):
        row["state"], row["family"] = state, family
        row["local"], row["local_low"] = local
        row["remote"], row["remote_low"] = remote
        row["local_port"], row["remote_port"] = near, far
    return rows


@given(st.lists(st.lists(SOCKET, min_size=1, max_size=20), min_size=1, max_size=3))
def test_the_census_groups_exactly(
    batches: list[list[tuple[State, int, tuple[int, int], tuple[int, int], int, int]]],
) -> None:
    census = overview.Census({443}, 32768, 60999)
    wanted: Counter[tuple[object, ...]] = Counter()
    for batch in batches:
        census.add(rows_of(batch))
        for state, family, local, remote, near, far in batch:
            inbound = near == 443 or (far > 32768 and near < 32768)
            four = family == socket.AF_INET
            near_end = (0, 0xFFFF << 32 | local[0] >> 32) if four else local
            far_end = (0, 0xFFFF << 32 | remote[0] >> 32) if four else remote
            key = (inbound, near if inbound else far, state, near > 32768, near_end, (0, 0) if inbound else far_end)
            wanted[key] += 1
    found = Counter(
        {
            (bool(k & 1), k >> 10, State(k >> 2 & 0xFF), bool(k & 2), (nh, nl), (fh, fl)): count
            for (k, nh, nl, fh, fl), count in census.groups.items()
        }
    )
    assert found == wanted
