"""Layer 4 in one worker: streams, both ends of each, limits; and where TIME_WAIT stands afterwards."""

from __future__ import annotations

import contextlib
import ipaddress
import random
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import cast

import pytest

from kit.one_worker import OneWorker, pool, relayed
from kit.servers import RST, Behaviour, Peer, Server
from timewait.balancer.config.model import (
    ClientClose,
    ClientSide,
    Listener,
    RealIp,
    RealIpMode,
    Scheduler,
    Session,
    SessionType,
    Then,
    UpstreamClose,
    UpstreamSide,
)
from timewait.balancer.embedded.closing import unacknowledged
from timewait.balancer.embedded.flow import CHUNK
from timewait.balancer.embedded.proxy_protocol import Header, parse, v2
from timewait.balancer.embedded.relay import Relay
from timewait.observe.sock_diag import SockDiag, held_at, toward
from timewait.tcp.states import State

PATIENCE = 30.0


def client_of(worker: OneWorker, *, receive_buffer: int = 0) -> socket.socket:
    near = socket.socket()
    if receive_buffer:
        near.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    near.settimeout(PATIENCE)
    near.connect(worker.address)
    return near


def read_to_end(sock: socket.socket) -> bytes:
    found = b""
    while data := sock.recv(1 << 16):
        found += data
    return found


def reset(sock: socket.socket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RST)
    sock.close()


def echo(peer: Peer) -> None:
    """Sends back what comes, and after the client's FIN a last word: half-close in use."""
    total = 0
    while data := peer.sock.recv(1 << 16):
        peer.send(data)
        total += len(data)
    peer.send(b"%d bytes" % total)


def speaks_first(peer: Peer) -> None:
    """Says everything, ends its direction, and goes on listening."""
    peer.send(b"hello")
    peer.sock.shutdown(socket.SHUT_WR)
    peer.server.heard = peer.sock.recv(1 << 16)  # type: ignore[attr-defined]
    peer.sock.recv(1)


def says_hello(peer: Peer) -> None:
    """Says hello and ends."""
    peer.send(b"hello")


def hello_and_wait(peer: Peer) -> None:
    peer.send(b"hello")
    peer.read_to_end()


def test_both_directions_and_what_is_counted() -> None:
    with Server(echo) as server, OneWorker(relayed(), pool(server.authority)) as worker:
        with client_of(worker) as near:
            near.sendall(b"x" * 300_000)
            near.shutdown(socket.SHUT_WR)
            assert read_to_end(near) == b"x" * 300_000 + b"300000 bytes"
        worker.until_left()
        counted, target = worker.statistics, worker.target()
    assert (counted.accepted, counted.bytes_in, counted.bytes_out) == (1, 300_000, 300_012)
    assert (target.connects, target.connected, target.requests, target.active) == (1, 1, 1, 0)
    assert (target.bytes_in, target.bytes_out) == (300_012, 300_000)
    assert (counted.closes.peer_fin, target.closes.balancer_fin) == (1, 1)


def test_a_target_may_end_its_direction_and_go_on_listening() -> None:
    with Server(speaks_first) as server, OneWorker(relayed(), pool(server.authority)) as worker:
        with client_of(worker) as near:
            assert read_to_end(near) == b"hello"
            near.sendall(b"and hello to you")
        worker.until(lambda: getattr(server, "heard", b"") == b"and hello to you")


# --- where TIME_WAIT stands ---------------------------------------------------------------------------------------


@contextlib.contextmanager
def apart(behaviour: Behaviour, settings: Listener) -> Iterator[tuple[Server, OneWorker]]:
    """A server and a worker at addresses nobody else uses, so that a TIME_WAIT seen there is of this test."""
    hosts = [f"127.{random.randrange(1, 255)}.{random.randrange(256)}.{n}" for n in (1, 2)]
    with (
        Server(behaviour, host=hosts[0]) as server,
        OneWorker(settings, pool(server.authority), host=hosts[1]) as worker,
    ):
        yield server, worker


