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


LINES = st.sampled_from(
    [
        b"Host: a", b"host:\tB:80 ", b"Cookie: a=b", b"cookie:c", b"Connection: close", b"Connection:Keep-Alive",
        b"Content-Length: 0", b"Content-Length: 005", b"X:", b"X: y ", b"X_Y: z", b"Content_Length: 4", b"Proxy: a",
        b"X-Real_IP: a", b"Connection: x", b"Te: trailers", b"Transfer-Encoding: chunked", b"Expect: 100-continue",
        *MUTATIONS.values(),
    ]
)  # fmt: skip


@given(
    target=st.sampled_from(
        [b"/", b"//a", b"/a/../b?c", b"/%41/?a//b", b"/.x", b"/a.b/c?", b"*", b"http://a/b", b"/?#"]
    ),
    lines=st.lists(LINES, max_size=7),
    minor=st.sampled_from([b"0", b"1"]),
    status=st.sampled_from([b"200", b"204", b"304", b"426", b"500", b"100"]),
)
@settings(max_examples=600, deadline=None)
def test_an_ordinary_head_is_what_the_long_way_makes_of_it(
    target: bytes, lines: list[bytes], minor: bytes, status: bytes
) -> None:
    rest = b"\r\n".join([*lines, b"", b""])
    asked = b"GET %b HTTP/1.%b\r\n%b" % (target, minor, rest)
    answered = b"HTTP/1.%b %b OK\r\n%b" % (minor, status, rest)
    heads = request_head(asked, LIMITS), response_head(answered, b"GET")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(request, "_ordinary", lambda *_: None)
        patch.setattr(response, "_ordinary", lambda *_: None)
        assert (request_head(asked, LIMITS), response_head(answered, b"GET")) == heads
    assert agrees(heads[0]) and agrees(heads[1])
