"""The reader of answers, attacked: every legal answer at every split, every broken one refused, noise survived."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from kit.behaviours import BROKEN
from timewait.plan import Plan, parse_url
from timewait.stress.http import Answer, BadResponseError, request_bytes

INTERIM = [b"", b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n"]


@dataclass(frozen=True)
class Case:
    """One legal answer and what must be read from it."""

    data: bytes
    status: int = 200
    head: bool = False
    closes: bool = False
    needs_eof: bool = False  # only the end of the connection completes it
    body_length: int = 0


def chunked(parts: list[bytes], trailer: bytes = b"") -> bytes:
    return b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts if part) + b"0\r\n" + trailer + b"\r\n"


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """Legal answers of every framing, with interim answers before and odd but legal headers inside."""
    body = draw(st.binary(max_size=60))
    head = draw(st.booleans())
    version = draw(st.sampled_from([b"1.1", b"1.0"]))
    status = draw(st.sampled_from([200, 201, 204, 206, 301, 304, 404, 500, 503]))
    bodiless = head or status in (204, 304)
    framing = draw(st.sampled_from(["length", "close", "chunked"] if version == b"1.1" else ["length", "close"]))
    connection = draw(st.sampled_from([b"", b"close", b"keep-alive", b"Close", b"x, close"]))
    headers = draw(st.sampled_from([b"", b"Server: x\r\n", b"X:\r\nY:  two words \r\n"]))
    if connection:
        headers += b"Connection: " + connection + b"\r\n"
    if status == 204:
        payload = b""
    elif framing == "length":
        headers += b"content-length: %d\r\n" % len(body)
        payload = body
    elif framing == "chunked":
        headers += b"Transfer-Encoding: chunked\r\n"
        payload = chunked([body[:7], body[7:]], draw(st.sampled_from([b"", b"Trailer: yes\r\n"])))
    else:
        payload = body
    interim = b""
    if version == b"1.1":
        interim = draw(st.sampled_from(INTERIM))
    needs_eof = framing == "close" and not bodiless
    says_close = b"close" in connection.lower()
    data = interim + b"HTTP/%s %d Some Reason\r\n%s\r\n" % (version, status, headers) + (b"" if bodiless else payload)
    closes = says_close or needs_eof or (version == b"1.0" and connection != b"keep-alive")
    return Case(data, status, head, closes, needs_eof, 0 if bodiless else len(payload))


def read(case: Case, cuts: list[int]) -> Answer:
    """Feeds the answer in pieces; it must be complete with the last byte and not one byte earlier."""
    answer = Answer(head=case.head)
    edges = [0, *sorted({cut for cut in cuts if 0 < cut < len(case.data)}), len(case.data)]
    for start, end in pairwise(edges):
        assert not answer.complete, f"complete after {start} of {len(case.data)} bytes"
        answer.feed(case.data[start:end])
    return answer


def check(case: Case, cuts: list[int]) -> None:
    answer = read(case, cuts)
    assert answer.complete is not case.needs_eof
    assert answer.eof()
    assert answer.complete
    assert (answer.status, answer.closes) == (case.status, case.closes)


@given(cases(), st.lists(st.integers(0, 300), max_size=6))
@example(Case(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"), [])
@example(Case(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5;a=b\r\nhello\r\n0\r\nT: x\r\n\r\n"), [])
@example(Case(b"HTTP/1.1 200 OK\r\n\r\n", head=True), [])
def test_legal_answers_are_read_at_any_split(case: Case, cuts: list[int]) -> None:
    check(case, cuts)
    check(case, list(range(len(case.data))))


@given(cases())
def test_answers_cut_short_are_not_complete(case: Case) -> None:
    """FIN inside an answer completes it only where the body ends with the connection."""
    for cut in range(len(case.data) - case.body_length if case.needs_eof else len(case.data)):
        answer = Answer(head=case.head)
        answer.feed(case.data[:cut])
        assert not answer.complete
        assert not answer.eof()


@given(cases(), st.binary(min_size=1, max_size=20), st.booleans())
def test_data_after_the_end_is_refused(case: Case, extra: bytes, together: bool) -> None:
    if case.needs_eof or not extra.strip(b"\r\n"):  # llhttp passes over empty lines between messages
        return
    answer = Answer(head=case.head)
    if together:
        with pytest.raises(BadResponseError):
            answer.feed(case.data + extra)
    else:
        answer.feed(case.data)
        with pytest.raises(BadResponseError):
            answer.feed(extra)


def refused_at(data: bytes, step: int) -> bool:
    """Whether the answer is refused, or never becomes one, when it comes in pieces of `step` bytes."""
    answer = Answer(head=False)
    try:
        for start in range(0, len(data), step):
            answer.feed(data[start : start + step])
    except BadResponseError as error:
        assert str(error)
        return True
    return not answer.eof()


@pytest.mark.parametrize("name", BROKEN)
def test_broken_framing_is_refused_at_any_split(name: str) -> None:
    assert {step: refused_at(BROKEN[name], step) for step in range(1, len(BROKEN[name]) + 1)} == dict.fromkeys(
        range(1, len(BROKEN[name]) + 1), True
    )


@given(st.binary(max_size=200), st.booleans(), st.integers(1, 50))
def test_noise_raises_bad_response_and_nothing_else(data: bytes, head: bool, step: int) -> None:
    answer = Answer(head=head)
    try:
        for start in range(0, len(data), step):
            answer.feed(data[start : start + step])
    except BadResponseError as error:
        assert str(error)
    assert not answer.complete or answer.status


@given(cases(), st.integers(0, 200), st.binary(min_size=1, max_size=3), st.integers(1, 50))
def test_a_mutated_answer_raises_bad_response_and_nothing_else(
    case: Case, place: int, change: bytes, step: int
) -> None:
    data = case.data[:place] + change + case.data[place + len(change) :]
    answer = Answer(head=case.head)
    try:
        for start in range(0, len(data), step):
            answer.feed(data[start : start + step])
        answer.eof()
    except BadResponseError as error:
        assert str(error)


def test_requests_go_out_as_written() -> None:
    plan = Plan(requests_list=(parse_url("http://[::1]:8080/a?b=c", "POST"),), body=b"hi", headers=(("X", "1"),))
    assert request_bytes(plan, plan.requests_list[0], last=True) == (
        b"POST /a?b=c HTTP/1.1\r\nHost: [::1]:8080\r\nUser-Agent: timewait\r\nAccept: */*\r\nX: 1\r\n"
        b"Content-Length: 2\r\nConnection: close\r\n\r\nhi"
    )


def test_given_headers_replace_ours() -> None:
    given_headers = (("host", "other"), ("Connection", "keep-alive"), ("User-Agent", "me"), ("Accept", "text/plain"))
    plan = Plan(requests_list=(parse_url("http://localhost/"),), headers=given_headers)
    assert request_bytes(plan, plan.requests_list[0], last=True) == (
        b"GET / HTTP/1.1\r\nhost: other\r\nConnection: keep-alive\r\nUser-Agent: me\r\nAccept: text/plain\r\n\r\n"
    )
