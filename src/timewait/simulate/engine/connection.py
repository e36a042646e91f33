"""A connection from its first SYN to the answer. Times are those at the gateway, in ns.

What leaves the gateway at t is at the server at t + delay, and what leaves the server at t passes the gateway at
t + delay: so a server's time is written here as t - delay, and everything at one place happens in order.
"""

from __future__ import annotations

from timewait.simulate.engine.arrivals import schedule_arrival, thinks, who
from timewait.simulate.engine.draws import below, draw, happens
from timewait.simulate.engine.holder import taken_over
from timewait.simulate.engine.hosts import address_of, box_of, offset_of, tsval_of, uptime_us
from timewait.simulate.engine.life import ended, lives, waiting
from timewait.simulate.engine.lines import stands_in_line
from timewait.simulate.engine.opener import hint_of, kernel_port, nat_port, own_port, release, rests, taken
from timewait.simulate.engine.ports import take, word_of
from timewait.simulate.engine.server import ACCEPTED, ACKED, BASE_S, NANO, rst, syn
from timewait.simulate.engine.state import (
    ANSWERED,
    BY_KERNEL,
    C_BACK,
    C_BASE,
    C_CLIENT,
    C_CLOCK,
    C_ISN,
    C_KIND,
    C_LINK,
    C_NUMBER,
    C_OFFSET,
    C_OWN,
    C_ROW,
    C_STARTED,
    C_STATE,
    C_TRIES,
    C_TRIP,
    CONNECTED,
    DROPS,
    G_ARRIVALS,
    G_CONNECTING,
    G_FREE_SLOTS,
    G_OPEN,
    G_SPARE,
    GIVE_UP,
    JOINS,
    LATENCY,
    NOBODY,
    ROW,
    RST_ARRIVES,
    SLOT,
    SYN_DUE,
    T_SND_NXT,
    TICK,
    TRIED,
    Fixed,
    State,
)
from timewait.simulate.engine.wheel import schedule
from timewait.simulate.outcome import ANSWER_LOST as ANSWER_LOST_WHY
from timewait.simulate.outcome import SYN_LOST, Column
from timewait.tcp.clock import isn as isn_now
from timewait.tcp.segment import ACK, Segment
from timewait.tcp.synsent import Next, react

STARTED, FIRST, RETRIED, NO_PORT = int(Column.STARTED), int(Column.FIRST), int(Column.RETRIED), int(Column.NO_PORT)
GAVE_UP, SYNS, REUSED, SEARCHED = int(Column.GAVE_UP), int(Column.SYNS), int(Column.REUSED), int(Column.SEARCHED)
EATEN_ACKS, REFUSED = int(Column.ACKS_EATEN), int(Column.REFUSED)
RESETS = Next.RESET


def opens(s: State, f: Fixed, at: int) -> None:
    """A client calls connect()."""
    g, c = s.m, s.conns
    client, number = who(s, f), g[G_ARRIVALS]
    g[G_ARRIVALS] += 1
    schedule_arrival(s, f, at)
    s.m[TICK + STARTED] += 1
    destination = below(draw(f.keys.destination, number), f.destinations) if f.destinations > 1 else 0
    row, own, isn = NOBODY, 0, -1
    if f.choice == BY_KERNEL:
        row, isn = _kernel_opens(s, f, client, destination, number, at)
        if row == NOBODY:
            s.m[TICK + NO_PORT] += 1
            s.m[f.clients_at + client] |= TRIED
            thinks(s, f, client, at)
            return
        own = f.low + row % f.ports
    else:
        own = own_port(s, f, client, destination, number)
    access = f.access * draw(f.keys.access, client) >> 32
    key = destination << 16 | own
    if isn < 0:
        isn = isn_now(draw(f.keys.isn, client, key), BASE_S * NANO + at - access)
    slot = g[G_SPARE]
    base = slot * SLOT
    g[G_SPARE] = c[base + C_LINK]
    g[G_FREE_SLOTS] -= 1
    g[G_CONNECTING] += 1
    c[base + C_CLIENT], c[base + C_ROW], c[base + C_NUMBER], c[base + C_OWN] = client, row, number, key
    c[base + C_STARTED], c[base + C_BASE], c[base + C_TRIES] = at, at, 0
    c[base + C_ISN], c[base + C_STATE] = isn, 0
    c[base + C_TRIP] = 2 * (access + f.delay)
    if f.client_knobs.tcp_timestamps != 0:
        c[base + C_OFFSET], c[base + C_CLOCK] = offset_of(f, client, key), uptime_us(f, client)
    sends_syn(s, f, slot, at)


