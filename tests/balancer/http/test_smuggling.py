"""Requests that two parsers may read in two ways: refused, or passed on so that there is one way left."""

from __future__ import annotations

import pytest

from balancer.http.mutations import MUTATIONS, request
from balancer.http.through import assert_same_for_h11, through

HARMLESS = {"contentEnc"}
"""Names no coding of the transfer, so Content-Length alone counts."""


def test_there_are_668_mutations() -> None:
    assert len(MUTATIONS) == 668


@pytest.mark.parametrize("direction", ["CL.TE", "TE.CL"])
def test_no_mutation_gets_through_with_two_meanings(direction: str) -> None:
    accepted = set()
    for name, line in MUTATIONS.items():
        passed = through(request(line, direction))
        assert_same_for_h11(passed)
        if passed.heads:
            accepted.add(name)
            assert passed.heads[0].framing == len(passed.bodies[0])
            assert b"transfer-encoding" not in passed.sent.lower()
        else:
            assert passed.refusal is not None and passed.refusal.status == 400, name
            assert passed.sent == b""
    assert accepted == HARMLESS


@pytest.mark.parametrize("name", ["sarcasm", "yelling", "valueprefix1", "tabprefix1", "tabsuffix"])
def test_without_content_length_a_chunked_request_is_one_request(name: str) -> None:
    stream = b"POST / HTTP/1.1\r\nHost: outer\r\n%b\r\n\r\n3\r\nabc\r\n0\r\n\r\n" % MUTATIONS[name]
    passed = through(stream)
    assert passed.complete and passed.bodies == [b"abc"]
    assert passed.sent == b"POST / HTTP/1.1\r\nHost: outer\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"


def test_without_content_length_no_other_mutation_is_taken_for_chunked() -> None:
    taken = {
        name
        for name, line in MUTATIONS.items()
        if through(b"POST / HTTP/1.1\r\nHost: outer\r\n%b\r\n\r\n0\r\n\r\n" % line).complete
    }
    plain = {"tabprefix1", "valueprefix1", "sarcasm", "yelling", "tabsuffix", "midspace-09", "endspace-09"}
    assert taken == plain


BODY = b"0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: inner\r\n\r\n"


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        (b"Content-Length: 5\r\nContent-Length: 5", "duplicate-content-length"),
        (b"Content-Length: 5\r\nContent-Length: 6", "duplicate-content-length"),
        (b"Content-Length: 5\r\ncontent-LENGTH: 0", "duplicate-content-length"),
        (b"Content-Length: 5, 5", "content-length"),
        (b"Content-Length: 5,", "content-length"),
        (b"Content-Length:", "content-length"),
        (b"Content-Length: +5", "content-length"),
        (b"Content-Length: -5", "content-length"),
        (b"Content-Length: 0x5", "content-length"),
        (b"Content-Length: 5 5", "content-length"),
        (b"Content-Length: 5;a", "content-length"),
        (b"Content-Length: 5_0", "content-length"),
        (b"Content-Length: \xb2", "content-length"),  # str.isdigit() would take it
        (b"Content-Length: 1e3", "content-length"),
        (b"Content-Length : 5", "space-before-colon"),
        (b"Content-Length\t: 5", "space-before-colon"),
        (b"Content_Length: 5", "lookalike-field"),
        (b"content-length_: 5\r\nTransfer_encoding: chunked", "lookalike-field"),
        (b"Content-Length: 5\r\nTransfer-Encoding: chunked", "content-length-and-transfer-encoding"),
        (b"Transfer-Encoding: chunked\r\nContent-Length: 5", "content-length-and-transfer-encoding"),
        (b"Transfer-Encoding: identity\r\nContent-Length: 5", "content-length-and-transfer-encoding"),
        (b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", "duplicate-transfer-encoding"),
        (b"Transfer-Encoding: identity\r\nTransfer-Encoding: chunked", "duplicate-transfer-encoding"),
        (b"Transfer-Encoding: chunked, chunked", "transfer-encoding"),
        (b"Transfer-Encoding: chunked, gzip", "transfer-encoding"),
        (b"Transfer-Encoding: gzip", "transfer-encoding"),
        (b"Transfer-Encoding:", "transfer-encoding"),
        (b"Transfer-Encoding: ,chunked", "transfer-encoding"),
        (b"Transfer-Encoding: chunked;q=1", "transfer-encoding"),
        (b"Transfer-Encoding: xchunked", "transfer-encoding"),
    ],
)
def test_a_request_whose_length_is_in_doubt_is_refused(fields: bytes, reason: str) -> None:
    passed = through(b"POST / HTTP/1.1\r\nHost: a\r\n" + fields + b"\r\n\r\n" + BODY)
    assert passed.refusal is not None
    assert (passed.refusal.status, passed.refusal.reason, passed.sent) == (400, reason, b"")


@pytest.mark.parametrize(
    ("stream", "status", "reason"),
    [
        (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", 501, "transfer-coding"),
        (b"POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n", 400, "transfer-encoding-in-http-1.0"),
        (b"CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\nContent-Length: 5\r\n\r\n", 400, "body-not-allowed"),
        (b"TRACE / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n", 400, "body-not-allowed"),
    ],
)
def test_a_body_where_none_can_be(stream: bytes, status: int, reason: str) -> None:
    refusal = through(stream).refusal
    assert refusal is not None and (refusal.status, refusal.reason) == (status, reason)


def test_an_offer_of_another_http_is_not_passed_on() -> None:
    """After 101 to h2c a target would take requests that nobody here has seen."""
    for offered in (b"h2c", b"websocket, h2c", b"H2C", b"HTTP/2.0", b"TLS/1.2"):
        (head,) = through(
            b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: %b\r\nHTTP2-Settings: AAMAAABk\r\n"
            b"Connection: Upgrade, HTTP2-Settings\r\n\r\n" % offered
        ).heads
        assert head.upgrade is None
        assert head.forward == b"GET / HTTP/1.1\r\nHost: a\r\n"


def test_pipelined_requests_stay_apart() -> None:
    stream = (
        b"POST /1 HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc"
        b"POST /2 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nde\r\n0\r\n\r\n"
        b"\r\nGET /3 HTTP/1.1\r\nHost: a\r\n\r\n"
    )
    passed = through(stream)
    assert passed.complete and passed.bodies == [b"abc", b"de", b""]
    assert [head.target for head in passed.heads] == [b"/1", b"/2", b"/3"]
    assert_same_for_h11(passed)
