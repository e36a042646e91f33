"""The model host: what happens to it by itself as time passes, and that it has an answer to anything."""

from __future__ import annotations

from errno import EADDRNOTAVAIL, EAGAIN, ETIMEDOUT
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from timewait.tcp.connection import Connection
from timewait.tcp.host import Host
from timewait.tcp.kernels import KERNELS, kernel, knobs
from timewait.tcp.segment import ACK, FIN, MASK, RST, SYN, Segment, u32
from timewait.tcp.sockets import CallError
from timewait.tcp.states import State
from timewait.tcp.syn import schedule

NAMES = [row.name for row in KERNELS]
NOW = 1000.0
CLIENT, SERVER = 40_000, 80


def host(name: str, **settings_: str) -> Host:
    row = kernel(name)
    return Host(row, knobs(row, settings_), Random(7), NOW)


def times_of(one: Host, until: float) -> list[tuple[float, int]]:
    """What it sends by itself: seconds from NOW, flags."""
    found = []
    while (due := one.deadline()) is not None and due <= until:
        one.advance(due)
        found += [(round(due - NOW, 3), segment.flags) for _, _, segment in one.sent()]
    return found


def opened(name: str, ts: int = 100) -> tuple[Host, Connection, int]:
    """A host with one connection that it accepted, and its initial sequence number."""
    one = host(name)
    one.listen(SERVER, 128)
    one.receive(SERVER, CLIENT, Segment(999, 0, SYN, 0, True, ts), NOW)
    isn = one.sent()[0][2].seq
    one.receive(SERVER, CLIENT, Segment(1000, u32(isn + 1), ACK, 0, True, ts), NOW)
    return one, one.accept(SERVER), isn


@pytest.mark.parametrize("name", NAMES)
def test_a_syn_without_answer_is_sent_again_as_the_schedule_says(name: str) -> None:
    one = host(name)
    connection = one.connect(SERVER)
    assert [segment.flags for _, _, segment in one.sent()] == [SYN]
    plan = schedule(kernel(name))
    assert [at for at, _ in times_of(one, NOW + 1000)] == [round(at, 3) for at in plan.sends[1:]]
    assert one.deadline() is None
    assert (connection.state, connection.error) == (State.CLOSE, ETIMEDOUT)
    assert one.world.now_ms == round((NOW + plan.gives_up) * 1000)
    assert one.counted() == {"AttemptFails": 1}


def test_a_syn_ack_without_answer_is_sent_again_and_then_forgotten() -> None:
    one = host("6.18")
    one.listen(SERVER, 128)
    one.receive(SERVER, CLIENT, Segment(999, 0, SYN), NOW)
    one.sent()
    assert times_of(one, NOW + 1000) == [(at, SYN | ACK) for at in (1, 3, 7, 15, 31)]
    assert one.shown(SERVER, CLIENT) is None


def test_a_fin_without_answer_is_sent_again_until_the_orphan_is_given_up() -> None:
    one, connection, isn = opened("6.18")
    connection.close()
    one.settle(connection)
    assert [segment.seq for _, _, segment in one.sent()] == [isn + 1]
    sent = times_of(one, NOW + 1000)
    assert [at for at, _ in sent[:4]] == [0.2, 0.6, 1.4, 3.0]
    assert {flags for _, flags in sent} == {FIN | ACK}
    assert one.shown(SERVER, CLIENT) is None
    assert one.deadline() is None


def test_the_ack_of_a_fin_waits_for_company() -> None:
    one, _, _ = opened("6.18")
    one.receive(SERVER, CLIENT, Segment(1000, 0, FIN | ACK, 0, True, 101)._replace(ack=one_ack(one)), NOW)
    assert one.sent() == []
    assert times_of(one, NOW + 1) == [(0.04, ACK)]


def one_ack(one: Host) -> int:
    """What the only connection of a host would have acknowledged."""
    (connection,) = one._sockets.connections.values()
    return connection.snd_nxt


def test_the_port_range_is_the_wall_and_a_minute_later_it_is_open_again() -> None:
    one = host("6.18", tcp_tw_reuse="0", ip_local_port_range="40000-40009")
    for _ in range(10):
        connection = one.connect(SERVER)
        local, isn = connection.local, connection.snd_una
        one.receive(local, SERVER, Segment(1, u32(isn + 1), SYN | ACK, 0, True, 5), NOW)
        connection.close()
        one.receive(local, SERVER, Segment(2, u32(isn + 2), FIN | ACK, 0, True, 5), NOW)
    with pytest.raises(CallError) as refused:
        one.connect(SERVER)
    assert refused.value.errno == EADDRNOTAVAIL
    assert one.world.buckets == 10
    one.advance(NOW + 60)
    assert one.world.buckets == 0
    assert one.connect(SERVER).state == State.SYN_SENT


