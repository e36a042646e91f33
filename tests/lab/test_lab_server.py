"""The embedded server: what it answers, and above all who closes first."""

from __future__ import annotations

import os
import resource
import select
import socket
import struct
import time
from collections.abc import Iterator
from itertools import pairwise

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from timewait.lab.server import BODY, Counts, Server
from timewait.lab.serving import Answers, Conversation

CLOSE = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
KEEP = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"


@pytest.fixture(params=["127.0.0.1", "::1"])
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    with Server(request.param) as running:
        yield running


def connect(server: Server) -> socket.socket:
    return socket.create_connection((server.address, server.port), 30)


def to_the_end(connection: socket.socket) -> bytes:
    parts = []
    while part := connection.recv(65536):
        parts.append(part)
    return b"".join(parts)


def settled(server: Server, wanted: Counts) -> Counts:
    """Its counts once they are `wanted`, or what they are after half a minute."""
    deadline = time.monotonic() + 30
    while server.counts() != wanted and time.monotonic() < deadline:
        select.select([], [], [], 0.01)
    return server.counts()


def is_silent(connection: socket.socket) -> bool:
    """Nothing more has come, no FIN either."""
    return not select.select([connection], [], [], 0.1)[0]


@pytest.mark.parametrize("request_bytes", [CLOSE, b"GET / HTTP/1.0\r\n\r\n"])
def test_it_closes_first_when_asked(server: Server, request_bytes: bytes) -> None:
    for _ in range(3):  # the first is parsed, the others are known by their bytes
        with connect(server) as connection:
            connection.sendall(request_bytes)
            answer = to_the_end(connection)  # ends: the server's FIN, before any of ours
            assert answer.startswith(b"HTTP/1.1 200 OK\r\n") and answer.endswith(b"\r\n\r\n" + BODY)
            assert b"Connection: close\r\n" in answer
    wanted = Counts(accepted=3, requests=3, closed_us=3, closed_peer=0, resets=0, bad=0)
    assert settled(server, wanted) == wanted


