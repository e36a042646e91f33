"""An answer's head, as strictly as a request's: what a target says wrongly becomes 502, never a client's problem."""

from __future__ import annotations

import re
from collections.abc import Mapping

import msgspec

from timewait.balancer.http.fields import (
    HOP_BY_HOP,
    KEPT_ANYWAY,
    Names,
    framing_fields,
    options,
    protocols,
)
from timewait.balancer.http.grammar import (
    ANSWER,
    END,
    FIELD,
    NO_BODY,
    TEXT,
    UNTIL_CLOSE,
    Refusal,
    bad_byte,
    plain_lines,
    why_not_fields,
    why_not_status_line,
)
from timewait.balancer.http.witness import objects_to_answer

HEADER_SIZE = 64 << 10  # bytes of a head; nginx takes 8k by default, HAProxy 16k, both with many cookies too few
HEADER_COUNT = 200


class ResponseHead(msgspec.Struct, frozen=True, gc=False):
    """An answer that has one meaning.

    `forward` is the status line and the fields to send on, each line with its CRLF, without the empty line at the
    end; it has no `Connection` (except for 101) and nothing else of the target's connection.
    """

    size: int  # bytes of the head
    status: int
    framing: int  # NO_BODY, a length above 0, CHUNKED or UNTIL_CLOSE
    keep_alive: bool  # whether the connection to the target may carry another request once the body is over
    is_interim: bool  # 1xx but 101: the answer proper is yet to come
    is_upgrade: bool  # 101, or 2xx to CONNECT: from here on the connection is a tunnel
    forward: bytes


Found = Mapping[bytes, list[bytes]]
_KNOWN = HOP_BY_HOP | {b"content-length"}
_WITH_BODY = frozenset(range(200, 600)) - {204, 304, 426}
_OTHERS = (b"HEAD", b"CONNECT")  # methods whose answers end otherwise


def _role(name: bytes) -> bytes:
    """The known field that a name stands for; empty: one to be passed on."""
    low = name.lower()
    return low if low in _KNOWN else b""


_ROLES = Names(_role)


def response_head(
    buffer: bytes,
    method: bytes,
    *,
    upgrade: bool = False,
    http10: bool = False,
    header_size: int = HEADER_SIZE,
) -> ResponseHead | Refusal | None:
    """The head at the front of `buffer`, in answer to `method`; None as long as bytes are missing.

    `upgrade` says whether the request that was sent asked for one: 101 is an answer to nothing else. For a client of
    HTTP/1.0 (`http10`) `forward` does not say that the body is chunked: then it is to be sent plain, and ends with
    the connection. A refusal's status is always 502.
    """
    end = buffer.find(END, 0, header_size)
    ordinary = _ordinary(buffer, end + 4, method) if end >= 0 else None
    if ordinary is not None:
        return ordinary
    match = ANSWER.match(buffer, 0, end + 4) if end >= 0 else None
    if match is None:
        return _why_not(buffer, end, header_size)
    minor, digits, reason, block = match.groups()
    lines = FIELD.findall(block)
    if len(lines) > HEADER_COUNT:
        return Refusal(502, "too-many-fields")
    kept = [b"HTTP/1.1 %b %b\r\n" % (digits, reason.rstrip(b" \t") if reason else b"")]
    found: dict[bytes, list[bytes]] = {}
    for name, value in lines:
        role = _ROLES[name]
        value = value.rstrip(b" \t")
        if role:
            if role in found:
                found[role].append(value)
            else:
                found[role] = [value]
        else:
            kept.append(b"%b: %b\r\n" % (name, value))
    status = int(digits)
    tunnel = status == 101 or (method == b"CONNECT" and 200 <= status < 300)
    if status == 101 and not (upgrade and b"upgrade" in found and protocols(found[b"upgrade"])):
        return Refusal(502, "switching-unasked")
    framing = _framing(found, int(minor), method, status)
    if isinstance(framing, Refusal):
        return framing
    return _assembled(match.end(), status, framing, int(minor), found, kept, tunnel, http10)


_LINES = plain_lines(_KNOWN)
_ORDINARY = re.compile(
    rb"(HTTP/1\.1 ([2-5][0-9][0-9]) (?![ \t])%b*+(?<![ \t])\r\n)" % TEXT
    + _LINES
    + rb"[Cc]ontent-[Ll]ength: (0|[1-9][0-9]{0,17}+)\r\n"
    + _LINES
    + rb"(?:Connection: (?:[Kk]eep-[Aa]live|([Cc]lose))\r\n%b)?\r\n" % _LINES
)


