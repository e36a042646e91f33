"""The embedded HTTP proxy: bodies on their way through, in both directions, whole or not."""

from __future__ import annotations

import hashlib
import os
import random
import threading
from collections.abc import Callable
from contextlib import suppress
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kit import behaviours
from kit.conversation import PATIENCE, Conversation
from kit.one_worker import OneWorker, listener, meeting, pool
from kit.servers import Peer, Server
from timewait.balancer.config.model import ClientSide, Reuse, UpstreamSide

GET = b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n"
M = 1 << 20


def head(*lines: bytes, method: bytes = b"POST") -> bytes:
    return b"".join((method, b" / HTTP/1.1\r\nHost: x\r\n", *(line + b"\r\n" for line in lines), b"\r\n"))


class Raw:
    """A target that collects what it is sent, and answers each time that it is `enough(data)`."""

    def __init__(self, enough: Callable[[bytearray], bool]) -> None:
        self.enough = enough
        self.got: list[bytes] = []

    def __call__(self, peer: Peer) -> None:
        while True:
            data = bytearray()
            while not self.enough(data):
                data += peer.receive()
            self.got.append(bytes(data))
            peer.send(behaviours.OK)


def body_of(data: bytes) -> bytes:
    return data.partition(b"\r\n\r\n")[2]


def test_a_body_of_known_length() -> None:
    sent = os.urandom(3 * M)
    target = Raw(lambda data: len(data) - data.find(b"\r\n\r\n") - 4 >= len(sent))
    with meeting(target) as (client, worker):
        assert client.ask(head(b"Content-Length: %d" % len(sent)) + sent).status == 200
    assert body_of(target.got[0]) == sent
    assert worker.statistics.bytes_in == worker.target().bytes_out == len(sent)


def test_a_chunked_body_with_trailers() -> None:
    sent = os.urandom(M)
    chunks = b"".join(
        b"%x;n=v\r\n%b\r\n" % (len(sent[at : at + 70_001]), sent[at : at + 70_001])
        for at in range(0, len(sent), 70_001)
    )
    target = Raw(lambda data: data.endswith(b"0\r\nX-Sum: 1\r\n\r\n"))
    with meeting(target) as (client, worker):
        answer = client.ask(
            head(b"Transfer-Encoding: chunked", b"Trailer: X-Sum") + chunks + b"0\r\nX-Sum: 1\r\n\r\n"
        )
        assert answer.status == 200
        assert client.ask(head(b"Transfer-Encoding: chunked") + b"0\r\nX-Sum: 1\r\n\r\n").status == 200
    assert worker.statistics.bytes_in == len(sent)
    assert b"Transfer-Encoding: chunked\r\n" in target.got[0]


def test_a_small_body_and_the_next_request_in_one_segment() -> None:
    ends = b"\r\n\r\nabc", b"\r\n0\r\n\r\n"
    target = Raw(lambda data: data.endswith(ends) or (data.startswith(b"GET") and data.endswith(b"\r\n\r\n")))
    with meeting(target) as (client, worker):
        client.say(
            head(b"Content-Length: 3") + b"abc" + GET + head(b"Transfer-Encoding: chunked") + b"0\r\n\r\n" + GET
        )
        assert [client.answer().status for _ in range(4)] == [200] * 4
    assert [body_of(data) for data in target.got] == [b"abc", b"", b"0\r\n\r\n", b""]
    assert worker.statistics.bytes_in == 3


