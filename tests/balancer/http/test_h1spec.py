"""The 33 situations of uNetworking/h1spec: unfinished requests are waited for, good ones pass, bad ones are refused.

Only what is sent and what must come of it is that program's; against a running balancer the same cases are part of
the differential run.
"""

from __future__ import annotations

import pytest

from balancer.http.through import through

UNFINISHED = b"GET /hello HTTP/1.1\r\nHost: localhost\r\n\r"
GET = b"GET / HTTP/1.1\r\nHost: example.com\r\n"
POST = b"POST / HTTP/1.1\r\nHost: example.com\r\n"

PASS: dict[str, tuple[bytes, bytes]] = {
    "expects 100": (GET + b"Expect: 100-continue\r\n\r\n", b""),
    "GET": (GET + b"\r\n", b""),
    "odd but right": (b"GET / HTTP/1.1\r\nhoSt:\texample.com\r\nempty:\r\n\r\n", b""),
    "empty value": (GET + b"X-Empty-Header: \r\n\r\n", b""),
    "POST": (POST + b"Content-Length: 5\r\n\r\nhello", b"hello"),
    "chunked": (POST + b"Transfer-Encoding: chunked\r\n\r\nc\r\nHellO world1\r\n0\r\n\r\n", b"HellO world1"),
}
REFUSE: dict[str, bytes] = {
    "no version": b"GET / \r\n\r\n",
    "brackets in a name": GET + b"X-Invalid[]: test\r\n\r\n",
    "no Host": b"GET / HTTP/1.1\r\nContent-Length: 5\r\n\r\n",
    "two Hosts": GET + b"Host: example.org\r\n\r\n",
    "negative and overflowing length": GET + b"Content-Length: -123456789123456789123456789\r\n\r\n",
    "negative length": GET + b"Content-Length: -1234\r\n\r\n",
    "length of letters": GET + b"Content-Length: abc\r\n\r\n",
    "control character": GET + b"X-Bad-Control-Char: test\x07\r\n\r\n",
    "version 9.9": b"GET / HTTP/9.9\r\nHost: example.com\r\n\r\n",
    "something in front": b"Extra lineGET / HTTP/1.1\r\nHost: example.com\r\n\r\n",
    "CR alone": GET + b"\rSome-Header: Test\r\n\r\n",
    "two lengths": POST + b"content-LengtH: 5\r\nTransFer-Encoding: chunked\r\n\r\nc\r\nHellO world1\r\n0\r\n\r\n",
}


@pytest.mark.parametrize("end", range(1, len(UNFINISHED) + 1))
def test_an_unfinished_request_is_waited_for(end: int) -> None:
    passed = through(UNFINISHED[:end])
    assert (passed.heads, passed.refusal) == ([], None)


@pytest.mark.parametrize("name", PASS)
def test_a_good_request_passes(name: str) -> None:
    stream, body = PASS[name]
    passed = through(stream)
    assert passed.complete and passed.bodies == [body]


@pytest.mark.parametrize("name", REFUSE)
def test_a_bad_request_is_refused(name: str) -> None:
    passed = through(REFUSE[name])
    assert passed.refusal is not None and passed.sent == b""
