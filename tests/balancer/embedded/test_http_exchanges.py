"""The embedded HTTP proxy: requests and answers of every legal kind, over real sockets."""

from __future__ import annotations

import pytest

from kit import behaviours
from kit.conversation import Conversation
from kit.one_worker import OneWorker, listener, meeting, pool
from kit.servers import Behaviour, Peer, Server
from timewait.balancer.config.model import (
    ClientSide,
    Limits,
    Protocol,
    RealIp,
    RealIpMode,
    Reuse,
    Rule,
    Session,
    SessionType,
    UpstreamSide,
)

GET = b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n"
ALWAYS = UpstreamSide(reuse=Reuse.ALWAYS)


class Recorder:
    """A target that keeps what it got, and answers each request (a head, a body by length) with the next answer."""

    def __init__(self, *answers: bytes) -> None:
        self.answers = list(answers) or [behaviours.OK]
        self.got: list[bytes] = []
        self.wanted = 0  # bytes of a body, after each head

    def __call__(self, peer: Peer) -> None:
        held = b""
        while True:
            while b"\r\n\r\n" not in held or len(held.partition(b"\r\n\r\n")[2]) < self.wanted:
                held += peer.receive()
            head, _, rest = held.partition(b"\r\n\r\n")
            self.got.append(head + b"\r\n\r\n" + rest[: self.wanted])
            held = rest[self.wanted :]
            peer.send(self.answers.pop(0) if len(self.answers) > 1 else self.answers[0])


def test_kept_connections_on_both_sides() -> None:
    with Server(behaviours.well) as server, OneWorker(listener(), pool(server.authority)) as worker:
        with Conversation(worker.address) as client:
            assert [client.ask(GET).body for _ in range(5)] == [b"hello"] * 5
        worker.until_left()
        assert server.accepted == 1
    assert (worker.statistics.requests, worker.statistics.reused) == (5, 4)
    assert (worker.target().requests, worker.target().reused, worker.target().connects) == (5, 4, 1)
    assert worker.statistics.made_by_target == worker.target().statuses == {200: 5}
    assert worker.statistics.bytes_out == worker.target().bytes_in == 25
    assert worker.statistics.active == worker.target().active == 0
    assert worker.statistics.closes.peer_fin == 1


def test_what_a_target_is_sent() -> None:
    record = Recorder()
    with meeting(record) as (client, _):
        client.ask(
            b"GET http://A.example:8080/x?y HTTP/1.1\r\nHost: A.example:8080\r\nConnection: x-hop, keep-alive\r\n"
            b"X-Hop: 1\r\nX-Kept: 2\r\nX-Forwarded-For: 6.6.6.6\r\nX-Forwarded-Proto: https\r\nTE: trailers\r\n"
            b"Connection: te\r\n\r\n"
        )
    assert record.got == [
        b"GET /x?y HTTP/1.1\r\nHost: A.example:8080\r\nX-Kept: 2\r\nTE: trailers\r\nConnection: TE\r\n"
        b"X-Forwarded-For: 127.0.0.1\r\nX-Forwarded-Proto: http\r\n\r\n"
    ]


@pytest.mark.parametrize(
    ("real_ip", "lines"),
    [
        (RealIp(trusted=("127.0.0.0/8",)), b"X-Forwarded-For: 6.6.6.6, 127.0.0.1\r\nX-Forwarded-Proto: https\r\n"),
        (RealIp(trusted=("10.0.0.0/8",)), b"X-Forwarded-For: 127.0.0.1\r\nX-Forwarded-Proto: http\r\n"),
        (RealIp(mode=RealIpMode.NONE), b"X-Forwarded-For: 6.6.6.6\r\nX-Forwarded-Proto: https\r\n"),
    ],
)
def test_whom_the_target_is_told(real_ip: RealIp, lines: bytes) -> None:
    record = Recorder()
    with meeting(record, listener(real_ip=real_ip)) as (client, _):
        client.ask(b"GET / HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: 6.6.6.6\r\nX-Forwarded-Proto: https\r\n\r\n")
    assert record.got == [b"GET / HTTP/1.1\r\nHost: x\r\n" + lines + b"\r\n"]


@pytest.mark.parametrize("mode", [RealIpMode.PROXY_V1, RealIpMode.PROXY_V2])
def test_the_proxy_header_is_said_once_and_its_connection_is_not_shared(mode: RealIpMode) -> None:
    heads: list[bytes] = []

    def behaviour(peer: Peer) -> None:
        data = peer.receive()
        heads.append(data[: data.index(b"GET ")])
        peer.send(behaviours.OK)
        while True:
            peer.receive()
            peer.send(behaviours.OK)

    settings = listener(real_ip=RealIp(mode=mode), upstream=ALWAYS)
    with Server(behaviour) as server, OneWorker(settings, pool(server.authority)) as worker:
        ports = []
        for _ in range(2):
            with Conversation(worker.address) as client:
                ports.append(client.sock.getsockname()[1])
                assert [client.ask(GET).status for _ in range(3)] == [200] * 3
        assert server.accepted == 2
    if mode is RealIpMode.PROXY_V1:
        here = worker.address[1]
        assert heads == [f"PROXY TCP4 127.0.0.1 127.0.0.1 {port} {here}\r\n".encode() for port in ports]
    else:
        assert [int.from_bytes(head[24:26]) for head in heads] == ports


