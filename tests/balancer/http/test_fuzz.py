"""Any bytes, split anywhere: no exception, one result, and never a message that h11 reads otherwise."""

from __future__ import annotations

from itertools import pairwise

import h11
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from balancer.http.mutations import BODIES, MUTATIONS
from balancer.http.through import assert_same_for_h11, through
from timewait.balancer.config.model import Limits
from timewait.balancer.http.chunks import Chunks
from timewait.balancer.http.grammar import CHUNKED, UNTIL_CLOSE, Refusal
from timewait.balancer.http.response import ResponseHead, response_head

SMALL = Limits(request_line=256, header_size=1024, header_count=10, body_size=64)

LINES = st.sampled_from(
    [
        b"GET / HTTP/1.1", b"POST /a?b HTTP/1.1", b"GET / HTTP/1.0", b"GET http://a/ HTTP/1.1",
        b"CONNECT a:80 HTTP/1.1", b"OPTIONS * HTTP/1.1", b"GET /" + b"x" * 260 + b" HTTP/1.1",
        b"GET /", b"HEAD //%2e%2E/ HTTP/1.1",
    ]
)  # fmt: skip
FIELDS = st.sampled_from(
    [
        b"Host: a", b"host:b:80", b"Host:", b"Content-Length: 5", b"content-length:05", b"Content-Length: 5,5",
        b"Transfer-Encoding: chunked", b"Transfer-Encoding:\tChunked", b"Transfer-Encoding: gzip, chunked",
        b"Connection: close", b"Connection: content-length, x", b"X: y", b"X:" + b"y" * 300, b" folded", b"X : y",
        b"Expect: 100-continue", b"Upgrade: h2c", b"Trailer: X", b"TE: trailers", b"Transfer_Encoding: chunked",
        *list(MUTATIONS.values())[:28],
    ]
)  # fmt: skip
REST = st.sampled_from(
    [
        b"", b"hello", b"5\r\nhello\r\n0\r\n\r\n", b"0\r\n\r\n", b"5;a=b\r\nhello\r\n0\r\nX: y\r\n\r\n",
        b"0\r\nX : y\r\n\r\n",
        b"41\r\n" + b"x" * 65 + b"\r\n0\r\n\r\n", b"5\nhello\r\n", b"0x5\r\nhello\r\n",
        BODIES["CL.TE"][1], BODIES["TE.CL"][1],
        b"\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
    ]
)  # fmt: skip
ENDS = st.sampled_from([b"\r\n"] * 12 + [b"\n", b"\r", b"\r\n\r\n", b" \r\n", b"\0\r\n"])


@st.composite
def streams(draw: st.DrawFn) -> bytes:
    """Requests that are nearly right, one or several."""
    stream = b""
    for _ in range(draw(st.integers(1, 3))):
        lines = [draw(LINES), *draw(st.lists(FIELDS, max_size=6))]
        if draw(st.booleans()):
            lines.insert(1, b"Host: a")
        stream += b"".join(line + draw(ENDS) for line in lines) + draw(ENDS) + draw(REST)
    if draw(st.integers(0, 4)) == 0 and stream:
        at = draw(st.integers(0, len(stream) - 1))
        stream = stream[:at] + draw(st.binary(max_size=2)) + stream[at + draw(st.integers(0, 2)) :]
    return stream


def pieces_of(stream: bytes, cuts: list[int]) -> list[bytes]:
    """`stream`, cut at those places."""
    places = sorted({0, len(stream), *(cut % (len(stream) + 1) for cut in cuts)})
    return [stream[start:end] for start, end in pairwise(places)]


@given(stream=streams(), cuts=st.lists(st.integers(0, 4096), max_size=8))
@settings(max_examples=400, deadline=None)
def test_requests_do_not_depend_on_how_they_are_split(stream: bytes, cuts: list[int]) -> None:
    whole, split = through(stream, SMALL), through(pieces_of(stream, cuts), SMALL)
    assert (split.heads, split.refusal, split.complete) == (whole.heads, whole.refusal, whole.complete)
    if whole.refusal is None:
        assert split.bodies == whole.bodies
    else:
        # A refused body's last piece is withheld; how much was let through before depends on when it came.
        assert all(a.startswith(b) or b.startswith(a) for a, b in zip(whole.bodies, split.bodies, strict=True))
    assert_same_for_h11(whole)
    assert_same_for_h11(split)


