"""A request's head: from bytes to what is routed by and what is forwarded (RFC 9112, sections 2 to 6)."""

from __future__ import annotations

import re
from collections.abc import Mapping

import msgspec

from timewait.balancer.config.model import Limits
from timewait.balancer.http.fields import (
    FRAMING,
    HOP_BY_HOP,
    KEPT_ANYWAY,
    Names,
    framing_fields,
    options,
    protocols,
)
from timewait.balancer.http.grammar import (
    CHUNKED,
    END,
    FIELD,
    NO_BODY,
    REQUEST,
    TEXT,
    TOKEN,
    Refusal,
    bad_byte,
    plain_lines,
    why_not_fields,
    why_not_request_line,
)
from timewait.balancer.http.target import PLAIN_TARGET, Place, host_of, place_of
from timewait.balancer.http.witness import objects_to_request


class RequestHead(msgspec.Struct, frozen=True, gc=False):
    """A request that has one meaning.

    `forward` is the request line and the fields to send on, each line with its CRLF, without the empty line at the
    end. It says HTTP/1.1 whatever the client speaks, its framing fields are normal, and it has none of `Connection`
    and what that named, `Keep-Alive`, `Proxy-Connection`, `Upgrade`, `Expect`, X-Forwarded-For and X-Forwarded-Proto:
    whoever forwards writes those. Where `host` is empty (HTTP/1.0 only) it has no Host either.
    """

    size: int  # bytes of the head; the body, or the next request, begins there
    method: bytes
    target: bytes  # origin-form with query, `*`, or for CONNECT host:port
    path: bytes  # normalised as nginx does, for routing; begins with /
    query: bytes  # with its question mark, or empty
    host: bytes  # lower case, no port; empty where an HTTP/1.0 client sent none
    version: tuple[int, int]  # (1, 0) or (1, 1)
    framing: int  # NO_BODY, a length above 0, or CHUNKED
    keep_alive: bool  # what the client wants of its connection
    expects_continue: bool  # waits for 100 before it sends its body; then a target may be sent Expect again
    upgrade: bytes | None  # protocols it offers; None also for h2c and TLS, and where there is a body
    is_connect: bool
    trailers: bool  # `TE: trailers` is in `forward`; then TE belongs into `Connection` (RFC 9110, 10.1.4)
    cookie: bytes  # all Cookie fields, for cookies.lookup()
    forwarded_for: bytes  # X-Forwarded-For as it came, or empty
    forwarded_proto: bytes  # X-Forwarded-Proto likewise
    forward: bytes


# Fields that are looked at; all others go through as they are.
_KNOWN = HOP_BY_HOP | FRAMING | {b"expect", b"cookie", b"x-forwarded-for", b"x-forwarded-proto", b"proxy"}
# `Proxy` is among them to be left out: CGI would make HTTP_PROXY of it, which clients inside take for a setting.
# CGI and WSGI cannot tell X_Y from X-Y: such a name must not bring in what the real one is not allowed to say.
_LOOKALIKES = KEPT_ANYWAY | HOP_BY_HOP | {b"x-forwarded-for", b"x-forwarded-proto"}
_USUAL = frozenset((b"close", b"keep-alive", b"upgrade", b"te"))
_WRONG, _LEFT_OUT = b"!", b"-"  # in place of a known name, which is neither

Found = Mapping[bytes, list[bytes]]


def _role(name: bytes) -> bytes:
    """The known field that a name stands for; empty: one to be passed on; or _WRONG, or _LEFT_OUT."""
    low = name.lower()
    if low in _KNOWN:
        return low
    alike = low.replace(b"_", b"-") if b"_" in low else b""
    if alike in FRAMING:
        return _WRONG
    return _LEFT_OUT if alike in _LOOKALIKES else b""


_ROLES = Names(_role)


