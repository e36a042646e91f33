"""What happens next: a timing wheel of three levels on arrays.

An event is the slot of a connection, which waits for one thing at a time. The buckets of the lowest level are so
narrow that hardly two events share one; those that do are sorted by time when their bucket comes up, equal times by
the order in which they were scheduled. So the order is exact and does not depend on the width of the buckets.
"""

from __future__ import annotations

from timewait.simulate.engine.compiled import prefetch
from timewait.simulate.engine.state import (
    C_CLIENT,
    C_LINK,
    C_ROW,
    C_SEQ,
    C_WHEN,
    G_ACTIVE,
    G_BUCKET,
    G_DONE,
    G_LOWEST,
    G_SEQ,
    G_WAITING,
    HEADS,
    NOBODY,
    ROW,
    SLOT,
    Fixed,
    State,
)

BITS, UPPER_BITS = 18, 10  # the lowest level reaches past most timeouts: what goes there is touched once
FAR, NEAR = 8, 4  # buckets: whose first connection, and what it will touch, is fetched from memory before its time
BUCKETS, UPPER = 1 << BITS, 1 << UPPER_BITS


def schedule(s: State, width: int, slot: int, when: int) -> None:
    """The slot's event happens at `when` (ns), not before what happens now. `width`: log2 of ns in a bucket."""
    g, c = s.m, s.conns
    c[slot * SLOT + C_WHEN] = when
    c[slot * SLOT + C_SEQ] = g[G_SEQ]
    g[G_SEQ] += 1
    g[G_WAITING] += 1
    place(s, width, slot)


def place(s: State, width: int, slot: int) -> None:
    """Into its bucket, or among those that are active."""
    g, c = s.m, s.conns
    bucket, now = c[slot * SLOT + C_WHEN] >> width, g[G_BUCKET]
    if bucket <= now:
        _insert(s, slot)
        return
    turns = (bucket >> BITS) - (now >> BITS)
    if bucket - now < BUCKETS:
        at = bucket & (BUCKETS - 1)
        g[G_LOWEST] += 1
    elif turns < UPPER:
        at = BUCKETS + (bucket >> BITS & (UPPER - 1))
    else:
        at = BUCKETS + UPPER + (bucket >> (BITS + UPPER_BITS) & (UPPER - 1))
    c[slot * SLOT + C_LINK] = s.m[HEADS + at]
    s.m[HEADS + at] = slot


def _insert(s: State, slot: int) -> None:
    """Among the active, which are sorted."""
    g, c, active = s.m, s.conns, s.active
    when, seq = c[slot * SLOT + C_WHEN], c[slot * SLOT + C_SEQ]
    at = g[G_ACTIVE]
    while at > g[G_DONE]:
        other = active[at - 1] * SLOT
        if c[other + C_WHEN] < when or (c[other + C_WHEN] == when and c[other + C_SEQ] < seq):
            break
        active[at] = active[at - 1]
        at -= 1
    active[at] = slot
    g[G_ACTIVE] += 1


def peek(s: State, f: Fixed, width: int, until: int) -> int:
    """The slot whose event comes next, NOBODY when none does before `until` (ns)."""
    g = s.m
    last = until >> width
    while g[G_DONE] == g[G_ACTIVE]:
        if g[G_WAITING] == 0 or g[G_BUCKET] >= last:
            return NOBODY
        turn(s, f, width, last)
    return int(s.active[g[G_DONE]])


def happened(s: State) -> None:
    """What `peek` gave happens now."""
    s.m[G_DONE] += 1
    s.m[G_WAITING] -= 1


def turn(s: State, f: Fixed, width: int, last: int) -> None:
    """On to the next bucket with something in it, at most to `last`."""
    g = s.m
    g[G_DONE] = g[G_ACTIVE] = 0
    while g[G_BUCKET] < last:
        if g[G_LOWEST] == 0:  # nothing before the lowest level begins again
            g[G_BUCKET] = min(last, g[G_BUCKET] | (BUCKETS - 1))
            if g[G_BUCKET] == last:
                return
        g[G_BUCKET] += 1
        bucket = g[G_BUCKET]
        _fetch(s, f, bucket)
        if bucket & (BUCKETS - 1) == 0:
            if bucket & (BUCKETS * UPPER - 1) == 0:
                _cascade(s, width, BUCKETS + UPPER + (bucket >> (BITS + UPPER_BITS) & (UPPER - 1)))
            _cascade(s, width, BUCKETS + (bucket >> BITS & (UPPER - 1)))
        if s.m[HEADS + (bucket & (BUCKETS - 1))] != NOBODY:
            _open(s, bucket & (BUCKETS - 1))
        if g[G_ACTIVE]:
            return


def _fetch(s: State, f: Fixed, bucket: int) -> None:
    """Asks memory for the connection whose event is near, and for the five-tuple and client of a nearer one."""
    m, c = s.m, s.conns
    far = m[HEADS + (bucket + FAR & (BUCKETS - 1))]
    if far != NOBODY:
        prefetch(c, far * SLOT)
        prefetch(c, far * SLOT + SLOT // 2)
    near = m[HEADS + (bucket + NEAR & (BUCKETS - 1))]
    if near != NOBODY:
        row = c[near * SLOT + C_ROW]
        if row != NOBODY:
            prefetch(m, f.rows_at + row * ROW)
            prefetch(m, f.waits_at + (row >> 5))
        prefetch(m, f.clients_at + c[near * SLOT + C_CLIENT])


def _cascade(s: State, width: int, at: int) -> None:
    """A bucket of a higher level comes up: its events go where they now belong."""
    slot = s.m[HEADS + at]
    s.m[HEADS + at] = NOBODY
    while slot != NOBODY:
        following = s.conns[slot * SLOT + C_LINK]
        place(s, width, slot)
        slot = following


def _open(s: State, at: int) -> None:
    """A bucket comes up: its events become active, in order."""
    g, slot = s.m, s.m[HEADS + at]
    s.m[HEADS + at] = NOBODY
    first = g[G_ACTIVE]
    while slot != NOBODY:
        s.active[g[G_ACTIVE]] = slot
        g[G_ACTIVE] += 1
        g[G_LOWEST] -= 1
        slot = s.conns[slot * SLOT + C_LINK]
    if g[G_ACTIVE] - first > 1 or first > 0:
        _sort(s, g[G_ACTIVE])


def _sort(s: State, count: int) -> None:
    """The first `count` active ones by time, equal times as they were scheduled. Shell's: buckets are small."""
    active, c = s.active, s.conns
    gap = 1
    while gap < count // 3:
        gap = 3 * gap + 1
    while gap > 0:
        for at in range(gap, count):
            slot = active[at]
            when, seq = c[slot * SLOT + C_WHEN], c[slot * SLOT + C_SEQ]
            to = at
            while to >= gap:
                other = active[to - gap] * SLOT
                if c[other + C_WHEN] < when or (c[other + C_WHEN] == when and c[other + C_SEQ] < seq):
                    break
                active[to] = active[to - gap]
                to -= gap
            active[to] = slot
        gap //= 3