@pytest.mark.parametrize("direction", list(BODIES))
def test_every_split_of_an_attack_ends_alike(direction: str) -> None:
    length, body = BODIES[direction]
    stream = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nX: y\r\nContent-Length: %d\r\n\r\n%b" % (
        length,
        body,
    )
    good = stream.replace(b"Content-Length: %d\r\n" % length, b"")
    for each in (stream, good):
        whole = through(each)
        for cut in range(len(each) + 1):
            split = through([each[:cut], each[cut:]])
            assert (split.heads, split.bodies, split.refusal) == (whole.heads, whole.bodies, whole.refusal), cut


@given(st.binary(max_size=300))
@example(b"\r")
@example(b"\r\n\r\n")
@settings(max_examples=300, deadline=None)
def test_any_bytes_are_a_request_or_refused_or_waited_for(data: bytes) -> None:
    for stream in (data, b"GET / HTTP/1.1\r\n" + data, b"POST / HTTP/1.1\r\nHost: a\r\n" + data + b"\r\n\r\n"):
        assert_same_for_h11(through(stream, SMALL))


@given(
    line=st.sampled_from(
        [b"HTTP/1.1 200 OK", b"HTTP/1.0 200 OK", b"HTTP/1.1 204 x", b"HTTP/1.1 101 x", b"HTTP/1.1 99"]
    ),
    fields=st.lists(st.tuples(FIELDS, ENDS), max_size=6),
    rest=st.binary(max_size=40),
    method=st.sampled_from([b"GET", b"HEAD", b"CONNECT"]),
    header_size=st.sampled_from([200, 65536]),
)
@settings(max_examples=300, deadline=None)
def test_answers_do_not_depend_on_how_they_are_split(
    line: bytes, fields: list[tuple[bytes, bytes]], rest: bytes, method: bytes, header_size: int
) -> None:
    stream = line + b"\r\n" + b"".join(field + end for field, end in fields) + b"\r\n" + rest
    whole = response_head(stream, method, upgrade=True, header_size=header_size)
    results = (
        response_head(stream[:end], method, upgrade=True, header_size=header_size) for end in range(len(stream))
    )
    first = next((result for result in results if result is not None), whole)
    assert first == whole
    if isinstance(whole, Refusal):
        assert whole.status == 502


@given(stream=st.lists(REST | st.binary(max_size=12), max_size=4).map(b"".join), cuts=st.lists(st.integers(0, 4096)))
@settings(max_examples=400, deadline=None)
def test_chunks_do_not_depend_on_how_they_are_split(stream: bytes, cuts: list[int]) -> None:
    whole = Chunks(64, plain=True).feed(stream)
    chunks, data, used = Chunks(64, plain=True), b"", 0
    for piece in pieces_of(stream, cuts):
        fed = chunks.feed(piece)
        if isinstance(fed, Refusal):
            assert fed == whole
            return
        data, used = data + fed[0], used + fed[1]
        if fed[2]:
            assert whole == (data, used, True)
            return
    assert stream == b"" or whole == (data, used, False)


@given(
    status=st.sampled_from([200, 204, 304, 404, 500]),
    fields=st.lists(FIELDS, max_size=5),
    rest=REST,
    method=st.sampled_from([b"GET", b"HEAD"]),
)
@settings(max_examples=300, deadline=None)
def test_h11_reads_answers_that_are_let_through_alike(
    status: int, fields: list[bytes], rest: bytes, method: bytes
) -> None:
    head = response_head(b"HTTP/1.1 %d x\r\n" % status + b"\r\n".join([*fields, b"\r\n"]), method)
    if not isinstance(head, ResponseHead):
        return
    body, plain = rest[: max(head.framing, 0)], rest[: max(head.framing, 0)]
    if head.framing == CHUNKED:
        fed, unframed = Chunks(bad=502).feed(rest), Chunks(bad=502, plain=True).feed(rest)
        if isinstance(fed, Refusal) or isinstance(unframed, Refusal):
            return
        body, plain = fed[0], unframed[0]
    elif head.framing == UNTIL_CLOSE:
        body = plain = rest
    reader = h11.Connection(h11.CLIENT)
    reader.send(h11.Request(method=method, target="/", headers=[("Host", "a")]))
    reader.send(h11.EndOfMessage())
    reader.receive_data(head.forward + b"\r\n" + body)
    answer, read = reader.next_event(), b""
    assert isinstance(answer, h11.Response) and answer.status_code == status
    while isinstance(event := reader.next_event(), h11.Data):
        read += bytes(event.data)
    assert read == plain
    assert isinstance(event, h11.EndOfMessage) or event is h11.NEED_DATA
