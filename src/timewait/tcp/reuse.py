"""tcp_tw_reuse: may connect() take over a TIME_WAIT of the very same five-tuple?

`tcp_twsk_unique()`, net/ipv4/tcp_ipv4.c. It is asked on the side that opens the connection, for a TIME_WAIT of its
own; accepting connections knows nothing of it.
"""

from __future__ import annotations

from typing import NamedTuple

from timewait.tcp import counters
from timewait.tcp import rulebook as rule
from timewait.tcp.knobs import Knobs
from timewait.tcp.profiles import DELAY, SECONDS_2, Rules
from timewait.tcp.segment import s32
from timewait.tcp.timewait import TimeWait, next_isn


class Reuse(NamedTuple):
    """Whether a TIME_WAIT is taken over, and what the new connection inherits from it."""

    reuses: bool
    rule: int  # key of rulebook.RULES
    isn: int  # of the new SYN; 0 when skipped
    tsecr: int  # the new SYN carries it: the old peer's last timestamp; 0 when skipped
    counters: int


def is_in_force(rules: Rules, tw_reuse: int, loopback: bool) -> bool:
    """Whether the value of tcp_tw_reuse applies: 1 everywhere, 2 (default since 4.19) only on loopback.

    Loopback means device lo, or an end in 127.0.0.0/8 or ::1; a host talking to its own 10.x address is none.
    """
    if rules.reuse_loopback and tw_reuse == 2:
        return loopback
    return tw_reuse != 0


def is_old_enough(rules: Rules, knobs: Knobs, tw: TimeWait, now_s: int, now_ms: int) -> bool:
    """Whether a TIME_WAIT has rested long enough for an automatic port.

    Up to 4.18 the seconds since the peer's last timestamp must be more than 1; they are subtracted without sign, so a
    wall clock set back lets everything pass. 4.19 to 6.13: at least 1. Since 6.14 the time since TIME_WAIT began must
    be more than tcp_tw_reuse_delay ms.
    """
    if rules.reuse_age == DELAY:
        return s32(tw.entered_ms + knobs.tcp_tw_reuse_delay - now_ms) < 0
    if rules.reuse_age == SECONDS_2:
        return now_s - tw.stamp > 1 or now_s < tw.stamp
    return s32(tw.stamp - now_s) < 0


def reuse(rules: Rules, knobs: Knobs, tw: TimeWait, now_s: int, now_ms: int, bound: bool = False) -> Reuse:
    """What connect() does with the TIME_WAIT. `bound`: the local port was bound before connect() (twp == NULL).

    `now_s` is on the clock of `tw.stamp` (wall clock up to 4.18, monotonic since), `now_ms` on that of
    `tw.entered_ms` (6.14+). tcp_timestamps as it stands now is not asked, only what the old connection had.
    """
    if tw.stamp == 0:
        return Reuse(False, rule.REUSE_NO_TS, 0, 0, 0)
    why = rule.REUSE_BOUND
    if not bound:
        if tw.fin_wait2 and rules.reuse_not_in_fin_wait2:
            return Reuse(False, rule.REUSE_FIN_WAIT2, 0, 0, 0)
        if not is_in_force(rules, knobs.tcp_tw_reuse, tw.loopback):
            return Reuse(False, rule.REUSE_OFF if knobs.tcp_tw_reuse == 0 else rule.REUSE_LOOPBACK, 0, 0, 0)
        if not is_old_enough(rules, knobs, tw, now_s, now_ms):
            return Reuse(False, rule.REUSE_TOO_YOUNG, 0, 0, 0)
        why = rule.REUSE_OLD_ENOUGH
    return Reuse(True, why, next_isn(tw.snd_nxt), tw.ts, counters.TW_RECYCLED)


def connect_counters(rules: Rules, met_time_wait: bool, had_bucket: bool, bound: bool) -> int:
    """TWRecycled at a connect() that succeeded.

    2.6.32 counts every automatic port that other connections already hold, TIME_WAIT or not: `had_bucket`.
    """
    if met_time_wait or (rules.recycled_overcounts and had_bucket and not bound):
        return counters.TW_RECYCLED
    return 0