def _kernel_opens(s: State, f: Fixed, client: int, destination: int, number: int, at: int) -> tuple[int, int]:
    """The client's own kernel chooses: row (NOBODY: no port is left) and initial sequence number (-1: any)."""
    pool = client * f.destinations + destination
    hint = hint_of(f.client, pool, client)
    bits = draw(f.keys.step, number)
    offset, looked = kernel_port(
        s,
        f.client,
        f.low,
        f.high,
        f.odd_word,
        f.bits_at + pool * f.words,
        f.free_at + pool,
        f.hint_at + hint,
        draw(f.keys.hash, pool),
        bits,
    )
    s.m[TICK + SEARCHED] += looked
    if offset == NOBODY:
        return NOBODY, -1
    word, position = word_of(f.odd_word, offset)
    take(s.m, f.bits_at + pool * f.words + word, position)
    taken(s, f, client, client, pool, offset)
    row = pool * f.ports + offset
    found = taken_over(s, f, f.client, f.client_knobs, f.rows_at + row * ROW, f.boxes, at)
    if not found.reuses:
        return row, -1
    s.m[TICK + REUSED] += 1
    return row, found.isn


def sends_syn(s: State, f: Fixed, slot: int, at: int) -> None:
    """A SYN of the connection comes to the gateway."""
    c, base = s.conns, slot * SLOT
    number, tries = c[base + C_NUMBER], c[base + C_TRIES]
    c[base + C_TRIES] = tries + 1
    s.m[TICK + SYNS] += 1
    row = c[base + C_ROW]
    if row == NOBODY:
        own = c[base + C_OWN]
        row = nat_port(s, f, c[base + C_CLIENT], own >> 16, own & 0xFFFF, number, tries)
        if row < 0:
            s.m[DROPS + -row] += 1
            again(s, f, slot, at)
            return
        c[base + C_ROW] = row
    if f.loss > 0.0 and happens(draw(f.keys.lost, number, tries + 1), f.loss):
        s.m[DROPS + SYN_LOST] += 1
        again(s, f, slot, at)
    elif c[base + C_STATE] & ANSWERED:
        answered(s, f, slot, at)
    else:
        _reaches(s, f, slot, row, at)


def _reaches(s: State, f: Fixed, slot: int, row: int, at: int) -> None:
    """The SYN is at the server."""
    c, base = s.conns, slot * SLOT
    box, has_ts = box_of(f, row), f.client_knobs.tcp_timestamps != 0
    tsval = tsval_of(s, f, slot, at) if has_ts else 0
    full = waiting(s, f, box, at) > f.backlog
    there = at + f.delay
    found = syn(s, f, box, address_of(f, row), f.rows_at + row * ROW, has_ts, tsval, c[base + C_ISN], there, full)
    if found.action == ACCEPTED:
        answered(s, f, slot, at)
        return
    s.m[DROPS + found.rule] += 1
    if found.action == ACKED:
        _acked(s, f, slot, row, found.ack, tsval, at)
    else:
        again(s, f, slot, at)


def _acked(s: State, f: Fixed, slot: int, row: int, ack: int, tsval: int, at: int) -> None:
    """A TIME_WAIT answers the SYN with a bare ACK: it may be dropped on its way, or bring a RST back."""
    c, base = s.conns, slot * SLOT
    number, tries = c[base + C_NUMBER], c[base + C_TRIES]
    eaten = f.eaten > 0.0 and happens(draw(f.keys.eaten, number, tries), f.eaten)
    if eaten:
        s.m[TICK + EATEN_ACKS] += 1
    if eaten or (f.loss > 0.0 and happens(draw(f.keys.answer_lost, number, tries), f.loss)):
        again(s, f, slot, at)
        return
    isn = c[base + C_ISN]
    answer = Segment(s.m[f.rows_at + row * ROW + T_SND_NXT], ack, ACK, 0, False, 0, 0)
    found = react(f.client, isn, (isn + 1) & 0xFFFFFFFF, answer, tsval, tsval, tries - 1)
    if found.next != RESETS:
        again(s, f, slot, at)
        return
    back = at + c[base + C_TRIP]
    if found.resend_jiffies:
        c[base + C_BASE] = back + found.resend_jiffies * NANO // f.client.hz - _due(s, f, tries)
    c[base + C_STATE] = c[base + C_STATE] & 0xFFFF | found.seq << 16
    c[base + C_KIND] = RST_ARRIVES
    schedule(s, f.width, slot, back)


