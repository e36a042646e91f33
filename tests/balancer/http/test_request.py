"""What a request's head may look like, what it comes to, and what is sent on."""

from __future__ import annotations

import httptools
import pytest

from balancer.http.through import LIMITS, through
from timewait.balancer.config.model import Limits
from timewait.balancer.http.grammar import CHUNKED, Refusal
from timewait.balancer.http.request import RequestHead, request_head


def head(lines: bytes, limits: Limits = LIMITS) -> RequestHead:
    """The head of a request that is right."""
    found = request_head(lines + b"\r\n\r\n", limits)
    assert isinstance(found, RequestHead), found
    return found


def refused(stream: bytes, limits: Limits = LIMITS) -> tuple[int, str]:
    """Status and reason for one that is not."""
    found = request_head(stream, limits)
    assert isinstance(found, Refusal), found
    return found.status, found.reason


def test_an_ordinary_request() -> None:
    stream = b"GET /a?b=c HTTP/1.1\r\naccept: */*\r\nHost: WWW.Example.com:8080\r\nCookie: x=1\r\nX-Empty:\r\n\r\n"
    got = request_head(stream + b"GET /next", LIMITS)
    assert got == RequestHead(
        size=len(stream),
        method=b"GET",
        target=b"/a?b=c",
        path=b"/a",
        query=b"?b=c",
        host=b"www.example.com",
        version=(1, 1),
        framing=0,
        keep_alive=True,
        expects_continue=False,
        upgrade=None,
        is_connect=False,
        trailers=False,
        cookie=b"x=1",
        forwarded_for=b"",
        forwarded_proto=b"",
        forward=b"GET /a?b=c HTTP/1.1\r\nHost: WWW.Example.com:8080\r\naccept: */*\r\nCookie: x=1\r\nX-Empty: \r\n",
    )


@pytest.mark.parametrize(
    ("line", "status", "reason"),
    [
        (b"GET / HTTP/1.2", 505, "version"),
        (b"GET / HTTP/2.0", 505, "version"),
        (b"GET / HTTP/0.9", 505, "version"),
        (b"PRI * HTTP/2.0", 505, "http2-preface"),
        (b"GET /", 400, "http-0.9"),
        (b"GET / HTTP/1.1 ", 400, "request-line"),
        (b"GET  / HTTP/1.1", 400, "request-line"),
        (b"GET / /x HTTP/1.1", 400, "request-line"),
        (b"GET / http/1.1", 400, "version"),
        (b"GET / HTTP/1.10", 400, "version"),
        (b"GET / HTTP/+1.1", 400, "version"),
        (b"GET / HTTP/1.", 400, "version"),
        (b"GET / ", 400, "version"),
        (b"GET", 400, "request-line"),
        (b"G@T / HTTP/1.1", 400, "method"),
        (b"G\xc3\x89T / HTTP/1.1", 400, "method"),
        (b" GET / HTTP/1.1", 400, "method"),
        (b"\xef\xbb\xbfGET / HTTP/1.1", 400, "method"),
        (b"GET\t/ HTTP/1.1", 400, "method"),
        (b"GET /\xff HTTP/1.1", 400, "request-line"),
        (b"GET /\x7f HTTP/1.1", 400, "control-character"),
        (b"GET /\0 HTTP/1.1", 400, "nul"),
        (b"GET /\r HTTP/1.1", 400, "bare-cr"),
        (b"GET / HTTP/1.1\r", 400, "bare-cr"),
        (b"GET /\x0b HTTP/1.1", 400, "control-character"),
    ],
)
def test_a_request_line_that_is_none(line: bytes, status: int, reason: str) -> None:
    assert refused(line + b"\r\nHost: a\r\n\r\n") == (status, reason)
    assert refused(b"\r\n" + line + b"\r\nHost: a\r\n\r\n") == (status, reason)


def test_one_empty_line_before_a_request_is_skipped_and_no_more() -> None:
    assert head(b"\r\nGET / HTTP/1.1\r\nHost: a").size == 29
    assert refused(b"\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n") == (400, "method")
    assert refused(b"\nGET / HTTP/1.1\r\nHost: a\r\n\r\n") == (400, "bare-lf")


