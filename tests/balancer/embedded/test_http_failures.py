"""The embedded HTTP proxy where something goes wrong: at targets, at clients, in time."""

from __future__ import annotations

import subprocess
import sys
import threading

import pytest

from kit import behaviours
from kit.conversation import Conversation
from kit.one_worker import OneWorker, listener, meeting, pool
from kit.ports import free_port
from kit.servers import Behaviour, Peer, Server
from timewait.balancer.config.model import ClientClose, ClientSide, Reuse, Then, UpstreamClose, UpstreamSide
from timewait.balancer.embedded import closing
from timewait.balancer.engine import Rotation

GET = b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: a.example\r\nContent-Length: 5\r\n\r\nhello"
ALWAYS = UpstreamSide(reuse=Reuse.ALWAYS)


def nobody() -> str:
    """An address where connections are refused."""
    return f"127.0.0.1:{free_port()}"


# --- targets ------------------------------------------------------------------------------------------------------


def test_nobody_there_is_502_and_the_clients_connection_stays() -> None:
    with OneWorker(listener(), pool(nobody())) as worker, Conversation(worker.address) as client:
        for _ in range(3):
            answer = client.ask(GET)
            assert (answer.status, answer.headers["connection"]) == (502, "keep-alive")
    assert worker.statistics.made_by_balancer == {502: 3}
    assert (worker.statistics.retried, worker.target().refused, worker.target().connected) == (3, 6, 0)


def test_every_target_out_of_rotation_is_503() -> None:
    with OneWorker(listener(), pool("127.0.0.1:1")) as worker, Conversation(worker.address) as client:
        worker.do(lambda: worker.worker.rotate(Rotation("app", (("127.0.0.1:1", 0),))))
        assert client.ask(GET).status == 503


@pytest.mark.parametrize("request_", [GET, POST])
def test_what_was_never_connected_is_tried_elsewhere_whatever_the_method(request_: bytes) -> None:
    with Server(behaviours.well) as server:
        addresses = nobody(), server.authority
        with OneWorker(listener(), pool(*addresses)) as worker, Conversation(worker.address) as client:
            assert {client.ask(request_).status for _ in range(6)} == {200}
    assert worker.statistics.retried == worker.target(0).refused > 0


@pytest.mark.parametrize(
    ("behaviour", "counted"),
    [
        (behaviours.closes_before_answer, "failed"),
        (behaviours.resets_after_request, "failed"),
        (behaviours.truncates_head, "failed"),
    ],
)
def test_only_idempotent_requests_are_sent_twice(behaviour: Behaviour, counted: str) -> None:
    with Server(behaviour) as server:
        for request_, tries in ((GET, 2), (POST, 1)):
            if behaviour is behaviours.truncates_head:
                tries = 1  # something was answered
            with OneWorker(listener(), pool(server.authority)) as worker, Conversation(worker.address) as client:
                assert client.ask(request_).status == 502
            assert worker.statistics.retried == tries - 1
            assert worker.target().requests == getattr(worker.target(), counted) == tries


def test_no_retries_where_none_are_configured() -> None:
    settings = listener(upstream=UpstreamSide(retries=0))
    with meeting(behaviours.closes_before_answer, settings) as (client, worker):
        assert client.ask(GET).status == 502
    assert (worker.statistics.retried, worker.target().requests) == (0, 1)