def request_head(buffer: bytes, limits: Limits) -> RequestHead | Refusal | None:
    """The head at the front of `buffer`; None as long as bytes are missing and those that came may become one.

    A pure function of the bytes: how they were split on their way changes nothing but how early a refusal is known.
    """
    end = buffer.find(END, 0, limits.header_size)
    ordinary = _ordinary(buffer, end + 4, limits) if end >= 0 else None
    if ordinary is not None:
        return ordinary
    match = REQUEST.match(buffer, 0, end + 4) if end >= 0 else None
    if match is None:
        return _why_not(buffer, end, limits)
    method, target, minor, block = match.groups()
    if match.start(4) - match.start(1) > limits.request_line + 2:
        return Refusal(414, "request-line-too-long")
    lines = FIELD.findall(block)
    if len(lines) > limits.header_count:
        return Refusal(431, "too-many-fields")
    kept: list[bytes] = []
    found: dict[bytes, list[bytes]] = {}
    for name, value in lines:
        role = _ROLES[name]
        value = value.rstrip(b" \t")
        if role:
            if role in found:
                found[role].append(value)
            elif role == _WRONG:
                return Refusal(400, "lookalike-field")
            elif role != _LEFT_OUT:
                found[role] = [value]
            if role != b"cookie":
                continue
        kept.append(b"%b: %b\r\n" % (name, value))
    place = place_of(method, target)
    if isinstance(place, Refusal):
        return place
    return _assembled(match.end(), method, place, int(minor), found, kept, limits)


_LINES = plain_lines(_KNOWN)
_ORDINARY = re.compile(
    rb"(%b++) %b HTTP/1\.1\r\n" % (TOKEN, PLAIN_TARGET)
    + _LINES
    + rb"Host: ([^ \t\r]++)\r\n"
    + _LINES
    + rb"(?:Connection: (?:[Kk]eep-[Aa]live|([Cc]lose))\r\n%b)?" % _LINES
    + rb"(?:(Cookie: ((?![ \t])%b*+(?<![ \t]))\r\n)%b)?\r\n" % (TEXT, _LINES)
)
_MOST_LINES = 4 * 24 + 3  # more do not match


def _ordinary(buffer: bytes, end: int, limits: Limits) -> RequestHead | None:
    """What most requests are: HTTP/1.1, a Host, no body, nothing that concerns the connection but how it ends.

    Says the same as the long way, for a third of the time, or nothing. The second reader is not asked about these:
    all of them is the request line and lines of `NAME: VALUE`, each in the alphabet of grammar.py, with no field
    that says where the message ends. Such lines stand for themselves, so there is nothing that two readers could see
    differently but a byte; tests/balancer/http/test_witness.py asks about every byte in every place.
    """
    match = _ORDINARY.match(buffer, 0, end)
    if match is None or match.start(4) > limits.request_line + 2:
        return None
    if limits.header_count < _MOST_LINES and buffer.count(b"\r\n", 0, end) - 2 > limits.header_count:
        return None
    method, path, query, first, authority, second, close, third, line, cookie, fourth = match.groups(b"")
    host = host_of(authority)
    if not host or method == b"CONNECT":
        return None
    target = path + query
    # By position, as it is made for each new head: by keyword it takes five times as long.
    return RequestHead(
        end, method, target, path, query, host, (1, 1), NO_BODY, not close, False, None, False, False,
        cookie, b"", b"",
        b"%b %b HTTP/1.1\r\nHost: %b\r\n%b%b%b%b%b" % (method, target, authority, first, second, third, line, fourth),
    )  # fmt: skip


def _assembled(
    size: int, method: bytes, place: Place, minor: int, found: Found, kept: list[bytes], limits: Limits
) -> RequestHead | Refusal:
    """Puts together what the fields say about framing, host and connection."""
    framing = _framing(found, minor, method)
    if isinstance(framing, Refusal):
        return framing
    authority = _authority(found, place, minor)
    if isinstance(authority, Refusal):
        return authority
    asked = options(found.get(b"connection", []))
    if asked is None:
        return Refusal(400, "connection")
    if asked - _USUAL:
        kept = _without(kept, asked)
    expects = found.get(b"expect", [])
    if minor and expects and any(value.lower() != b"100-continue" for value in expects):
        return Refusal(417, "expectation")
    if framing > limits.body_size:
        return Refusal(413, "body-too-large")
    trailers = _wants_trailers(found)
    lines = [b"%b %b HTTP/1.1\r\n" % (method, place.target)]
    if authority:
        lines.append(b"Host: %b\r\n" % authority)
    lines += kept
    if framing == CHUNKED:
        lines.append(b"Transfer-Encoding: chunked\r\n")
        lines += [b"Trailer: %b\r\n" % value for value in found.get(b"trailer", [])]
    elif b"content-length" in found:
        lines.append(b"Content-Length: %d\r\n" % framing)
    if trailers:
        lines.append(b"TE: trailers\r\n")
    forward = b"".join(lines)
    return objects_to_request(method, place.target, forward) or RequestHead(
        size=size,
        method=method,
        target=place.target,
        path=place.path,
        query=place.query,
        host=host_of(authority) or b"",
        version=(1, minor),
        framing=framing,
        keep_alive=b"close" not in asked and (minor == 1 or b"keep-alive" in asked),
        expects_continue=bool(expects and minor and framing),
        upgrade=_upgrade(found, asked, minor, framing, method),
        is_connect=method == b"CONNECT",
        trailers=trailers,
        cookie=b"; ".join(found[b"cookie"]) if b"cookie" in found else b"",
        forwarded_for=b", ".join(found[b"x-forwarded-for"]) if b"x-forwarded-for" in found else b"",
        forwarded_proto=b", ".join(found[b"x-forwarded-proto"]) if b"x-forwarded-proto" in found else b"",
        forward=forward,
    )