def time_waits(worker: OneWorker, server: Server) -> dict[str, int]:
    """Which of the four ends have a TIME_WAIT: everything is on one machine, so addresses tell whose it is."""
    front, back = ipaddress.ip_address(worker.address[0]), ipaddress.ip_address(server.host)
    ends = {
        "client": toward(front, worker.address[1]),
        "front": held_at(front, worker.address[1]),
        "back": toward(back, server.port),
        "target": held_at(back, server.port),
    }
    with SockDiag() as table:
        counts = {
            end: table.count(where, frozenset({State.TIME_WAIT})).get(State.TIME_WAIT, 0)
            for end, where in ends.items()
        }
    return {end: count for end, count in counts.items() if count}


def settles(worker: OneWorker, server: Server, expected: dict[str, int]) -> None:
    """These TIME_WAIT and no others, after a moment: the last FINs may be on their way."""
    limit = time.monotonic() + PATIENCE
    while (found := time_waits(worker, server)) != expected:
        assert time.monotonic() < limit, (found, worker.statistics.closes, worker.target().closes)
        time.sleep(0.01)


@pytest.mark.parametrize("upstream", UpstreamClose)
@pytest.mark.parametrize("policy", ClientClose)
def test_a_client_that_ends_first_keeps_its_time_wait(policy: ClientClose, upstream: UpstreamClose) -> None:
    """And its FIN is passed on, whatever the policies: the balancer keeps one toward the target."""
    settings = relayed(client=ClientSide(close=policy), upstream=UpstreamSide(close=upstream))
    with apart(echo, settings) as (server, worker):
        with client_of(worker) as near:
            near.sendall(b"x")
            near.shutdown(socket.SHUT_WR)
            assert read_to_end(near) == b"x1 bytes"
        worker.until_left()
        settles(worker, server, {"client": 1, "back": 1})


@pytest.mark.parametrize(
    ("policy", "left"),
    [
        (ClientClose.FIN, {"front": 1, "target": 1}),
        (ClientClose.FIN_RST, {"target": 1}),
        (ClientClose.PEER, {"client": 1, "target": 1}),
    ],
)
def test_a_target_that_ends_first_keeps_its_time_wait(policy: ClientClose, left: dict[str, int]) -> None:
    """And toward the client `client.close` decides; with `peer` the client ends of itself within close_wait."""
    settings = relayed(client=ClientSide(close=policy, close_wait=5))
    with apart(says_hello, settings) as (server, worker):
        with client_of(worker) as near:
            assert near.recv(5) == b"hello"
            if policy is ClientClose.PEER:
                (one,) = worker.worker.pools["app"].connections()
                worker.until(lambda: cast(Relay, one).down.ended)
            else:
                assert near.recv(5) == b""
            if policy is ClientClose.FIN_RST:
                worker.until_left()
        worker.until_left()
        settles(worker, server, left)
        closes = worker.statistics.closes
        expected = {"fin": "balancer_fin", "fin-rst": "balancer_rst", "peer": "peer_fin"}[policy]
        assert getattr(closes, expected) == 1
        assert worker.target().closes.peer_fin == 1


def test_a_client_that_does_not_end_within_close_wait_gets_the_fin() -> None:
    settings = relayed(client=ClientSide(close=ClientClose.PEER, close_wait=0.1))
    with apart(says_hello, settings) as (server, worker):
        with client_of(worker) as near:
            assert read_to_end(near) == b"hello"
        worker.until_left()
        settles(worker, server, {"front": 1, "target": 1})


def test_a_reset_is_passed_on_and_leaves_nothing() -> None:
    with apart(echo, relayed()) as (server, worker):
        near = client_of(worker)
        near.sendall(b"x")
        assert near.recv(1) == b"x"
        reset(near)
        worker.until_left()
        worker.until(lambda: worker.target().closes.balancer_rst)
        assert worker.statistics.closes.peer_rst == 1
        assert time_waits(worker, server) == {}


def test_a_target_s_reset_comes_after_what_it_sent() -> None:
    def resets(peer: Peer) -> None:
        peer.receive()
        peer.send(b"z" * 3_000_000)
        while unacknowledged(peer.sock):  # what the kernel still has of it a reset would take along
            peer.wait(0.01)
        peer.reset()

    settings = relayed()
    with apart(resets, settings) as (server, worker):
        with client_of(worker) as near:
            near.sendall(b"x")
            found = 0
            with pytest.raises(ConnectionResetError):
                while True:
                    data = near.recv(1 << 16)
                    assert data, "a FIN in place of a reset"
                    found += len(data)
        worker.until_left()
        assert found == 3_000_000
        assert worker.statistics.closes.balancer_rst == 1
        assert worker.target().closes.peer_rst == 1
        assert time_waits(worker, server) == {}


