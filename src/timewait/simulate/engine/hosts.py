"""Clocks and places of hosts: what follows from a number, without any memory."""

from __future__ import annotations

from timewait.simulate.engine.draws import below, draw
from timewait.simulate.engine.state import (
    C_CLOCK,
    C_OFFSET,
    C_TRIP,
    CONNECTED,
    SLOT,
    TRIED,
    Fixed,
    Numbers,
    State,
    addressed,
)
from timewait.tcp.clock import Tuple4, has_offset, offset_key, tsval


def offset_of(f: Fixed, client: int, key: int) -> int:
    """What is added to the timestamps of a connection."""
    if not has_offset(f.client, f.client_knobs):
        return 0
    of = offset_key(f.client, f.client_knobs, Tuple4(client, key >> 16, key & 0xFFFF, 443))
    return draw(f.keys.offset, of.saddr, of.daddr << 16 | of.sport | 1 << 31)


def uptime_us(f: Fixed, client: int) -> int:
    """Of a client when the simulation begins."""
    spread = int(draw(f.keys.clock, client) * 2.0**-32 * f.uptime_span * 1e6)
    return f.uptime_low * 1_000_000 + spread


def tsval_of(s: State, f: Fixed, slot: int, at: int) -> int:
    """The timestamp of what the client sends that passes the gateway at `at`."""
    base = slot * SLOT
    sent = at - (s.conns[base + C_TRIP] // 2 - f.delay)
    up = s.conns[base + C_CLOCK] + sent // 1000
    return tsval(f.client, f.client_knobs, up, s.conns[base + C_OFFSET], False)


def address_of(f: Fixed, row: int) -> int:
    return row // f.ports // f.destinations


def box_of(f: Fixed, row: int) -> int:
    """Which host behind the balanced address a five-tuple leads to."""
    return below(draw(f.keys.which_box, row), f.boxes) if f.boxes > 1 else 0


def suffering(
    s: State, f: Fixed, tried_by_address: Numbers, never_by_address: Numbers, tried: Numbers, never: Numbers
) -> None:
    """Counts the clients that tried, and those of them that never got through, by address and by clock position."""
    s = addressed(s)
    for client in range(f.clients):
        state = s.m[f.clients_at + client]
        if not state & TRIED:
            continue
        address, at = client % len(tried_by_address), position_of(f, client, len(tried))
        tried_by_address[address] += 1
        tried[at] += 1
        if not state & CONNECTED:
            never_by_address[address] += 1
            never[at] += 1


def position_of(f: Fixed, client: int, positions: int) -> int:
    """Which slice of the range of clocks a client's timestamps lie in when the simulation begins.

    The range is that of the uptimes where timestamps follow them; all of 32 bits where a random offset is added.
    """
    up = uptime_us(f, client)
    if has_offset(f.client, f.client_knobs):
        return tsval(f.client, f.client_knobs, up, offset_of(f, client, 0), False) * positions >> 32
    span = max(1, f.uptime_span * 1_000_000)
    return min(positions - 1, (up - f.uptime_low * 1_000_000) * positions // span)