@pytest.mark.parametrize("request_bytes", [KEEP, b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"])
def test_it_waits_for_the_client_otherwise(server: Server, request_bytes: bytes) -> None:
    with connect(server) as connection:
        for _ in range(3):
            connection.sendall(request_bytes)
            answer = connection.recv(1000)
            assert answer.endswith(BODY)
            assert (b"keep-alive" in answer) == (b"1.0" in request_bytes)
            assert is_silent(connection)
        connection.shutdown(socket.SHUT_WR)
        assert connection.recv(1) == b""
    wanted = Counts(accepted=1, requests=3, closed_us=0, closed_peer=1, resets=0, bad=0)
    assert settled(server, wanted) == wanted


def test_a_client_whose_fin_came_with_the_request_closed_first(server: Server) -> None:
    """Also with `Connection: close`: FIN and request arrive in one segment, so the server's FIN is the second."""
    with connect(server) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 1)
        connection.sendall(CLOSE)
        connection.shutdown(socket.SHUT_WR)
        assert to_the_end(connection).endswith(BODY)
    wanted = Counts(accepted=1, requests=1, closed_us=0, closed_peer=1, resets=0, bad=0)
    assert settled(server, wanted) == wanted


def test_a_reset_is_counted_as_one(server: Server) -> None:
    connection = connect(server)
    connection.sendall(KEEP)
    assert connection.recv(1000).endswith(BODY)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()
    wanted = Counts(accepted=1, requests=1, closed_us=0, closed_peer=0, resets=1, bad=0)
    assert settled(server, wanted) == wanted


def test_head_bodies_chunks_expect_and_pipelining(server: Server) -> None:
    with connect(server) as connection:
        connection.sendall(b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n")
        head = connection.recv(1000)
        assert b"Content-Length: %d\r\n" % len(BODY) in head and head.endswith(b"\r\n\r\n")
        connection.sendall(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nab")
        assert is_silent(connection)
        connection.sendall(b"cd")
        assert connection.recv(1000).endswith(BODY)
        connection.sendall(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n")
        assert connection.recv(1000).endswith(BODY)
        connection.sendall(b"PUT / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\n")
        assert connection.recv(1000) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(b"x" + KEEP + CLOSE)
        assert to_the_end(connection).count(BODY) == 3
    wanted = Counts(accepted=1, requests=6, closed_us=1, closed_peer=0, resets=0, bad=0)
    assert settled(server, wanted) == wanted


def test_what_follows_a_close_does_not_turn_it_into_a_reset(server: Server) -> None:
    """close() with unread data in the queue sends RST, which may destroy the answer on its way (RFC 2525, 2.17)."""
    with connect(server) as connection:
        connection.sendall(CLOSE + KEEP + b"x" * 100_000)
        assert to_the_end(connection).count(BODY) == 1


@pytest.mark.parametrize(
    "garbage",
    [b"\x16\x03\x01\x02\x00\x01\x00", b"GET\r\n\r\n", b"\x00" * 9000, b"CONNECT a:1 HTTP/1.1\r\n\r\n"],
)
def test_garbage_gets_400_and_the_server_lives_on(server: Server, garbage: bytes) -> None:
    with connect(server) as connection:
        connection.sendall(garbage)
        assert to_the_end(connection).startswith(b"HTTP/1.1 400 ")
    with connect(server) as connection:
        connection.sendall(CLOSE)
        assert to_the_end(connection).endswith(BODY)


def test_a_header_without_end_is_cut_off(server: Server) -> None:
    with connect(server) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nX: ")
        for _ in range(8):
            connection.sendall(b"a" * 16_000)
        assert connection.recv(12) == b"HTTP/1.1 400"


def test_a_client_that_reads_nothing_holds_nobody_up() -> None:
    body = b"b" * 3_000_000
    with Server(body=body) as server, connect(server) as slow:
        slow.sendall(KEEP + CLOSE)
        select.select([slow], [], [])  # its answers are stuck in the buffers now
        with connect(server) as quick:
            quick.sendall(CLOSE)
            assert to_the_end(quick).endswith(b"\r\n\r\n" + body)
        assert to_the_end(slow).count(b"HTTP/1.1 200 OK") == 2
        wanted = Counts(accepted=2, requests=3, closed_us=2, closed_peer=0, resets=0, bad=0)
        assert settled(server, wanted) == wanted


def test_more_connections_than_descriptors_wait_their_turn() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    held: list[socket.socket] = []
    with _limited(40) as server:
        try:
            held = [connect(server) for _ in range(60)]
            for connection in held[:20]:
                connection.close()
            held[-1].settimeout(30)
            held[-1].sendall(CLOSE)
            for connection in held[20:40]:
                connection.close()
            assert to_the_end(held[-1]).endswith(BODY)
        finally:
            for connection in held:
                connection.close()
    assert resource.getrlimit(resource.RLIMIT_NOFILE) == (soft, hard)


def _limited(most: int) -> Server:
    """A server whose process may open `most` descriptors only."""
    server = Server()
    resource.prlimit(server.pid, resource.RLIMIT_NOFILE, (most, most))
    return server


def test_stopped_it_is_gone_and_its_counts_remain(server: Server) -> None:
    with connect(server) as connection:
        connection.sendall(CLOSE)
        to_the_end(connection)
    wanted = Counts(accepted=1, requests=1, closed_us=1, closed_peer=0, resets=0, bad=0)
    assert settled(server, wanted) == wanted
    server.stop()
    server.stop()
    assert server.counts() == wanted
    with pytest.raises(ConnectionRefusedError):
        connect(server)
    with pytest.raises(ProcessLookupError):
        os.kill(server.pid, 0)


def test_an_address_in_use_is_an_error_and_leaves_no_process(server: Server) -> None:
    with pytest.raises(OSError):
        Server(server.address, server.port)


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(
    requests=st.lists(st.sampled_from([KEEP, b"POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc"]), max_size=4),
    cuts=st.lists(st.integers(0, 300), max_size=6),
)
def test_however_the_bytes_are_cut_the_answers_are_the_same(requests: list[bytes], cuts: list[int]) -> None:
    stream = b"".join(requests) + CLOSE
    whole, pieces = Conversation(Answers(BODY)), Conversation(Answers(BODY))
    whole.feed(stream)
    edges = sorted({0, len(stream), *(cut for cut in cuts if cut < len(stream))})
    for start, end in pairwise(edges):
        pieces.feed(stream[start:end])
    assert pieces.out == whole.out
    assert (pieces.requests, pieces.keep, pieces.bad) == (len(requests) + 1, False, False)


@given(st.binary(max_size=400))
def test_no_bytes_break_a_conversation(data: bytes) -> None:
    talk = Conversation(Answers(BODY))
    talk.feed(data)
    talk.feed(data)
    assert talk.out.startswith(b"HTTP/1.1 ") or (talk.keep and not talk.out)
