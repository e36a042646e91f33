"""What a server does to a connection: good ones, odd but legal ones, and one for every way to go wrong.

Every function here is a `Behaviour`, or returns one. RFC 9112 decides what is legal.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Sequence

from kit.servers import Behaviour, Peer

BODY = b"hello"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
OK_CLOSE = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello"


# --- legal --------------------------------------------------------------------------------------------------------


def well(peer: Peer) -> None:
    """Answers, keeps the connection, closes when asked to."""
    while True:
        asks_close = peer.request().asks_close
        peer.send(OK_CLOSE if asks_close else OK)
        if asks_close:
            return


def answers(data: bytes, *, then_close: bool = False) -> Behaviour:
    """These bytes for every request; closes when asked to, or after the first."""

    def behaviour(peer: Peer) -> None:
        while True:
            asks_close = peer.request().asks_close
            peer.send(data)
            if asks_close or then_close:
                return

    return behaviour


chunked = answers(
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n2;a=b\r\nlo\r\n0\r\nTrailer: yes\r\n\r\n"
)
read_to_close = answers(b"HTTP/1.1 200 OK\r\n\r\nhello", then_close=True)
informational = answers(
    b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </style.css>; rel=preload\r\n\r\n" + OK
)
no_content = answers(b"HTTP/1.1 204 No Content\r\n\r\n")
not_modified = answers(b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\nETag: x\r\n\r\n")
head = answers(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n")  # right as an answer to HEAD only
http_1_0 = answers(b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello", then_close=True)
not_found = answers(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
unavailable = answers(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n")


def byte_by_byte(peer: Peer) -> None:
    """A legal answer, one byte per segment."""
    while True:
        asks_close = peer.request().asks_close
        for position in range(len(OK)):
            peer.send(OK[position : position + 1])
        if asks_close:
            return


def echo(peer: Peer) -> None:
    """tcp://: sends back what comes."""
    while True:
        peer.send(peer.receive())


def after(delays: Sequence[float]) -> Behaviour:
    """Answers the n-th request of the whole server after the n-th delay (seconds), starting over at the end."""
    schedule, lock = itertools.cycle(delays), threading.Lock()

    def behaviour(peer: Peer) -> None:
        while True:
            asks_close = peer.request().asks_close
            with lock:
                delay = next(schedule)
            peer.wait(delay)
            peer.send(OK_CLOSE if asks_close else OK)
            if asks_close:
                return

    return behaviour


class StallsOnce:
    """Answers at once, but from the `at`-th request on the whole server stands still for `seconds`, once."""

    def __init__(self, at: int, seconds: float) -> None:
        self._at, self._seconds = at, seconds
        self._lock, self._count = threading.Lock(), 0

    def __call__(self, peer: Peer) -> None:
        while True:
            asks_close = peer.request().asks_close
            with self._lock:  # whoever stalls holds everybody up
                self._count += 1
                if self._count == self._at:
                    peer.wait(self._seconds)
            peer.send(OK_CLOSE if asks_close else OK)
            if asks_close:
                return


# --- who closes ---------------------------------------------------------------------------------------------------


def ignores_close(peer: Peer) -> None:
    """Keeps the connection open although `Connection: close` was asked for, until the other end closes."""
    while True:
        peer.request()
        peer.send(OK)


def closes_unannounced(requests: int) -> Behaviour:
    """Ends a kept connection after this many answers, without having said so."""

    def behaviour(peer: Peer) -> None:
        for _ in range(requests):
            peer.request()
            peer.send(OK)

    return behaviour


def closes_announced(requests: int) -> Behaviour:
    """Ends a kept connection after this many answers; the last one says `Connection: close`."""

    def behaviour(peer: Peer) -> None:
        for number in range(1, requests + 1):
            peer.request()
            peer.send(OK_CLOSE if number == requests else OK)

    return behaviour


def announces_and_waits(peer: Peer) -> None:
    """Says `Connection: close`, but lets the other end close first: TIME_WAIT goes to the client."""
    peer.request()
    peer.send(OK_CLOSE)
    peer.read_to_end()


# --- wrong --------------------------------------------------------------------------------------------------------


def closes_at_accept(peer: Peer) -> None:
    """FIN before anything was read. The request that arrives later is answered with RST by the kernel."""


def closes_before_answer(peer: Peer) -> None:
    peer.request()


def truncates(peer: Peer) -> None:
    """FIN in the middle of a body of known length."""
    peer.request()
    peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nonly this")


def truncates_chunk(peer: Peer) -> None:
    peer.request()
    peer.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n64\r\nonly this")


def truncates_head(peer: Peer) -> None:
    peer.request()
    peer.send(b"HTTP/1.1 200 OK\r\nContent-Le")


def resets_at_accept(peer: Peer) -> None:
    peer.reset()


def resets_after_request(peer: Peer) -> None:
    peer.request()
    peer.reset()


def resets_in_body(peer: Peer) -> None:
    """RST in mid-body, late enough that the first part has been read."""
    peer.request()
    peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nonly this")
    peer.wait(0.05)
    peer.reset()


def stalls_before_answer(peer: Peer) -> None:
    peer.request()
    peer.stall()


def stalls_in_body(peer: Peer) -> None:
    peer.request()
    peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nonly this")
    peer.stall()


def stalls_at_once(peer: Peer) -> None:
    """Accepts and never reads or writes: of a TLS server, a handshake that never begins."""
    peer.stall()


def closes_after_hello(peer: Peer) -> None:
    """Reads what a TLS client begins with, and ends."""
    peer.receive()


def resets_after_hello(peer: Peer) -> None:
    peer.receive()
    peer.reset()


def speaks_plainly(peer: Peer) -> None:
    """Answers whatever comes in plain HTTP: of a TLS client, its ClientHello."""
    peer.receive()
    peer.send(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")


trailing_data = answers(OK + b"and more than announced")

# Each of these answers breaks the framing or the syntax in its own way.
BROKEN: dict[str, bytes] = {
    "garbage": b"\x16\x03\x01\x00\x05 this is no HTTP at all\r\n\r\n",
    "status-line": b"HTTP/1.1 OK 200\r\nContent-Length: 5\r\n\r\nhello",
    "version": b"HTTP/9.7 200 OK\r\nContent-Length: 5\r\n\r\nhello",
    "length-twice": b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 7\r\n\r\nhello",
    "length-negative": b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\nhello",
    "length-no-number": b"HTTP/1.1 200 OK\r\nContent-Length: five\r\n\r\nhello",
    "length-and-chunked": b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"5\r\nhello\r\n0\r\n\r\n",
    "chunk-size": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nhello\r\n0\r\n\r\n",
    "chunk-end": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhelloXX0\r\n\r\n",
    "header-name": b"HTTP/1.1 200 OK\r\nContent Length: 5\r\n\r\nhello",
}
