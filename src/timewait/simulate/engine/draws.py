"""Random numbers that depend on nothing but what they are for: the seed, a number, and a purpose.

A counter goes in, so there is no generator whose state the order of events could change: the fifth client's clock is
the same whoever asks first. 32-bit arithmetic whose products stay below 2^63, so that plain Python and machine code
agree to the bit. The mixing is Chris Wellons' (hash prospector, 2018: bias 0.107).
"""

from __future__ import annotations

import math
from typing import NamedTuple

MASK = 0xFFFFFFFF


class Keys(NamedTuple):
    """What a number is drawn for; each is `key` of the seed and of the field's place, from 1 on."""

    client: int
    gap: int
    thinning: int
    destination: int
    clock: int
    offset: int
    isn: int
    access: int
    port: int
    block: int
    lost: int
    eaten: int
    answer_lost: int
    rst_lost: int
    answer: int
    which_box: int
    server_isn: int
    step: int
    hash: int


def keys(seed: int) -> Keys:
    """All of a seed (up to 2^63)."""
    return Keys(*(key(seed, purpose) for purpose in range(1, len(Keys._fields) + 1)))


def key(seed: int, purpose: int) -> int:
    """What is the same in all draws for a purpose: 32 mixed bits, the seed's upper 32 above them."""
    return mix((seed & MASK) ^ (purpose * 0x1F1F1F1F & MASK)) | (seed >> 32 & MASK) << 32


def mix(x: int) -> int:
    """A bijection of 32 bits in which every bit of the input moves every bit of the output."""
    x ^= x >> 16
    x = x * 0x21F0AAAD & MASK
    x ^= x >> 15
    x = x * 0x735A2D97 & MASK
    return x ^ (x >> 15)


def draw(key: int, number: int, further: int = 0) -> int:
    """32 random bits for `number` (up to 2^63) and `further` (32 bits)."""
    x = mix((key ^ number) & MASK)
    x = mix(x ^ (number >> 32) ^ (key >> 32))
    return mix(x ^ (further & MASK)) if further else x


def below(bits: int, limit: int) -> int:
    """0..limit-1 from 32 random bits; limit up to 2^31. Uneven by at most limit / 2^32."""
    return bits * limit >> 32


def exponential(bits: int, mean: float) -> int:
    """An exponentially distributed whole number, from 32 random bits."""
    return int(-math.log((bits + 0.5) * 2.0**-32) * mean)


def happens(bits: int, share: float) -> bool:
    """Whether something of this probability happens."""
    return bits < share * 4294967296.0
