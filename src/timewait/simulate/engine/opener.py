"""Opening: which source port a connection gets, from its kernel or the NAT, and when that is free again."""

from __future__ import annotations

from timewait.simulate.engine.draws import below, draw
from timewait.simulate.engine.ports import MASK, around, put, search, take, word_of
from timewait.simulate.engine.state import (
    BLOCKS,
    G_REST_AT,
    G_REST_HEAD,
    G_REST_ROOM,
    G_REST_TAIL,
    G_TAKEN,
    HASHED,
    HINT_SHIFT,
    NEVER,
    NOBODY,
    OLDEST,
    OPEN_MASK,
    OPEN_ONE,
    OPEN_SHIFT,
    PRESERVED,
    RANDOM,
    REST,
    SEQUENTIAL,
    Fixed,
    State,
)
from timewait.simulate.outcome import NAT_FULL, NAT_LIMIT
from timewait.tcp.choice import advance, nth, start, steps_of
from timewait.tcp.profiles import LINEAR, LINEAR_EVEN, PERTURBED, Rules


def kernel_port(
    s: State,
    rules: Rules,
    low: int,
    high: int,
    odd: int,
    bits_at: int,
    free_at: int,
    hint_at: int,
    port_hash: int,
    bits: int,
) -> tuple[int, int]:
    """connect() without bind(): the offset of the port from `low` (NOBODY), and how many were looked at.

    `bits_at`, `free_at`, `hint_at`: where those of the pool lie. `port_hash`: of the addresses and the destination's
    port. `bits`: random ones, for what 5.4.286 and later add.
    """
    ports = high - low + 1
    if s.m[free_at] == 0:
        return NOBODY, ports
    begin = start(rules, low, high, s.m[hint_at], port_hash)
    found = search(s.m, bits_at, odd, ports, nth(rules, low, high, begin, 0) - low)
    if found.offset != NOBODY:
        step = advance(rules, steps_of(rules.port_search, ports & ~1 if odd else ports, odd != 0, found.n), bits & 7)
        s.m[hint_at] = (s.m[hint_at] + step) & MASK
    return found.offset, found.n + 1


def hint_of(rules: Rules, pool: int, address: int) -> int:
    """Which hint a search moves: the host's up to 5.10, one of the destination since."""
    return pool if rules.port_search == PERTURBED else address


def own_port(s: State, f: Fixed, client: int, destination: int, number: int) -> int:
    """The port that a client's own kernel chooses behind a NAT: one connection after the other, all ports free."""
    state = s.m[f.clients_at + client]
    hint = state >> HINT_SHIFT & MASK
    begin = start(f.client, f.port_low, f.port_high, hint, draw(f.keys.hash, client, destination + 1))
    port = nth(f.client, f.port_low, f.port_high, begin, 0)
    linear = f.client.port_search == LINEAR or f.client.port_search == LINEAR_EVEN
    steps = steps_of(f.client.port_search, f.port_high - f.port_low + 1, not linear, 0)
    hint = (hint + advance(f.client, steps, draw(f.keys.step, number) & 7)) & MASK
    s.m[f.clients_at + client] = (state & ((1 << HINT_SHIFT) - 1)) | hint << HINT_SHIFT
    return port


def pool_of(f: Fixed, address: int, destination: int) -> int:
    return address if f.independent else address * f.destinations + destination


def nat_port(s: State, f: Fixed, client: int, destination: int, own: int, number: int, tries: int) -> int:
    """The port the NAT puts in its place: its row, or the reason why there is none, below NOBODY."""
    address = client % f.addresses
    pool, m = pool_of(f, address, destination), s.m
    if f.per_client and s.m[f.clients_at + client] >> OPEN_SHIFT & OPEN_MASK >= f.per_client:
        return -NAT_LIMIT
    if m[f.free_at + pool] == 0:
        return -NAT_FULL
    base = f.bits_at + pool * f.words
    if f.choice == BLOCKS:
        offset = _in_block(s, f, client, address, base, number, tries)
    elif f.choice == OLDEST:
        offset = m[f.queue_at + pool * f.ports + m[f.ends_at + 2 * pool] % f.ports]
        m[f.ends_at + 2 * pool] += 1
    else:
        begin = _begin(s, f, client, destination, own, number, tries, pool)
        offset = around(m, base, 0, f.ports, begin)
        if f.choice == SEQUENTIAL:
            m[f.hint_at + pool] = offset + 1
    if offset < 0:
        return int(offset)
    take(m, base, offset)
    taken(s, f, client, address, pool, offset)
    return (address * f.destinations + destination) * f.ports + int(offset)