@pytest.mark.parametrize(
    ("field", "reason"),
    [
        (b" X: folded", "obs-fold"),
        (b"\tX: folded", "obs-fold"),
        (b"X: a\r\n b", "obs-fold"),
        (b"X : a", "space-before-colon"),
        (b"X\t: a", "space-before-colon"),
        (b": a", "empty-field-name"),
        (b"no colon", "field-without-colon"),
        (b"X[]: a", "field-name"),
        (b"X Y: a", "field-name"),
        (b"X\xff: a", "field-name"),
        (b'"X": a', "field-name"),
        (b"X: a\0", "nul"),
        (b"X: a\x07", "control-character"),
        (b"X: a\x7f", "control-character"),
        (b"X: a\nY: b", "bare-lf"),
        (b"X: a\rY: b", "bare-cr"),
        (b"X: a\r\r\nY: b", "bare-cr"),
        (b"X\n: a", "bare-lf"),
    ],
)
def test_a_field_that_is_none(field: bytes, reason: str) -> None:
    for stream in (b"Host: a\r\n" + field, field + b"\r\nHost: a", b"Host: a\r\n" + field + b"\r\nZ: z"):
        assert refused(b"GET / HTTP/1.1\r\n" + stream + b"\r\n\r\n") == (400, reason)


@pytest.mark.parametrize(
    ("stream", "reason"),
    [
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", "control-character"),  # TLS
        (b"GET / HTTP/1.1\n", "bare-lf"),
        (b"GET / HTTP/1.1\r\nHost: a\n\n", "bare-lf"),
        (b"GET /\r\n", "http-0.9"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "request-line"),
        (b"*1\r\n$4\r\nPING\r\n", "request-line"),  # Redis
    ],
)
def test_what_cannot_become_a_request_is_refused_at_once(stream: bytes, reason: str) -> None:
    assert refused(stream) == (400, reason)


@pytest.mark.parametrize(
    "stream", [b"", b"\r", b"\r\n", b"G", b"GET / HTTP/1.1\r\nHost: a\r\n\r", b"GET / HTTP/1.1\r\nH"]
)
def test_what_may_become_one_is_waited_for(stream: bytes) -> None:
    assert request_head(stream, LIMITS) is None


def test_limits() -> None:
    limits = Limits(request_line=300, header_size=1024, header_count=10, body_size=100)
    line = b"GET /" + b"a" * 286
    assert head(line + b" HTTP/1.1\r\nHost: a", limits)  # 300 bytes
    assert refused(line + b"a HTTP/1.1\r\nHost: a\r\n\r\n", limits) == (414, "request-line-too-long")
    assert request_head(b"G" * 301, limits) is None  # a CRLF could come
    assert refused(b"G" * 302, limits) == (414, "request-line-too-long")
    assert head(b"GET / HTTP/1.1\r\nHost: a" + b"\r\nX: y" * 9, limits)
    assert refused(b"GET / HTTP/1.1\r\nHost: a" + b"\r\nX: y" * 10 + b"\r\n\r\n", limits) == (431, "too-many-fields")
    stream = b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"x" * 992
    assert head(stream, limits).size == 1024
    assert refused(stream + b"x\r\n\r\n", limits) == (431, "head-too-large")
    assert refused(b"GET / HTTP/1.1\r\nX: " + b"x" * 1005, limits) == (431, "head-too-large")
    post = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: "
    assert head(post + b"100", limits).framing == 100
    for length, reason in (
        (b"101", "body-too-large"),
        (b"9" * 18, "body-too-large"),
        (b"9" * 19, "content-length-too-large"),
        (b"18446744073709551616", "content-length-too-large"),
    ):
        assert refused(post + length + b"\r\n\r\n", limits) == (413, reason)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        (b"X: y", "no-host"),
        (b"Host: a\r\nHost: a", "duplicate-host"),
        (b"Host: a\r\nhOST: b", "duplicate-host"),
        (b"Host:", "host"),
        (b"Host: a b", "host"),
        (b"Host: a, b", "host"),
        (b"Host: a/b", "host"),
        (b"Host: user@a", "host"),
        (b"Host: a:", "host"),
        (b"Host: a:99999", "host"),
        (b"Host: a:80:80", "host"),
        (b"Host: a:http", "host"),
        (b"Host: [::1", "host"),
        (b"Host: ::1", "host"),
        (b"Host: a%20b", "host"),
        (b"Host: \xc3\xa4", "host"),
        (b"Host: a?b", "host"),
        (b"Host: a#b", "host"),
        (b"Host: " + b"a" * 256, "host"),
        (b"H_ost: a", "no-host"),
    ],
)
def test_a_host_that_is_none(fields: bytes, reason: str) -> None:
    assert refused(b"GET / HTTP/1.1\r\n" + fields + b"\r\n\r\n") == (400, reason)


@pytest.mark.parametrize(
    ("value", "host"),
    [
        (b"A.b", b"a.b"),
        (b"a:80", b"a"),
        (b"10.0.0.1:1", b"10.0.0.1"),
        (b"[::1]:80", b"[::1]"),
        (b"a_b.c.", b"a_b.c."),
    ],
)
def test_a_host_is_routed_by_without_case_and_port(value: bytes, host: bytes) -> None:
    got = head(b"GET / HTTP/1.1\r\nHost: " + value)
    assert (got.host, got.forward) == (host, b"GET / HTTP/1.1\r\nHost: " + value + b"\r\n")