class DropsKept:
    """Answers well, but a kept connection is reset when its second request comes: a race a proxy cannot win."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    def __call__(self, peer: Peer) -> None:
        peer.request()
        peer.send(behaviours.OK)
        self.seen.append(peer.request().method)
        peer.reset()


def test_a_kept_connection_that_ends_costs_an_idempotent_request_nothing() -> None:
    behaviour = DropsKept()
    with meeting(behaviour, listener(upstream=ALWAYS)) as (client, worker):
        assert [client.ask(GET).status for _ in range(4)] == [200] * 4
        assert client.ask(POST).status == 502
    assert behaviour.seen == ["GET", "GET", "GET", "POST"]
    assert worker.statistics.retried == 3
    assert worker.target().failed == 1  # the POST; the others were the race


def test_a_connection_that_ended_while_idle_is_not_used_again() -> None:
    with meeting(behaviours.closes_unannounced(1), listener(upstream=ALWAYS)) as (client, worker):
        for request_ in (GET, POST, GET, POST):
            assert client.ask(request_).status == 200
            worker.until(lambda: worker.target().closes.peer_fin == worker.target().connected)
    assert worker.statistics.retried == 0


@pytest.mark.parametrize("broken", behaviours.BROKEN.values(), ids=behaviours.BROKEN.keys())
def test_garbage_is_502_or_cut_off(broken: bytes) -> None:
    with meeting(behaviours.answers(broken)) as (client, worker):
        assert client.ask(GET).status == 502
        assert client.ask(GET).status == 502
    assert worker.target().failed == 2
    assert worker.target().active == 0


def test_a_target_that_speaks_before_it_is_asked_is_not_believed() -> None:
    def behaviour(peer: Peer) -> None:
        peer.request()
        peer.send(behaviours.OK)
        peer.wait(0.05)
        peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison")
        peer.read_to_end()

    with meeting(behaviour, listener(upstream=ALWAYS)) as (client, worker):
        assert client.ask(GET).body == b"hello"
        worker.until(lambda: worker.target().closes.balancer_rst)
        assert client.ask(GET).body == b"hello"


@pytest.mark.parametrize("behaviour", [behaviours.truncates, behaviours.truncates_chunk])
def test_an_answer_that_is_cut_off_looks_cut_off(behaviour: Behaviour) -> None:
    with meeting(behaviour) as (client, worker), pytest.raises((EOFError, ConnectionResetError)):
        client.ask(GET)
    assert worker.statistics.made_by_target == {200: 1}
    assert worker.target().failed == 1


@pytest.mark.parametrize(("request_", "field"), [(GET, b"Content-Length: 100\r\n"), (b"GET / HTTP/1.0\r\n\r\n", b"")])
def test_an_answer_that_a_reset_cuts_off_looks_cut_off(request_: bytes, field: bytes) -> None:
    """Also where its end is told by the end of the connection: then by a reset."""
    arrived = threading.Event()

    def behaviour(peer: Peer) -> None:
        peer.request()
        peer.send(b"HTTP/1.1 200 OK\r\n%b\r\nonly this" % field)
        arrived.wait(30)
        peer.reset()

    with meeting(behaviour) as (client, worker):
        client.say(request_).until(b"only this")
        arrived.set()
        if field:
            with pytest.raises((EOFError, ConnectionResetError)):
                client.exactly(1)
        else:
            assert client.is_reset()
    assert worker.statistics.made_by_target == {200: 1}
    assert worker.target().failed == 1


# --- time ---------------------------------------------------------------------------------------------------------


def test_a_target_that_never_answers_is_504() -> None:
    settings = listener(upstream=UpstreamSide(read_timeout=0.2))
    with meeting(behaviours.stalls_before_answer, settings) as (client, worker):
        assert client.ask(GET).status == 504
        assert client.ask(POST).status == 504
    assert (worker.target().timed_out, worker.statistics.retried) == (2, 0)
    assert worker.target().closes.timeout == 2


def test_a_target_that_stalls_in_its_body_is_cut_off() -> None:
    settings = listener(upstream=UpstreamSide(read_timeout=20))
    with meeting(behaviours.stalls_in_body, settings) as (client, worker):
        client.say(GET).until(b"\r\n\r\n")
        worker.skip(21)
        with pytest.raises(EOFError):
            client.exactly(100)
    assert worker.target().timed_out == 1


def test_a_target_that_does_not_accept_is_504_after_the_connect_timeout() -> None:
    settings = listener(upstream=UpstreamSide(connect_timeout=0.2, retries=0))
    with Server(None, backlog=0) as server, OneWorker(settings, pool(server.authority)) as worker:
        fillers = [Conversation(("127.0.0.1", server.port))]  # the queue takes one more than its length
        with Conversation(worker.address) as client:
            assert client.ask(GET).status in (502, 504)
        assert (worker.target().timed_out, worker.target().connected) == (1, 0)
        for filler in fillers:
            filler.sock.close()


def test_a_target_that_does_not_accept_costs_a_connect_timeout_and_no_more() -> None:
    settings = listener(upstream=UpstreamSide(connect_timeout=0.2))
    with Server(None, backlog=0) as full, Server(behaviours.well) as well:
        filler = Conversation(("127.0.0.1", full.port))
        with OneWorker(settings, pool(full.authority, well.authority)) as worker:
            clients = [Conversation(worker.address) for _ in range(6)]
            for _ in range(2):
                for client in clients:
                    client.say(POST)
                assert [client.answer().status for client in clients] == [200] * 6
            for client in (filler, *clients):
                client.sock.close()
    assert worker.target(0).timed_out == worker.statistics.retried > 0


@pytest.mark.parametrize(
    ("said", "heard"),
    [(b"GET / HT", 408), (GET[:-2], 408), (b"", None)],
)
def test_a_head_that_does_not_come(said: bytes, heard: int | None) -> None:
    """Who has said nothing hears nothing, as nginx has it; a part of a head is answered."""
    with meeting(behaviours.well, listener(client=ClientSide(header_timeout=20))) as (client, worker):
        client.say(said)
        worker.until(lambda: worker.statistics.active)
        worker.skip(21)
        if heard is not None:
            assert client.answer().status == heard
        assert client.ends()
    assert worker.statistics.closes.timeout == (heard is None)


def test_slow_heads_do_not_earn_time_byte_by_byte() -> None:
    with meeting(behaviours.well, listener(client=ClientSide(header_timeout=60))) as (client, worker):
        worker.until(lambda: worker.statistics.active)
        for position in range(3):
            client.say(GET[position : position + 1])
            worker.skip(12)
        assert client.is_silent()
        client.say(GET[3:4])
        worker.skip(25)  # 61 s in all, and never more than 25 without a byte
        assert client.answer().status == 408


def test_a_body_that_does_not_come_is_408() -> None:
    with meeting(behaviours.well, listener(client=ClientSide(body_timeout=0.2))) as (client, worker):
        answer = client.ask(POST[:-2])
        assert (answer.status, answer.headers["connection"]) == (408, "close")
        assert client.ends()
    assert worker.statistics.refused == {"body-timeout": 1}


def test_a_kept_connection_ends_in_silence() -> None:
    with meeting(behaviours.well, listener(client=ClientSide(keepalive=0.2))) as (client, worker):
        assert client.ask(GET).status == 200
        assert client.ends()
    assert (worker.statistics.closes.timeout, worker.statistics.closes.balancer_fin) == (1, 1)
    assert worker.statistics.made_by_balancer == {}


def test_idle_connections_to_targets_end() -> None:
    settings = listener(upstream=UpstreamSide(reuse=Reuse.ALWAYS, idle=20))
    with meeting(behaviours.well, settings) as (client, worker):
        client.ask(GET)
        worker.do(worker.proxy.count)
        assert (worker.statistics.idle, worker.target().idle) == (1, 1)
        worker.skip(21)
        worker.until(lambda: worker.target().closes.balancer_rst)
        worker.do(worker.proxy.count)
        assert worker.target().idle == 0
        assert client.ask(GET).status == 200
    assert worker.target().closes.timeout == 1


@pytest.mark.parametrize("settings", [ALWAYS, UpstreamSide(reuse=Reuse.ALWAYS, pool_max=1)])
def test_the_pool_keeps_no_more_than_it_may(settings: UpstreamSide) -> None:
    together = threading.Barrier(4)

    def behaviour(peer: Peer) -> None:
        peer.request()
        together.wait(30)  # so that there are four connections
        peer.send(behaviours.OK)
        peer.read_to_end()

    with Server(behaviour) as server, OneWorker(listener(upstream=settings), pool(server.authority)) as w:
        clients = [Conversation(w.address).say(GET) for _ in range(4)]
        assert {client.answer().status for client in clients} == {200}
        w.do(w.proxy.count)
        assert w.target().idle == min(4, settings.pool_max)
        for client in clients:
            client.sock.close()


# --- clients ------------------------------------------------------------------------------------------------------


def test_a_client_that_is_gone_before_the_answer_is_499() -> None:
    with Server(behaviours.stalls_before_answer) as server, OneWorker(listener(), pool(server.authority)) as worker:
        Conversation(worker.address).say(GET).reset()
        worker.until(lambda: worker.statistics.accepted)
        worker.until_left()
        assert worker.target().active == 0
    assert worker.statistics.made_by_balancer in ({499: 1}, {})
    assert worker.statistics.closes.peer_rst == 1


def test_a_client_that_leaves_while_the_target_thinks_is_499() -> None:
    with Server(behaviours.stalls_before_answer) as server, OneWorker(listener(), pool(server.authority)) as worker:
        client = Conversation(worker.address).say(GET)
        worker.until(lambda: worker.target().active)
        client.reset()
        worker.until_left()
        assert worker.statistics.made_by_balancer == {499: 1}
        assert worker.target().closes.balancer_rst == 1


def test_a_client_that_ends_in_the_middle_of_a_body() -> None:
    with Server(behaviours.well) as server, OneWorker(listener(), pool(server.authority)) as worker:
        with Conversation(worker.address) as client:
            client.say(POST[:-2]).finish()
            worker.until(lambda: worker.statistics.requests)
            worker.until_left()
        assert worker.statistics.made_by_balancer == {499: 1}
        assert worker.target().active == 0


def test_a_client_that_never_reads_costs_one_read_and_then_its_connection() -> None:
    size = 64 << 20
    sent: list[int] = []

    def behaviour(peer: Peer) -> None:
        peer.request()
        peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
        while sum(sent) < size:  # until it is ended
            sent.append(peer.sock.send(bytes(65536)))

    settings = listener(client=ClientSide(send_timeout=0.5))
    with Server(behaviour) as server, OneWorker(settings, pool(server.authority)) as worker:
        with Conversation(worker.address, receive_buffer=4096) as client:
            client.say(GET)
            worker.until(lambda: worker.statistics.accepted)
            worker.until_left()
        assert sum(sent) < size / 2  # the rest stayed with the target: what the kernel's buffers take, and one read
    assert worker.statistics.closes.timeout == 1
    assert worker.statistics.closes.balancer_rst == 1


# --- ends ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("close", list(ClientClose))
def test_who_closes_first_toward_clients(close: ClientClose) -> None:
    settings = listener(client=ClientSide(close=close, close_wait=30))
    with meeting(behaviours.well, settings) as (client, worker):
        client.ask(GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
        if close is ClientClose.PEER:
            assert client.is_silent()
            client.sock.close()
        else:
            assert client.ends()
        counted = {ClientClose.FIN: "balancer_fin", ClientClose.FIN_RST: "balancer_rst"}.get(close, "peer_fin")
        worker.until(lambda: getattr(worker.statistics.closes, counted) == 1)


@pytest.mark.parametrize("close", list(UpstreamClose))
def test_who_closes_first_toward_targets(close: UpstreamClose, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(closing, "TARGET_WAIT", 30)
    settings = listener(upstream=UpstreamSide(keepalive=False, close=close))
    with meeting(behaviours.well, settings) as (client, worker):
        assert [client.ask(GET).status for _ in range(3)] == [200] * 3
        closes = worker.target().closes
        counted = {UpstreamClose.FIN: "balancer_fin", UpstreamClose.RST: "balancer_rst"}
        worker.until(lambda: getattr(closes, counted.get(close, "peer_fin")) == 3)
    assert worker.target().connects == 3


def test_draining() -> None:
    drained = threading.Event()

    def behaviour(peer: Peer) -> None:
        while True:
            if peer.request().target == "/slow":
                drained.wait(30)
            peer.send(behaviours.OK)

    with Server(behaviour) as server, OneWorker(listener(), pool(server.authority)) as worker:
        idle, busy, late = (Conversation(worker.address) for _ in range(3))
        idle.ask(GET)
        late.ask(GET)
        busy.say(GET.replace(b"/", b"/slow", 1))
        worker.until(lambda: server.requests == 3)
        worker.stop_clock()  # idle ones get a moment

        def drain() -> None:
            worker.worker.draining = True
            worker.proxy.drain()

        worker.do(drain)
        drained.set()
        for client in (busy, late.say(GET)):
            answer = client.answer()
            assert (answer.status, answer.headers["connection"]) == (200, "close")
            assert client.ends()
        worker.skip(2)
        assert idle.ends()
        worker.until_left()
        for client in (idle, busy, late):
            client.sock.close()


@pytest.mark.parametrize("then", list(Then))
def test_a_target_that_is_cut_off_has_its_requests_sent_elsewhere(then: Then) -> None:
    with (
        Server(behaviours.stalls_before_answer) as stalled,
        Server(behaviours.well) as well,
        OneWorker(listener(), pool(stalled.authority, well.authority)) as worker,
    ):
        rotation = Rotation("app", ((stalled.authority, 0), (well.authority, 10)))
        clients = [Conversation(worker.address).say(GET) for _ in range(2)]
        worker.until(lambda: worker.target(0).active == 1)
        worker.do(lambda: worker.worker.rotate(rotation))
        worker.cut(stalled.authority, then)
        if then is not Then.LEAVE:
            assert [client.answer().status for client in clients] == [200, 200]
        assert worker.target(0).active == (then is Then.LEAVE)
        for client in clients:
            client.sock.close()


MORTAL = """
import asyncio
async def serve(reader, writer):
    while await reader.readuntil(b"\\r\\n\\r\\n"):
        writer.write(b"HTTP/1.1 200 OK\\r\\nContent-Length: 5\\r\\n\\r\\nhello")