_NO_CONTENT = (b"TRACE", b"CONNECT")  # RFC 9110, 9.3.6 and 9.3.8: no content


def _framing(found: Found, minor: int, method: bytes) -> int | Refusal:
    """RFC 9112, 6.3, with every case refused that it calls an error or lets a server choose in."""
    framing = framing_fields(found, minor, NO_BODY, bad=400, unknown=501)
    if method in _NO_CONTENT and framing != NO_BODY and isinstance(framing, int):
        return Refusal(400, "body-not-allowed")
    return framing


def _authority(found: Found, place: Place, minor: int) -> bytes | Refusal:
    """What Host is to say, with its port; empty only for HTTP/1.0 without one.

    A target that names its host has the last word (RFC 9112, 3.2.2); a Host field that says another is refused.
    """
    hosts = found.get(b"host", [])
    if len(hosts) > 1:
        return Refusal(400, "duplicate-host")
    if not hosts and (minor or not place.authority):
        return Refusal(400, "no-host") if minor else b""
    named = [*hosts, place.authority] if place.authority else hosts
    if any(host_of(authority) is None for authority in named):
        return Refusal(400, "host")
    if place.authority and hosts and not _same(hosts[0], place.authority):
        return Refusal(400, "host-and-target-differ")
    return place.authority or hosts[0]


def _same(host: bytes, authority: bytes) -> bool:
    """Whether both name one host; a port that only one of them names is no contradiction."""
    if host.lower() == authority.lower():
        return True
    ports = [text[len(host_of(text) or b"") :] for text in (host, authority)]
    return host_of(host) == host_of(authority) and b"" in ports


def _without(kept: list[bytes], asked: frozenset[bytes]) -> list[bytes]:
    """Fields that `Connection` names are the connection's own, unless a target decides by them."""
    named = asked - KEPT_ANYWAY
    return [line for line in kept if line[: line.index(b":")].lower() not in named]


def _wants_trailers(found: Found) -> bool:
    return b"te" in found and any(
        option.strip(b" \t").lower() == b"trailers" for value in found[b"te"] for option in value.split(b",")
    )


def _upgrade(found: Found, asked: frozenset[bytes], minor: int, framing: int, method: bytes) -> bytes | None:
    """What the client offers to switch to, where that may be taken up; a body would stand before the tunnel."""
    if minor and b"upgrade" in asked and b"upgrade" in found and framing == NO_BODY and method != b"CONNECT":
        return protocols(found[b"upgrade"])
    return None


def _why_not(buffer: bytes, end: int, limits: Limits) -> Refusal | None:
    """Why `buffer` is no head, or None where it may become one: the first thing wrong in the order of the bytes."""
    head = buffer[: end + 4] if end >= 0 else buffer[: limits.header_size]
    start = 2 if head.startswith(b"\r\n") else 0
    newline = head.find(b"\n", start)
    line = head[start : newline + 1] if newline >= 0 else head[start:]
    bad = bad_byte(line[: limits.request_line + 2])
    if bad:
        return Refusal(400, bad)
    if len(line) > limits.request_line + 2 - (newline < 0):
        return Refusal(414, "request-line-too-long")
    if newline >= 0:
        refused = why_not_request_line(line)
        bad = bad_byte(head[newline + 1 :])
        if refused or bad:
            return refused or Refusal(400, str(bad))
    if end < 0:
        return Refusal(431, "head-too-large") if len(buffer) >= limits.header_size else None
    return Refusal(400, why_not_fields(head[newline + 1 :]))