def test_nobody_waits_to_be_accepted() -> None:
    one = host("6.18")
    one.listen(SERVER, 1)
    with pytest.raises(CallError) as refused:
        one.accept(SERVER)
    assert refused.value.errno == EAGAIN


_PORTS = st.sampled_from([CLIENT, CLIENT + 1])
_NEAR = st.sampled_from([0, 1, 2, 998, 999, 1000, 1001, 1010, 2**31, MASK])
_TIMES = st.sampled_from([None, 0, 1, 99, 100, 101, 2**31 + 100, MASK])
_FLAGS = st.sampled_from([SYN, ACK, FIN | ACK, RST, RST | ACK, SYN | ACK, SYN | FIN, 0, 31])
_STEPS = st.one_of(
    st.tuples(st.just("segment"), _PORTS, _FLAGS, _NEAR, _NEAR, _TIMES, st.sampled_from([0, 0, 10])),
    st.tuples(st.just("call"), st.sampled_from(["accept", "close", "linger", "shutdown", "send", "stop", "listen"])),
    st.tuples(st.just("wait"), st.sampled_from([0.0, 0.05, 0.7, 1.0, 59.0, 61.0, 3000.0])),
)


@given(st.sampled_from(NAMES), st.lists(_STEPS, max_size=25), st.sampled_from([0, 1]), st.sampled_from([0, 1, 100]))
@settings(max_examples=300, deadline=None)
def test_whatever_comes_it_has_an_answer_and_nothing_outlives_its_time(
    name: str, steps: list[tuple[object, ...]], recycle: int, buckets: int
) -> None:
    set_to = {"tcp_max_tw_buckets": str(buckets)}
    if recycle and kernel(name).release < (4, 12):
        set_to["tcp_tw_recycle"] = "1"
    one, now = host(name, **set_to), NOW
    one.listen(SERVER, 1)
    accepted: list[Connection] = []
    for step in steps:
        match step:
            case ("segment", int(port), int(flags), int(seq), int(ack), tsval, int(length)):
                one.sent()
                last = next((c.snd_nxt for c in one._sockets.connections.values() if c.remote == port), 0)
                ts = tsval if isinstance(tsval, int) else 0
                segment = Segment(seq, u32(last + ack), flags, length, tsval is not None, ts)
                one.receive(SERVER, port, segment, now)
                _check_answers(one, segment)
            case ("call", str(call)):
                _call(one, accepted, call)
            case ("wait", float(seconds)):
                now += seconds
                one.advance(now)
        sockets = one._sockets
        assert one.world.buckets == len(sockets.buckets) <= buckets
        assert not sockets.buckets.keys() & sockets.connections.keys()
        for bucket in sockets.buckets.values():
            assert one.world.now_ms < bucket.due_ms <= one.world.now_ms + 60_000
        assert all(c.state not in (State.CLOSE, State.TIME_WAIT) for c in sockets.connections.values())
    _ends(one, now)


def _check_answers(one: Host, cause: Segment) -> None:
    for _, _, segment in one.sent():
        assert 0 <= segment.seq <= MASK and 0 <= segment.ack <= MASK and 0 <= segment.tsval <= MASK
        assert not (segment.flags & RST and cause.flags & RST), "a RST answers a RST"
        if segment.flags & SYN and cause.flags & SYN:
            assert segment.ack == u32(cause.seq + 1)


def _call(one: Host, accepted: list[Connection], call: str) -> None:
    listens = SERVER in one._sockets.listening
    if call == "listen" and not listens:
        one.listen(SERVER, 0)
    elif call == "stop" and listens:
        one.stop_listening(SERVER)
    elif call == "accept" and listens:
        try:
            accepted.append(one.accept(SERVER))
        except CallError:
            pass
    elif accepted:
        connection = accepted[-1]
        if call == "close":
            accepted.pop().close()
        elif call == "linger":
            connection.linger = 0
        elif call == "shutdown":
            connection.shutdown()
        elif call == "send" and connection.state in (State.ESTABLISHED, State.CLOSE_WAIT):
            connection.send(5)
        one.settle(connection)


def _ends(one: Host, now: float) -> None:
    """Left alone, a host comes to rest: no timer goes on for ever."""
    for _ in range(400):
        due = one.deadline()
        if due is None:
            break
        assert due >= now
        one.advance(due)
    assert one.deadline() is None
    assert one.world.buckets == 0
