"""Bodies on their way through: where they end, and what is sent on of what came. No body is ever held.

All have `feed(data) -> (what to send on, how many bytes of data belong to it, whether it is over) | Refusal`, like
http.chunks.Chunks, which is the chunked one.
"""

from __future__ import annotations

from typing import Protocol

from timewait.balancer.http.chunks import LAST_CHUNK, Chunks, chunk
from timewait.balancer.http.grammar import CHUNKED, NO_BODY, UNTIL_CLOSE, Refusal


class Body(Protocol):
    """A body that is not over yet."""

    received: int  # bytes of it so far, without framing

    def feed(self, data: bytes) -> tuple[bytes, int, bool] | Refusal: ...


class Length:
    """A body whose length was said."""

    __slots__ = ("left", "received")

    def __init__(self, length: int) -> None:
        self.left, self.received = length, 0

    def feed(self, data: bytes) -> tuple[bytes, int, bool] | Refusal:
        size = len(data)
        if size > self.left:
            data, size = data[: self.left], self.left
        self.left -= size
        self.received += size
        return data, size, not self.left


class UntilClose:
    """A body that ends with the target's connection. For a client of HTTP/1.1 it is sent in chunks, so that the end
    is told from a failure, and the client's connection stays."""

    __slots__ = ("_plain", "received")

    def __init__(self, plain: bool) -> None:
        self._plain, self.received = plain, 0

    def feed(self, data: bytes) -> tuple[bytes, int, bool] | Refusal:
        self.received += len(data)
        return data if self._plain or not data else chunk(data), len(data), False

    def end(self) -> bytes:
        """The target has closed."""
        return b"" if self._plain else LAST_CHUNK


def of_request(framing: int, limit: int) -> Body | None:
    """What is to be read of a request behind its head."""
    if framing == NO_BODY:
        return None
    return Chunks(limit) if framing == CHUNKED else Length(framing)


def of_answer(framing: int, http10: bool) -> Body | None:
    """What is to be read of an answer behind its head."""
    if framing == NO_BODY:
        return None
    if framing == UNTIL_CLOSE:
        return UntilClose(http10)
    return Chunks(plain=http10, bad=502) if framing == CHUNKED else Length(framing)
