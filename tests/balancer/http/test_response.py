"""What an answer's head may look like, what it comes to, and what is sent on."""

from __future__ import annotations

import httptools
import pytest

from timewait.balancer.http.grammar import CHUNKED, NO_BODY, UNTIL_CLOSE, Refusal
from timewait.balancer.http.response import ResponseHead, response_head


def head(lines: bytes, method: bytes = b"GET", **how: bool) -> ResponseHead:
    """The head of an answer that is right."""
    found = response_head(lines + b"\r\n\r\n", method, **how)
    assert isinstance(found, ResponseHead), found
    return found


def refused(stream: bytes, method: bytes = b"GET", **how: bool) -> str:
    """The reason for one that is not; the status is always 502."""
    found = response_head(stream, method, **how)
    assert isinstance(found, Refusal), found
    assert found.status == 502
    return found.reason


def test_an_ordinary_answer() -> None:
    stream = (
        b"HTTP/1.1 200 OK fine\r\ncontent-length: 5\r\nX:  y \r\nKeep-Alive: timeout=5\r\n"
        b"Connection: keep-alive\r\n\r\n"
    )
    assert response_head(stream + b"hello", b"GET") == ResponseHead(
        size=len(stream),
        status=200,
        framing=5,
        keep_alive=True,
        is_interim=False,
        is_upgrade=False,
        forward=b"HTTP/1.1 200 OK fine\r\nX: y\r\nContent-Length: 5\r\n",
    )


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"HTTP/2.0 200 OK", "status-line"),
        (b"HTTP/1.2 200 OK", "version"),
        (b"HTTP/1.1 20 OK", "status-line"),
        (b"HTTP/1.1 2000 OK", "status-line"),
        (b"HTTP/1.1 600 OK", "status-line"),
        (b"HTTP/1.1 099 OK", "status-line"),
        (b"HTTP/1.1  200 OK", "status-line"),
        (b"HTTP/1.1 +20 OK", "status-line"),
        (b" HTTP/1.1 200 OK", "status-line"),
        (b"\r\nHTTP/1.1 200 OK", "status-line"),
        (b"ICY 200 OK", "status-line"),
        (b"hello", "status-line"),
        (b"HTTP/1.1 200 O\0K", "nul"),
        (b"HTTP/1.1 200 OK\nX: y", "bare-lf"),
        (b"HTTP/1.1 200 OK\r", "bare-cr"),
    ],
)
def test_a_status_line_that_is_none(line: bytes, reason: str) -> None:
    assert refused(line + b"\r\nContent-Length: 0\r\n\r\n") == reason


def test_a_status_line_without_words() -> None:
    assert head(b"HTTP/1.1 200 ").forward == head(b"HTTP/1.1 200").forward == b"HTTP/1.1 200 \r\n"


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        (b"X : y", "space-before-colon"),
        (b" X: y", "obs-fold"),
        (b"X: y\r\n z", "obs-fold"),
        (b"X[]: y", "field-name"),
        (b": y", "empty-field-name"),
        (b"X", "field-without-colon"),
        (b"X: \0", "nul"),
        (b"X: y\nZ: z", "bare-lf"),
        (b"X: y\rZ: z", "bare-cr"),
        (b"Content-Length: 1\r\nContent-Length: 1", "duplicate-content-length"),
        (b"Content-Length: 1, 1", "content-length"),
        (b"Content-Length:", "content-length"),
        (b"Content-Length: -1", "content-length"),
        (b"Content-Length: 99999999999999999999", "content-length-too-large"),
        (b"Content-Length: 1\r\nTransfer-Encoding: chunked", "content-length-and-transfer-encoding"),
        (b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", "duplicate-transfer-encoding"),
        (b"Transfer-Encoding: gzip, chunked", "transfer-coding"),
        (b"Transfer-Encoding: gzip", "transfer-encoding"),
        (b"Connection: a b", "connection"),
    ],
)
def test_fields_that_are_wrong(fields: bytes, reason: str) -> None:
    assert refused(b"HTTP/1.1 200 OK\r\n" + fields + b"\r\n\r\n") == reason


def test_limits() -> None:
    assert response_head(b"HTTP/1.1 200 OK\r\nX: " + b"x" * 1000, b"GET", header_size=2000) is None
    assert refused(b"HTTP/1.1 200 OK\r\nX: " + b"x" * 70000) == "head-too-large"
    assert refused(b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 201 + b"\r\n") == "too-many-fields"


def test_garbage_is_refused_at_its_first_bytes() -> None:
    assert refused(b"220 smtp.example.com") == "status-line"
    assert refused(b"HTTQ") == "status-line"
    assert response_head(b"HTT", b"GET") is None


CHUNKED_FIELD = b"\r\nTransfer-Encoding: chunked"