def _ordinary(buffer: bytes, end: int, method: bytes) -> ResponseHead | None:
    """What most answers are: a length, and nothing that concerns the connection but how it ends.

    Says the same as the long way, or nothing; without the second reader, as request.py says of its own.
    """
    match = _ORDINARY.match(buffer, 0, end)
    if match is None or method in _OTHERS:
        return None
    line, digits, first, length, second, close, third = match.groups(b"")
    status = int(digits)
    if status not in _WITH_BODY:
        return None
    forward = b"%b%b%b%bContent-Length: %b\r\n" % (line, first, second, third, length)
    return ResponseHead(end, status, int(length), not close, False, False, forward)


def _assembled(
    size: int, status: int, framing: int, minor: int, found: Found, kept: list[bytes], tunnel: bool, http10: bool
) -> ResponseHead | Refusal:
    said = options(found.get(b"connection", []))
    if said is None:
        return Refusal(502, "connection")
    named = said - KEPT_ANYWAY
    if named - {b"close", b"keep-alive", b"upgrade"}:
        kept = [kept[0], *(line for line in kept[1:] if line[: line.index(b":")].lower() not in named)]
    if b"transfer-encoding" in found:  # also where HEAD or 304 have no body
        if not http10:
            kept.append(b"Transfer-Encoding: chunked\r\n")
            kept += [b"Trailer: %b\r\n" % value for value in found.get(b"trailer", [])]
    elif b"content-length" in found and _may_have_length(status, tunnel):
        kept.append(b"Content-Length: %d\r\n" % int(found[b"content-length"][0]))
    if status == 101:
        kept.append(b"Connection: Upgrade\r\n")
    if status in (101, 426):  # in 426 it says what would be accepted (RFC 9110, 15.5.22)
        kept += [b"Upgrade: %b\r\n" % value for value in found.get(b"upgrade", [])]
    forward = b"".join(kept)
    return objects_to_answer(status, forward) or ResponseHead(
        size=size,
        status=status,
        framing=framing,
        keep_alive=(
            framing != UNTIL_CLOSE and not tunnel and b"close" not in said and (minor == 1 or b"keep-alive" in said)
        ),
        is_interim=100 <= status < 200 and status != 101,
        is_upgrade=tunnel,
        forward=forward,
    )


def _may_have_length(status: int, tunnel: bool) -> bool:
    """RFC 9110, 8.6: no Content-Length in 1xx, 204 and 2xx to CONNECT."""
    return status >= 200 and status != 204 and not tunnel


def _framing(found: Found, minor: int, method: bytes, status: int) -> int | Refusal:
    """RFC 9112, 6.3: what must not have a body, then the two fields, then the end of the connection."""
    framing = framing_fields(found, minor, UNTIL_CLOSE, bad=502, unknown=502)
    if isinstance(framing, Refusal):
        return framing
    if status < 200 or status == 204 or (method == b"CONNECT" and status < 300):
        # What would follow a head that cannot have a body is either a lie or the next answer.
        return NO_BODY if framing in (NO_BODY, UNTIL_CLOSE) else Refusal(502, "body-not-allowed")
    return NO_BODY if method == b"HEAD" or status == 304 else framing


def _why_not(buffer: bytes, end: int, header_size: int) -> Refusal | None:
    """The first thing wrong in the order of the bytes; None where `buffer` may yet become a head."""
    head = buffer[: end + 4] if end >= 0 else buffer[:header_size]
    newline = head.find(b"\n")
    bad = bad_byte(head if newline < 0 else head[: newline + 1])
    if bad:
        return Refusal(502, bad)
    if not head.startswith(b"HTTP/1."[: len(head)]):
        return Refusal(502, "status-line")
    if newline >= 0:
        refused = why_not_status_line(head[: newline + 1])
        bad = bad_byte(head[newline + 1 :])
        if refused or bad:
            return refused or Refusal(502, str(bad))
    if end < 0:
        return Refusal(502, "head-too-large") if len(buffer) >= header_size else None
    return Refusal(502, why_not_fields(head[newline + 1 :]))
