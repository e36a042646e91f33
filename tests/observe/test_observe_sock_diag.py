"""Our reading of the socket table against ss, with decoys around, in IPv4, IPv6 and mapped sockets."""

from __future__ import annotations

import ipaddress
import socket
import struct
from collections import Counter
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit.ports import bind_fresh
from observe.traffic import Traffic, agreed, ss, until
from timewait.observe.bytecode import Match, Side
from timewait.observe.netlink import NetlinkError
from timewait.observe.sock_diag import CONNECTED, SockDiag, ends, halves, held_at, parse, toward, whole
from timewait.tcp.states import State

MakeTraffic = Callable[..., Traffic]


@pytest.fixture
def diag() -> Iterator[SockDiag]:
    with SockDiag() as table:
        yield table


def test_counts_toward_an_ipv4_destination_are_those_of_ss(
    diag: SockDiag, traffic: MakeTraffic, loopback: Callable[[], str], needs: Callable[[str], str]
) -> None:
    needs("ss")
    wanted, decoy = traffic(loopback()), traffic(loopback())
    wanted.hold(3)
    wanted.close_by_client(11)
    wanted.close_by_server(5)
    decoy.hold(2)
    decoy.close_by_client(4)
    where = toward(ipaddress.ip_address(wanted.host), wanted.port)
    theirs, ours = agreed(lambda: ss("dst", f"{wanted.host}:{wanted.port}"), lambda: diag.count(where))
    assert ours == theirs == {State.ESTABLISHED: 3, State.TIME_WAIT: 11}
    where = held_at(ipaddress.ip_address(wanted.host), wanted.port)
    theirs, ours = agreed(lambda: ss("src", f"{wanted.host}:{wanted.port}"), lambda: diag.count(where))
    assert ours == theirs == {State.ESTABLISHED: 3, State.TIME_WAIT: 5}


def test_counts_toward_an_ipv6_destination_are_those_of_ss(
    diag: SockDiag, traffic: MakeTraffic, needs: Callable[[str], str]
) -> None:
    needs("ss")
    wanted, decoy = traffic("::1"), traffic("::1")
    wanted.hold(2)
    wanted.close_by_client(7)
    decoy.close_by_client(3)
    where = toward(ipaddress.ip_address("::1"), wanted.port)
    theirs, ours = agreed(lambda: ss("dst", f"[::1]:{wanted.port}"), lambda: diag.count(where))
    assert ours == theirs == {State.ESTABLISHED: 2, State.TIME_WAIT: 7}


def test_mapped_sockets_count_toward_their_ipv4_destination(
    diag: SockDiag, traffic: MakeTraffic, loopback: Callable[[], str], needs: Callable[[str], str]
) -> None:
    needs("ss")
    wanted = traffic(host := loopback())
    wanted.hold(1)
    for _ in range(4):
        with socket.socket(socket.AF_INET6) as client:
            client.connect((f"::ffff:{host}", wanted.port))
            server, _ = wanted.listener.accept()
        server.recv(1)
        server.close()
    where = toward(ipaddress.ip_address(host), wanted.port)
    theirs, ours = agreed(lambda: ss("dst", f"{host}:{wanted.port}"), lambda: diag.count(where))
    assert ours == theirs == {State.ESTABLISHED: 1, State.TIME_WAIT: 4}


def test_the_whole_table_is_that_of_ss(diag: SockDiag, traffic: MakeTraffic, needs: Callable[[str], str]) -> None:
    needs("ss")
    one, other = traffic("127.0.0.1"), traffic("::1")
    one.hold(3)
    other.close_by_client(3)
    theirs, ours = agreed(ss, lambda: diag.count(states=frozenset(State) - {State.LISTEN, State.CLOSE}))
    assert ours == theirs
    assert ours[State.ESTABLISHED] >= 6 and ours[State.TIME_WAIT] >= 3


