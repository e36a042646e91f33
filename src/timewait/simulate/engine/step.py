"""The loop: whatever comes next, happens."""

from __future__ import annotations

from timewait.simulate.engine.ahead import next_opener, next_rest
from timewait.simulate.engine.arrivals import schedule_arrival
from timewait.simulate.engine.connection import gives_up, opens, rst_arrives, sends_syn
from timewait.simulate.engine.life import backend_rested, ends_now, joins, served
from timewait.simulate.engine.lines import number_of, through
from timewait.simulate.engine.opener import rested
from timewait.simulate.engine.server import millis, sweep
from timewait.simulate.engine.state import (
    C_KIND,
    C_SEQ,
    C_WHEN,
    ENDS,
    G_ARRIVAL,
    G_BACK_AT,
    G_BACK_HEAD,
    G_BACK_ROOM,
    G_BACK_TAIL,
    G_EVENTS,
    G_FREE_SLOTS,
    G_LINE,
    G_LINE_AT,
    G_NOW,
    G_REST_AT,
    G_REST_HEAD,
    G_REST_ROOM,
    G_REST_TAIL,
    GIVE_UP,
    JOINS,
    NEVER,
    NOBODY,
    RST_ARRIVES,
    SERVED,
    SLOT,
    SYN_DUE,
    Fixed,
    State,
    addressed,
)
from timewait.simulate.engine.wheel import happened, peek

REACHED, PAUSED, NO_SLOT, NO_ROOM, NO_BACK_ROOM = 0, 1, 2, 3, 4


def advance(s: State, f: Fixed, until: int, budget: int) -> int:
    """Everything before `until` (ns) happens, at most `budget` events; why it stopped.

    NO_SLOT: more connections at once than there is room for, NO_ROOM and NO_BACK_ROOM: more ports at rest. The caller
    makes room and comes back; nothing is lost.
    """
    s = addressed(s)
    g = s.m
    while budget > 0:
        if g[G_FREE_SLOTS] == 0:
            return NO_SLOT
        if g[G_REST_TAIL] - g[G_REST_HEAD] >= g[G_REST_ROOM]:
            return NO_ROOM
        if g[G_BACK_TAIL] - g[G_BACK_HEAD] >= g[G_BACK_ROOM]:
            return NO_BACK_ROOM
        rest, back_rest = g[G_REST_AT], g[G_BACK_AT]
        first = min(until, rest, back_rest, g[G_ARRIVAL])
        lined = g[G_LINE_AT]
        slot = peek(s, f, f.width, min(first, lined))
        due = s.conns[slot * SLOT + C_WHEN] if slot != NOBODY else NEVER
        in_line = lined < due or (lined == due and lined < NEVER and _before(s, slot))
        due = min(lined, due)
        if min(first, due) >= until:
            g[G_NOW] = until
            return REACHED
        budget -= 1
        g[G_EVENTS] += 1
        if rest <= first and rest <= due:
            rested(s, f)
            next_rest(s, f)
        elif back_rest <= first and back_rest <= due:
            backend_rested(s, f)
        elif due <= first:
            if in_line:
                slot = through(s, f)
            else:
                happened(s)
            happens_now(s, f, slot, due)
        else:
            opens(s, f, first)
            next_opener(s, f)
    return PAUSED


def _before(s: State, slot: int) -> bool:
    """Whether the event at the head of the lines was scheduled before that of the wheel."""
    return number_of(s, s.m[G_LINE]) < int(s.conns[slot * SLOT + C_SEQ])


def happens_now(s: State, f: Fixed, slot: int, at: int) -> None:
    """What a connection waited for."""
    g = s.m
    g[G_NOW] = at
    kind = s.conns[slot * SLOT + C_KIND]
    if kind == ENDS:
        ends_now(s, f, slot, at)
    elif kind == SYN_DUE:
        sends_syn(s, f, slot, at)
    elif kind == JOINS:
        joins(s, f, slot, at)
    elif kind == SERVED:
        served(s, f, slot, at)
    elif kind == RST_ARRIVES:
        rst_arrives(s, f, slot, at)
    elif kind == GIVE_UP:
        gives_up(s, f, slot, at)


def begin(s: State, f: Fixed) -> None:
    """The first connection is on its way."""
    schedule_arrival(addressed(s), f, 0)


def gauge(s: State, f: Fixed, at: int) -> None:
    """All TIME_WAITs that ended up to `at` are taken off."""
    s = addressed(s)
    for box in range(f.boxes + 2):
        sweep(s, f, box, millis(at))
