"""An established connection: it waits to be accepted, is served, ends."""

from __future__ import annotations

from timewait.simulate.engine.arrivals import thinks
from timewait.simulate.engine.draws import draw, exponential
from timewait.simulate.engine.holder import closed, taken_over
from timewait.simulate.engine.hosts import address_of, box_of, tsval_of
from timewait.simulate.engine.opener import hint_of, kernel_port, release, rests
from timewait.simulate.engine.ports import put, take, word_of
from timewait.simulate.engine.server import NANO, closed_first, count, fires, holds, millis, seconds, sweep, worth
from timewait.simulate.engine.state import (
    B_FREE_AT,
    B_IDLE,
    B_TIME_WAIT,
    BOX,
    BY_CLIENT,
    BY_KERNEL,
    BY_SERVER,
    C_BACK,
    C_CLIENT,
    C_ISN,
    C_KIND,
    C_LINK,
    C_NUMBER,
    C_ROW,
    C_STATE,
    C_TRIP,
    ENDS,
    FAILED,
    G_BACK_AT,
    G_BACK_HEAD,
    G_BACK_ROOM,
    G_BACK_TAIL,
    G_BACK_TAKEN,
    G_BACK_TURN,
    G_FREE_SLOTS,
    G_OPEN,
    G_QUEUE,
    G_SPARE,
    JOINS,
    NEVER,
    NOBODY,
    REST,
    ROW,
    SERVED,
    SLOT,
    TICK,
    TRIES_ONE,
    TRIES_SHIFT,
    Fixed,
    State,
)
from timewait.simulate.engine.wheel import schedule
from timewait.simulate.outcome import Column
from timewait.tcp import counters
from timewait.tcp.length import time_wait

SUCCEEDED, BACKEND_FAILED = int(Column.SUCCEEDED), int(Column.BACKEND_FAILED)
OVERFLOWED, BACKEND_OPENED = int(Column.OVERFLOWED), int(Column.BACKEND_OPENED)
SEARCHED, REUSED = int(Column.SEARCHED), int(Column.REUSED)
SYN_ACK_RETRIES = 5  # tcp_synack_retries
OVERFLOW_AT_ACK = counters.LISTEN_OVERFLOWS | counters.LISTEN_DROPS  # tcp_v4_syn_recv_sock(), every version


