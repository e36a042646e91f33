"""TIME_WAIT at the end that opened: clients with addresses of their own, and the balancer toward its servers."""

from __future__ import annotations

from timewait.simulate.engine.server import BASE_S, fires, forget, holds, millis, seconds, sweep, worth
from timewait.simulate.engine.state import (
    B_TIME_WAIT,
    BOX,
    CLIENT_HOLDS,
    FREE,
    MS,
    T_ENTERED,
    T_HOLDER,
    T_LAST_ACK,
    T_RCV_NXT,
    T_SND_NXT,
    T_STAMP,
    T_TS,
    T_UNTIL,
    Fixed,
    State,
)
from timewait.tcp.knobs import Knobs
from timewait.tcp.length import overflows, time_wait
from timewait.tcp.profiles import DELAY, SECONDS_2, Rules
from timewait.tcp.reuse import Reuse, is_in_force, reuse
from timewait.tcp.timewait import TimeWait


def ready_ms(rules: Rules, knobs: Knobs, stamp: int, entered_ms: int, until_ms: int) -> int:
    """The first ms in which connect() may have the port of a TIME_WAIT: what `reuse` says, turned round."""
    if stamp == 0 or not is_in_force(rules, knobs.tcp_tw_reuse, False):
        return until_ms
    if rules.reuse_age == DELAY:
        return min(until_ms, entered_ms + knobs.tcp_tw_reuse_delay + 1)
    return min(until_ms, 1000 * (stamp + (2 if rules.reuse_age == SECONDS_2 else 1)))


def closed(
    s: State,
    f: Fixed,
    rules: Rules,
    knobs: Knobs,
    row: int,
    box: int,
    others: int,
    rto_ms: int,
    has_ts: bool,
    ts: int,
    snd_nxt: int,
    at: int,
) -> int:
    """The end that opened has closed first: when its port may be taken again (ns).

    `box`: whose TIME_WAITs are counted; `others`: how many the host has. `at` itself where TIME_WAIT is skipped.
    """
    now_s, now_ms = seconds(at), millis(at)
    stamp = now_s if has_ts else 0
    length = time_wait(rules, knobs, rto_ms, stamp, False, 0)
    sweep(s, f, box, now_ms)
    if overflows(knobs, others):
        return at
    until = fires(length.ending, now_ms)
    m = s.m
    holds(s, f, box, until, worth(now_ms, until))
    s.m[f.boxes_at + box * BOX + B_TIME_WAIT] += 1
    m[row + T_UNTIL] = (until - BASE_S * 1000) * MS
    m[row + T_HOLDER] = CLIENT_HOLDS
    m[row + T_RCV_NXT] = 0
    m[row + T_SND_NXT] = snd_nxt
    m[row + T_TS], m[row + T_STAMP] = ts, stamp
    m[row + T_LAST_ACK], m[row + T_ENTERED] = 0, now_ms
    return (ready_ms(rules, knobs, stamp, now_ms, until) - BASE_S * 1000) * MS


def taken_over(s: State, f: Fixed, rules: Rules, knobs: Knobs, row: int, box: int, at: int) -> Reuse:
    """connect() has found a port; where its own TIME_WAIT still holds the five-tuple, it is taken over."""
    m = s.m
    if m[row + T_HOLDER] != CLIENT_HOLDS:
        return Reuse(False, 0, 0, 0, 0)
    if m[row + T_UNTIL] <= at:
        m[row + T_HOLDER], m[row + T_UNTIL] = FREE, 0
        return Reuse(False, 0, 0, 0, 0)
    tw = TimeWait(
        0,
        m[row + T_SND_NXT],
        m[row + T_TS],
        m[row + T_STAMP],
        False,
        m[row + T_ENTERED],
        0,
        False,
        65535,
        60_000,
        False,
    )
    found = reuse(rules, knobs, tw, seconds(at), millis(at), False)
    sweep(s, f, box, millis(at))
    forget(s, f, box, row)
    return found
