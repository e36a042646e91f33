"""Waits that are always the same length: whoever began first is through first, so a queue keeps them in order.

The n-th SYN of every connection leaves equally long after the one before it, and most events of a world in which SYNs
get no answer are of that kind. There is a line for each n; its slots are linked one behind the other, and what a
general order costs (`wheel`) is saved. What would not come last in its line goes to the wheel.
"""

from __future__ import annotations

from timewait.simulate.engine.compiled import prefetch
from timewait.simulate.engine.state import (
    C_CLIENT,
    C_ROW,
    C_SEQ,
    C_WHEN,
    G_LINE,
    G_LINE_AT,
    G_LINES,
    G_SEQ,
    L_AHEAD,
    L_AT,
    L_HEAD,
    L_LAST,
    L_LEAD,
    L_TAIL,
    LINE,
    LINES,
    MOST_LINES,
    NEVER,
    NOBODY,
    SLOT,
    Fixed,
    State,
)
from timewait.simulate.engine.wheel import schedule

AHEAD = 6  # places: in a burst events come faster than memory answers


def stands_in_line(s: State, width: int, slot: int, when: int, line: int) -> None:
    """The slot's event happens at `when` (ns), not before what happens now. `line`: those that wait as long."""
    m, c, at = s.m, s.conns, LINES + line * LINE
    if line >= MOST_LINES or (m[at + L_HEAD] != NOBODY and when < m[at + L_LAST]):
        schedule(s, width, slot, when)
        return
    c[slot * SLOT + C_WHEN] = when
    c[slot * SLOT + C_SEQ] = m[G_SEQ]
    s.behind[slot] = NOBODY
    m[G_SEQ] += 1
    if m[at + L_HEAD] != NOBODY:
        s.behind[m[at + L_TAIL]] = slot
    else:
        m[at + L_HEAD], m[at + L_AT] = slot, when
        m[at + L_AHEAD], m[at + L_LEAD] = slot, 0
        if line >= m[G_LINES]:
            m[G_LINES] = line + 1
        if when < m[G_LINE_AT]:  # of equal ones the earlier number comes first
            m[G_LINE], m[G_LINE_AT] = line, when
    m[at + L_TAIL], m[at + L_LAST] = slot, when


def through(s: State, f: Fixed) -> int:
    """The slot whose turn it is, of all lines; it is taken off."""
    m, c, at = s.m, s.conns, LINES + s.m[G_LINE] * LINE
    slot = m[at + L_HEAD]
    second = s.behind[slot]
    m[at + L_HEAD] = second
    m[at + L_AT] = NEVER
    if second != NOBODY:
        m[at + L_AT] = c[second * SLOT + C_WHEN]
        _fetch(s, f, second)
        _fetch_ahead(s, at, second)
    _first(s)
    return int(slot)


def _first(s: State) -> None:
    """Which line is up next."""
    m, best, least = s.m, 0, NEVER
    for line in range(m[G_LINES]):
        when = m[LINES + line * LINE + L_AT]
        if when < least or (when == least and when < NEVER and number_of(s, line) < number_of(s, best)):
            best, least = line, when
    m[G_LINE], m[G_LINE_AT] = best, least


def number_of(s: State, line: int) -> int:
    """When the event at the head of a line was scheduled, among all."""
    return int(s.conns[s.m[LINES + line * LINE + L_HEAD] * SLOT + C_SEQ])


def _fetch(s: State, f: Fixed, slot: int) -> None:
    """Asks memory for what the slot's event will touch."""
    m, c = s.m, s.conns
    row = c[slot * SLOT + C_ROW]
    if row != NOBODY:
        prefetch(m, f.waits_at + (row >> 5))
    prefetch(m, f.clients_at + c[slot * SLOT + C_CLIENT])


def _fetch_ahead(s: State, at: int, first: int) -> None:
    """Asks memory for slots that stand some places behind the first, which has just become that."""
    m, c = s.m, s.conns
    ahead, lead = m[at + L_AHEAD], m[at + L_LEAD] - 1
    if lead < 0:
        ahead, lead = first, 0
    for _ in range(2):
        behind = s.behind[ahead]
        if lead < AHEAD and behind != NOBODY:
            prefetch(c, behind * SLOT)
            prefetch(c, behind * SLOT + SLOT // 2)
            ahead, lead = behind, lead + 1
    m[at + L_AHEAD], m[at + L_LEAD] = ahead, lead
