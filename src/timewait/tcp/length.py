"""How long TIME_WAIT lasts, and which counter tells that it ended.

`tcp_time_wait()`, net/ipv4/tcp_minisocks.c, decides the nominal length: 60 s, which no sysctl changes, or 3.5 times
the retransmission timeout with tcp_tw_recycle. What ends it decides the real one: up to 3.10 one of two wheels of
slots, then a timer of its own; the timer wheel of 4.8 and later may be late by one step of its granularity.
"""

from __future__ import annotations

from typing import NamedTuple

from timewait.tcp import counters
from timewait.tcp import rulebook as rule
from timewait.tcp.knobs import Knobs
from timewait.tcp.profiles import EXACT_TIMER, WHEELS, Rules
from timewait.tcp.recycle import writes
from timewait.tcp.timewait import TCP_TIMEWAIT_LEN

RECYCLE_SLOTS = 32  # INET_TWDR_RECYCLE_SLOTS, the fast wheel
TWKILL_SLOTS = 8  # INET_TWDR_TWKILL_SLOTS, the slow one
TWKILL_PERIOD = TCP_TIMEWAIT_LEN // TWKILL_SLOTS  # ms: 7.5 s
LEVEL_SIZE = 64  # slots of a level, kernel/time/timer.c
COARSEST = 8**8  # jiffies a slot of the last level is wide


class Ending(NamedTuple):
    """When a timer set to some time really fires, in ms, and what is counted then."""

    low_ms: int
    high_ms: int
    counter: int  # bit of timewait.tcp.counters: TW or TWKilled
    busy_low_ms: int  # the same range while other short TIME_WAITs wait on the fast wheel
    busy_high_ms: int


class Orphan(NamedTuple):
    """How an orphan spends its FIN_WAIT2, ms: first as a full socket, whose timer fires between `full_ms` and
    `late_ms`, then as a TIME_WAIT socket of this substate."""

    full_ms: int
    late_ms: int
    time_wait_ms: int


class Length(NamedTuple):
    """How long a TIME_WAIT lasts."""

    ending: Ending
    rule: int  # key of rulebook.RULES
    nominal_ms: int  # what the timer is set to
    short_ms: int  # tw_timeout: what a FIN that ends the substate FIN_WAIT2 sets; 60 s without tcp_tw_recycle
    remembers: bool  # the peer's record is written (tcp_tw_recycle)

    @property
    def low_ms(self) -> int:
        return self.ending.low_ms

    @property
    def high_ms(self) -> int:
        return self.ending.high_ms

    @property
    def counter(self) -> int:
        return self.ending.counter


