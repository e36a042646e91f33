"""A segment meets a TIME_WAIT of its five-tuple.

`tcp_timewait_state_process()`, net/ipv4/tcp_minisocks.c, and the switch over its result in `tcp_v4_rcv()`,
net/ipv4/tcp_ipv4.c. The order of the tests is the kernel's, for each of them decides only what the ones before left.
"""

from __future__ import annotations

from typing import NamedTuple

from timewait.tcp import counters
from timewait.tcp import rulebook as rule
from timewait.tcp.action import Action
from timewait.tcp.knobs import Knobs
from timewait.tcp.paws import rejects
from timewait.tcp.profiles import Rules
from timewait.tcp.ratelimit import concerns, is_held_back
from timewait.tcp.recycle import creates_at_fin, writes
from timewait.tcp.segment import ACK, FIN, RST, SYN, Segment, after, end_seq, in_window, s32, u32

# Bound once: looking up a member of an enum takes as long as a comparison of timestamps.
_ACCEPT, _DROP, _ACK = Action.ACCEPT, Action.DROP, Action.ACK
_RESET, _KILL, _IGNORE = Action.RESET, Action.KILL, Action.IGNORE

# what a segment changes in a TIME_WAIT: its last timestamp, its substate, the time of the last ACK
_STORED, _ENDED, _ACKED = 1, 2, 4

TCP_TIMEWAIT_LEN = 60_000  # ms, include/net/tcp.h; no sysctl changes it


class TimeWait(NamedTuple):
    """A socket in TIME_WAIT (`struct tcp_timewait_sock`); its peer sent `ts` last, in second `stamp`."""

    rcv_nxt: int = 0
    snd_nxt: int = 0
    ts: int = 0  # tw_ts_recent
    stamp: int = 0  # tw_ts_recent_stamp, s; 0: the connection had no timestamps
    fin_wait2: bool = False  # substate: we have sent our FIN, the peer has not
    entered_ms: int = 0  # tw_entry_stamp, monotonic ms (6.14+)
    last_ack_ms: int = 0  # tw_last_oow_ack_time: the last ACK that counts for tcp_invalid_ratelimit; 0: none
    loopback: bool = False  # on device lo, or an end in 127.0.0.0/8 or ::1
    rcv_wnd: int = 65535  # tw_rcv_wnd, bytes
    timeout_ms: int = TCP_TIMEWAIT_LEN  # tw_timeout: less with tcp_tw_recycle
    ipv6: bool = False


class Answer(NamedTuple):
    """What happens to the segment, to the TIME_WAIT and to the counters."""

    action: int  # an Action
    rearm_ms: int  # the timer starts again and runs this long; 0: it runs on as it was
    counters: int  # bits of timewait.tcp.counters
    rule: int  # which rule decided: a key of rulebook.RULES
    isn: int  # initial sequence number of our SYN-ACK, for an accepted SYN; else 0
    gone: bool  # the TIME_WAIT is no more
    remembers: bool  # the peer's record is written with tw.ts and tw.stamp (tcp_tw_recycle)
    changed: int  # bits; what `afterwards` makes of the rest
    before: TimeWait
    segment: Segment
    now_s: int
    now_ms: int

    @property
    def rearm_seconds(self) -> float:
        """`rearm_ms` in seconds."""
        return self.rearm_ms / 1000

    @property
    def tw(self) -> TimeWait:
        """The TIME_WAIT as it then stands."""
        return afterwards(self)


