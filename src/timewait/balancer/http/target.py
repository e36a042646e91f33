"""What a request is for: the four forms of a target (RFC 9112, 3.2), its host, and its path as nginx compares it."""

from __future__ import annotations

import re
from functools import lru_cache
from urllib.parse import unquote_to_bytes

import msgspec

from timewait.balancer.http.grammar import Refusal


class Place(msgspec.Struct, frozen=True, gc=False):
    """A target, taken apart."""

    target: bytes  # as to be forwarded: origin-form, `*`, or for CONNECT the authority
    path: bytes  # normalised, for routing
    query: bytes  # with its question mark, or empty
    authority: bytes  # of the absolute-form or authority-form, else empty


# A name or an IPv4 address, or an IPv6 address in brackets; then a port. No user, no percent-encoding.
_HOST = re.compile(rb"([0-9A-Za-z._~-]{1,255}|\[[0-9A-Fa-f:.]{2,45}\])(?::([0-9]{1,5}))?")
_LONGEST = 255 + 6  # bytes of these
_ABSOLUTE = re.compile(rb"[Hh][Tt][Tt][Pp][Ss]?://([^/?#]++)(.*+)")
# Path and query of what _origin() leaves as it is.
PLAIN_TARGET = rb"(/|(?:/[!\"$&-\-0->@-~][!\"$&-.0->@-~]*+)+/?+)((?:\?[!\"$-~]*+)?)"
_PLAIN = re.compile(PLAIN_TARGET)
_NOT_ENCODED = re.compile(rb"%(?![0-9A-Fa-f]{2})")
_SLASHES = re.compile(rb"/{2,}")


def host_of(authority: bytes) -> bytes | None:
    """Lower case, without port; None where it is no host."""
    return _host_of(authority) if len(authority) <= _LONGEST else None


@lru_cache(1024)
def _host_of(authority: bytes) -> bytes | None:
    found = _HOST.fullmatch(authority)
    if found is None or (found[2] is not None and int(found[2]) > 65535):
        return None
    return found[1].lower()


def place_of(method: bytes, target: bytes) -> Place | Refusal:
    """The parts of a target, which has visible ASCII characters only."""
    if method == b"CONNECT":
        found = _HOST.fullmatch(target)
        if found is None or found[2] is None or not 0 < int(found[2]) < 65536:
            return Refusal(400, "authority-form")
        return Place(target, b"/", b"", target)
    plain = _PLAIN.fullmatch(target)
    if plain is not None:
        return Place(target, plain[1], plain[2], b"")
    if target[:1] == b"/":
        return _origin(target, b"")
    if target == b"*":
        return Place(target, b"/", b"", b"") if method == b"OPTIONS" else Refusal(400, "asterisk-form")
    absolute = _ABSOLUTE.fullmatch(target)
    if absolute is None:
        return Refusal(400, "target")
    authority, rest = absolute.groups()
    if not rest and method == b"OPTIONS":  # RFC 9112, 3.2.4
        return Place(b"*", b"/", b"", authority)
    return _origin(rest if rest[:1] == b"/" else b"/" + rest, authority)


def _origin(target: bytes, authority: bytes) -> Place | Refusal:
    if b"#" in target:
        return Refusal(400, "fragment")
    path, mark, query = target.partition(b"?")
    plain = normalised(path)
    return Refusal(400, "path") if plain is None else Place(target, plain, mark + query, authority)


def normalised(path: bytes) -> bytes | None:
    """A path as nginx compares it with its locations: %xx decoded once, `//` merged, `.` and `..` resolved.

    None where nginx answers 400: an incomplete %xx, %00, or `..` above the root (ngx_http_parse_complex_uri). What is
    decoded counts as what it stands for: `/a%2f..%2fb` is `/b`.
    """
    if not (b"%" in path or b"//" in path or b"/." in path):
        return path
    if _NOT_ENCODED.search(path):
        return None
    plain = _SLASHES.sub(b"/", unquote_to_bytes(path))
    if b"\0" in plain:
        return None
    if b"/." not in plain:
        return plain
    segments: list[bytes] = []
    parts = plain.split(b"/")[1:]
    for part in parts:
        if part == b"..":
            if not segments:
                return None
            segments.pop()
        elif part != b".":
            segments.append(part)
    if parts[-1] in (b".", b".."):
        segments.append(b"")  # `/a/.` is the directory `/a/`
    return b"/" + b"/".join(segments)
