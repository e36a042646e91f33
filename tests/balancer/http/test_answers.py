"""What the balancer says itself, and one cookie out of many."""

from __future__ import annotations

import pytest

from timewait.balancer.http.answers import CONTINUE, answer
from timewait.balancer.http.cookies import lookup
from timewait.balancer.http.response import ResponseHead, response_head

STATUSES = [301, 400, 403, 404, 405, 408, 413, 414, 417, 421, 426, 429, 431, 500, 501, 502, 503, 504, 505]


@pytest.mark.parametrize("status", STATUSES)
def test_an_answer_would_pass_our_own_reader(status: int) -> None:
    stream = answer(status, close=status != 404)
    head = response_head(stream, b"GET")
    assert isinstance(head, ResponseHead)
    assert (head.status, head.keep_alive, head.size + head.framing) == (status, status == 404, len(stream))
    assert stream[head.size :].startswith(b"%d " % status)


def test_head_gets_the_same_head() -> None:
    full, bare = answer(404), answer(404, head_only=True)
    assert full.startswith(bare) and bare.endswith(b"\r\n\r\n")


def test_a_redirect_and_other_fields() -> None:
    stream = answer(301, location=b"/abc/?q", fields=b"Date: now\r\n")
    assert b"\r\nLocation: /abc/?q\r\nDate: now\r\nConnection: keep-alive\r\n\r\n" in stream


def test_continue() -> None:
    head = response_head(CONTINUE, b"POST")
    assert isinstance(head, ResponseHead) and head.is_interim


@pytest.mark.parametrize(
    ("cookie", "value"),
    [
        (b"S=1", b"1"),
        (b"a=b; S=1; c=d", b"1"),
        (b"XS=2; S=1", b"1"),
        (b"S=1; S=2", b"1"),
        (b'S="1"', b"1"),
        (b"a=S; b=S=1", None),
        (b"S", None),
        (b"s=1", None),
        (b"S=", b""),
        (b"", None),
        (b";;=;S=1", b"1"),
    ],
)
def test_lookup(cookie: bytes, value: bytes | None) -> None:
    assert lookup(cookie, b"S") == value