def afterwards(answer: Answer) -> TimeWait:
    """The TIME_WAIT as it stands after the answer; put together when asked for, since most askers never look."""
    tw, changed = answer.before, answer.changed
    if changed == 0:
        return tw
    ts, stamp, entered_ms = tw.ts, tw.stamp, tw.entered_ms
    if changed & _STORED:
        ts, stamp = answer.segment.tsval, answer.now_s
        if changed & _ENDED:
            entered_ms = answer.now_ms
    return TimeWait(
        end_seq(answer.segment) if changed & _ENDED else tw.rcv_nxt,
        tw.snd_nxt,
        ts,
        stamp,
        tw.fin_wait2 and not changed & _ENDED,
        entered_ms,
        answer.now_ms if changed & _ACKED else tw.last_ack_ms,
        tw.loopback,
        tw.rcv_wnd,
        tw.timeout_ms,
        tw.ipv6,
    )


def next_isn(snd_nxt: int) -> int:
    """The initial sequence number that follows a TIME_WAIT: beyond any window of the old connection, and never 0."""
    return u32(snd_nxt + 65537) or 1


def answer(
    rules: Rules,
    knobs: Knobs,
    tw: TimeWait,
    segment: Segment,
    now_s: int,
    now_ms: int,
    listening: bool = True,
    accept_queue_full: bool = False,
    young: int = 2,
    known: bool = True,
) -> Answer:
    """What the segment brings about.

    `now_s` is on the clock of `tw.stamp`, `now_ms` on that of `tw.last_ack_ms` and `tw.entered_ms`. `listening`: a
    socket listens on the address and port. `accept_queue_full`, `young`: its accept queue, and how many requests in
    its SYN queue were never sent a second SYN-ACK. `known`: the peer has a record already (tcp_tw_recycle).
    """
    saw = tw.stamp != 0 and segment.has_ts and knobs.tcp_timestamps != 0
    flags = segment.flags
    rejected = saw and rejects(rules, tw.ts, tw.stamp, segment.tsval, flags & RST != 0, now_s)
    if tw.fin_wait2:
        return _in_fin_wait2(rules, knobs, tw, segment, now_s, now_ms, saw, rejected, known)

    if not rejected and segment.seq == tw.rcv_nxt and (flags & RST or end_seq(segment) == segment.seq):
        return _in_place(rules, knobs, tw, segment, now_s, now_ms, saw)

    opens = flags & SYN and not flags & (RST | ACK) and not rejected
    if opens:
        newer = saw and s32(tw.ts - segment.tsval) < 0
        if newer or after(segment.seq, tw.rcv_nxt):
            full = accept_queue_full and (young > 1 or not rules.accept_queue_young)
            return _opens(rules, tw, segment, now_s, now_ms, newer, listening, full)

    counted = rules.tw_paws_counter if rejected else 0
    if flags & RST:
        return Answer(_IGNORE, 0, counted, rule.RST_ELSEWHERE, 0, False, False, 0, tw, segment, now_s, now_ms)
    rearm = TCP_TIMEWAIT_LEN if rejected or flags & ACK else 0
    why = rule.TW_PAWS if rejected else rule.SYN_OLD_SEQ if opens else rule.TW_OUT_OF_WINDOW
    skipped = counters.ACK_SKIPPED_TIMEWAIT
    return _acks(rules, knobs, tw, segment, now_s, now_ms, why, rearm, counted, skipped)


def _in_place(
    rules: Rules, knobs: Knobs, tw: TimeWait, segment: Segment, now_s: int, now_ms: int, saw: bool
) -> Answer:
    """A RST or an empty segment exactly at rcv_nxt."""
    rearm, why = TCP_TIMEWAIT_LEN, rule.TW_BARE_ACK
    if segment.flags & RST:
        if knobs.tcp_rfc1337 == 0:
            return Answer(_KILL, 0, 0, rule.RST_KILLS, 0, True, False, 0, tw, segment, now_s, now_ms)
        rearm, why = TCP_TIMEWAIT_LEN if rules.rfc1337_rearms else 0, rule.RST_RFC1337
    changed = _STORED if saw else 0
    return Answer(_IGNORE, rearm, 0, why, 0, False, False, changed, tw, segment, now_s, now_ms)


