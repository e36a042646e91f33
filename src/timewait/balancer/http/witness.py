"""A second reader for what is forwarded: llhttp, which many targets use themselves.

The grammar here is the only way into a message, and a mistake in it would be one nobody else checks. So every head
that was put together is read once more by a parser that shares no line with it; where the two do not see the same
message, it is refused. Heads of the most usual kind (`_ordinary` in request.py and response.py) are spared that, for
it would be a quarter of what a new head costs: nothing in them is decided but which of their lines are sent on, and
tests/balancer/http/test_witness.py has llhttp read such heads with every byte in every place of a line.
"""

from __future__ import annotations

import httptools

from timewait.balancer.http.grammar import Refusal


class _Notes:
    """What llhttp calls back with."""

    __slots__ = ("complete", "fields", "url")

    def __init__(self) -> None:
        self.url = b""
        self.fields: list[bytes] = []
        self.complete = False

    def on_url(self, url: bytes) -> None:
        self.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self.fields.append(b"%b: %b\r\n" % (name, value or b""))

    def on_headers_complete(self) -> None:
        self.complete = True


def objects_to_request(method: bytes, target: bytes, forward: bytes) -> Refusal | None:
    """`forward` begins with method and target; a method that llhttp does not know changes nothing in how it reads."""
    notes = _Notes()
    parser = httptools.HttpRequestParser(notes)
    line_end = forward.index(b"\r\n") + 2
    known = method if method == b"CONNECT" else b"POST"
    try:
        parser.feed_data(b"%b%b\r\n" % (known, forward[len(method) :]))
    except httptools.HttpParserUpgrade:
        pass
    except httptools.HttpParserError:
        return Refusal(400, "second-reader")
    same = notes.complete and notes.url == target and b"".join(notes.fields) == forward[line_end:]
    return None if same else Refusal(400, "second-reader")


def objects_to_answer(status: int, forward: bytes) -> Refusal | None:
    """The same for an answer."""
    notes = _Notes()
    parser = httptools.HttpResponseParser(notes)
    line_end = forward.index(b"\r\n") + 2
    try:
        parser.feed_data(forward + b"\r\n")
    except httptools.HttpParserUpgrade:
        pass
    except httptools.HttpParserError:
        return Refusal(502, "second-reader")
    same = notes.complete and parser.get_status_code() == status and b"".join(notes.fields) == forward[line_end:]
    return None if same else Refusal(502, "second-reader")