@pytest.mark.parametrize(
    ("policy", "upstream", "left"),
    [
        (ClientClose.FIN, UpstreamClose.RST, {"front": 1}),
        (ClientClose.FIN_RST, UpstreamClose.FIN, {"back": 1}),
        (ClientClose.FIN_RST, UpstreamClose.RST, {}),
        (
            ClientClose.PEER,
            UpstreamClose.PEER,
            {"front": 1},
        ),  # nobody ends: a FIN after close_wait, a reset after 1 s
    ],
)
def test_an_idle_connection_ends_as_both_policies_say(
    policy: ClientClose, upstream: UpstreamClose, left: dict[str, int]
) -> None:
    client = ClientSide(idle=20, close=policy, close_wait=0.1)
    settings = relayed(client=client, upstream=UpstreamSide(close=upstream))
    with apart(hello_and_wait, settings) as (server, worker):
        with client_of(worker) as near:
            assert near.recv(5) == b"hello"
            worker.skip(21)
            with contextlib.suppress(ConnectionResetError):
                assert near.recv(5) == b""
            if policy is ClientClose.FIN_RST:
                worker.until_left()
        worker.until_left()
        worker.until(lambda: worker.target().closes.timeout)
        settles(worker, server, left)
        assert worker.statistics.closes.timeout == 1


# --- back-pressure ------------------------------------------------------------------------------------------------


def test_a_receiver_that_does_not_read_stops_the_sender_and_is_reset() -> None:
    sent = threading.Event()

    def pours(peer: Peer) -> None:
        for _ in range(1000):  # it gets no further than to the reset
            peer.send(b"x" * CHUNK)
        sent.set()

    settings = relayed(client=ClientSide(send_timeout=2.0))
    with Server(pours) as server, OneWorker(settings, pool(server.authority)) as worker:
        with client_of(worker, receive_buffer=4096) as near:
            near.recv(1)
            worker.until(lambda: worker.statistics.closes.timeout)
            assert not sent.is_set()
            assert worker.statistics.bytes_out < 32 << 20  # what kernels' buffers take, not what was poured
            with pytest.raises(ConnectionResetError):
                read_to_end(near)
        worker.until_left()


# --- targets ------------------------------------------------------------------------------------------------------


def ask(worker: OneWorker, source: str = "127.0.0.1") -> bytes:
    near = socket.socket()
    try:
        near.settimeout(PATIENCE)
        near.bind((source, 0))
        near.connect(worker.address)
        return near.recv(16)
    finally:
        reset(near)


def test_a_target_that_refuses_is_passed_over(free_port: Callable[[], int]) -> None:
    refused = f"127.0.0.1:{free_port()}"
    with Server(hello_and_wait) as server, OneWorker(relayed(), pool(refused, server.authority)) as worker:
        assert {ask(worker) for _ in range(4)} == {b"hello"}
        worker.until_left()
        assert worker.target(0).refused > 0
        assert worker.target(0).active == worker.target(1).active == 0


def test_without_a_target_the_client_is_reset(free_port: Callable[[], int]) -> None:
    refused = f"127.0.0.1:{free_port()}"
    with OneWorker(relayed(), pool(refused)) as worker:
        with pytest.raises(ConnectionResetError):
            ask(worker)
        worker.until_left()
        assert (worker.target().refused, worker.statistics.closes.balancer_rst) == (1, 1)


def test_ports_that_run_out_are_counted(free_port: Callable[[], int]) -> None:
    settings = relayed(upstream=UpstreamSide(source=(f"127.0.0.9:{(port := free_port())}-{port}",), retries=0))
    with Server(hello_and_wait) as server, OneWorker(settings, pool(server.authority)) as worker:
        with client_of(worker) as near:
            assert near.recv(16) == b"hello"
            with pytest.raises(ConnectionResetError):
                ask(worker)
        worker.until_left()
        assert worker.target().no_port == 1