def _opens(
    rules: Rules, tw: TimeWait, segment: Segment, now_s: int, now_ms: int, newer: bool, listening: bool, full: bool
) -> Answer:
    """A SYN that may open the next connection of the five-tuple (TCP_TW_SYN).

    Its TIME_WAIT is removed before the listener looks at it, and the listener skips the checks of an ordinary SYN
    but for the accept queue: what is dropped there has cost the TIME_WAIT all the same.
    """
    if not listening:
        return Answer(_ACK, 0, 0, rule.NO_LISTENER, 0, False, False, 0, tw, segment, now_s, now_ms)
    if full:
        counted = counters.LISTEN_OVERFLOWS | counters.LISTEN_DROPS if rules.counts_listen_drops else 0
        return Answer(_DROP, 0, counted, rule.ACCEPT_QUEUE_FULL, 0, True, False, 0, tw, segment, now_s, now_ms)
    why = rule.SYN_NEWER_TS if newer else rule.SYN_HIGHER_SEQ
    return Answer(_ACCEPT, 0, 0, why, next_isn(tw.snd_nxt), True, False, 0, tw, segment, now_s, now_ms)


def _in_fin_wait2(
    rules: Rules,
    knobs: Knobs,
    tw: TimeWait,
    segment: Segment,
    now_s: int,
    now_ms: int,
    saw: bool,
    rejected: bool,
    known: bool,
) -> Answer:
    """The substate of an orphan whose peer has not sent its FIN yet."""
    flags, end = segment.flags, end_seq(segment)
    if rejected or not in_window(segment.seq, end, tw.rcv_nxt, u32(tw.rcv_nxt + tw.rcv_wnd)):
        why = rule.FW2_PAWS if rejected else rule.FW2_OUT_OF_WINDOW
        return _acks(rules, knobs, tw, segment, now_s, now_ms, why, 0, 0, counters.ACK_SKIPPED_FINWAIT2)
    if flags & RST:
        return Answer(_KILL, 0, 0, rule.FW2_RST, 0, True, False, 0, tw, segment, now_s, now_ms)
    if flags & SYN and not after(tw.rcv_nxt, segment.seq):
        return Answer(_RESET, 0, 0, rule.FW2_SYN, 0, True, False, 0, tw, segment, now_s, now_ms)
    if not flags & ACK or not after(end, tw.rcv_nxt) or end == segment.seq:
        return Answer(_IGNORE, 0, 0, rule.FW2_NOTHING_NEW, 0, False, False, 0, tw, segment, now_s, now_ms)
    if not flags & FIN or end != u32(tw.rcv_nxt + 1):
        return Answer(_RESET, 0, 0, rule.FW2_DATA, 0, True, False, 0, tw, segment, now_s, now_ms)
    changed, stamp = (_ENDED | _STORED, now_s) if saw else (_ENDED, tw.stamp)
    remembers = writes(rules, knobs, stamp, tw.ipv6, known, creates_at_fin(rules))
    rearm = tw.timeout_ms if remembers else TCP_TIMEWAIT_LEN
    return Answer(_ACK, rearm, 0, rule.FW2_FIN, 0, False, remembers, changed, tw, segment, now_s, now_ms)


def _acks(
    rules: Rules,
    knobs: Knobs,
    tw: TimeWait,
    segment: Segment,
    now_s: int,
    now_ms: int,
    why: int,
    rearm: int,
    counted: int,
    skipped: int,
) -> Answer:
    """An ACK, unless one left less than tcp_invalid_ratelimit ago."""
    changed = 0
    if concerns(rules, segment):
        if is_held_back(knobs, tw.last_ack_ms, now_ms):
            counted |= skipped
            return Answer(_IGNORE, rearm, counted, rule.ACK_LIMITED, 0, False, False, 0, tw, segment, now_s, now_ms)
        changed = _ACKED
    return Answer(_ACK, rearm, counted, why, 0, False, False, changed, tw, segment, now_s, now_ms)
