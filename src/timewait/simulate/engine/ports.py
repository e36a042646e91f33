"""Source ports: which are free, and the first free one of a search, without looking at each.

The order in which ports are tried is the kernel's, from `timewait.tcp.choice`, or a NAT's. A bit for every port tells
whether it may be taken; a port in TIME_WAIT that tcp_tw_reuse would take over may. Where the kernel tries every
second port first (4.9 and later), those and the others have bits of their own.
"""

from __future__ import annotations

from typing import NamedTuple

from timewait.simulate.engine.state import NOBODY, Numbers

MASK = 0xFFFFFFFF


def lowest(word: int) -> int:
    """The number of the lowest bit of a word of 32 bits that is not 0."""
    bit, at = word & -word, 0
    if bit & 0xFFFF0000:
        at = 16
    if bit & 0xFF00FF00:
        at += 8
    if bit & 0xF0F0F0F0:
        at += 4
    if bit & 0xCCCCCCCC:
        at += 2
    if bit & 0xAAAAAAAA:
        at += 1
    return at


def first(bits: Numbers, base: int, low: int, high: int) -> int:
    """The first position in low..high (exclusive) whose bit is set; NOBODY. `base`: the word of position 0."""
    if low >= high:
        return NOBODY
    at = low >> 5
    word = bits[base + at] >> (low & 31) << (low & 31)
    last = (high - 1) >> 5
    while word == 0:
        at += 1
        if at > last:
            return NOBODY
        word = bits[base + at]
    found = (at << 5) + lowest(word)
    return found if found < high else NOBODY


def around(bits: Numbers, base: int, low: int, high: int, start: int) -> int:
    """The first set one from `start` on, then from `low`; NOBODY."""
    found = first(bits, base, start, high)
    return found if found != NOBODY else first(bits, base, low, start)


def has(bits: Numbers, base: int, at: int) -> bool:
    return bool(bits[base + (at >> 5)] >> (at & 31) & 1)


def put(bits: Numbers, base: int, at: int) -> None:
    bits[base + (at >> 5)] |= 1 << (at & 31)


def take(bits: Numbers, base: int, at: int) -> None:
    bits[base + (at >> 5)] &= ~(1 << (at & 31))


def word_of(odd: int, offset: int) -> tuple[int, int]:
    """Where the bit of a port lies, counted from the first port: first word of its half, and position there.

    `odd`: the word at which the bits of every second port begin; 0: all lie in one row.
    """
    if odd == 0:
        return 0, offset
    return (odd if offset & 1 else 0), offset >> 1


class Found(NamedTuple):
    """What a search found."""

    offset: int  # of the port from the first; NOBODY
    n: int  # how many ports were tried before it


def search(bits: Numbers, base: int, odd: int, ports: int, start: int) -> Found:
    """The first free port of a kernel's search that begins at `start`, an offset from the first port.

    `ports`: how many the range has. Linear: all from `start` round. By two (odd > 0): those of start's parity, which
    is even, then the others; with an odd number of ports one is left out, see `choice._nth`.
    """
    if odd == 0:
        at = around(bits, base, 0, ports, start)
        return Found(at, at - start if at >= start else at - start + ports)
    size = ports & ~1
    if size == 0:
        return Found(0 if has(bits, base, 0) else NOBODY, 0)
    half, begin = size >> 1, start >> 1
    low, high = 0, half
    if ports & 1 and begin > 0:  # 0 is left out, the last port tried
        low, high = 1, half + 1
    at = around(bits, base, low, high, begin)
    if at != NOBODY:
        return Found(2 * at, at - begin if at >= begin else at - begin + half)
    at = around(bits, base + odd, 0, half, begin)
    if at == NOBODY:
        return Found(NOBODY, size)
    return Found(2 * at + 1, half + (at - begin if at >= begin else at - begin + half))