def _begin(s: State, f: Fixed, client: int, destination: int, own: int, number: int, tries: int, pool: int) -> int:
    """From which offset on the first free one is taken."""
    if f.choice == RANDOM:
        return below(draw(f.keys.port, number, tries), f.ports)
    if f.choice == SEQUENTIAL:
        return int(s.m[f.hint_at + pool]) % f.ports
    if f.choice == HASHED:
        return below(draw(f.keys.port, client, destination + 1), f.ports)
    if f.choice == PRESERVED and f.low <= own <= f.high:
        return own - f.low
    return own % f.ports


def _in_block(s: State, f: Fixed, client: int, address: int, base: int, number: int, tries: int) -> int:
    """Out of the client's block, which it gets with its first port."""
    m, blocks = s.m, f.ports // f.block
    words = f.blocks_at + address * f.block_words
    mine = s.m[f.block_of_at + client] - 1
    if mine < 0:
        mine = around(m, words, 0, blocks, below(draw(f.keys.block, number, tries), blocks))
        if mine < 0:
            return -NAT_FULL
        take(m, words, mine)
        s.m[f.block_of_at + client] = mine + 1
    low = mine * f.block
    begin = low + below(draw(f.keys.port, number, tries), f.block)
    found = around(m, base, low, low + f.block, begin)
    return found if found != NOBODY else -NAT_LIMIT


def taken(s: State, f: Fixed, client: int, address: int, pool: int, offset: int) -> None:
    """Counts a port that was taken."""
    s.m[f.free_at + pool] -= 1
    s.m[G_TAKEN] += 1
    s.m[f.clients_at + client] += OPEN_ONE
    if f.choice == BLOCKS:
        s.m[f.used_at + address * (f.ports // f.block) + offset // f.block] += 1


def rests(s: State, f: Fixed, client: int, row: int, until: int) -> None:
    """The port of the five-tuple may be taken again at `until` (ns), which is never earlier than the last one's."""
    g = s.m
    at = (g[G_REST_TAIL] & (g[G_REST_ROOM] - 1)) * REST
    s.rest[at], s.rest[at + 1], s.rest[at + 2] = until, row, client
    if g[G_REST_TAIL] == g[G_REST_HEAD]:
        g[G_REST_AT] = until
    g[G_REST_TAIL] += 1
    s.m[f.resting_at + row // f.ports // f.destinations] += 1


def rested(s: State, f: Fixed) -> None:
    """The port that has rested longest is free."""
    g = s.m
    room = g[G_REST_ROOM] - 1
    at = (g[G_REST_HEAD] & room) * REST
    g[G_REST_HEAD] += 1
    g[G_REST_AT] = s.rest[(g[G_REST_HEAD] & room) * REST] if g[G_REST_HEAD] < g[G_REST_TAIL] else NEVER
    s.m[f.resting_at + s.rest[at + 1] // f.ports // f.destinations] -= 1
    release(s, f, s.rest[at + 2], s.rest[at + 1])


def release(s: State, f: Fixed, client: int, row: int) -> None:
    """The port of a five-tuple is free."""
    m, offset = s.m, row % f.ports
    both = row // f.ports
    address = both // f.destinations
    pool = address if f.independent else both
    word, at = word_of(f.odd_word, offset)
    put(m, f.bits_at + pool * f.words + word, at)
    m[f.free_at + pool] += 1
    s.m[G_TAKEN] -= 1
    s.m[f.clients_at + client] -= OPEN_ONE
    if f.choice == OLDEST:
        m[f.queue_at + pool * f.ports + m[f.ends_at + 2 * pool + 1] % f.ports] = offset
        m[f.ends_at + 2 * pool + 1] += 1
    elif f.choice == BLOCKS:
        mine = offset // f.block
        of = address * (f.ports // f.block) + mine
        m[f.used_at + of] -= 1
        if m[f.used_at + of] == 0:
            put(m, f.blocks_at + address * f.block_words, mine)
            s.m[f.block_of_at + client] = 0
