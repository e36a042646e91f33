"""A TCP segment as far as a decision looks at it, and arithmetic modulo 2^32.

Sequence numbers and timestamps are compared as the kernel does, by the sign of a 32-bit difference (`before()` and
`after()`, include/net/tcp.h; the same in every version). Two things follow from the cast: a sequence number exactly
2^31 away counts as after, and a timestamp exactly 2^31 away does not count as older.
"""

from __future__ import annotations

from typing import NamedTuple

FIN, SYN, RST, PSH, ACK = 1, 2, 4, 8, 16  # th_flags, RFC 9293 section 3.1

MASK = 0xFFFFFFFF
HALF = 0x80000000


class Segment(NamedTuple):
    """A segment that arrives. Fields are those of its header; `length` is payload bytes."""

    seq: int = 0
    ack: int = 0
    flags: int = 0
    length: int = 0
    has_ts: bool = False  # a timestamps option is present
    tsval: int = 0
    tsecr: int = 0


def u32(x: int) -> int:
    """x modulo 2^32."""
    return x & MASK


def s32(x: int) -> int:
    """x modulo 2^32, read as a signed number: -2^31 .. 2^31 - 1."""
    return ((x + HALF) & MASK) - HALF


def after(a: int, b: int) -> bool:
    """Sequence number `a` comes after `b`; `after()`, include/net/tcp.h."""
    return (b - a) & HALF != 0


def older(a: int, b: int, window: int) -> bool:
    """Timestamp `b` is more than `window` ticks older than `a`; the comparison in `tcp_paws_check()`."""
    return ((a - b + HALF) & MASK) - HALF > window


def end_seq(segment: Segment) -> int:
    """The sequence number behind the segment: SYN and FIN count as one each."""
    return (
        segment.seq + segment.length + (segment.flags & FIN) + ((segment.flags & SYN) >> 1)
    ) & MASK  # FIN 1, SYN 2


def in_window(seq: int, end: int, start: int, stop: int) -> bool:
    """`tcp_in_window()`, net/ipv4/tcp_minisocks.c: any octet of the segment lies in the window start..stop."""
    if seq == start:
        return True
    if after(end, start) and after(stop, seq):
        return True
    return seq == stop and seq == end
