"""The embedded HTTP proxy: Upgrade and CONNECT."""

from __future__ import annotations

import pytest

from kit import behaviours
from kit.conversation import Conversation
from kit.one_worker import OneWorker, listener, meeting, pool
from kit.servers import Peer, Server
from timewait.balancer.config.model import ClientSide, Then, Tunnel

UPGRADE = (
    b"GET /chat HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: k\r\n\r\n"
)
CONNECT = b"CONNECT a.example:443 HTTP/1.1\r\nHost: a.example:443\r\n\r\n"
SWITCHING = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"


def echoes(answer: bytes, heads: list[bytes]) -> object:
    """Answers, then sends back what comes, and after the client's FIN a farewell."""

    def behaviour(peer: Peer) -> None:
        data = b""
        while b"\r\n\r\n" not in data:
            data += peer.receive()
        head, _, rest = data.partition(b"\r\n\r\n")
        heads.append(head)
        peer.send(answer + rest)
        while True:
            data = peer.sock.recv(65536)
            if not data:
                peer.send(b"farewell")
                return
            peer.send(data)

    return behaviour


@pytest.mark.parametrize(("request_", "answer"), [(UPGRADE, SWITCHING), (CONNECT, b"HTTP/1.1 200 OK\r\n\r\n")])
def test_a_tunnel_carries_bytes_both_ways_and_ends_side_by_side(request_: bytes, answer: bytes) -> None:
    heads: list[bytes] = []
    with meeting(echoes(answer, heads), listener(connect=Tunnel.TUNNEL)) as (client, worker):  # type: ignore[arg-type]
        said = client.ask(request_ + b"early", "HEAD")
        assert said.status in (101, 200)
        assert client.exactly(5) == b"early"
        for number in range(3):
            client.say(b"%d" % number * 200_000)
            assert client.exactly(200_000) == b"%d" % number * 200_000
        assert client.finish().rest() == b"farewell"
    if request_ is UPGRADE:
        assert said.headers["upgrade"] == "websocket"
        assert b"\r\nConnection: Upgrade\r\n" in heads[0] + b"\r\n"
        assert b"\r\nUpgrade: websocket\r\n" in heads[0] + b"\r\n"
    assert worker.statistics.bytes_in == 600_005
    assert worker.statistics.bytes_out == 600_013
    assert worker.target().active == 0
    assert worker.statistics.made_by_target == {said.status: 1}


def test_what_does_not_speak_ends_after_idle() -> None:
    settings = listener(client=ClientSide(idle=1))
    with meeting(echoes(SWITCHING, []), settings) as (client, worker):  # type: ignore[arg-type]
        assert client.ask(UPGRADE, "HEAD").status == 101
        assert client.ends()
    assert worker.statistics.closes.timeout == 1


def test_a_target_that_does_not_upgrade_answers_as_ever() -> None:
    with meeting(behaviours.well) as (client, _):
        assert client.ask(UPGRADE).body == b"hello"
        assert client.ask(UPGRADE).body == b"hello"


@pytest.mark.parametrize(("request_", "status"), [(UPGRADE, 403), (CONNECT, 405)])
def test_refused_as_configured(request_: bytes, status: int) -> None:
    settings = listener(upgrade=Tunnel.REFUSE, connect=Tunnel.REFUSE)
    with meeting(behaviours.stalls_before_answer, settings) as (client, worker):
        assert client.ask(request_).status == status
    assert len(worker.statistics.refused) == 1


def test_switching_that_nobody_asked_for_is_502() -> None:
    with meeting(behaviours.answers(SWITCHING)) as (client, _):
        assert client.ask(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").status == 502


@pytest.mark.parametrize("then", list(Then))
def test_a_tunnel_can_be_cut(then: Then) -> None:
    behaviour = echoes(SWITCHING, [])
    with Server(behaviour) as server, OneWorker(listener(), pool(server.authority)) as worker:  # type: ignore[arg-type]
        with Conversation(worker.address) as client:
            assert client.ask(UPGRADE, "HEAD").status == 101
            worker.cut(server.authority, then)
            if then is Then.LEAVE:
                client.say(b"x")
                assert client.exactly(1) == b"x"
            else:
                assert client.is_reset() == (then is Then.RST)
        worker.until_left()


def test_a_tunnel_whose_target_resets_is_reset() -> None:
    def behaviour(peer: Peer) -> None:
        peer.receive()
        peer.send(SWITCHING)
        peer.receive()
        peer.reset()

    with meeting(behaviour) as (client, _):
        assert client.ask(UPGRADE, "HEAD").status == 101
        client.say(b"x")
        assert client.is_reset()