def test_a_target_that_does_not_answer_is_given_up_in_time() -> None:
    with Server(None) as silent:
        fillers = fill(silent)
        settings = relayed(upstream=UpstreamSide(connect_timeout=0.3, retries=1))
        with OneWorker(settings, pool(silent.authority)) as worker, pytest.raises(ConnectionResetError):
            ask(worker)
        assert worker.target().timed_out == 1
        for filler in fillers:
            filler.close()


def fill(server: Server) -> list[socket.socket]:
    """Connections until the accept queue takes no more: SYNs are dropped from then on (tcp_conn_request())."""
    server._listener.listen(0)
    fillers = []
    for _ in range(8):
        filler = socket.socket()
        filler.setblocking(False)
        filler.connect_ex((server.host, server.port))
        fillers.append(filler)
    time.sleep(0.05)
    return fillers


def test_sessions_by_address_hold() -> None:
    with contextlib.ExitStack() as stack:
        servers = [stack.enter_context(Server(named(bytes([65 + n])))) for n in range(4)]
        sticky = pool(*(server.authority for server in servers), session=Session(type=SessionType.SOURCE_IP))
        with OneWorker(relayed(), sticky) as worker:
            sources = [f"127.0.0.{n}" for n in range(20, 28)]
            first = {source: ask(worker, source) for source in sources}
            assert len(set(first.values())) == 4
            assert {source: ask(worker, source) for source in sources} == first
            worker.until_left()


def named(name: bytes):  # type: ignore[no-untyped-def]
    def behaviour(peer: Peer) -> None:
        peer.send(name)
        peer.read_to_end()

    return behaviour


def test_the_target_with_fewest_connections_is_next() -> None:
    with contextlib.ExitStack() as stack:
        servers = [stack.enter_context(Server(named(bytes([65 + n])))) for n in range(3)]
        least = pool(*(server.authority for server in servers), scheduler=Scheduler.LEAST_CONN)
        with OneWorker(relayed(), least) as worker:
            clients = [stack.enter_context(client_of(worker)) for _ in range(9)]
            by_name: dict[bytes, list[socket.socket]] = {}
            for near in clients:
                by_name.setdefault(near.recv(1), []).append(near)
            assert {name: len(found) for name, found in by_name.items()} == {b"A": 3, b"B": 3, b"C": 3}
            for near in by_name[b"B"]:
                reset(near)
            worker.until(lambda: worker.statistics.active == 6)
            assert [stack.enter_context(client_of(worker)).recv(1) for _ in range(3)] == [b"B"] * 3
            for near in clients:
                near.close()


@pytest.mark.parametrize(("then", "ended"), [(Then.RST, "reset"), (Then.FIN, "fin"), (Then.LEAVE, "open")])
def test_a_cut_ends_connections_as_said(then: Then, ended: str) -> None:
    with Server(hello_and_wait) as server, OneWorker(relayed(), pool(server.authority)) as worker:
        with client_of(worker) as near:
            assert near.recv(16) == b"hello"
            state = worker.worker.pools["app"]
            (one,) = state.connections(server.authority)
            worker.do(lambda: one.cut(then))
            near.settimeout(0.2 if then is Then.LEAVE else PATIENCE)
            try:
                found = "fin" if near.recv(1) == b"" else "data"
            except ConnectionResetError:
                found = "reset"
            except TimeoutError:
                found = "open"
        assert found == ended
        worker.until_left()


# --- limits, PROXY headers ----------------------------------------------------------------------------------------


def test_more_than_max_conn_are_reset() -> None:
    settings = relayed(max_conn=2)
    with Server(hello_and_wait) as server, OneWorker(settings, pool(server.authority), limited=True) as worker:
        with client_of(worker) as one, client_of(worker) as two:
            assert one.recv(5) == two.recv(5) == b"hello"
            for _ in range(3):
                with pytest.raises(ConnectionResetError):
                    ask(worker)
        worker.until_left()
        assert ask(worker) == b"hello"
        assert (worker.statistics.over_max_conn, worker.statistics.accepted) == (3, 3)
        worker.until_left()


