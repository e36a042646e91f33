"""How many connections go where: the kernel's table counted without keeping a connection, and one count for all who
ask at about the same time.

A table of several 100,000 takes a good part of a second to dump, and a drain asks ten times a second. So a count is
made in another thread, and is good for as long as SHARE times what it took: counting takes a bounded part of one
core, and with few connections every question is answered anew.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import time
from collections import Counter
from typing import NamedTuple

from timewait.balancer.nftables.conntrack import DST_NAT, HEADER, OPEN, PROTOCOLS, batches, rewritten, state, state_at

SHARE = 4.0  # a count that took 0.5 s is good for 2 s more

# Both tuples as in conntrack.py; CTA_STATUS follows as a rule. CTA_PROTOINFO with TCP's state comes later, as a rule
# at the same place in messages of the same length; it is known by the 12 bytes of the three headers before the state.
_TAIL = "2xH3xB"
_HEAD = "I12x4x"
_SHAPES: dict[int, struct.Struct] = {
    socket.AF_INET: struct.Struct(f"={_HEAD}4x4x 8x 4x4s 4x 4xB3x 8x 4x2s2x 4x4x 4x4s 8x 4x 8x 4x2s2x 8x {_TAIL}"),
    socket.AF_INET6: struct.Struct(
        f"={_HEAD}4x4x 20x 4x16s 4x 4xB3x 8x 4x2s2x 4x4x 4x16s 20x 4x 8x 4x2s2x 8x {_TAIL}"
    ),
}
_STATUS = 3  # CTA_STATUS
_HELD = struct.Struct("=12sB")


class Way(NamedTuple):
    """What connections have in common that are counted together; see conntrack.Flow."""

    protocol: int
    service: tuple[bytes, int]
    target: tuple[bytes, int]
    open: bool


def census(protocols: set[str]) -> Counter[Way]:
    """Every connection with a rewritten destination, in this network namespace. Raises BalancerError."""
    numbers = {PROTOCOLS[name] for name in protocols}
    found: Counter[Way] = Counter()
    for family in _SHAPES:
        counted: Counter[tuple[bytes, int, bytes, bytes, bytes, bool]] = Counter()
        for batch, length in batches(family, rewritten()):
            _count(family, batch, length, counted)
        for (service, protocol, port, target, target_port, is_open), count in counted.items():
            if protocol in numbers:
                ends = (service, int.from_bytes(port, "big")), (target, int.from_bytes(target_port, "big"))
                found[Way(protocol, *ends, is_open)] += count
    return found


def _count(
    family: int, data: memoryview, end: int, counted: Counter[tuple[bytes, int, bytes, bytes, bytes, bool]]
) -> None:
    """The messages of a datagram; `data` has room behind them, so that a short message can be read as a long one."""
    unpack, held_at, at = _SHAPES[family].unpack_from, _HELD.unpack_from, 0
    places: dict[int, tuple[int, bytes]] = {}  # by length of a message: where TCP's state is, and what is before it
    while at < end:
        length, service, protocol, port, target, target_port, first, status = unpack(data, at)
        place, headers = places.get(length, (0, b""))
        found, held = held_at(data, at + place)
        if first != _STATUS or (found != headers and protocol == socket.IPPROTO_TCP):
            body = data[at + HEADER.size + 4 : at + length]
            status, held = state(body)
            place = HEADER.size + 4 + state_at(body)
            places[length] = place, bytes(data[at + place : at + place + 12])
        if status & DST_NAT:
            is_open = protocol != socket.IPPROTO_TCP or held in OPEN
            counted[service, protocol, port, target, target_port, is_open] += 1
        at += length + 3 & ~3


class Shared:
    """The latest count; another one once it is too old, or `outdate` was called."""

    def __init__(self) -> None:
        self._counting: asyncio.Task[Counter[Way]] | None = None
        self._until = 0.0

    def outdate(self) -> None:
        """What is counted now, or was, is of before a change."""
        self._counting = None

    async def counts(self, protocols: set[str]) -> Counter[Way]:
        """See census()."""
        known = self._counting
        if known is None or (known.done() and time.monotonic() > self._until):
            known = self._counting = asyncio.create_task(self._count(protocols))
        return await asyncio.shield(known)

    async def _count(self, protocols: set[str]) -> Counter[Way]:
        begun = time.monotonic()
        found = await asyncio.to_thread(census, protocols)
        now = time.monotonic()
        self._until = now + SHARE * (now - begun)
        return found
