"""A chunked body (RFC 9112, 7.1), taken apart and put together again.

What comes out is chunked anew, a chunk for what one read brought, or plain for a client of HTTP/1.0. Extensions are
checked and dropped; a trailer that could change what the message means is dropped as well (RFC 9110, 6.5.1).
"""

from __future__ import annotations

import re
from enum import Enum, auto

from timewait.balancer.http.fields import FRAMING, HOP_BY_HOP
from timewait.balancer.http.grammar import FIELDS, TOKEN, Refusal, bad_byte, fields_of, why_not_fields

LONGEST_LINE = 512  # bytes of a size with its extensions
MOST_EXTENSIONS = 16 << 10  # bytes of them in one body: they are read and thrown away, so they must end
MOST_TRAILERS = 8 << 10
MOST_TRAILER_FIELDS = 64

_QUOTED = rb'"(?:[\t\x20\x21\x23-\x5b\x5d-\x7e\x80-\xff]|\\[\t\x20-\x7e\x80-\xff])*"'
_EXTENSION = rb";" + TOKEN + rb"++(?:=(?:" + TOKEN + rb"++|" + _QUOTED + rb"))?"
_SIZE = re.compile(rb"([0-9A-Fa-f]{1,16})((?:" + _EXTENSION + rb")*)\r\n")
_PLAIN_SIZE = re.compile(rb"([0-9A-Fa-f]{1,8})\r\n")
_TRAILERS = re.compile(FIELDS)

NOT_IN_TRAILERS = (
    FRAMING
    | HOP_BY_HOP
    | frozenset(
        b"""accept-ranges age authorization cache-control content-encoding content-range content-type cookie date
        expect expires forwarded location max-forwards pragma proxy-authenticate proxy-authorization range
        retry-after set-cookie vary warning www-authenticate x-forwarded-for x-forwarded-host x-forwarded-port
        x-forwarded-proto x-real-ip""".split()
    )
)


class _Want(Enum):
    SIZE = auto()
    DATA = auto()
    CRLF = auto()
    TRAILERS = auto()
    NOTHING = auto()


