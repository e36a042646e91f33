"""Layer 4 in one worker: which target, sessions, cuts, limits, PROXY headers."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Callable, Iterator

import pytest

from balancer.embedded.streams import (
    PATIENCE,
    client_of,
    echo,
    hello_and_wait,
    read_to_end,
    reset,
)
from kit.one_worker import OneWorker, pool, relayed
from kit.servers import Peer, Server
from timewait.balancer.config.model import (
    ClientSide,
    RealIp,
    RealIpMode,
    Scheduler,
    Session,
    SessionType,
    Then,
    UpstreamSide,
)
from timewait.balancer.embedded.proxy_protocol import Header, parse, v2


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