def test_more_than_max_cps_are_reset() -> None:
    settings = relayed(max_cps=5)
    with Server(hello_and_wait) as server, OneWorker(settings, pool(server.authority), limited=True) as worker:
        worker.stop_clock()
        assert [outcome(worker) for _ in range(8)] == ["served"] * 5 + ["reset"] * 3  # a second's worth at once
        worker.skip(0.5)
        assert [outcome(worker) for _ in range(3)] == ["served"] * 2 + ["reset"]  # then five a second
        worker.until_left()
        assert worker.statistics.over_max_cps == 4


def outcome(worker: OneWorker) -> str:
    try:
        ask(worker)
    except ConnectionResetError:
        return "reset"
    return "served"


@pytest.mark.parametrize("mode", [RealIpMode.PROXY_V1, RealIpMode.PROXY_V2])
def test_the_client_s_address_is_told_to_the_target(mode: RealIpMode) -> None:
    heard: list[bytes] = []

    def listens(peer: Peer) -> None:
        heard.append(peer.receive())
        peer.send(b"thanks")

    with Server(listens) as server, OneWorker(relayed(real_ip=RealIp(mode=mode)), pool(server.authority)) as worker:
        with client_of(worker) as near:
            address = near.getsockname()
            assert read_to_end(near) == b"thanks"
        worker.until_left()
    assert parse(heard[0]) == Header(len(heard[0]), address, worker.address)


@contextlib.contextmanager
def chained(trusted: str) -> Iterator[OneWorker]:
    """One that passes on whom a PROXY header names, if it trusts who sent it."""
    real_ip = RealIp(mode=RealIpMode.PROXY_V2, accept_proxy=True, trusted=(trusted,))
    settings = relayed(real_ip=real_ip, client=ClientSide(header_timeout=20))
    with Server(echo) as server, OneWorker(settings, pool(server.authority)) as worker:
        yield worker
        worker.until_left()


def test_a_trusted_header_is_believed_and_taken_off() -> None:
    with chained("127.0.0.0/8") as worker, client_of(worker) as near:
        header = v2(("10.9.8.7", 65), ("10.1.1.1", 80))
        near.sendall(header[:20])
        time.sleep(0.05)
        near.sendall(header[20:] + b"payload")
        near.shutdown(socket.SHUT_WR)
        assert read_to_end(near).startswith(header + b"payload")


def test_an_untrusted_header_is_data() -> None:
    with chained("10.0.0.0/8") as worker, client_of(worker) as near:
        near.sendall(v2(("10.9.8.7", 65), ("10.1.1.1", 80)))
        near.shutdown(socket.SHUT_WR)
        told = parse(read_to_end(near))
        assert isinstance(told, Header) and told.client == near.getsockname()


@pytest.mark.parametrize("words", [b"GET / HTTP/1.1\r\n\r\n", b"PROXY "])
def test_a_trusted_client_without_a_header_is_shut_out(words: bytes) -> None:
    """At once where it says something else, after header_timeout where it says nothing."""
    with chained("127.0.0.0/8") as worker:
        with client_of(worker) as near, contextlib.suppress(ConnectionResetError):
            near.sendall(words)
            worker.until(lambda: worker.statistics.accepted)
            if words == b"PROXY ":
                worker.skip(21)
            assert read_to_end(near) == b""
        worker.until_left()
        assert sum(worker.statistics.refused.values()) == 1
        assert worker.target().connects == 0


def test_descriptors_that_run_out_make_clients_wait_and_are_said() -> None:
    with Server(hello_and_wait) as server, OneWorker(relayed(), pool(server.authority)) as worker:
        said: list[str] = []
        worker.worker.say = said.append
        with client_of(worker) as first, client_of(worker) as second:
            assert first.recv(5) == second.recv(5) == b"hello"
            worker._acceptor._high = 0  # as if the limit of descriptors had been reached
            third, waiting = client_of(worker), client_of(worker)
            with third, waiting:
                assert third.recv(5) == b"hello"
                worker.until(lambda: said)
                assert "has no descriptors left" in said[0] and "ulimit -n" in said[0]
                worker._acceptor._high = 1 << 20
                assert waiting.recv(5) == b"hello"
        worker.until_left()
        assert len(said) == 1
