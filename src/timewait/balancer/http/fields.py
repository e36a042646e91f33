"""Fields that concern the connection or the framing, in requests and answers alike."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from timewait.balancer.http.grammar import CHUNKED, TOKEN, Refusal

HOP_BY_HOP = frozenset(
    (b"connection", b"keep-alive", b"proxy-connection", b"te", b"trailer", b"transfer-encoding", b"upgrade")
)
"""Fields of one connection, not of the message (RFC 9110, 7.6.1): taken off, and made anew where needed."""

FRAMING = frozenset((b"content-length", b"transfer-encoding", b"host"))

KEPT_ANYWAY = frozenset(
    b"""accept accept-encoding authorization cache-control content-encoding content-language content-length
    content-location content-range content-type cookie date expect forwarded host if-match if-modified-since
    if-none-match if-range if-unmodified-since location origin proxy-authenticate proxy-authorization range referer
    set-cookie te trailer transfer-encoding user-agent www-authenticate x-forwarded-for x-forwarded-host
    x-forwarded-port x-forwarded-proto x-real-ip""".split()
)
"""What `Connection` may not name. A field that a target decides by must not be removable by whoever sends the
request; a sender must not name such fields (RFC 9110, 7.6.1), so the option is ignored and the field stays."""


class Names(dict[bytes, bytes]):
    """What `role(name)` says about names of fields, remembered by how they are written: a head's cost is its lines'.

    Bounded: who makes up names pays for looking at them, and once there are very many all are forgotten.
    """

    MOST, LONGEST = 2048, 64  # names, bytes of one

    def __init__(self, role: Callable[[bytes], bytes]) -> None:
        self._role = role

    def __missing__(self, name: bytes) -> bytes:
        role = self._role(name)
        if len(name) <= self.LONGEST:
            if len(self) >= self.MOST:
                self.clear()
            self[name] = role
        return role


_OPTIONS = re.compile(rb"[ \t]*+(?:" + TOKEN + rb"++[ \t]*+)?(?:,[ \t]*+(?:" + TOKEN + rb"++[ \t]*+)?)*")
_CODINGS = re.compile(TOKEN + rb"++(?:[ \t]*+,[ \t]*+" + TOKEN + rb"++)*")
_PROTOCOL = TOKEN + rb"++(?:/" + TOKEN + rb"++)?"  # RFC 9110, 7.8
_PROTOCOLS = re.compile(_PROTOCOL + rb"(?:[ \t]*+,[ \t]*+" + _PROTOCOL + rb")*")
_OTHER_HTTP = re.compile(rb"(?:^|[ \t,])(?:h2c?|http|tls)(?:$|[ \t,/])", re.IGNORECASE)
_NONE: frozenset[bytes] = frozenset()
_DIGITS = re.compile(rb"[0-9]++")
LARGEST = 10**18 - 1  # bytes; below 2**63 for every target


def options(values: list[bytes]) -> frozenset[bytes] | None:
    """The lower-case options of all `Connection` fields together; None where one is no list of tokens."""
    if not values:
        return _NONE
    joined = b",".join(values)
    if not _OPTIONS.fullmatch(joined):
        return None
    return frozenset(joined.lower().replace(b"\t", b" ").replace(b" ", b"").split(b",")) - {b""}


def framing_fields(
    found: Mapping[bytes, list[bytes]], minor: int, without: int, *, bad: int, unknown: int
) -> int | Refusal:
    """What the two fields say of a message's body (RFC 9112, 6.3), `without` where neither is there.

    `found` has the fields' values by lower-case name, `minor` is that of HTTP/1.x; `bad` and `unknown` are the
    statuses of a refusal. Every case is refused that the RFC calls an error or leaves to the recipient.
    """
    if b"transfer-encoding" in found:
        if b"content-length" in found:
            return Refusal(bad, "content-length-and-transfer-encoding")
        if not minor:
            return Refusal(bad, "transfer-encoding-in-http-1.0")
        return _transfer_encoding(found[b"transfer-encoding"], bad, unknown)
    if b"content-length" in found:
        return _content_length(found[b"content-length"], bad)
    return without


def _content_length(values: list[bytes], bad: int) -> int | Refusal:
    """The one Content-Length. Several, even equal ones, a list, an empty one, signs: refused (RFC 9112, 6.3)."""
    if len(values) > 1:
        return Refusal(bad, "duplicate-content-length")
    value = values[0]
    if not _DIGITS.fullmatch(value):
        return Refusal(bad, "content-length")
    digits = value.lstrip(b"0")
    if len(digits) > 18:
        return Refusal(413 if bad == 400 else bad, "content-length-too-large")
    return int(digits or b"0")


def _transfer_encoding(values: list[bytes], bad: int, unknown: int) -> int | Refusal:
    """CHUNKED where the one coding is `chunked` (RFC 9112, 6.1, 7.1); anything else is refused.

    `bad` answers what has no or two meanings, `unknown` a list of other codings that ends with chunked.
    """
    if len(values) > 1:
        return Refusal(bad, "duplicate-transfer-encoding")
    value = values[0].lower()
    if value == b"chunked":
        return CHUNKED
    if not _CODINGS.fullmatch(value):
        return Refusal(bad, "transfer-encoding")
    codings = value.replace(b"\t", b"").replace(b" ", b"").split(b",")
    if codings[-1] != b"chunked" or codings.count(b"chunked") > 1:
        return Refusal(bad, "transfer-encoding")
    return Refusal(unknown, "transfer-coding")


def protocols(values: list[bytes]) -> bytes | None:
    """What all `Upgrade` fields together name; None where that is no list, or has another HTTP or TLS in it.

    Inside another HTTP or TLS there would be requests that no rule here has seen, so such an offer is ignored, as any
    server may ignore one (RFC 9110, 7.8), and such a choice is not believed.
    """
    joined = b", ".join(values)
    return joined if _PROTOCOLS.fullmatch(joined) and not _OTHER_HTTP.search(joined) else None