@pytest.mark.parametrize(
    ("behaviour", "body"),
    [
        (behaviours.chunked, b"hello"),
        (behaviours.byte_by_byte, b"hello"),
        (behaviours.read_to_close, b"hello"),
        (behaviours.informational, b"hello"),
        (behaviours.http_1_0, b"hello"),
        (behaviours.no_content, b""),
        (behaviours.not_modified, b""),
        (behaviours.trailing_data, b"hello"),
        (behaviours.closes_unannounced(2), b"hello"),
        (behaviours.closes_announced(2), b"hello"),
    ],
)
@pytest.mark.parametrize("reuse", list(Reuse))
def test_every_legal_answer_leaves_the_clients_connection_open(
    behaviour: Behaviour, body: bytes, reuse: Reuse
) -> None:
    settings = listener(upstream=UpstreamSide(reuse=reuse))
    with meeting(behaviour, settings) as (client, worker):
        for _ in range(4):
            answer = client.ask(GET)
            while answer.status < 200:
                answer = client.answer()
            assert answer.body == body
            assert "connection" not in answer.headers
    assert worker.target().active == 0
    assert worker.statistics.made_by_balancer == {}


def test_trailers_of_an_answer() -> None:
    chunks = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n2;a=b\r\nlo\r\n0\r\nX-Sum: 5\r\n\r\n"
    with meeting(behaviours.answers(chunks)) as (client, _):
        for _ in range(2):
            answer = client.ask(GET)
            assert (answer.body, answer.trailers) == (b"hello", b"X-Sum: 5\r\n")


def test_interim_answers_are_passed_on_but_not_to_http_1_0() -> None:
    with meeting(behaviours.informational) as (client, worker):
        client.say(GET)
        assert [client.answer().status for _ in range(3)] == [100, 103, 200]
        with Conversation(worker.address) as old:
            assert old.ask(b"GET / HTTP/1.0\r\nHost: x\r\n\r\n").status == 200


def test_head_has_no_body_whatever_its_fields_say() -> None:
    with meeting(behaviours.head) as (client, _):
        for _ in range(3):
            answer = client.ask(GET.replace(b"GET", b"HEAD"), "HEAD")
            assert (answer.status, answer.headers["content-length"]) == (200, "5")
        assert client.ask(GET.replace(b"GET /", b"HEAD /"), "HEAD").status == 200


@pytest.mark.parametrize("behaviour", [behaviours.chunked, behaviours.read_to_close, behaviours.http_1_0])
def test_a_client_of_http_1_0_gets_plain_bodies_and_the_end(behaviour: Behaviour) -> None:
    with meeting(behaviour) as (client, worker):
        answer = client.ask(b"GET / HTTP/1.0\r\n\r\n")
        assert answer.body == b"hello"
        assert "transfer-encoding" not in answer.headers
        assert client.ends()
    assert worker.statistics.closes.balancer_fin == 1


def test_a_client_of_http_1_0_may_keep_its_connection() -> None:
    keep = b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"
    with meeting(behaviours.well) as (client, _):
        for _ in range(2):
            answer = client.ask(keep)
            assert (answer.body, answer.headers["connection"]) == (b"hello", "keep-alive")
        assert client.ask(b"GET / HTTP/1.0\r\n\r\n").headers["connection"] == "close"
        assert client.ends()


def test_a_target_gets_a_host_where_the_client_named_none() -> None:
    record = Recorder()
    with Server(record) as server, OneWorker(listener(), pool(server.authority)) as worker:
        with Conversation(worker.address) as client:
            client.ask(b"GET / HTTP/1.0\r\n\r\n")
        assert f"\r\nHost: {server.authority}\r\n".encode() in record.got[0]


def test_pipelined_requests_are_answered_in_their_order() -> None:
    def behaviour(peer: Peer) -> None:
        while True:
            target = peer.request().target
            if target == "/0":
                peer.wait(0.05)
            peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(target), target.encode()))

    with meeting(behaviour) as (client, _):
        client.say(b"".join(b"GET /%d HTTP/1.1\r\nHost: x\r\n\r\n" % number for number in range(1500)))
        assert [client.answer().body for _ in range(1500)] == [b"/%d" % number for number in range(1500)]


def test_thousands_of_pipelined_requests_that_we_answer_ourselves() -> None:
    rules = (Rule(pool="app", path="/x"),)
    with meeting(behaviours.well, listener(rule=rules)) as (client, worker):
        client.say(GET * 3000)
        assert {client.answer().status for _ in range(3000)} == {404}
    assert worker.statistics.made_by_balancer == {404: 3000}


