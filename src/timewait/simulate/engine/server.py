"""The server's end: a SYN arrives, a connection ends there, TIME_WAITs run out. The rules are those of tcp/."""

from __future__ import annotations

from typing import NamedTuple

from timewait.simulate.engine.draws import draw
from timewait.simulate.engine.ports import has, put, take
from timewait.simulate.engine.state import (
    B_SWEPT,
    B_TIME_WAIT,
    BOX,
    COUNTERS,
    FREE,
    MS,
    RING,
    ROW,
    SERVER_HOLDS,
    T_ENTERED,
    T_HOLDER,
    T_LAST_ACK,
    T_RCV_NXT,
    T_SND_NXT,
    T_STAMP,
    T_TS,
    T_UNTIL,
    TICK,
    Fixed,
    State,
)
from timewait.simulate.outcome import Column
from timewait.tcp import counters
from timewait.tcp.action import Action
from timewait.tcp.length import Ending, ends, overflow_counters, overflows, time_wait
from timewait.tcp.listener import Listener
from timewait.tcp.listener import answer as listen
from timewait.tcp.profiles import INET_PEER
from timewait.tcp.recycle import Record, is_kept, written
from timewait.tcp.segment import MASK, RST, SYN, Segment, u32
from timewait.tcp.timewait import TimeWait, afterwards
from timewait.tcp.timewait import answer as meet

BASE_S = 10_000_000  # the hosts' clocks when the simulation begins: a stamp of 0 means none
NANO = 1_000_000_000
TUPLE_MET = int(Column.TUPLE_MET)
TW, TW_KILLED = counters.TW.bit_length() - 1, counters.TW_KILLED.bit_length() - 1
ACCEPTED, ACKED = Action.ACCEPT, Action.ACK


class Reply(NamedTuple):
    """What a SYN brought: an Action, the rule behind it, and what the ACK of a TIME_WAIT acknowledges."""

    action: int
    rule: int
    ack: int


def seconds(at: int) -> int:
    """The clock of whole seconds at `at` ns."""
    return BASE_S + at // NANO


def millis(at: int) -> int:
    return BASE_S * 1000 + at // MS


