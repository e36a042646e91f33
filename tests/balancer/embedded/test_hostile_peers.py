"""Peers that mean harm, at the moments where one of them could cost all the others."""

from __future__ import annotations

import socket
import ssl
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from kit.certificates import Certificates
from kit.conversation import Conversation
from kit.one_worker import OneWorker, listener, meeting, pool, relayed
from kit.servers import Peer, Server
from timewait.balancer.config.model import ClientSide, RealIp, Tunnel
from timewait.balancer.embedded import proxy_protocol
from timewait.balancer.embedded.flow import Flow
from timewait.balancer.embedded.http.core import HEAD_READ
from timewait.balancer.embedded.loop import Loop

HELLO = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
REFUSED = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: websocket\r\nX: %b\r\n\r\n"  # 403; it stays


def hello(peer: Peer) -> None:
    while peer.receive():
        peer.send(HELLO)


def descriptors() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def context(certificates: Certificates) -> ssl.SSLContext:
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.load_cert_chain(certificates.good.certificate, certificates.good.key)
    return made


@pytest.mark.parametrize("header", [b"", proxy_protocol.v1(("10.1.1.1", 5), ("10.1.1.2", 443))])
def test_a_client_that_resets_before_its_handshake_costs_nothing(tmp_path: Path, header: bytes) -> None:
    """wrap_socket() raises for it: see Arrival._wrap()."""
    certificates = Certificates(tmp_path)
    real_ip = RealIp(accept_proxy=bool(header), trusted=("127.0.0.1",))
    settings = listener(client=ClientSide(header_timeout=60), real_ip=real_ip)
    with Server(hello) as server:
        worker = OneWorker(settings, pool(server.authority), tls=context(certificates))
        for _ in range(3):  # they are in the accept queue before anybody accepts
            early = Conversation(worker.address)
            early.say(header).reset()
        with worker:
            worker.until(lambda: worker.statistics.accepted == 3 and not worker.statistics.active)
            raw = socket.create_connection(worker.address, timeout=10)
            raw.sendall(header)
            made = ssl.create_default_context(cafile=tmp_path / "ca.pem")
            with made.wrap_socket(raw, server_hostname="localhost") as near:
                near.sendall(GET)
                assert near.recv(100).startswith(b"HTTP/1.1 200 ")
            worker.until_left()
            assert (worker.statistics.tls_failed, worker.statistics.tls_handshakes) == (3, 1)
            assert worker.statistics.closes.peer_rst >= 3  # the last one leaves session tickets unread
            assert worker.worker.arrivals == {}


def test_a_bug_at_one_connection_does_not_cost_the_listening_socket() -> None:
    told: list[Exception] = []
    with Server(hello) as server, OneWorker(listener(), pool(server.authority)) as worker:
        worker.loop._on_error = lambda fd, error: told.append(error)
        acceptor = worker._acceptor
        serve = acceptor.serve

        def bug(*arguments: object) -> None:
            raise ZeroDivisionError

        acceptor.serve = bug
        with socket.socket() as near, pytest.raises(ConnectionResetError):
            near.settimeout(10)
            near.connect(worker.address)
            near.recv(1)
        acceptor.serve = serve
        with Conversation(worker.address) as client:
            assert client.ask(GET).body == b"hello"
        worker.until_left()
        assert [type(error) for error in told] == [ZeroDivisionError]
        assert worker.statistics.closes.balancer_rst == 1


def test_requests_without_end_that_we_answer_ourselves_leave_others_their_turn() -> None:
    with meeting(hello, listener(upgrade=Tunnel.REFUSE)) as (client, worker):
        assert client.ask(GET).status == 200
        (found,) = next(iter(worker.proxy._sites.values())).clients
        order: list[str] = []
        block = (REFUSED % bytes(128 - len(REFUSED) + 2).replace(b"\0", b"x")) * 128
        assert len(block) == HEAD_READ

        def endless(size: int) -> bytes:
            order.append("read")
            if len(order) == 1:
                worker.loop.soon(lambda: order.append("others"))
            if order.count("read") > 20:
                found.recv = found.sock.recv
                raise BlockingIOError
            return block[:size]

        def flood() -> None:
            found.recv, found.send = endless, len
            found.readable = True
            found.process()

        worker.do(flood)
        worker.until(lambda: order.count("read") > 20)
        assert order.index("others") <= 3
        assert worker.statistics.made_by_balancer == {403: 20 * 128}


def test_who_asks_twice_for_another_turn_gets_one() -> None:
    """Else the turns of one that sends faster than we take would grow without an end."""
    with meeting(hello) as (client, worker):
        assert client.ask(GET).status == 200
        (found,) = next(iter(worker.proxy._sites.values())).clients
        turns: list[int] = []

        def ask() -> None:
            for _ in range(3):
                found.later()
            turns.append(len(worker.loop._soon))

        worker.do(ask)
        assert turns == [1]


def test_a_stream_that_never_pauses_has_one_turn_at_a_time() -> None:
    loop = Loop()
    end: Any = SimpleNamespace(recv=lambda size: bytes(size), send=len)
    moved: list[int] = []
    relay: Any = SimpleNamespace(loop=loop, moved=lambda flow, size: moved.append(size))
    flow = Flow(relay, end, end, 1.0, True)
    for _ in range(3):  # three events before its next turn
        flow.pump()
    assert len(loop._soon) == 1
    loop._run_soon()
    assert (len(loop._soon), len(moved)) == (1, 4)
    loop.close()


def test_a_target_that_sends_interim_answers_without_end_leaves_others_their_turn() -> None:
    def endless(peer: Peer) -> None:
        if b"/endless" not in peer.receive():
            peer.send(HELLO)
            return
        while True:
            peer.send(b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" * 1000)

    with Server(endless) as server, OneWorker(listener(), pool(server.authority)) as worker:
        with Conversation(worker.address) as client, Conversation(worker.address) as other:
            client.say(b"GET /endless HTTP/1.1\r\nHost: x\r\n\r\n")
            for _ in range(5):
                assert client.answer().status == 103
            assert other.ask(GET).body == b"hello"
            client.reset()
        worker.until_left()


def test_a_proxy_header_by_the_byte_and_one_that_stops() -> None:
    real_ip = RealIp(accept_proxy=True, trusted=("127.0.0.1",))
    settings = relayed(client=ClientSide(header_timeout=60.0), real_ip=real_ip)  # it is not waited for
    header = proxy_protocol.v2(("10.1.1.1", 5), ("10.1.1.2", 443))

    def echo(peer: Peer) -> None:
        while data := peer.receive():
            peer.send(data)

    with Server(echo) as server, OneWorker(settings, pool(server.authority)) as worker:
        before = descriptors()
        with Conversation(worker.address) as slow, Conversation(worker.address) as stops:
            stops.say(header[:-1]).finish()
            for position in range(len(header)):
                slow.say(header[position : position + 1])
            assert slow.say(b"hello").exactly(5) == b"hello"
            with pytest.raises(ConnectionResetError):  # what it sent was only looked at
                stops.rest()
        worker.until_left()
        assert worker.statistics.refused == {"bad-proxy-header": 1}
        worker.until(lambda: descriptors() <= before)
