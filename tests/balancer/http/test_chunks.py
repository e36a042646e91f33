"""Chunked bodies: what is accepted, what comes out, what is refused."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from timewait.balancer.http import chunks as module
from timewait.balancer.http.chunks import LAST_CHUNK, MOST_TRAILERS, Chunks, chunk
from timewait.balancer.http.grammar import Refusal


def plain(stream: bytes, limit: int | None = None) -> tuple[bytes, int]:
    """The data of a whole body, and where it ends."""
    fed = Chunks(limit, plain=True).feed(stream)
    assert not isinstance(fed, Refusal), fed
    assert fed[2]
    return fed[0], fed[1]


def refused(stream: bytes, limit: int | None = None, bad: int = 400) -> tuple[int, str]:
    """Status and reason for a body that is wrong; also byte by byte, where nothing may come out after it."""
    chunks, slow = Chunks(limit, bad=bad), Chunks(limit, bad=bad)
    fed = chunks.feed(stream)
    assert isinstance(fed, Refusal), fed
    assert chunks.feed(b"0\r\n\r\n") == fed
    assert fed in [slow.feed(bytes((byte,))) for byte in stream]
    return fed.status, fed.reason


def test_a_body_is_chunked_anew() -> None:
    chunks = Chunks()
    assert chunks.feed(b"5\r\nhello\r\n1;name=value\r\n \r\n005\r\nwor") == (b"9\r\nhello wor\r\n", 35, False)
    assert chunks.feed(b"ld\r\n0\r") == (b"2\r\nld\r\n", 6, False)
    assert chunks.feed(b"\n\r\nGET /") == (LAST_CHUNK, 3, True)
    assert chunks.received == 11


def test_a_body_for_http_1_0_is_plain() -> None:
    assert plain(b"3\r\nabc\r\nA\r\n0123456789\r\n0\r\nX: y\r\n\r\nnext") == (b"abc0123456789", 34)
    assert plain(b"0\r\n\r\n") == (b"", 5)


def test_making_chunks() -> None:
    assert plain(chunk(b"x" * 300) + LAST_CHUNK)[0] == b"x" * 300


@pytest.mark.parametrize(
    "size",
    [b"3", b"03", b"0000000000000003", b"3;a", b"3;a=b", b'3;a="b"', b'3;a="\\"\t;\\\\\xff"', b"3;a;b=c;d"],
)
def test_sizes(size: bytes) -> None:
    assert plain(size + b"\r\nabc\r\n0\r\n\r\n")[0] == b"abc"


@pytest.mark.parametrize(
    ("size", "reason"),
    [
        (b"0x3", "chunk-size"),
        (b"+3", "chunk-size"),
        (b"-3", "chunk-size"),
        (b" 3", "chunk-size"),
        (b"3 ", "chunk-size"),
        (b"3\t", "chunk-size"),
        (b"", "chunk-size"),
        (b"g", "chunk-size"),
        (b"3h", "chunk-size"),
        (b"3_0", "chunk-size"),
        (b"3.0", "chunk-size"),
        (b"\xb2", "chunk-size"),
        (b"\r\n3", "chunk-size"),
        (b"00000000000000003", "chunk-size-too-large"),
        (b"FFFFFFFFFFFFFFFF", "chunk-size-too-large"),
        (b"10000000000000000", "chunk-size-too-large"),
        (b"3 ;a", "chunk-size"),
        (b"3; a", "chunk-extension"),
        (b"3;", "chunk-extension"),
        (b"3;a=", "chunk-extension"),
        (b"3;=b", "chunk-extension"),
        (b'3;a="b', "chunk-extension"),
        (b'3;a="b"c', "chunk-extension"),
        (b"3;a\n", "bare-lf"),
        (b"3;a\nb", "bare-lf"),
        (b"3\n", "bare-lf"),
        (b"3\n\n", "bare-lf"),
        (b"3;a\rb", "bare-cr"),
        (b"3\r", "bare-cr"),
        (b"3;\0", "nul"),
        (b"3;a\x7f", "control-character"),
        (b"3;" + b"a" * 600, "chunk-line-too-long"),
    ],
)
def test_a_size_that_is_none(size: bytes, reason: str) -> None:
    assert refused(size + b"\r\nabc\r\n0\r\n\r\n") == (400, reason)
    assert refused(b"1\r\nx\r\n" + size + b"\r\nabc\r\n0\r\n\r\n", bad=502) == (502, reason)


@pytest.mark.parametrize("end", [b"X", b"\n", b"\r\r", b"\rX", b" \r\n", b"0\r\n\r\n"])
def test_data_that_is_longer_than_its_size(end: bytes) -> None:
    assert refused(b"3\r\nabc" + end) == (400, "chunk-end")


def test_limits() -> None:
    assert plain(b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n", limit=5)[0] == b"abcde"
    assert refused(b"3\r\nabc\r\n3\r\n", limit=5) == (413, "body-too-large")
    assert refused(b"fffffffffffffff\r\n", limit=5) == (413, "body-too-large")
    assert refused(b"6\r\n", limit=5, bad=502) == (502, "body-too-large")
    many = b"1;" + b"a" * 500 + b"\r\nx\r\n"
    assert refused(many * 40) == (400, "chunk-extensions")
    assert refused(b"0\r\n" + b"X: y\r\n" * 65 + b"\r\n") == (431, "trailers-too-large")
    assert refused(b"0\r\nX: " + b"y" * MOST_TRAILERS) == (431, "trailers-too-large")
    assert refused(b"0\r\nX: " + b"y" * MOST_TRAILERS, bad=502) == (502, "trailers-too-large")


def test_trailers_that_may_not_change_the_message() -> None:
    trailers = (
        b'X-Sum: 1\r\nContent-Length: 5\r\nhost: x\r\nTransfer_Encoding: x\r\nSet-Cookie: a=b\r\nETag: "x" \r\n'
    )
    fed = Chunks().feed(b"1\r\nx\r\n0\r\n" + trailers + b"\r\nrest")
    assert fed == (b'1\r\nx\r\n0\r\nX-Sum: 1\r\nETag: "x"\r\n\r\n', 9 + len(trailers) + 2, True)


@pytest.mark.parametrize(
    ("trailer", "reason"),
    [
        (b"X : y\r\n", "trailer-space-before-colon"),
        (b" X: y\r\n", "trailer-obs-fold"),
        (b"X\r\n", "trailer-field-without-colon"),
        (b"X: \0\r\n", "nul"),
        (b"X: y\n", "bare-lf"),
        (b"\n", "bare-lf"),
        (b"\rX", "bare-cr"),
        (b"GET / HTTP/1.1\r\n", "trailer-field-without-colon"),
    ],
)
def test_a_trailer_that_is_none(trailer: bytes, reason: str) -> None:
    assert refused(b"0\r\n" + trailer + b"\r\n") == (400, reason)


def test_no_expression_has_a_possessive_group() -> None:
    """Python up to 3.11.4 takes for a match of one what is none (gh-106052)."""
    folder = Path(module.__file__).parent
    expressions = [
        line for file in folder.glob("*.py") for line in file.read_text().split("\n") if re.search("rb['\"]", line)
    ]
    assert len(expressions) > 20
    assert [line for line in expressions if re.search(r"(?<!\\)\)(?:[*+?]|\{[0-9,]+\})\+", line)] == []
