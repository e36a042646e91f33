"""A whole connection through the message layer, as a data plane drives it, and what h11 makes of what comes out."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import h11

from timewait.balancer.config.model import Limits
from timewait.balancer.http.chunks import Chunks
from timewait.balancer.http.grammar import CHUNKED, Refusal
from timewait.balancer.http.request import RequestHead, request_head

LIMITS = Limits()


class Passed(NamedTuple):
    """What became of a client's bytes."""

    heads: list[RequestHead]
    bodies: list[bytes]  # of each head, unframed; the last may be incomplete
    sent: bytes  # what a target would get
    refusal: Refusal | None
    complete: bool  # nothing is left over, no message is unfinished


class Client:
    """Takes bytes as they come. Keeps no secret from a test: what it holds is what a data plane would hold."""

    def __init__(self, limits: Limits = LIMITS) -> None:
        self.limits = limits
        self.buffer = b""
        self.heads: list[RequestHead] = []
        self.bodies: list[bytes] = []
        self.sent: list[bytes] = []
        self.refusal: Refusal | None = None
        self.left = 0
        self.chunks: tuple[Chunks, Chunks] | None = None

    def feed(self, data: bytes) -> None:
        """A piece of the stream."""
        self.buffer += data
        while self.refusal is None and self._step():
            pass

    def _step(self) -> bool:
        """One head or one piece of a body; False where more bytes are needed."""
        if self.chunks is not None:
            return self._chunked()
        if self.left:
            piece, self.buffer = self.buffer[: self.left], self.buffer[self.left :]
            self.left -= len(piece)
            self._body(piece, piece)
            return bool(piece)
        head = request_head(self.buffer, self.limits)
        if isinstance(head, Refusal):
            self.refusal = head
        elif head is not None:
            self.buffer = self.buffer[head.size :]
            self.heads.append(head)
            self.bodies.append(b"")
            host = b"" if head.host else b"Host: target\r\n"  # a target of HTTP/1.1 wants one
            self.sent.append(head.forward + host + b"\r\n")
            self.left = max(head.framing, 0)
            if head.framing == CHUNKED:
                self.chunks = Chunks(self.limits.body_size), Chunks(self.limits.body_size, plain=True)
        return head is not None

    def _chunked(self) -> bool:
        assert self.chunks is not None
        if not self.buffer:
            return False
        framed, plain = (chunks.feed(self.buffer) for chunks in self.chunks)
        if isinstance(framed, Refusal) or isinstance(plain, Refusal):
            assert framed == plain
            self.refusal = plain if isinstance(plain, Refusal) else None
            return True
        assert framed[1:] == plain[1:]
        self._body(framed[0], plain[0])
        self.buffer = self.buffer[framed[1] :]
        if framed[2]:
            self.chunks = None
        return True

    def _body(self, sent: bytes, plain: bytes) -> None:
        self.sent.append(sent)
        self.bodies[-1] += plain

    def passed(self) -> Passed:
        """The outcome so far."""
        complete = self.refusal is None and not self.buffer and not self.left and self.chunks is None
        return Passed(self.heads, self.bodies, b"".join(self.sent), self.refusal, complete)


def through(pieces: bytes | Iterable[bytes], limits: Limits = LIMITS) -> Passed:
    """All of a stream, in one piece or in several."""
    client = Client(limits)
    for piece in [pieces] if isinstance(pieces, bytes) else pieces:
        client.feed(piece)
    return client.passed()


class Read(NamedTuple):
    """A request as h11 reads it."""

    method: bytes
    target: bytes
    fields: list[tuple[bytes, bytes]]  # names in lower case
    body: bytes
    complete: bool


def read_by_h11(stream: bytes) -> list[Read]:
    """Every request in what a target would get; h11 raises for a bad one."""
    requests: list[Read] = []
    while stream:
        connection = h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 20)
        connection.receive_data(stream)
        request = connection.next_event()
        assert isinstance(request, h11.Request), request
        body = b""
        while isinstance(event := connection.next_event(), h11.Data):
            body += bytes(event.data)
        complete = isinstance(event, h11.EndOfMessage)
        fields = [(bytes(name), bytes(value)) for name, value in request.headers]
        requests.append(Read(bytes(request.method), bytes(request.target), fields, body, complete))
        stream = bytes(connection.trailing_data[0]) if complete else b""
    return requests


def assert_same_for_h11(passed: Passed) -> None:
    """h11 sees the requests that were let through: as many, with the same first lines, lengths and bodies."""
    read = read_by_h11(passed.sent)
    assert [(each.method, each.target, each.body) for each in read] == [
        (head.method, head.target, body) for head, body in zip(passed.heads, passed.bodies, strict=True)
    ]
    for each in read:
        names = [name for name, _ in each.fields]
        assert names.count(b"content-length") + names.count(b"transfer-encoding") <= 1
        assert names.count(b"host") <= 1
    if passed.complete:
        assert all(each.complete for each in read)
