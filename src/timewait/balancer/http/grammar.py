"""What a head may look like, byte by byte, and the words for why it does not.

One regular expression accepts a whole head; everything else is refused. The functions that say why are asked only
once it did not match, and whatever they answer, the message is not accepted. Quantifiers of single
characters are possessive (`++`), and what follows a repeated group cannot begin as the group does: a hostile head
costs a pass over its bytes. Groups are not possessive: Python up to 3.11.4, Debian 12's among them, then takes for a
match what is none (`(?:;[a-z]++)*+x` finds `;x`; gh-106052).
"""

from __future__ import annotations

import re
from collections.abc import Collection

import msgspec

NO_BODY = 0  # framing: a head only
CHUNKED = -1  # framing: Transfer-Encoding: chunked
UNTIL_CLOSE = -2  # framing: an answer that ends with its connection (RFC 9112, 6.3)


class Refusal(msgspec.Struct, frozen=True):
    """Why a message is not forwarded."""

    status: int  # what to answer: 4xx, 501 and 505 for a request; 502 for what a target said
    reason: str  # a short word, as counted in the statistics: "duplicate-content-length"


TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]"  # RFC 9110, 5.6.2
TEXT = rb"[\t\x20-\x7e\x80-\xff]"  # a field's value: no CR, LF, NUL or other control (RFC 9110, 5.5)
FIELDS = rb"((?:" + TOKEN + rb"++:" + TEXT + rb"*+\r\n)*)\r\n"

# One empty line before a request is skipped: some clients end a body with one too many (RFC 9112, 2.2).
REQUEST = re.compile(rb"(?:\r\n)?(" + TOKEN + rb"++) ([\x21-\x7e]++) HTTP/1\.([01])\r\n" + FIELDS)
ANSWER = re.compile(rb"HTTP/1\.([01]) ([1-5][0-9][0-9])(?: (" + TEXT + rb"*+))?\r\n" + FIELDS)


def plain_lines(but: Collection[bytes]) -> bytes:
    """An expression for up to 24 lines of FIELDS that are written as they are sent on, of no field named in `but`.

    One space before a value and none behind it; no `_` in a name. The first letters stand before the names, for most
    lines have another one.
    """
    letters = b"".join(sorted({name[:1] + name[:1].upper() for name in but}))
    names = rb"(?!(?=[%b])(?i:%b):)" % (letters, b"|".join(re.escape(name) for name in sorted(but)))
    return rb"((?:%b%b++: (?![ \t])%b*+(?<![ \t])\r\n){0,24})" % (names, TOKEN.replace(b"_", b""), TEXT)


FIELD = re.compile(rb"([^:]++):[ \t]*+([^\r]*+)\r\n")  # inside what FIELDS accepted
END = b"\r\n\r\n"

_REQUEST_LINE = re.compile(TOKEN + rb"++ [\x21-\x7e]++ HTTP/([0-9])\.([0-9])\r\n")
_STATUS_LINE = re.compile(rb"HTTP/([0-9])\.([0-9]) [1-5][0-9][0-9](?: " + TEXT + rb"*+)?\r\n")
_NAME = re.compile(TOKEN + rb"++")
_BAD = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]|\r(?!\n|\Z)|(?<!\r)\n")
_CLEAN = bytes({*range(0x20, 0x7F), *range(0x80, 0x100), *b"\t\r\n"})


def fields_of(block: bytes) -> list[tuple[bytes, bytes]]:
    """Names and values, with the white space around values taken off; `block` is what FIELDS matched."""
    return [(name, value.rstrip(b" \t")) for name, value in FIELD.findall(block)]


def bad_byte(piece: bytes) -> str | None:
    """The word for the first byte that may stand nowhere in a head; a CR at the very end may yet become a CRLF."""
    ends = piece.count(b"\r\n")
    if (
        not piece.translate(None, _CLEAN)
        and piece.count(b"\n") == ends
        and piece.count(b"\r") - piece.endswith(b"\r") == ends
    ):
        return None
    found = _BAD.search(piece)
    if found is None:
        return None
    byte = found.group()
    return {b"\n": "bare-lf", b"\r": "bare-cr", b"\0": "nul"}.get(byte, "control-character")


def why_not_request_line(line: bytes) -> Refusal | None:
    """`line` has no bad byte and ends with CRLF."""
    found = _REQUEST_LINE.fullmatch(line)
    if found is None:
        words = line[:-2].split(b" ")
        if len(words) == 2 and not words[1].startswith(b"HTTP/"):
            return Refusal(400, "http-0.9")
        if not _NAME.fullmatch(words[0]):
            return Refusal(400, "method")
        return Refusal(400, "version" if len(words) == 3 and words[1].isascii() and words[1] else "request-line")
    if line == b"PRI * HTTP/2.0\r\n":  # RFC 9113, 3.4
        return Refusal(505, "http2-preface")
    return None if found.groups() in ((b"1", b"0"), (b"1", b"1")) else Refusal(505, "version")


def why_not_status_line(line: bytes) -> Refusal | None:
    """The same for an answer's first line."""
    found = _STATUS_LINE.fullmatch(line)
    if found is None:
        return Refusal(502, "status-line")
    return None if found.groups() in ((b"1", b"0"), (b"1", b"1")) else Refusal(502, "version")


def why_not_fields(block: bytes) -> str:
    """The word for the first line that is no field; `block` has no bad byte and ends with an empty line."""
    for line in block[: -len(END)].split(b"\r\n"):
        name, colon, _ = line.partition(b":")
        if line[:1] in (b" ", b"\t"):
            return "obs-fold"
        if not colon:
            return "field-without-colon"
        if not name:
            return "empty-field-name"
        if name[-1:] in (b" ", b"\t"):
            return "space-before-colon"
        if not _NAME.fullmatch(name):
            return "field-name"
    return "syntax"
