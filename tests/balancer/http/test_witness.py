"""Ordinary heads are not read a second time as they pass; here they are, so that what is said of them stays true.

An ordinary head is put together of lines alone (request._ordinary, response._ordinary). Whether llhttp sees the same
is asked for every byte in every place of a line, and for lines of all kinds together.
"""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from balancer.http.mutations import MUTATIONS
from timewait.balancer.config.model import Limits
from timewait.balancer.http import request, response
from timewait.balancer.http.request import RequestHead, request_head
from timewait.balancer.http.response import ResponseHead, response_head
from timewait.balancer.http.witness import objects_to_answer, objects_to_request

LIMITS = Limits()
REQUEST_PLACES = [
    line + b" HTTP/1.1\r\nHost: a\r\nX: y"
    for line in (
        b"@ET /",
        b"G@T /",
        b"GE@ /",
        b"GET @",
        b"GET /@",
        b"GET /a@b",
        b"GET /a?@",
        b"GET /a?b@c",
        b"GET /a@?b",
    )
] + [b"GET / HTTP/1.1\r\nHost: @\r\nX: y", b"GET / HTTP/1.1\r\nHost: a@b\r\nX: y"]
ANSWER_PLACES = [b"HTTP/1.1 200 @\r\nContent-Length: 3", b"HTTP/1.1 200 a@b\r\nContent-Length: 3"]
FIELD_PLACES = [
    b"@X: y", b"X@Y: z", b"X@: y", b"X:@", b"X:@y", b"X: @y", b"X: y@z", b"X: y@", b"X: y @", b"X: y\t@",
    b"Cookie: a@b", b"Connection: close@", b"X: y\r\n@Z: z", b"X: y@\r\nZ: z", b"@: y", b"X@y:",
]  # fmt: skip


def agrees(head: object) -> bool:
    """Whether llhttp sees in what would be forwarded what we do; True where nothing would be."""
    if isinstance(head, RequestHead):
        return objects_to_request(head.method, head.target, head.forward) is None
    return not isinstance(head, ResponseHead) or objects_to_answer(head.status, head.forward) is None


@pytest.mark.parametrize(
    "place", REQUEST_PLACES + [b"GET / HTTP/1.1\r\nHost: a\r\n" + field for field in FIELD_PLACES]
)
def test_every_byte_in_every_place_of_a_request(place: bytes) -> None:
    streams = [place.replace(b"@", bytes([byte])) + b"\r\n\r\n" for byte in range(256)]
    heads = [request_head(stream, LIMITS) for stream in streams]
    assert any(isinstance(head, RequestHead) for head in heads)
    assert [stream for stream, head in zip(streams, heads, strict=True) if not agrees(head)] == []


@pytest.mark.parametrize(
    "place", ANSWER_PLACES + [b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n" + field for field in FIELD_PLACES]
)
def test_every_byte_in_every_place_of_an_answer(place: bytes) -> None:
    streams = [place.replace(b"@", bytes([byte])) + b"\r\n\r\n" for byte in range(256)]
    heads = [response_head(stream, b"GET") for stream in streams]
    assert [stream for stream, head in zip(streams, heads, strict=True) if not agrees(head)] == []


TARGETS = [b"/", b"//a", b"/a/../b?c", b"/%41/?a//b", b"/.x", b"/a.b/c?", b"*", b"http://a/b", b"/?#", b"/a/b/?c=/./"]
LINES = st.sampled_from(
    [
        b"Host: a", b"host:\tB:80 ", b"Cookie: a=b", b"cookie:c", b"Connection: close", b"Connection:Keep-Alive",
        b"Content-Length: 0", b"Content-Length: 005", b"X:", b"X: y ", b"X_Y: z", b"Content_Length: 4", b"Proxy: a",
        b"X-Real_IP: a", b"Connection: x", b"Te: trailers", b"Transfer-Encoding: chunked", b"Expect: 100-continue",
        b"Host: [::1]:80", b"Host: a b", b"Content-Length: 7", b"content-length: 19", b"Accept: */*", b"Kind: x",
        b"X:  y", b"connection: close", b"Connection: keep-alive", b"Upgrade: a", b"Upgrade-Insecure-Requests: 1",
        *[b"Accept: */*", b"User-Agent: x", b"Host: a", b"Cookie: a=b; c"] * 150,
        *MUTATIONS.values(),
    ]
)  # fmt: skip


def long_way(asked: bytes, limits: Limits, answered: bytes, method: bytes, header_size: int) -> tuple[object, object]:
    """What comes of both heads where none is taken for ordinary."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(request, "_ordinary", lambda *_: None)
        patch.setattr(response, "_ordinary", lambda *_: None)
        return request_head(asked, limits), response_head(answered, method, header_size=header_size)


@given(
    line=st.sampled_from(
        [b"GET %b HTTP/1.1" % target for target in TARGETS]
        + [b"CONNECT a:80 HTTP/1.1", b"CONNECT / HTTP/1.1", b"GET / HTTP/1.0", b"GET /" + b"x" * 240 + b" HTTP/1.1"]
    ),
    lines=st.lists(LINES, max_size=7),
    most=st.sampled_from([10, 100]),
    status=st.sampled_from([b"1.1 200", b"1.0 200", b"1.1 204", b"1.1 304", b"1.1 426", b"1.1 500", b"1.1 100"]),
    method=st.sampled_from([b"GET", b"HEAD", b"CONNECT"]),
    size=st.sampled_from([1024, 4096]),
)
@settings(max_examples=400, deadline=None)
def test_an_ordinary_head_is_what_the_long_way_makes_of_it(
    line: bytes, lines: list[bytes], most: int, status: bytes, method: bytes, size: int
) -> None:
    limits = Limits(request_line=256, header_size=size, header_count=most)
    rest = b"\r\n".join([*lines, b"", b"the next"])
    asked, answered = b"%b\r\n%b" % (line, rest), b"HTTP/%b OK\r\n%b" % (status, rest)
    heads = request_head(asked, limits), response_head(answered, method, header_size=size)
    assert heads == long_way(asked, limits, answered, method, size)
    assert agrees(heads[0]) and agrees(heads[1])


@pytest.mark.parametrize("before", [0, 1, 8, 9, 23, 24, 25, 98, 99, 100])
@pytest.mark.parametrize("behind", [0, 1, 24, 25, 99, 100, 101])
def test_many_lines(before: int, behind: int) -> None:
    lines = [b"X: %d" % number for number in range(before)], [b"Y: %d" % number for number in range(behind)]
    for name in (b"Host: a", b"Connection: close", b"Cookie: a=b", b"Content-Length: 7"):
        rest = b"\r\n".join([*lines[0], name, *lines[1], b"", b""])
        for most in (10, 26, 100):
            limits = Limits(header_count=most, header_size=1024)
            for first in (b"Host: b\r\n", b""):
                asked, answered = b"GET / HTTP/1.1\r\n%b%b" % (first, rest), b"HTTP/1.1 200 OK\r\n%b" % rest
                heads = request_head(asked, limits), response_head(answered, b"GET", header_size=1024)
                assert heads == long_way(asked, limits, answered, b"GET", 1024)