def _due(s: State, f: Fixed, tries: int) -> int:
    """When the SYN after so many leaves, from the first; where it is given up instead, that."""
    return int(s.m[f.sends_at + tries]) if tries < f.sends else f.gives_up


def rst_arrives(s: State, f: Fixed, slot: int, at: int) -> None:
    """The RST that answered the ACK of a TIME_WAIT passes the gateway."""
    c, base = s.conns, slot * SLOT
    row, number, tries = c[base + C_ROW], c[base + C_NUMBER], c[base + C_TRIES]
    if not (f.loss > 0.0 and happens(draw(f.keys.rst_lost, number, tries), f.loss)):
        rst(s, f, box_of(f, row), f.rows_at + row * ROW, c[base + C_STATE] >> 16, at + f.delay)
    again(s, f, slot, at)


def again(s: State, f: Fixed, slot: int, at: int) -> None:
    """No answer: when the next SYN leaves, or connect() gives up."""
    c, base = s.conns, slot * SLOT
    tries = c[base + C_TRIES]
    when = max(at, c[base + C_BASE] + _due(s, f, tries))
    c[base + C_KIND] = SYN_DUE if tries < f.sends else GIVE_UP
    if f.timeout and when >= c[base + C_STARTED] + f.timeout:
        when = max(at, c[base + C_STARTED] + f.timeout)
        c[base + C_KIND] = GIVE_UP
    stands_in_line(s, f.width, slot, when, tries - 1)


def gives_up(s: State, f: Fixed, slot: int, at: int) -> None:
    """connect() fails with ETIMEDOUT."""
    c, base = s.conns, slot * SLOT
    client, row = c[base + C_CLIENT], c[base + C_ROW]
    s.m[TICK + GAVE_UP] += 1
    s.m[G_CONNECTING] -= 1
    s.m[f.clients_at + client] |= TRIED
    if row != NOBODY:
        if f.choice == BY_KERNEL:
            release(s, f, client, row)
        else:
            rests(s, f, client, row, at + f.rest)
    ended(s, f, slot, at)


def answered(s: State, f: Fixed, slot: int, at: int) -> None:
    """The server answers with a SYN-ACK; where it is not lost, that makes the connection."""
    c, g, base = s.conns, s.m, slot * SLOT
    tries = c[base + C_TRIES]
    if f.loss > 0.0 and happens(draw(f.keys.answer_lost, c[base + C_NUMBER], tries), f.loss):
        s.m[DROPS + ANSWER_LOST_WHY] += 1
        c[base + C_STATE] |= ANSWERED
        again(s, f, slot, at)
        return
    s.m[TICK + (FIRST if tries == 1 else RETRIED)] += 1
    s.m[LATENCY + latency_index(at - c[base + C_STARTED] + c[base + C_TRIP])] += 1
    s.m[f.clients_at + c[base + C_CLIENT]] |= TRIED | CONNECTED
    g[G_CONNECTING] -= 1
    g[G_OPEN] += 1
    there = at + c[base + C_TRIP]
    c[base + C_STATE], c[base + C_BACK] = 0, NOBODY
    if f.accept or f.servers:
        c[base + C_KIND] = JOINS
        schedule(s, f.width, slot, there)
    else:
        lives(s, f, slot, there)


def latency_index(value: int) -> int:
    """The index of a value in ns among the counts of `timewait.histogram`."""
    bucket, rest = 0, value >> 11
    while rest:
        bucket += 1
        rest >>= 1
    return (bucket << 10) + (value >> bucket)