@pytest.mark.parametrize("buffer", [0, 4096])
@pytest.mark.parametrize("framing", ["length", "chunked", "close"])
def test_a_large_answer_arrives_whole_also_at_one_who_reads_slowly(framing: str, buffer: int) -> None:
    size = 16 * M if not buffer else 2 * M
    piece = random.Random(1).randbytes(65536)

    def behaviour(peer: Peer) -> None:
        answer_large(peer)
        if framing != "close":
            answer_large(peer)

    def answer_large(peer: Peer) -> None:
        peer.request()
        said = {
            "length": b"Content-Length: %d\r\n" % size,
            "chunked": b"Transfer-Encoding: chunked\r\n",
            "close": b"",
        }
        peer.send(b"HTTP/1.1 200 OK\r\n%b\r\n" % said[framing])
        for _ in range(size // len(piece)):
            peer.send(b"%x\r\n%b\r\n" % (len(piece), piece) if framing == "chunked" else piece)
        if framing == "chunked":
            peer.send(b"0\r\n\r\n")

    with Server(behaviour) as server, OneWorker(listener(), pool(server.authority)) as worker:
        before = resident()
        with Conversation(worker.address, receive_buffer=buffer) as client:
            client.say(GET)
            answer = client.answer()
            assert (answer.status, len(answer.body)) == (200, size)
            assert digest(answer.body) == digest(piece * (size // len(piece)))
            del answer
            assert len(client.ask(GET).body) == size
        assert resident() - before < 2 * size + 48 * M  # of which ours is none: the client's copies
        worker.until_left()
    assert worker.statistics.bytes_out == 2 * size


def digest(data: bytes) -> bytes:
    return hashlib.blake2b(data).digest()


def resident() -> int:
    """Bytes of this process in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_a_target_that_does_not_read_holds_the_client_back() -> None:
    """What is not taken stays with the client: neither side of the balancer grows."""
    sent: list[int] = []

    def behaviour(peer: Peer) -> None:
        peer.receive()
        peer.stall()

    settings_ = listener(upstream=UpstreamSide(send_timeout=0.5))
    with Server(behaviour) as server, OneWorker(settings_, pool(server.authority)) as worker:
        with Conversation(worker.address) as client:
            client.say(head(b"Content-Length: %d" % (50 * M)))
            client.sock.settimeout(0.05)
            while sum(sent) < 50 * M and not worker.target().timed_out:
                with suppress(TimeoutError):
                    sent.append(client.sock.send(bytes(65536)))
            client.sock.settimeout(PATIENCE)
            assert sum(sent) < 40 * M
            assert client.answer().status == 504
        worker.until_left()
    assert worker.target().timed_out == 1


# --- 100-continue -------------------------------------------------------------------------------------------------

EXPECTS = head(b"Content-Length: 5", b"Expect: 100-continue")


def test_expectations_are_passed_on_and_the_target_decides() -> None:
    def behaviour(peer: Peer) -> None:
        assert b"Expect: 100-continue\r\n" in peer.receive()
        peer.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        assert peer.receive() == b"hello"
        peer.send(behaviours.OK)
        peer.read_to_end()

    with meeting(behaviour) as (client, _):
        assert client.ask(EXPECTS).status == 100
        assert client.ask(b"hello").status == 200


def test_a_target_that_says_no_at_once_spares_the_client_the_body() -> None:
    def behaviour(peer: Peer) -> None:
        peer.receive()
        peer.send(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")
        peer.read_to_end()

    with meeting(behaviour) as (client, worker):
        answer = client.ask(EXPECTS)
        assert (answer.status, answer.headers["connection"]) == (403, "close")
        assert client.ends()
    assert worker.statistics.bytes_in == 0


def test_the_bodys_time_begins_when_the_target_wants_it() -> None:
    wanted = threading.Event()

    def behaviour(peer: Peer) -> None:
        peer.receive()
        wanted.wait(30)
        peer.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        peer.receive()
        peer.send(behaviours.OK)
        peer.read_to_end()

    with meeting(behaviour, listener(client=ClientSide(body_timeout=20))) as (client, worker):
        client.say(EXPECTS)
        worker.until(lambda: worker.target().connected)
        worker.skip(21)
        wanted.set()
        assert client.answer().status == 100
        assert client.ask(b"hello").status == 200


# --- answers that come early --------------------------------------------------------------------------------------


def test_an_early_no_reaches_a_client_that_is_still_sending() -> None:
    """The target answers after the head and closes; what it was sent since is answered by its kernel with a reset."""

    def behaviour(peer: Peer) -> None:
        peer.receive()
        peer.send(b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno")

    for _ in range(5):
        with meeting(behaviour) as (client, worker):

            def send(client: Conversation = client) -> None:
                try:
                    client.say(head(b"Content-Length: %d" % (8 * M)) + bytes(8 * M))
                except OSError:
                    pass

            sender = threading.Thread(target=send)
            sender.start()
            answer = client.answer()
            assert (answer.status, answer.body, answer.headers["connection"]) == (413, b"no", "close")
            client.rest()
            sender.join(10)
        assert worker.statistics.made_by_target == {413: 1}


def test_an_early_yes_flows_while_the_body_still_does() -> None:
    """An echo: each part of the body comes back before the next one is sent."""

    def behaviour(peer: Peer) -> None:
        data = body_of(peer.receive())
        peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 400\r\n\r\n" + data)
        left = 400 - len(data)
        while left:
            data = peer.receive()
            peer.send(data)
            left -= len(data)
        peer.request()
        peer.send(behaviours.OK)

    with meeting(behaviour) as (client, worker):
        client.say(head(b"Content-Length: 400"))
        for number in range(4):
            client.say(b"%d" % number * 100)
            if number == 0:
                assert client.until(b"\r\n\r\n").startswith(b"HTTP/1.1 200 OK\r\n")
            assert client.exactly(100) == b"%d" % number * 100
        assert client.ask(GET).status == 200
    assert worker.target().connects == 1


# --- however the input is split -----------------------------------------------------------------------------------

STORY = (
    GET
    + head(b"Content-Length: 5") + b"hello"
    + head(b"Transfer-Encoding: chunked") + b"3\r\nabc\r\n2;x=y\r\nde\r\n0\r\nX-T: 1\r\n\r\n"
    + head(method=b"HEAD")
    + GET
)  # fmt: skip
ANSWERS = [
    b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nfirst",
    b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 201 Created\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"2\r\nse\r\n4\r\ncond\r\n0\r\nX-T: 2\r\n\r\n",
    b"HTTP/1.1 204 No Content\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
]


class Storyteller:
    """Answers the requests of STORY, each split as the test says."""

    def __init__(self) -> None:
        self.cuts: list[int] = []

    def __call__(self, peer: Peer) -> None:
        number, data = 0, b""
        enough = [
            lambda data: data.endswith(b"\r\n\r\n"),
            lambda data: data.endswith(b"\r\n\r\nhello"),
            lambda data: data.endswith(b"0\r\nX-T: 1\r\n\r\n"),
            lambda data: data.endswith(b"\r\n\r\n"),
            lambda data: data.endswith(b"\r\n\r\n"),
        ]
        while True:
            data += peer.receive()
            if enough[number](data):
                for piece in split(ANSWERS[number], self.cuts):
                    peer.send(piece)
                    peer.wait(0.0005)
                number, data = (number + 1) % 5, b""


def split(data: bytes, cuts: list[int]) -> list[bytes]:
    places = sorted({cut % len(data) for cut in cuts} | {0, len(data)})
    return [data[start:end] for start, end in pairwise(places)]


def test_no_split_of_the_input_changes_what_it_means() -> None:
    teller = Storyteller()
    keeping = listener(upstream=UpstreamSide(reuse=Reuse.ALWAYS))
    with Server(teller) as server, OneWorker(keeping, pool(server.authority)) as worker:

        @settings(max_examples=60, deadline=None, database=None, suppress_health_check=list(HealthCheck))
        @given(st.lists(st.integers(0, 2000), max_size=12), st.lists(st.integers(0, 2000), max_size=6))
        def tell(cuts: list[int], answer_cuts: list[int]) -> None:
            teller.cuts = answer_cuts
            with Conversation(worker.address) as client:
                client.sock.setsockopt(6, 1, 1)  # TCP_NODELAY
                for piece in split(STORY, cuts):
                    client.say(piece)
                heard = [client.answer() for _ in range(4)]
                assert [answer.status for answer in heard] == [200, 100, 201, 204]
                assert (heard[0].body, heard[2].body, heard[2].trailers) == (b"first", b"second", b"X-T: 2\r\n")
                assert client.answer("HEAD").headers["content-length"] == "1000"
                assert client.answer().status == 200
            worker.until_left()

        tell()
    assert worker.statistics.made_by_balancer == {}
    assert worker.statistics.refused == {}


@settings(max_examples=60, deadline=None, database=None, suppress_health_check=list(HealthCheck))
@given(st.binary(max_size=300), st.integers(0, 300), st.sampled_from([GET, STORY, ANSWERS[1]]))
def _garble(worker: OneWorker, noise: bytes, at: int, base: bytes) -> None:
    with Conversation(worker.address) as client:
        try:
            client.say(base[:at] + noise + base[at:]).finish()
            client.rest()
        except OSError:
            pass


def test_noise_from_clients_and_targets_harms_nobody() -> None:
    """Whatever comes is answered or ended; the worker goes on, and every connection is given back."""
    noise = random.Random(2)

    def behaviour(peer: Peer) -> None:
        peer.receive()
        peer.send(noise.choice(ANSWERS)[: noise.randrange(80)] + noise.randbytes(noise.randrange(100)))

    with Server(behaviour) as server, OneWorker(listener(), pool(server.authority)) as worker:
        _garble(worker)
        worker.until_left()
        assert worker.target().active == 0