async def main():
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()
asyncio.run(main())
"""


def test_a_target_killed_under_load_costs_no_idempotent_request() -> None:
    """Its connections end with a FIN or a reset, its port refuses; every request still has its answer."""
    settings = listener(upstream=UpstreamSide(reuse=Reuse.ALWAYS))
    with (
        Server(behaviours.well) as stays,
        subprocess.Popen([sys.executable, "-c", MORTAL], stdout=subprocess.PIPE, text=True) as mortal,
    ):
        assert mortal.stdout is not None
        dies = f"127.0.0.1:{int(mortal.stdout.readline())}"
        with OneWorker(settings, pool(dies, stays.authority)) as worker:
            statuses: list[int] = []
            dead = threading.Event()

            def load() -> None:
                with Conversation(worker.address) as client:
                    left = 50  # after the death
                    while left:
                        statuses.append(client.ask(GET).status)
                        left -= dead.is_set()

            threads = [threading.Thread(target=load) for _ in range(4)]
            for thread in threads:
                thread.start()
            worker.until(lambda: len(statuses) > 100)
            mortal.kill()
            mortal.wait()
            dead.set()
            for thread in threads:
                thread.join(20)
            assert statuses.count(200) == len(statuses) >= 300
    assert worker.target(0).refused > 0