def jiffies(ms: int, hz: int) -> int:
    """ms in ticks of 1/hz s, rounded up; `msecs_to_jiffies()`."""
    return -(-ms * hz // 1000)


def in_ms(ticks: int, hz: int) -> int:
    """Ticks of 1/hz s in ms, rounded up."""
    return -(-ticks * 1000 // hz)


def short(rto_ms: int, hz: int) -> int:
    """3.5 times a retransmission timeout, ms: the time for two retransmissions of a FIN; `tcp_time_wait()`."""
    rto = -(-rto_ms * hz // 1000)
    return -(-(4 * rto - (rto >> 1)) * 1000 // hz)


def fin_time(knobs: Knobs, rto_ms: int, linger2_s: int, hz: int) -> int:
    """ms an orphan stays in FIN_WAIT2; `tcp_fin_time()`, include/net/tcp.h. `linger2_s` 0: TCP_LINGER2 not set."""
    wanted = (linger2_s if linger2_s > 0 else knobs.tcp_fin_timeout) * 1000
    return max(wanted, short(rto_ms, hz))


def orphan(rules: Rules, wait_ms: int) -> Orphan:
    """What becomes of the wait of `fin_time`. Up to 60 s are a TIME_WAIT socket's, at once. What exceeds them is a
    full socket's, and `tcp_keepalive_timer()` then makes a TIME_WAIT of it for the same time once more."""
    more = wait_ms - TCP_TIMEWAIT_LEN
    if more <= 0:
        return Orphan(0, 0, wait_ms)
    return Orphan(more, _late(rules, more), more)


def time_wait(
    rules: Rules,
    knobs: Knobs,
    rto_ms: int,
    stamp: int,
    ipv6: bool = False,
    fin_wait2_ms: int = 0,
) -> Length:
    """The length of a TIME_WAIT that begins now.

    `rto_ms`: retransmission timeout of the connection. `stamp`: second of the peer's last timestamp, 0: none.
    `fin_wait2_ms`: not a TIME_WAIT proper but an orphan in FIN_WAIT2, kept as one for so long (`fin_time`).
    """
    remembers = writes(rules, knobs, stamp, ipv6, True, True)
    rest = short(rto_ms, rules.hz)
    nominal, why = max(fin_wait2_ms, rest), rule.LENGTH_FIN_WAIT2
    if fin_wait2_ms == 0:
        nominal, why = (rest, rule.LENGTH_RECYCLE) if remembers else (TCP_TIMEWAIT_LEN, rule.LENGTH_60)
    return Length(ends(rules, nominal), why, nominal, rest if remembers else TCP_TIMEWAIT_LEN, remembers)


def ends(rules: Rules, timeout_ms: int) -> Ending:
    """When a TIME_WAIT whose timer is set to `timeout_ms` ends; `inet_twsk_schedule()`.

    The counter is that of a timer set once: TWKilled up to 4 s (the fast wheel), TW beyond.
    """
    if rules.timer == WHEELS:
        return _wheels(timeout_ms, rules.hz)
    counter = counters.TW_KILLED if timeout_ms <= 4000 else counters.TW
    late = _late(rules, timeout_ms)
    return Ending(timeout_ms, late, counter, timeout_ms, late)


def _late(rules: Rules, timeout_ms: int) -> int:
    """When a timer of the kernel fires at the latest, ms. Those of 4.8 and later are coarse, others exact."""
    if rules.timer in (WHEELS, EXACT_TIMER):
        return timeout_ms
    ticks = jiffies(timeout_ms, rules.hz)
    return in_ms(ticks + granularity(ticks), rules.hz)


def _wheels(timeout_ms: int, hz: int) -> Ending:
    """Up to 3.10. The fast wheel: whole slots, counted from where its hand stands.

    The hand moves only when a slot is emptied. So with others waiting there a TIME_WAIT may share their slot and end
    with them, at once or one slot late; alone on the wheel it lasts its whole slots exactly. The slow wheel turns
    every 7.5 s and has 8 slots, so nothing outlasts 60 s there: a longer time is cut.
    """
    tick = 1 << recycle_tick(hz)
    slot = -(-jiffies(timeout_ms, hz) // tick)
    if slot < RECYCLE_SLOTS:
        exact = in_ms(slot * tick, hz)
        return Ending(exact, exact, counters.TW_KILLED, 0, in_ms((slot + 1) * tick, hz))
    turns = min(TWKILL_SLOTS - 1, -(-timeout_ms // TWKILL_PERIOD))
    low, high = turns * TWKILL_PERIOD, (turns + 1) * TWKILL_PERIOD
    return Ending(low, high, counters.TW, low, high)


def recycle_tick(hz: int) -> int:
    """INET_TWDR_RECYCLE_TICK, the power of two of jiffies in a slot of the fast wheel: 128 ms at 1000 and 250 HZ."""
    tick, reach = 2, 32
    while tick < 9 and hz > reach:
        tick, reach = tick + 1, reach * 2
    return tick


def granularity(ticks: int) -> int:
    """By how many jiffies a timer of `ticks` may be late (4.8+): the step of its level, 8 times that of the last.

    `calc_wheel_index()`, kernel/time/timer.c.
    """
    step, reach = 1, LEVEL_SIZE - 1
    while ticks >= reach and step < COARSEST:
        step, reach = step * 8, reach * 8
    return step


def overflows(knobs: Knobs, buckets: int) -> bool:
    """Whether a TIME_WAIT that would begin now is not made, because `buckets` exist; `inet_twsk_alloc()`.

    The connection is closed at once instead; existing ones stay. `tcp_time_wait()` writes the record of
    tcp_tw_recycle before it finds out. Counted per host up to 4.10, per network namespace since 4.11.
    """
    return buckets >= knobs.tcp_max_tw_buckets


def overflow_counters(rules: Rules) -> int:
    """TCPTimeWaitOverflow; up to 2.6.32 only a line in the kernel's log."""
    return counters.TIMEWAIT_OVERFLOW if rules.counts_bucket_overflow else 0