def test_only_the_states_asked_for_are_counted(
    diag: SockDiag, traffic: MakeTraffic, loopback: Callable[[], str]
) -> None:
    wanted = traffic(loopback())
    wanted.hold(2)
    wanted.close_by_client(3)
    where = toward(ipaddress.ip_address(wanted.host), wanted.port)
    assert diag.count(where, frozenset({State.TIME_WAIT})) == {State.TIME_WAIT: 3}
    assert diag.count(where, frozenset({State.SYN_SENT})) == {}


def test_source_addresses_and_ports_are_filtered_by_the_kernel(
    diag: SockDiag, traffic: MakeTraffic, loopback: Callable[[], str]
) -> None:
    wanted, first, second = traffic(loopback()), loopback(), loopback()
    wanted.hold(3, source=first)
    wanted.hold(2, source=second)
    ports = sorted(one.getsockname()[1] for one in wanted.open if one.getsockname()[0] == first)
    destination = Match(Side.REMOTE, ipaddress.ip_address(wanted.host), wanted.port, wanted.port)
    from_first = Match(Side.LOCAL, ipaddress.ip_address(first))
    low_ports = Match(Side.LOCAL, ipaddress.ip_address(first), 1, ports[1])
    assert diag.count([[destination]]) == {State.ESTABLISHED: 5}
    assert diag.count([[destination, from_first]]) == {State.ESTABLISHED: 3}
    assert diag.count([[destination, low_ports]]) == {State.ESTABLISHED: 2}
    either = [[destination, from_first], [destination, Match(Side.LOCAL, ipaddress.ip_address(second))]]
    assert diag.count(either) == {State.ESTABLISHED: 5}


def test_distinct_local_ports_are_fewer_than_sockets_of_several_sources(
    diag: SockDiag, traffic: MakeTraffic, loopback: Callable[[], str], free_port: Callable[[], int]
) -> None:
    wanted, shared = traffic(loopback()), free_port()
    for source in (loopback(), loopback()):
        client = socket.socket()
        client.bind((source, shared))
        client.connect((wanted.host, wanted.port))
        wanted.open += [client, wanted.listener.accept()[0]]
    wanted.hold(1)
    where = toward(ipaddress.ip_address(wanted.host), wanted.port)
    assert diag.count(where) == {State.ESTABLISHED: 3}
    assert diag.local_ports(where) == 2


def test_the_accept_queue_of_a_listener(diag: SockDiag, traffic: MakeTraffic, loopback: Callable[[], str]) -> None:
    wanted = traffic(loopback(), backlog=9)
    for _ in range(4):
        client = socket.socket()
        client.connect((wanted.host, wanted.port))
        wanted.open.append(client)
    until(lambda: diag.listeners(wanted.port)[0].queue == 4, "four connections in the accept queue")
    (found,) = diag.listeners(wanted.port)
    assert (str(found.address), found.port, found.queue, found.limit) == (wanted.host, wanted.port, 4, 9)


@pytest.mark.parametrize(
    ("bound", "only_six", "four", "six"),
    [("0.0.0.0", 0, True, False), ("::", 0, True, True), ("::", 1, False, True)],
)
def test_wildcard_listeners_accept_what_the_kernel_gives_them(
    diag: SockDiag, bound: str, only_six: int, four: bool, six: bool
) -> None:
    with socket.socket(socket.AF_INET6 if ":" in bound else socket.AF_INET) as listener:
        if ":" in bound:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, only_six)
        bind_fresh(listener, bound)
        listener.listen()
        (found,) = diag.listeners(listener.getsockname()[1])
    assert found.accepts(ipaddress.ip_address("127.0.0.1")) is four
    assert found.accepts(ipaddress.ip_address("::1")) is six


def test_a_listener_at_an_address_accepts_only_there(diag: SockDiag, traffic: MakeTraffic) -> None:
    (found,) = diag.listeners(traffic("127.0.0.1").port)
    assert found.accepts(ipaddress.ip_address("127.0.0.1"))
    assert not found.accepts(ipaddress.ip_address("127.0.0.2"))
    assert not found.accepts(ipaddress.ip_address("::1"))