def test_http_1_0() -> None:
    got = head(b"GET / HTTP/1.0")
    assert (got.version, got.host, got.keep_alive) == ((1, 0), b"", False)
    assert got.forward == b"GET / HTTP/1.1\r\n"
    assert head(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\nHost: a").keep_alive
    got = head(b"POST / HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 1\r\nUpgrade: x\r\nConnection: upgrade")
    assert (got.expects_continue, got.upgrade) == (False, None)  # RFC 9110, 10.1.1 and 7.8


@pytest.mark.parametrize(
    ("fields", "keep_alive"),
    [
        (b"", True),
        (b"\r\nConnection: close", False),
        (b"\r\nConnection: CLOSE", False),
        (b"\r\nConnection: keep-alive, close", False),
        (b"\r\nConnection: x\r\nConnection: ,close ,", False),
        (b"\r\nConnection:", True),
        (b"\r\nConnection: enclose", True),
    ],
)
def test_keep_alive(fields: bytes, keep_alive: bool) -> None:
    assert head(b"GET / HTTP/1.1\r\nHost: a" + fields).keep_alive is keep_alive


@pytest.mark.parametrize("value", [b"a b", b"close;x", b'"close"', b"(close)", b"a\xff"])
def test_connection_that_is_no_list_is_refused(value: bytes) -> None:
    assert refused(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: " + value + b"\r\n\r\n") == (400, "connection")


def test_fields_of_the_connection_end_here() -> None:
    got = head(
        b"GET / HTTP/1.1\r\nHost: a\r\nConnection: X-Mine, keep-alive\r\nX-MINE: 1\r\nX-Other: 2\r\n"
        b"Keep-Alive: timeout=5\r\nProxy-Connection: keep-alive\r\nTE: gzip\r\nTrailer: X\r\nUpgrade: websocket"
    )
    assert got.forward == b"GET / HTTP/1.1\r\nHost: a\r\nX-Other: 2\r\n"
    assert got.upgrade is None  # not named by Connection


def test_connection_cannot_take_away_what_a_target_decides_by() -> None:
    fields = (
        b"Authorization: x\r\nCookie: a=b\r\nX-Real-IP: 1.2.3.4\r\nForwarded: for=x\r\nContent-Type: text/plain\r\n"
        b"Content-Length: 2\r\n"
    )
    got = head(
        b"POST / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 9.9.9.9\r\n" + fields + b"Connection: Host, content-length, "
        b"authorization, cookie, x-real-ip, forwarded, content-type, transfer-encoding, x-forwarded-for"
    )
    assert got.forward == b"POST / HTTP/1.1\r\nHost: a\r\n" + fields
    assert (got.framing, got.forwarded_for) == (2, b"9.9.9.9")


def test_trailers_are_asked_for() -> None:
    got = head(b"GET / HTTP/1.1\r\nHost: a\r\nTE: gzip;q=0.5, Trailers\r\nConnection: TE")
    assert got.trailers and got.forward.endswith(b"TE: trailers\r\n")


def test_lengths_are_written_one_way() -> None:
    got = head(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0005")
    assert (got.framing, got.forward) == (5, b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n")
    got = head(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 00")
    assert (got.framing, got.forward) == (0, b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n")
    got = head(b"POST / HTTP/1.1\r\nHost: a\r\nTRANSFER-encoding:  CHUNKED \r\nTrailer: X-Sum")
    assert got.framing == CHUNKED
    assert got.forward == b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n"


def test_expectation() -> None:
    post = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nExpect: "
    got = head(post + b"100-Continue")
    assert got.expects_continue and b"xpect" not in got.forward
    assert refused(post + b"200-ok\r\n\r\n") == (417, "expectation")
    assert not head(b"GET / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue").expects_continue  # there is no body


def test_upgrade() -> None:
    get = b"GET /chat HTTP/1.1\r\nHost: a\r\nSec-WebSocket-Key: x\r\nUpgrade: websocket\r\nConnection: "
    got = head(get + b"keep-alive, Upgrade")
    assert got.upgrade == b"websocket"
    assert got.forward == b"GET /chat HTTP/1.1\r\nHost: a\r\nSec-WebSocket-Key: x\r\n"
    assert head(get + b"upgrade\r\nContent-Length: 3").upgrade is None


def test_who_the_client_is_said_to_be() -> None:
    got = head(
        b"GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 1.1.1.1\r\nx-forwarded-FOR: 2.2.2.2\r\n"
        b"X-Forwarded-Proto: https\r\nX_Forwarded_For: 3.3.3.3\r\nX_Other: kept"
    )
    assert (got.forwarded_for, got.forwarded_proto) == (b"1.1.1.1, 2.2.2.2", b"https")
    assert got.forward == b"GET / HTTP/1.1\r\nHost: a\r\nX_Other: kept\r\n"


@pytest.mark.parametrize(
    ("line", "host", "target", "path"),
    [
        (b"GET http://b:80/x?y", b"b:80", b"/x?y", b"/x"),
        (b"GET HTTPS://B", b"b", b"/", b"/"),
        (b"GET http://b?y", b"b", b"/?y", b"/"),
        (b"OPTIONS http://b", b"b", b"*", b"/"),
        (b"OPTIONS http://b/", b"b", b"/", b"/"),
        (b"OPTIONS *", b"b", b"*", b"/"),
        (b"CONNECT b:443", b"b:443", b"b:443", b"/"),
        (b"CONNECT [::1]:443", b"[::1]:443", b"[::1]:443", b"/"),
        (b"PROPFIND /a", b"b", b"/a", b"/a"),
        (b"FROB-X /a", b"b", b"/a", b"/a"),
        (b"GET //a/../b%2f", b"b", b"//a/../b%2f", b"/b/"),
        (b"GET /?a#b", b"b", b"", b""),
        (b"GET *", b"b", b"", b""),
        (b"GET a", b"b", b"", b""),
        (b"GET b:443", b"b", b"", b""),
        (b"GET ftp://b/", b"b", b"", b""),
        (b"GET http:///a", b"b", b"", b""),
        (b"GET http://u@b/", b"b", b"", b""),
        (b"GET http://other/", b"b", b"", b""),
        (b"GET http://b:81/", b"b:80", b"", b""),
        (b"GET /..", b"b", b"", b""),
        (b"GET /%", b"b", b"", b""),
        (b"GET /%00", b"b", b"", b""),
        (b"CONNECT b", b"b", b"", b""),
        (b"CONNECT /", b"b", b"", b""),
        (b"CONNECT b:0", b"b:0", b"", b""),
        (b"CONNECT b:443", b"other:443", b"", b""),
    ],
)
def test_forms_of_a_target(line: bytes, host: bytes, target: bytes, path: bytes) -> None:
    stream = line + b" HTTP/1.1\r\nHost: " + host
    if not target:
        assert refused(stream + b"\r\n\r\n")[0] == 400
        return
    got = head(stream)
    assert (got.target, got.path, got.is_connect) == (target, path, line.startswith(b"CONNECT"))
    method = line.split()[0]
    authority = line.split(b"//")[1].partition(b"?")[0].split(b"/")[0] if b"://" in line else host
    assert got.forward == b"%b %b HTTP/1.1\r\nHost: %b\r\n" % (method, target, authority)


def test_the_second_reader_has_a_veto(monkeypatch: pytest.MonkeyPatch) -> None:
    """Should the grammar ever let through what llhttp reads otherwise, the request is refused."""

    class Deaf(httptools.HttpRequestParser):
        def feed_data(self, data: bytes) -> None:  # type: ignore[override]
            super().feed_data(data.replace(b"Content-Length: 3", b"Content-Length: 4"))

    monkeypatch.setattr(httptools, "HttpRequestParser", Deaf)
    stream = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\n"
    assert refused(stream) == (400, "second-reader")
    assert through(stream).sent == b""


def test_httpoxy() -> None:
    assert head(b"GET / HTTP/1.1\r\nHost: a\r\nProxy: http://evil/").forward == b"GET / HTTP/1.1\r\nHost: a\r\n"


@pytest.mark.parametrize(
    "field",
    [
        b"Upgrade: " + b"a," * 12000 + b"\xff\r\nConnection: upgrade",
        b"Upgrade: " + b"a" * 24000 + b"\xff\r\nConnection: upgrade",
        b"Connection: " + b"a, ," * 6000 + b'"',
        b"Connection: " + b" " * 24000 + b'"',
        b"Connection: " + b"a," * 12000,
        b"TE: " + b", " * 12000,
        b"Transfer-Encoding: " + b"a," * 12000,
        b"Transfer-Encoding: a" + b" " * 24000 + b"b",
        b"Content-Length: " + b"0" * 24000,
        b"Cookie: " + b";=" * 12000,
        b"X: " + b" \t" * 12000 + b"y",
        b"a:\r\n" * 6000,
    ],
)
def test_a_hostile_head_costs_one_pass(field: bytes) -> None:
    """What takes exponential or quadratic time does not end within the test's time."""
    request = b"GET /" + b"%2e/" * 2000 + b" HTTP/1.1\r\nHost: a\r\n"
    for _ in range(20):
        assert request_head(request + field + b"\r\n\r\n", Limits(request_line=16384)) is not None
        assert not isinstance(request_head(request + field, Limits()), RequestHead)