def fires(ending: Ending, now_ms: int) -> int:
    """When a timer set now really ends it, in ms.

    Where the kernel is exact only to a step (slots of 7.5 s up to 3.10, levels of the timer wheel since 4.8), steps
    begin at multiples of it; which one is next depends on the moment.
    """
    step = ending.high_ms - ending.low_ms
    if step <= 0:
        return now_ms + ending.low_ms
    return ((now_ms + ending.low_ms) // step + 1) * step


def count(s: State, bits: int) -> None:
    """Counters that move by one each."""
    at = 0
    while bits:
        if bits & 1:
            s.m[COUNTERS + at] += 1
        bits >>= 1
        at += 1


# TIME_WAITs that exist: each is noted under the ms in which it will end, as 1, or as KILLED where TWKilled counts it.
KILLED = 1 << 32
SHORT_MS = 6000  # a shorter one counts in TWKilled: its timer was set to 4 s at most, and fired a step later


def worth(entered_ms: int, until_ms: int) -> int:
    return KILLED if until_ms - entered_ms < SHORT_MS else 1


def holds(s: State, f: Fixed, box: int, until_ms: int, by: int) -> None:
    s.m[f.ring_at + box * RING + until_ms % RING] += by


def swept(s: State, f: Fixed, box: int, since: int, now_ms: int) -> int:
    """How many ended after `since` and up to `now_ms`; they are taken off."""
    gone = 0
    base = f.ring_at + box * RING
    for ms in range(since + 1, now_ms + 1):
        at = base + ms % RING
        if s.m[at]:
            gone += s.m[at]
            s.m[at] = 0
    return gone


def sweep(s: State, f: Fixed, box: int, now_ms: int) -> int:
    """TIME_WAITs of a box now."""
    at = f.boxes_at + box * BOX
    if now_ms > s.m[at + B_SWEPT]:
        gone = swept(s, f, box, s.m[at + B_SWEPT], now_ms)
        s.m[at + B_TIME_WAIT] -= (gone & MASK) + (gone >> 32)
        if box != f.boxes:  # not the clients'
            s.m[COUNTERS + TW] += gone & MASK
            s.m[COUNTERS + TW_KILLED] += gone >> 32
        s.m[at + B_SWEPT] = now_ms
    return int(s.m[at + B_TIME_WAIT])


def forget(s: State, f: Fixed, box: int, row: int) -> None:
    """A TIME_WAIT of a box ends before its time."""
    m = s.m
    if m[row + T_HOLDER] == SERVER_HOLDS:
        take(m, f.waits_at, (row - f.rows_at) // ROW)
    until = m[row + T_UNTIL] // MS + BASE_S * 1000
    holds(s, f, box, until, -worth(m[row + T_ENTERED], until))
    s.m[f.boxes_at + box * BOX + B_TIME_WAIT] -= 1
    m[row + T_HOLDER], m[row + T_UNTIL] = FREE, 0


def rearm(s: State, f: Fixed, box: int, row: int, now_ms: int, length_ms: int) -> None:
    """A TIME_WAIT begins again."""
    entered, until = s.m[row + T_ENTERED], s.m[row + T_UNTIL] // MS + BASE_S * 1000
    holds(s, f, box, until, -worth(entered, until))
    until = fires(ends(f.server, length_ms), now_ms)
    holds(s, f, box, until, worth(entered, until))
    s.m[row + T_UNTIL] = (until - BASE_S * 1000) * MS


def met(s: State, f: Fixed, box: int, row: int, segment: Segment, at: int, full: bool) -> Reply:
    """A segment meets the TIME_WAIT of its five-tuple. `row`: where that lies."""
    m, now_ms = s.m, millis(at)
    tw = TimeWait(
        m[row + T_RCV_NXT],
        m[row + T_SND_NXT],
        m[row + T_TS],
        m[row + T_STAMP],
        False,
        m[row + T_ENTERED],
        m[row + T_LAST_ACK],
        False,
        65535,
        60_000,
        False,
    )
    sweep(s, f, box, now_ms)
    found = meet(f.server, f.server_knobs, tw, segment, seconds(at), now_ms, True, full, 2, True)
    if found.counters:
        count(s, found.counters)
    if found.gone:
        forget(s, f, box, row)
    else:
        after = afterwards(found)
        m[row + T_TS], m[row + T_STAMP], m[row + T_LAST_ACK] = after.ts, after.stamp, after.last_ack_ms
        if found.rearm_ms:
            rearm(s, f, box, row, now_ms, found.rearm_ms)
    return Reply(found.action, found.rule, m[row + T_RCV_NXT])


def known_of(s: State, f: Fixed, box: int, address: int, at: int) -> Record:
    """What tcp_tw_recycle still remembers of a source address."""
    record = box * f.addresses + address
    stamp = s.m[f.record_stamp_at + record]
    if stamp == 0:
        return Record(0, 0)
    population = f.addresses if f.server.record_store == INET_PEER else 1
    if not is_kept(f.server, f.server_knobs, seconds(at) - stamp, population):
        return Record(0, 0)
    return Record(s.m[f.record_ts_at + record], stamp)


def syn(
    s: State, f: Fixed, box: int, address: int, row: int, has_ts: bool, tsval: int, seq: int, at: int, full: bool
) -> Reply:
    """A SYN arrives at `at` (ns)."""
    if has(s.m, f.waits_at, (row - f.rows_at) // ROW):
        if s.m[row + T_UNTIL] > at:
            s.m[TICK + TUPLE_MET] += 1
            return met(s, f, box, row, Segment(seq, 0, SYN, 0, has_ts, tsval, 0), at, full)
        s.m[row + T_HOLDER] = FREE
        take(s.m, f.waits_at, (row - f.rows_at) // ROW)
    verdict = listen(
        f.server,
        f.server_knobs,
        Listener(True, False, full, 2, False, False, False),
        known_of(s, f, box, address, at),
        has_ts,
        tsval,
        seconds(at),
        False,
        True,
    )
    if verdict.counters:
        count(s, verdict.counters)
    return Reply(verdict.action, verdict.rule, 0)


def rst(s: State, f: Fixed, box: int, row: int, seq: int, at: int) -> bool:
    """The RST that answers the ACK of a TIME_WAIT arrives; whether it ended it. It carries no timestamp."""
    if s.m[row + T_HOLDER] != SERVER_HOLDS or s.m[row + T_UNTIL] <= at:
        return False
    met(s, f, box, row, Segment(seq, 0, RST, 0, False, 0, 0), at, False)
    return bool(s.m[row + T_HOLDER] == FREE)


def closed_first(
    s: State, f: Fixed, box: int, address: int, row: int, number: int, rcv_nxt: int, has_ts: bool, ts: int, at: int
) -> None:
    """The client's FIN answers the server's at `at` (ns): TIME_WAIT, and what is remembered of the address."""
    now_s, now_ms = seconds(at), millis(at)
    stamp = now_s if has_ts else 0
    length = time_wait(f.server, f.server_knobs, f.rto_ms, stamp, False, 0)
    if length.remembers:
        record = box * f.addresses + address
        new = written(
            Record(s.m[f.record_ts_at + record], s.m[f.record_stamp_at + record]),
            ts,
            stamp,
            now_s,
            f.server.record_store,
        )
        s.m[f.record_ts_at + record], s.m[f.record_stamp_at + record] = new.ts, new.stamp
    m = s.m
    if overflows(f.server_knobs, sweep(s, f, box, now_ms)):
        count(s, overflow_counters(f.server))
        m[row + T_HOLDER], m[row + T_UNTIL] = FREE, 0
        return
    until = fires(length.ending, now_ms)
    holds(s, f, box, until, worth(now_ms, until))
    s.m[f.boxes_at + box * BOX + B_TIME_WAIT] += 1
    put(m, f.waits_at, (row - f.rows_at) // ROW)
    m[row + T_UNTIL] = (until - BASE_S * 1000) * MS
    m[row + T_HOLDER] = SERVER_HOLDS
    m[row + T_RCV_NXT] = rcv_nxt
    m[row + T_SND_NXT] = u32(draw(f.keys.server_isn, number) + 2 + f.octets_received * f.requests)
    m[row + T_TS] = ts if has_ts else 0
    m[row + T_STAMP] = stamp
    m[row + T_LAST_ACK] = 0
    m[row + T_ENTERED] = now_ms