def waiting(s: State, f: Fixed, box: int, at: int) -> int:
    """Connections in a box's accept queue: each takes its program the same time, one after the other."""
    if f.accept == 0:
        return 0
    return int(max(0, -(-(s.m[f.boxes_at + box * BOX + B_FREE_AT] - at) // f.accept)))


def joins(s: State, f: Fixed, slot: int, at: int) -> None:
    """The ACK of the SYN-ACK arrives, and the request with it: the connection waits to be accepted."""
    c, base = s.conns, slot * SLOT
    box = box_of(f, c[base + C_ROW])
    queue = waiting(s, f, box, at)
    if queue > f.backlog:
        count(s, OVERFLOW_AT_ACK)
        tries = c[base + C_STATE] >> TRIES_SHIFT & 0xFF
        if tries >= SYN_ACK_RETRIES:
            s.m[TICK + OVERFLOWED] += 1
            leaves(s, f, slot, at)
            return
        c[base + C_STATE] += TRIES_ONE
        c[base + C_KIND] = JOINS
        schedule(s, f.width, slot, at + (NANO << tries))
        return
    s.m[G_QUEUE] = max(s.m[G_QUEUE], queue)
    if f.accept == 0:
        served(s, f, slot, at)
        return
    done = max(s.m[f.boxes_at + box * BOX + B_FREE_AT], at) + f.accept
    s.m[f.boxes_at + box * BOX + B_FREE_AT] = done
    c[base + C_KIND] = SERVED
    schedule(s, f.width, slot, done)


def served(s: State, f: Fixed, slot: int, at: int) -> None:
    """It is accepted; a balancer now needs a connection to a server."""
    if f.servers and not _backend_opens(s, f, slot, at):
        s.m[TICK + BACKEND_FAILED] += 1
        s.conns[slot * SLOT + C_STATE] |= FAILED
    lives(s, f, slot, at)


def lives(s: State, f: Fixed, slot: int, at: int) -> None:
    """The first request is at the server: when the connection will have ended."""
    c, base = s.conns, slot * SLOT
    number, trip = c[base + C_NUMBER], c[base + C_TRIP]
    when = at + (f.requests - 1) * (trip + f.pause)
    if f.exponential:
        for request in range(f.requests):
            when += exponential(draw(f.keys.answer, number, request), f.answer)
    else:
        when += int(f.requests * f.answer)
    when += 2 * trip if f.closing == BY_CLIENT else trip
    c[base + C_KIND] = ENDS
    schedule(s, f.width, slot, when)


def ends_now(s: State, f: Fixed, slot: int, at: int) -> None:
    """Both FINs are through, or the RST is: TIME_WAIT where it belongs."""
    c, base = s.conns, slot * SLOT
    client, row, number = c[base + C_CLIENT], c[base + C_ROW], c[base + C_NUMBER]
    if not c[base + C_STATE] & FAILED:
        s.m[TICK + SUCCEEDED] += 1
    has_ts = f.client_knobs.tcp_timestamps != 0 and f.server_knobs.tcp_timestamps != 0
    nxt = (c[base + C_ISN] + 2 + f.octets_sent * f.requests) & 0xFFFFFFFF
    if f.closing == BY_SERVER:
        ts = tsval_of(s, f, slot, at) if has_ts else 0
        box = box_of(f, row)
        closed_first(s, f, box, address_of(f, row), f.rows_at + row * ROW, number, nxt, has_ts, ts, at + f.delay)
    elif f.closing == BY_CLIENT and f.choice == BY_KERNEL:
        others = s.m[f.resting_at + client]
        free_at = closed(
            s,
            f,
            f.client,
            f.client_knobs,
            f.rows_at + row * ROW,
            f.boxes,
            others,
            f.rto_ms,
            has_ts,
            seconds(at),
            nxt,
            at,
        )
        _backend_ends(s, f, slot, at)
        if free_at > at:
            rests(s, f, client, row, free_at)
        else:
            release(s, f, client, row)
        _gone(s, f, slot, at)
        return
    elif f.closing == BY_CLIENT:
        own_time_wait(s, f, has_ts, at)
    _backend_ends(s, f, slot, at)
    leaves(s, f, slot, at)


def own_time_wait(s: State, f: Fixed, has_ts: bool, at: int) -> None:
    """A client behind a NAT holds TIME_WAIT: it is counted, and in nobody's way."""
    now_ms = millis(at)
    sweep(s, f, f.boxes, now_ms)
    stamp = seconds(at) if has_ts else 0
    ending = time_wait(f.client, f.client_knobs, f.rto_ms, stamp, False, 0).ending
    until = fires(ending, now_ms)
    holds(s, f, f.boxes, until, worth(now_ms, until))
    s.m[f.boxes_at + f.boxes * BOX + B_TIME_WAIT] += 1


def leaves(s: State, f: Fixed, slot: int, at: int) -> None:
    """The connection is over, and its port free after its rest."""
    client, row = s.conns[slot * SLOT + C_CLIENT], s.conns[slot * SLOT + C_ROW]
    if f.choice == BY_KERNEL:
        release(s, f, client, row)
    else:
        rests(s, f, client, row, at + f.rest)
    _gone(s, f, slot, at)


def _gone(s: State, f: Fixed, slot: int, at: int) -> None:
    s.m[G_OPEN] -= 1
    ended(s, f, slot, at)


def ended(s: State, f: Fixed, slot: int, at: int) -> None:
    """Nothing of it is kept."""
    client = s.conns[slot * SLOT + C_CLIENT]
    s.conns[slot * SLOT + C_LINK] = s.m[G_SPARE]
    s.m[G_SPARE] = slot
    s.m[G_FREE_SLOTS] += 1
    thinks(s, f, client, at)


# The balancer as a client of its servers. Its box numbers among those that hold TIME_WAIT come behind the clients'.


def _backend_opens(s: State, f: Fixed, slot: int, at: int) -> bool:
    """A connection to a server, a kept one or a new one; False where no source port is left."""
    g, c, base = s.m, s.conns, slot * SLOT
    box = box_of(f, c[base + C_ROW])
    if f.kept and s.m[f.boxes_at + box * BOX + B_IDLE] > 0:
        s.m[f.boxes_at + box * BOX + B_IDLE] -= 1
        c[base + C_BACK] = 0
        return True
    turn = g[G_BACK_TURN]
    g[G_BACK_TURN] += 1
    source = box * f.sources + turn % f.sources
    pool = source * f.servers + turn // f.sources % f.servers
    bits = draw(f.keys.step, c[base + C_NUMBER], 1)
    hint = hint_of(f.server, pool, source)
    offset, looked = kernel_port(
        s,
        f.server,
        f.back_low,
        f.back_high,
        f.back_odd,
        f.back_bits_at + pool * f.back_words,
        f.back_free_at + pool,
        f.back_hint_at + hint,
        draw(f.keys.hash, pool, 1),
        bits,
    )
    s.m[TICK + SEARCHED] += looked
    if offset == NOBODY:
        return False
    word, position = word_of(f.back_odd, offset)
    take(s.m, f.back_bits_at + pool * f.back_words + word, position)
    s.m[f.back_free_at + pool] -= 1
    g[G_BACK_TAKEN] += 1
    s.m[TICK + BACKEND_OPENED] += 1
    row = pool * f.back_ports + offset
    if taken_over(s, f, f.server, f.server_knobs, f.back_rows_at + row * ROW, f.boxes + 1, at).reuses:
        s.m[TICK + REUSED] += 1
        count(s, counters.TW_RECYCLED)
    c[base + C_BACK] = row
    return True


def _backend_ends(s: State, f: Fixed, slot: int, at: int) -> None:
    """The connection to the server ends with the client's, or waits for the next."""
    row, number = s.conns[slot * SLOT + C_BACK], s.conns[slot * SLOT + C_NUMBER]
    if row == NOBODY:
        return
    box = box_of(f, s.conns[slot * SLOT + C_ROW])
    if f.kept:
        s.m[f.boxes_at + box * BOX + B_IDLE] += 1
        return
    free_at = at
    if f.back_closing == BY_CLIENT:
        has_ts = f.back_ts and f.server_knobs.tcp_timestamps != 0
        others = (
            s.m[f.boxes_at + box * BOX + B_TIME_WAIT] + s.m[f.boxes_at + (f.boxes + 1) * BOX + B_TIME_WAIT] // f.boxes
        )
        nxt = draw(f.keys.server_isn, number, 1)
        free_at = closed(
            s,
            f,
            f.server,
            f.server_knobs,
            f.back_rows_at + row * ROW,
            f.boxes + 1,
            others,
            200,
            has_ts,
            seconds(at),
            nxt,
            at,
        )
    if free_at == at:
        backend_free(s, f, row)
        return
    g = s.m
    tail = (g[G_BACK_TAIL] & (g[G_BACK_ROOM] - 1)) * REST
    s.back[tail], s.back[tail + 1] = free_at, row
    if g[G_BACK_TAIL] == g[G_BACK_HEAD]:
        g[G_BACK_AT] = free_at
    g[G_BACK_TAIL] += 1


def backend_rested(s: State, f: Fixed) -> None:
    """The balancer's port that has rested longest is free."""
    g, room = s.m, s.m[G_BACK_ROOM] - 1
    head = (g[G_BACK_HEAD] & room) * REST
    g[G_BACK_HEAD] += 1
    g[G_BACK_AT] = s.back[(g[G_BACK_HEAD] & room) * REST] if g[G_BACK_HEAD] < g[G_BACK_TAIL] else NEVER
    backend_free(s, f, s.back[head + 1])


def backend_free(s: State, f: Fixed, row: int) -> None:
    pool, offset = row // f.back_ports, row % f.back_ports
    word, position = word_of(f.back_odd, offset)
    put(s.m, f.back_bits_at + pool * f.back_words + word, position)
    s.m[f.back_free_at + pool] += 1
    s.m[G_BACK_TAKEN] -= 1
