"""What will be needed soon is asked of memory now: a world of millions lies far from the processor.

Nothing here changes what happens; interpreted, nothing happens here at all.
"""

from __future__ import annotations

from timewait.simulate.engine.compiled import prefetch
from timewait.simulate.engine.state import (
    CONSTANT,
    G_OPENER,
    G_REST_HEAD,
    G_REST_ROOM,
    G_REST_TAIL,
    OLDEST,
    REST,
    ROW,
    THINK,
    Fixed,
    State,
)

NEXT_REST = 6  # how far ahead


def next_opener(s: State, f: Fixed) -> None:
    """The client that opens the next connection, and the port it will get where that is known."""
    m = s.m
    if f.process == THINK or f.process == CONSTANT:
        return
    client = m[G_OPENER]
    prefetch(m, f.clients_at + client)
    if f.choice == OLDEST and f.destinations == 1:
        pool = client % f.addresses
        offset = m[f.queue_at + pool * f.ports + m[f.ends_at + 2 * pool] % f.ports]
        prefetch(m, f.bits_at + pool * f.words + (offset >> 5))
        prefetch(m, f.waits_at + (pool * f.ports + offset >> 5))
        prefetch(m, f.rows_at + (pool * f.ports + offset) * ROW)


def next_rest(s: State, f: Fixed) -> None:
    """The client and the pool of a port whose rest is nearly over."""
    m, head = s.m, s.m[G_REST_HEAD] + NEXT_REST
    if head < m[G_REST_TAIL]:
        at = (head & (m[G_REST_ROOM] - 1)) * REST
        row = s.rest[at + 1]
        prefetch(m, f.clients_at + s.rest[at + 2])
        if f.destinations == 1 and f.odd_word == 0:
            pool = row // f.ports
            prefetch(m, f.bits_at + pool * f.words + (row - pool * f.ports >> 5))