def test_after_an_error_the_next_question_is_answered(
    diag: SockDiag, traffic: MakeTraffic, loopback: Callable[[], str]
) -> None:
    wanted = traffic(loopback())
    wanted.hold(1)

    class Refuses:
        def add(self, rows: object, /) -> None:
            raise NetlinkError("garbled", 0, "as if")

    with pytest.raises(NetlinkError):
        diag.fold(CONNECTED, (), Refuses)
    assert diag.count(toward(ipaddress.ip_address(wanted.host), wanted.port)) == {State.ESTABLISHED: 1}


ADDRESSES = st.ip_addresses()


@given(ADDRESSES)
def test_halves_of_an_address_make_it_whole_again(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> None:
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    assert whole(*halves(address)) == (mapped or address)


SOCKETS = st.lists(
    st.tuples(st.sampled_from(sorted(CONNECTED)), ADDRESSES, ADDRESSES, st.integers(0, 65535), st.integers(0, 20)),
    min_size=1,
    max_size=30,
)


def six_bytes(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bytes:
    return address.packed if address.version == 6 else bytes(10) + b"\xff\xff" + address.packed


@given(SOCKETS)
def test_messages_of_any_lengths_are_parsed_like_one_by_one(
    wanted: list[tuple[State, ipaddress.IPv4Address, ipaddress.IPv6Address, int, int]],
) -> None:
    batch = b""
    for state, local, remote, port, attributes in wanted:
        six = 6 in (local.version, remote.version)
        pair = [
            ipaddress.IPv6Address(sum(h << s for h, s in zip(halves(a), (64, 0), strict=True)))
            for a in (local, remote)
        ]
        packed = [a.packed for a in pair] if six else [a.packed + bytes(12) for a in (local, remote)]
        family = socket.AF_INET6 if six else socket.AF_INET
        body = struct.pack("=BBxx", family, state) + struct.pack(">HH", port, 80) + b"".join(packed)
        body += bytes(72 - len(body)) + b"\xaa" * (4 * attributes)
        batch += struct.pack("=IHHII", 16 + len(body), 20, 2, 1, 0) + body
    rows = parse(memoryview(bytearray(batch)))
    near, far = ends(rows, Side.LOCAL), ends(rows, Side.REMOTE)
    found = [
        (State(state), (int(a), int(b)), (int(c), int(d)), int(port))
        for state, a, b, c, d, port in zip(rows["state"], *near, *far, rows["local_port"], strict=True)
    ]
    assert found == [(state, halves(local), halves(remote), port) for state, local, remote, port, _ in wanted]
    assert Counter(rows["state"].tolist()) == Counter(int(row[0]) for row in wanted)


@pytest.mark.parametrize("length", [0, 40, 87, 4096])
def test_a_message_of_a_wrong_length_is_an_error(length: int) -> None:
    good = struct.pack("=IHHII", 88, 20, 2, 1, 0) + bytes(72)
    bad = struct.pack("=IHHII", length, 20, 2, 1, 0) + bytes(72)
    with pytest.raises(NetlinkError, match="message of"):
        parse(memoryview(bytearray(good + bad)))


def test_a_message_that_is_no_socket_is_an_error() -> None:
    with pytest.raises(NetlinkError, match="no socket"):
        parse(memoryview(bytearray(struct.pack("=IHHII", 88, 24, 2, 1, 0) + bytes(72))))


def test_equal_messages_are_not_copied() -> None:
    batch = bytearray((struct.pack("=IHHII", 96, 20, 2, 1, 0) + bytes(80)) * 5)
    rows = parse(memoryview(batch))
    batch[17] = State.TIME_WAIT
    assert rows["state"].tolist() == [State.TIME_WAIT, 0, 0, 0, 0]
    assert np.shares_memory(rows, np.frombuffer(batch, dtype=np.uint8))