@pytest.mark.parametrize(
    ("status", "fields", "method", "framing"),
    [
        (200, b"", b"GET", UNTIL_CLOSE),
        (200, b"\r\nContent-Length: 0", b"GET", NO_BODY),
        (200, CHUNKED_FIELD, b"GET", CHUNKED),
        (500, b"\r\nContent-Length: 7", b"POST", 7),
        (200, b"\r\nContent-Length: 7", b"HEAD", NO_BODY),
        (200, CHUNKED_FIELD, b"HEAD", NO_BODY),
        (200, b"", b"HEAD", NO_BODY),
        (304, b"\r\nContent-Length: 7", b"GET", NO_BODY),
        (304, b"", b"GET", NO_BODY),
        (204, b"", b"GET", NO_BODY),
        (204, b"\r\nContent-Length: 0", b"GET", NO_BODY),
        (205, b"\r\nContent-Length: 0", b"GET", NO_BODY),
        (100, b"", b"POST", NO_BODY),
        (103, b"\r\nLink: </x>", b"GET", NO_BODY),
        (200, b"", b"CONNECT", NO_BODY),
        (404, b"\r\nContent-Length: 7", b"CONNECT", 7),
    ],
)
def test_framing(status: int, fields: bytes, method: bytes, framing: int) -> None:
    got = head(b"HTTP/1.1 %d x" % status + fields, method)
    assert got.framing == framing
    assert got.is_interim is (100 <= status < 200)
    assert got.is_upgrade is (method == b"CONNECT" and status == 200)
    # A length is passed on where it means something, also of the body that HEAD and 304 leave out.
    assert (b"Content-Length: 7" in got.forward) is (b"7" in fields)
    assert (b"Content-Length" in got.forward) is (b"Length" in fields and status != 204)
    assert (CHUNKED_FIELD[2:] in got.forward) is (fields == CHUNKED_FIELD)


@pytest.mark.parametrize("status", [100, 102, 204])
@pytest.mark.parametrize("fields", [b"Content-Length: 5", b"Transfer-Encoding: chunked"])
def test_a_body_where_none_can_be(status: int, fields: bytes) -> None:
    assert refused(b"HTTP/1.1 %d x\r\n%b\r\n\r\n" % (status, fields)) == "body-not-allowed"
    assert refused(b"HTTP/1.1 200 x\r\n%b\r\n\r\n" % fields, b"CONNECT") == "body-not-allowed"


@pytest.mark.parametrize(
    ("lines", "keep_alive"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0", True),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close", False),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: Keep-Alive, Close", False),
        (b"HTTP/1.1 200 OK", False),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 0", False),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 0\r\nConnection: keep-alive", True),
        (b"HTTP/1.1 304 x", True),
    ],
)
def test_keep_alive(lines: bytes, keep_alive: bool) -> None:
    assert head(lines).keep_alive is keep_alive


def test_http_1_0_is_never_chunked() -> None:
    assert refused(b"HTTP/1.0 200 OK" + CHUNKED_FIELD + b"\r\n\r\n") == "transfer-encoding-in-http-1.0"
    got = head(b"HTTP/1.1 200 OK\r\nTrailer: X" + CHUNKED_FIELD, http10=True)
    assert (got.framing, got.forward) == (CHUNKED, b"HTTP/1.1 200 OK\r\n")


def test_switching_protocols() -> None:
    stream = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade"
    assert refused(stream + b"\r\n\r\n") == "switching-unasked"
    assert refused(b"HTTP/1.1 101 x\r\n\r\n", upgrade=True) == "switching-unasked"
    got = head(stream, upgrade=True)
    assert (got.is_upgrade, got.is_interim, got.framing, got.keep_alive) == (True, False, NO_BODY, False)
    assert got.forward == b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    assert refused(stream + b"\r\nContent-Length: 5\r\n\r\n", upgrade=True) == "body-not-allowed"


def test_fields_of_the_connection_end_here() -> None:
    got = head(
        b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: X-Mine, Set-Cookie\r\nX-Mine: 1\r\nSet-Cookie: a=b\r\n"
        b"Upgrade: h2\r\nProxy-Connection: close\r\nTE: x\r\nTrailer: y"
    )
    assert got.forward == b"HTTP/1.1 200 OK\r\nSet-Cookie: a=b\r\nContent-Length: 0\r\n"
    assert b"Upgrade: TLS/1.2" in head(b"HTTP/1.1 426 x\r\nUpgrade: TLS/1.2\r\nConnection: upgrade").forward


def test_switching_to_another_http_is_not_believed() -> None:
    stream = b"HTTP/1.1 101 x\r\nUpgrade: %b\r\nConnection: Upgrade\r\n\r\n"
    for name in (b"h2c", b"HTTP/2", b"websocket, TLS/1.3", b""):
        assert refused(stream % name, upgrade=True) == "switching-unasked"


def test_the_second_reader_has_a_veto(monkeypatch: pytest.MonkeyPatch) -> None:
    class Deaf(httptools.HttpResponseParser):
        def feed_data(self, data: bytes) -> None:  # type: ignore[override]
            super().feed_data(data.replace(b"chunked", b"chunkeD"))

    monkeypatch.setattr(httptools, "HttpResponseParser", Deaf)
    assert refused(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n") == "second-reader"
