"""Decisions of tcp/ asked many times, in a form that compiles: numbers in, one number for each answer out."""

from __future__ import annotations

from typing import Any

from timewait.tcp.knobs import Knobs
from timewait.tcp.listener import Listener
from timewait.tcp.listener import answer as listen
from timewait.tcp.profiles import Rules
from timewait.tcp.recycle import Record, written
from timewait.tcp.reuse import reuse
from timewait.tcp.segment import Segment
from timewait.tcp.timewait import TimeWait, afterwards
from timewait.tcp.timewait import answer as meet_time_wait

Numbers = Any


def meet(rules: Rules, knobs: Knobs, rows: Numbers, out: Numbers) -> None:
    """Segments that meet TIME_WAITs, close to each other in every field so that all branches are taken."""
    for at in range(len(rows)):
        r = rows[at]
        near, then = r[0], 100_000 + r[1] % 100
        tw = TimeWait(
            near,
            r[2],
            (r[3] + r[4] % 5) & 0xFFFFFFFF,
            0 if r[5] % 8 == 0 else then - r[5] % 70,
            r[6] % 4 == 0,
            then * 1000 - r[6] % 2000,
            0 if r[7] % 2 else then * 1000 - r[7] % 1000,
            r[7] % 3 == 0,
            65535,
            60_000,
            False,
        )
        seq = near if r[8] % 3 == 0 else (near + r[8] % 5 - 2) & 0xFFFFFFFF if r[8] % 3 == 1 else r[8]
        segment = Segment(seq, r[9], r[10] % 32, r[10] % 2, r[11] % 4 != 0, (r[3] + r[11] % 3) & 0xFFFFFFFF, 0)
        ms = then * 1000 + r[2] % 1000
        found = meet_time_wait(rules, knobs, tw, segment, then, ms, r[9] % 7 != 0, r[9] % 5 == 0, 2, True)
        after, taken = afterwards(found), reuse(rules, knobs, tw, then, ms, r[9] % 2 == 0)
        mixed = found.rearm_ms + 7 * found.counters + 31 * found.rule + 3 * found.isn + after.ts + 5 * after.stamp
        if found.gone:
            mixed += 1 << 40
        if taken.reuses:
            mixed += 1 << 41
        out[at] = mixed + 11 * after.rcv_nxt + 13 * after.last_ack_ms + 17 * taken.rule + taken.isn


def hear(rules: Rules, knobs: Knobs, rows: Numbers, out: Numbers) -> None:
    """SYNs that reach a listener, and what is remembered of the peer."""
    for at in range(len(rows)):
        r = rows[at]
        now = 100_000 + r[1] % 100
        record = Record((r[3] + r[4] % 5) & 0xFFFFFFFF, 0 if r[5] % 5 == 0 else now - r[5] % 70)
        listener = Listener(
            r[6] % 9 != 0, r[6] % 7 == 0, r[6] % 5 == 0, r[7] % 3, r[7] % 2 == 0, r[8] % 2 == 0, False
        )
        found = listen(rules, knobs, listener, record, r[9] % 4 != 0, r[3], now, r[10] % 5 == 0, r[10] % 6 != 0)
        new = written(record, r[3], now - r[11] % 3, now, rules.record_store)
        out[at] = found.rule + 100 * found.counters + 3 * new.ts + 5 * new.stamp