def test_a_half_closed_client_gets_all_its_answers() -> None:
    with meeting(behaviours.after([0.1])) as (client, worker):
        client.say(GET * 3).finish()
        assert [client.answer().body for _ in range(3)] == [b"hello"] * 3
        assert client.ends()
    assert worker.statistics.closes.peer_fin == 1


def test_routes_redirects_and_what_has_none() -> None:
    rules = (Rule(pool="app", path="/app/"), Rule(pool="other", domain="b.example"))
    one, two = Recorder(), Recorder()
    with (
        Server(one) as first,
        Server(two) as second,
        OneWorker(listener(rule=rules), pool(first.authority), pool(second.authority, name="other")) as worker,
        Conversation(worker.address) as client,
    ):
        assert client.ask(GET.replace(b"GET /", b"GET /app/x")).status == 200
        assert client.ask(GET.replace(b"a.", b"b.")).status == 200
        answer = client.ask(GET.replace(b"GET /", b"GET /app?q"))
        assert (answer.status, answer.headers["location"]) == (301, "/app/?q")
        answer = client.ask(GET.replace(b"GET", b"HEAD"), "HEAD")
        assert (answer.status, answer.body) == (404, b"")
        assert client.ask(GET).status == 404
    assert (len(one.got), len(two.got)) == (1, 1)
    assert worker.statistics.made_by_balancer == {301: 1, 404: 2}


def test_sessions_by_cookie() -> None:
    cookies = pool("127.0.0.1:1", session=Session(type=SessionType.COOKIE_INSERT, cookie="WHERE"))
    names = [Recorder(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n%d" % number) for number in range(2)]
    with Server(names[0]) as first, Server(names[1]) as second:
        settings = pool(first.authority, second.authority, session=cookies.session)
        with OneWorker(listener(), settings) as worker, Conversation(worker.address) as client:
            answers = [client.ask(GET) for _ in range(4)]
            assert [answer.body for answer in answers] in ([b"0", b"1"] * 2, [b"1", b"0"] * 2)
            for answer in answers[:2]:
                cookie = answer.headers["set-cookie"].partition(";")[0].encode()
                asks = GET.replace(b"\r\n\r\n", b"\r\nCookie: a=b; %b\r\n\r\n" % cookie)
                for _ in range(3):
                    again = client.ask(asks)
                    assert again.body == answer.body
                    assert "set-cookie" not in again.headers


@pytest.mark.parametrize(("settings", "most"), [(ClientSide(max_requests=3), 3), (ClientSide(keepalive=0), 1)])
def test_max_requests_and_no_keepalive(settings: ClientSide, most: int) -> None:
    with meeting(behaviours.well, listener(client=settings)) as (client, worker):
        answers = [client.ask(GET) for _ in range(most)]
        assert [answer.headers.get("connection") for answer in answers] == [None] * (most - 1) + ["close"]
        assert client.ends()
    assert worker.statistics.closes.balancer_fin == 1


@pytest.mark.parametrize(
    ("request_", "status", "reason"),
    [
        (b"GET /\r\n\r\n", 400, "http-0.9"),
        (GET.replace(b"Host", b"Host "), 400, "space-before-colon"),
        (GET[:-2] + b"Content-Length: 1\r\nContent-Length: 1\r\n\r\n", 400, "duplicate-content-length"),
        (GET[:-2] + b"X: %b\r\n\r\n" % (b"x" * 40_000), 431, "head-too-large"),
        (GET[:-2] + b"X: y\r\n" * 101 + b"\r\n", 431, "too-many-fields"),
        (GET.replace(b"/ ", b"/" + b"x" * 9000 + b" "), 414, "request-line-too-long"),
        (GET[:-2] + b"Expect: miracles\r\n\r\n", 417, "expectation"),
        (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2000000\r\n\r\n" + bytes(2_000_000), 413, "body-too-large"),
        (b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n" + b"4000\r\n" + bytes(0x4000) + b"\r\n"
         + b"f8000\r\n" + bytes(0xF8000), 413, "body-too-large"),
        (b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", 400, "chunk-size"),
    ],
)  # fmt: skip
def test_what_is_refused_is_answered_and_the_answer_arrives(request_: bytes, status: int, reason: str) -> None:
    """Also where much more comes than is read: a reset would take the answer away."""
    settings = listener(limits=Limits(body_size=1_000_000))
    with meeting(behaviours.stalls_before_answer, settings) as (client, worker):
        try:
            client.say(request_)
        except OSError:
            pass  # it does not want to hear all of it
        answer = client.answer()
        assert (answer.status, answer.headers["connection"]) == (status, "close")
        assert client.ends()
    assert worker.statistics.refused == {reason: 1}
    assert worker.statistics.made_by_balancer == {status: 1}
    assert worker.statistics.active == 0


def test_one_listener_of_https_says_so() -> None:
    record = Recorder()
    settings = listener(protocol=Protocol.HTTPS)
    with meeting(record, settings) as (client, _):
        client.ask(GET)
    assert b"X-Forwarded-Proto: https\r\n" in record.got[0]