class Chunks:
    """One body. `limit` is what its data may come to, in bytes (None: no end); `bad` is the status of a refusal."""

    __slots__ = ("_bad", "_extensions", "_left", "_limit", "_pending", "_plain", "_refused", "_want", "received")

    def __init__(self, limit: int | None = None, *, plain: bool = False, bad: int = 400) -> None:
        self.received = 0  # bytes of data so far, without framing
        self._limit = limit
        self._plain = plain
        self._bad = bad
        self._want = _Want.SIZE
        self._left = 0  # bytes of the current chunk still to come
        self._extensions = 0
        self._pending = b""  # an unfinished line
        self._refused: Refusal | None = None

    def feed(self, data: bytes) -> tuple[bytes, int, bool] | Refusal:
        """What to send on, how many bytes of `data` belong to this body, and whether it is over.

        All of `data` is consumed unless the body ends within; what is left then is the next message. Once refused, a
        body stays refused; nothing of what `data` brought then is to be sent on.
        """
        if self._refused is not None:
            return self._refused
        held = len(self._pending)
        buffer = self._pending + data if held else data
        self._pending = b""
        pieces: list[bytes] = []
        position = self._walk(buffer, pieces)
        if isinstance(position, Refusal):
            self._refused = position
            return position
        body = b"".join(pieces) if len(pieces) != 1 else pieces[0]
        if self._want is _Want.NOTHING:
            return self._last(body), position - held, True
        self._pending = buffer[position:]
        return self._framed(body), len(data), False

    def _walk(self, buffer: bytes, pieces: list[bytes]) -> int | Refusal:
        """Collects data into `pieces`; how far it came: to the end of the body, or of what can be understood yet."""
        position, size = 0, len(buffer)
        while position < size:
            if self._want is _Want.DATA:
                piece = buffer[position : position + self._left]
                pieces.append(piece)
                position += len(piece)
                self._left -= len(piece)
                if self._left:
                    break
                self._want = _Want.CRLF
            elif self._want is _Want.CRLF:
                if buffer[position : position + 2] != b"\r\n"[: size - position]:
                    return Refusal(self._bad, "chunk-end")
                if size - position < 2:
                    break
                position += 2
                self._want = _Want.SIZE
            elif self._want is _Want.SIZE:
                position = self._whole(buffer, position, pieces)
                if position == size:
                    break
                end = self._size(buffer, position)
                if isinstance(end, Refusal):
                    return end
                if end == position:
                    break
                position = end
            else:
                return self._trailers(buffer, position)
        return position

    def _whole(self, buffer: bytes, position: int, pieces: list[bytes]) -> int:
        """Collects chunks that are here from size to CRLF and in order: a body of tiny ones must not cost much.

        What is not so is left, at the position returned, to be read step by step.
        """
        most = self._limit if self._limit is not None else 1 << 60
        while found := _PLAIN_SIZE.match(buffer, position):
            start = found.end()
            end = start + int(found[1], 16)
            if end == start or self.received + end - start > most or not buffer.startswith(b"\r\n", end):
                break
            pieces.append(buffer[start:end])
            self.received += end - start
            position = end + 2
        return position

    def _size(self, buffer: bytes, position: int) -> int | Refusal:
        """Reads a chunk's first line; the position behind it, or the same one as long as it is not complete."""
        match = _SIZE.match(buffer, position)
        if match is None:
            return self._why_not_size(buffer[position : position + LONGEST_LINE + 1], position)
        if match.end() - position > LONGEST_LINE:
            return Refusal(self._bad, "chunk-line-too-long")
        self._left = int(match[1], 16)
        self._extensions += len(match[2])
        if self._extensions > MOST_EXTENSIONS:
            return Refusal(self._bad, "chunk-extensions")
        self.received += self._left
        if self._left >> 60:  # RFC 9112, 7.1: "anticipate potentially large hexadecimal numerals"
            return Refusal(self._bad, "chunk-size-too-large")
        if self._limit is not None and self.received > self._limit:
            return Refusal(413 if self._bad == 400 else self._bad, "body-too-large")
        self._want = _Want.DATA if self._left else _Want.TRAILERS
        return match.end()

    def _why_not_size(self, line: bytes, position: int) -> int | Refusal:
        """Why `line` is no chunk's first, by the first byte that is wrong; `position` where it may become one."""
        digits = len(line) - len(line.lstrip(b"0123456789abcdefABCDEF"))
        after = line[digits : digits + 1]
        if digits > 16:
            return Refusal(self._bad, "chunk-size-too-large")
        if after and (digits == 0 or after not in (b";", b"\r")):
            return Refusal(self._bad, bad_byte(after) or "chunk-size")
        newline = line.find(b"\n", 0, LONGEST_LINE)
        bad = bad_byte(line[: newline + 1] if newline >= 0 else line[:LONGEST_LINE])
        if bad:
            return Refusal(self._bad, bad)
        if newline >= 0:
            return Refusal(self._bad, "chunk-extension")
        return Refusal(self._bad, "chunk-line-too-long") if len(line) > LONGEST_LINE else position

    def _trailers(self, buffer: bytes, position: int) -> int | Refusal:
        """Reads the trailer section with its empty line, all of it or nothing."""
        end = self._end(buffer, position)
        block = buffer[position : position + MOST_TRAILERS if end is None else end]
        bad = bad_byte(block)
        if bad:
            return Refusal(self._bad, bad)
        if end is None:
            over = len(buffer) - position >= MOST_TRAILERS
            return Refusal(431 if self._bad == 400 else self._bad, "trailers-too-large") if over else position
        match = _TRAILERS.fullmatch(block)
        if match is None:
            return Refusal(self._bad, "trailer-" + why_not_fields(block))
        fields = fields_of(match[1])
        if len(fields) > MOST_TRAILER_FIELDS:
            return Refusal(431 if self._bad == 400 else self._bad, "trailers-too-large")
        self._left = 0
        self._pending = b"".join(
            b"%b: %b\r\n" % field for field in fields if field[0].lower().replace(b"_", b"-") not in NOT_IN_TRAILERS
        )
        self._want = _Want.NOTHING
        return position + len(block)

    @staticmethod
    def _end(buffer: bytes, position: int) -> int | None:
        """Behind the empty line that ends the trailers, or None as long as it is not there."""
        if buffer.startswith(b"\r\n", position):
            return position + 2
        found = buffer.find(b"\r\n\r\n", position, position + MOST_TRAILERS)
        return None if found < 0 else found + 4

    def _framed(self, body: bytes) -> bytes:
        return chunk(body) if body and not self._plain else body

    def _last(self, body: bytes) -> bytes:
        trailers, self._pending = self._pending, b""
        return body if self._plain else b"%b0\r\n%b\r\n" % (self._framed(body), trailers)


def chunk(data: bytes) -> bytes:
    """`data`, which is not empty, as one chunk; a body ends with LAST_CHUNK."""
    return b"%x\r\n%b\r\n" % (len(data), data)


LAST_CHUNK = b"0\r\n\r\n"
