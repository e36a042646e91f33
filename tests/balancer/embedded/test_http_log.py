"""The embedded HTTP proxy: what its access log and its statistics say, and TLS before it."""

from __future__ import annotations

import json
import os
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import trustme

from kit import behaviours
from kit.conversation import Conversation
from kit.one_worker import OneWorker, listener, pool
from kit.servers import Behaviour, Peer, Server
from timewait.balancer.config.model import ClientSide, Listener, Protocol, RealIp, Reuse, UpstreamSide
from timewait.balancer.embedded.access_log import AccessLog

GET = b"GET /x?y HTTP/1.1\r\nHost: a.example\r\n\r\n"


class Logged:
    """Lines of the log of one worker, read once it has ended."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def lines(self) -> list[dict[str, object]]:
        return [json.loads(line) for line in self.path.read_text().splitlines()]


@contextmanager
def logged(path: Path, behaviour: Behaviour, settings: Listener) -> Iterator[OneWorker]:
    fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    log = AccessLog(fd)
    try:
        with Server(behaviour) as server, OneWorker(settings, pool(server.authority), log=log) as worker:
            yield worker
            worker.until_left()
        log.flush()
    finally:
        os.close(fd)


def test_a_line_for_each_request(tmp_path: Path) -> None:
    path = tmp_path / "log"
    settings = listener(upstream=UpstreamSide(reuse=Reuse.ALWAYS), real_ip=RealIp(trusted=("127.0.0.0/8",)))
    with logged(path, behaviours.well, settings) as worker, Conversation(worker.address) as client:
        port = client.sock.getsockname()[1]
        assert client.ask(GET).status == 200
        assert client.ask(GET).status == 200
        assert client.ask(GET[:-2] + b"X-Forwarded-For: 9.9.9.9, 127.0.0.9\r\n\r\n").status == 200
        assert client.ask(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nab").status == 200
        assert client.ask(b"HEAD /\r\n\r\n").status == 400
        client.ends()
    first, second, third, fourth, fifth = Logged(path).lines()
    for line in (first, second):
        assert (line["listener"], line["client"], line["made_by"]) == ("web", f"127.0.0.1:{port}", "target")
        assert line["connection"] == fifth["connection"]
    assert {
        "request": 1,
        "method": "GET",
        "host": "a.example",
        "path": "/x?y",
        "status": 200,
    }.items() <= first.items()
    assert (first.get("reused"), second["reused"], second["request"]) == (None, True, 2)
    assert third["client"] == "9.9.9.9"
    assert (fourth["bytes_in"], fourth["bytes_out"], fourth.get("closed_by")) == (2, 5, None)
    assert (fifth["status"], fifth["made_by"], fifth["reason"]) == (400, "balancer", "http-0.9")
    assert fifth["closed_by"] == "balancer_fin"
    assert "target" not in fifth
    assert [line["request"] for line in (third, fourth, fifth)] == [3, 4, 5]


def test_what_went_wrong_is_said_and_who_closed(tmp_path: Path) -> None:
    path = tmp_path / "log"
    settings = listener(upstream=UpstreamSide(read_timeout=20))
    with logged(path, behaviours.stalls_before_answer, settings) as worker:

        def asks(client: Conversation, words: bytes) -> Conversation:
            worker.until(lambda: not worker.target().active)
            client.say(words)
            worker.until(lambda: worker.target().active)
            return client

        with Conversation(worker.address) as client:
            asks(client, GET)
            worker.skip(21)
            assert client.answer().status == 504
            asks(client, GET).reset()
            worker.until_left()
        with Conversation(worker.address) as client:
            asks(client, GET[:-2] + b"Connection: close\r\n\r\n")
            worker.skip(21)
            assert client.answer().status == 504
            assert client.ends()
    late, gone, last = Logged(path).lines()
    assert (late["status"], late["reason"], late.get("closed_by")) == (504, "read-timeout", None)
    assert (gone["status"], gone["reason"], gone["closed_by"]) == (499, "client-gone", "peer_rst")
    assert (last["status"], last["closed_by"], last["request"]) == (504, "balancer_fin", 1)
    assert worker.statistics.made_by_balancer == {504: 2, 499: 1}


def test_a_refusal_has_nothing_of_the_request_before_it() -> None:
    with Server(behaviours.head) as server, OneWorker(listener(), pool(server.authority)) as worker:
        with Conversation(worker.address) as client:
            for _ in range(2):
                client.ask(GET.replace(b"GET", b"HEAD"), "HEAD")
            assert client.ask(b"GET / HTTP/3.7\r\n\r\n").body == b"505 HTTP Version Not Supported\n"
        worker.until_left()
    assert worker.target().statuses == {200: 2}
    assert worker.target().bytes_in == 0
    assert (worker.statistics.requests, worker.statistics.made_by_balancer) == (3, {505: 1})


def test_one_who_does_not_read_and_goes_on_asking_gets_all_answers_in_order() -> None:
    """Events that say "there is more to read" come while an answer waits to be taken."""
    size = 3_000_000

    def behaviour(peer: Peer) -> None:
        while True:
            target = peer.request().target
            body = target[1:].encode() * (size // 4)
            peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))

    with Server(behaviour) as server, OneWorker(listener(), pool(server.authority)) as worker:
        with Conversation(worker.address, receive_buffer=4096) as client:
            for number in range(4):
                client.say(b"GET /%04d HTTP/1.1\r\nHost: x\r\n\r\n" % number)
                client.is_silent(0.02)  # takes a little of what comes
            for number in range(4):
                assert client.answer().body == b"%04d" % number * (size // 4)
        worker.until_left()


# --- TLS ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@contextmanager
def over_tls(
    authority: trustme.CA, behaviour: Behaviour, settings: Listener
) -> Iterator[tuple[Conversation, OneWorker]]:
    server_side, client_side = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context()
    authority.issue_cert("a.example").configure_cert(server_side)
    authority.configure_trust(client_side)
    with Server(behaviour) as server, OneWorker(settings, pool(server.authority), tls=server_side) as worker:
        with Conversation(worker.address) as client:
            client.sock = client_side.wrap_socket(client.sock, server_hostname="a.example")
            yield client, worker
        worker.until_left()


HTTPS = {"protocol": Protocol.HTTPS}


def test_exchanges_over_tls(authority: trustme.CA) -> None:
    """Bodies of many records in both directions, kept connections, an end that is no cut."""
    size = 3_000_000
    heads = []

    def behaviour(peer: Peer) -> None:
        while True:
            request = peer.request()
            heads.append(request.headers)
            peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (size, request.body))

    body = os.urandom(size)
    with over_tls(authority, behaviour, listener(**HTTPS)) as (client, worker):
        for _ in range(3):
            post = b"POST / HTTP/1.1\r\nHost: a.example\r\nContent-Length: %d\r\n\r\n" % size
            assert client.ask(post + body).body == body
        assert client.ask(post[:-2] + b"Connection: close\r\n\r\n" + body).body == body
        assert client.ends()
    assert {head["x-forwarded-proto"] for head in heads} == {"https"}
    assert (worker.statistics.tls_handshakes, worker.statistics.closes.balancer_fin) == (1, 1)


def test_small_and_pipelined_requests_over_tls(authority: trustme.CA) -> None:
    with over_tls(authority, behaviours.well, listener(**HTTPS)) as (client, worker):
        client.say(GET * 50)
        assert [client.answer().body for _ in range(50)] == [b"hello"] * 50
        for _ in range(20):
            assert client.ask(GET).body == b"hello"
    assert worker.statistics.requests == 70


def test_a_tunnel_over_tls(authority: trustme.CA) -> None:
    switching = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"

    def behaviour(peer: Peer) -> None:
        peer.receive()
        peer.send(switching)
        for _ in range(10):
            peer.send(peer.receive())

    with over_tls(authority, behaviour, listener(**HTTPS)) as (client, _):
        upgrade = GET[:-2] + b"Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
        assert client.ask(upgrade, "HEAD").status == 101
        for number in range(10):
            assert client.say(b"%d" % number * 100).exactly(100) == b"%d" % number * 100
        assert client.ends()


def test_a_kept_tls_connection_ends_with_close_notify(authority: trustme.CA) -> None:
    settings = listener(**HTTPS, client=ClientSide(keepalive=0.2))
    with over_tls(authority, behaviours.well, settings) as (client, _):
        assert client.ask(GET).status == 200
        assert client.ends()
