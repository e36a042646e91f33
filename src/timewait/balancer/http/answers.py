"""Answers the balancer makes itself, as bytes."""

from __future__ import annotations

from functools import lru_cache
from http import HTTPStatus

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"

_PHRASES = {413: "Content Too Large", 414: "URI Too Long", 421: "Misdirected Request"}  # RFC 9110; older in http


@lru_cache(maxsize=256)
def _parts(status: int) -> tuple[bytes, bytes]:
    phrase = f"{status} {_PHRASES.get(status) or HTTPStatus(status).phrase}"
    body = f"{phrase}\n".encode()
    head = (
        f"HTTP/1.1 {phrase}\r\nServer: timewait\r\nContent-Type: text/plain\r\n"
        f"Content-Length: {len(body)}\r\nCache-Control: no-store\r\n"
    )
    return head.encode(), body


def answer(
    status: int, *, head_only: bool = False, close: bool = False, location: bytes = b"", fields: bytes = b""
) -> bytes:
    """A whole answer. `head_only` for HEAD; `close` where the connection ends with it; `fields` are whole lines.

    Everything but 301 and 404 is an answer to a connection whose next byte means nothing any more, or whose request
    was not read to its end: then it must be closed, and say so (RFC 9112, 9.6).
    """
    head, body = _parts(status)
    if location:
        fields = b"Location: %b\r\n%b" % (location, fields)
    connection = b"close" if close else b"keep-alive"
    return b"%b%bConnection: %b\r\n\r\n%b" % (head, fields, connection, b"" if head_only else body)
