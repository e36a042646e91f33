"""Weights as a ring of turns, which a rule walks by number or by hash. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from hashlib import blake2b

Weights = Sequence[tuple[str, int]]  # (address, weight)

LONGEST = 4096  # turns; a longer ring is shared out by ranges, in the same proportion
SLOTS = 1024  # of the table that a source address is hashed into


def in_turn(weights: Weights) -> list[str]:
    """Weighted round robin: whose turn it is, spread as evenly as nginx's smooth round robin spreads it."""
    live = reduced(weights)
    total = sum(weight for _, weight in live)
    if total > LONGEST:
        return [address for address, weight in live for _ in range(max(1, weight * LONGEST // total))]
    current = dict.fromkeys((address for address, _ in live), 0)
    ring = []
    for _ in range(total):
        for address, weight in live:
            current[address] += weight
        chosen = max(current, key=lambda address: current[address])
        current[chosen] -= total
        ring.append(chosen)
    return ring


def reduced(weights: Weights) -> list[tuple[str, int]]:
    """Those with a weight, divided by what all of them share: 60 and 40 are 3 and 2."""
    live = [(address, weight) for address, weight in weights if weight > 0]
    common = math.gcd(*(weight for _, weight in live)) or 1
    return [(address, weight // common) for address, weight in live]


def by_hash(weights: Weights) -> list[str]:
    """A table of SLOTS owners, each slot decided by itself (weighted rendezvous hashing): where one weight changes,
    only slots that come from or go to that target change their owner, as in CLB's static table."""
    live = reduced(weights)
    if len(live) < 2:
        return [address for address, _ in live]
    return [max(live, key=lambda one: _score(slot, *one))[0] for slot in range(SLOTS)]


def _score(slot: int, address: str, weight: int) -> float:
    number = int.from_bytes(blake2b(f"{slot} {address}".encode(), digest_size=8).digest(), "big")
    return -weight / math.log((number + 1) / (2**64 + 1))


def ranges(ring: Sequence[str]) -> list[tuple[str, str]]:
    """(`0-5`, address) for neighbours that are the same."""
    found: list[tuple[str, str]] = []
    start = 0
    for number in range(1, len(ring) + 1):
        if number == len(ring) or ring[number] != ring[start]:
            last = number - 1
            found.append((str(start) if last == start else f"{start}-{last}", ring[start]))
            start = number
    return found
