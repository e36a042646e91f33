"""A SYN reaches a listener: `tcp_v4_conn_request()` up to 3.10, `tcp_conn_request()` since.

A SYN that met a TIME_WAIT of its five-tuple has been judged before, by `timewait.answer`.
"""

from __future__ import annotations

from typing import NamedTuple

from timewait.tcp import counters
from timewait.tcp import rulebook as rule
from timewait.tcp.action import Action
from timewait.tcp.knobs import Knobs
from timewait.tcp.profiles import INET_PEER, METRICS, NO_RECORD, Rules
from timewait.tcp.recycle import Record, judge


class Listener(NamedTuple):
    """What a listening socket and its host stand at when the SYN comes."""

    listening: bool = True
    syn_queue_full: bool = False
    accept_queue_full: bool = False
    young: int = 2  # requests in the SYN queue that were not sent a second SYN-ACK
    last_quarter: bool = False  # less than a quarter of tcp_max_syn_backlog is free
    proven: bool = False  # the peer was spoken to before: a round-trip time of it is remembered
    multicast: bool = False  # the SYN was sent to a broadcast or multicast address


class Verdict(NamedTuple):
    """What becomes of the SYN."""

    action: int  # an Action
    counters: int  # bits of timewait.tcp.counters
    rule: int  # key of rulebook.RULES


def answer(
    rules: Rules,
    knobs: Knobs,
    listener: Listener,
    record: Record,
    has_ts: bool,
    tsval: int,
    now_s: int,
    ipv6: bool = False,
    routed: bool = True,
) -> Verdict:
    """What the kernel does with the SYN, in its order of checks.

    `record`: what tcp_tw_recycle remembers of the peer, `Record()` when nothing. `routed`: the route back leads to
    the SYN's source address (with source routing it does not).
    """
    if not listener.listening:
        return Verdict(Action.RESET, 0, rule.CLOSED_PORT)
    dropped = counters.LISTEN_DROPS if rules.counts_listen_drops else 0
    if listener.multicast:
        return Verdict(Action.DROP, dropped, rule.MULTICAST)
    counted, cookie = 0, False
    if listener.syn_queue_full or (rules.cookies_always and knobs.tcp_syncookies == 2):
        cookie = knobs.tcp_syncookies != 0
        if not cookie:
            counted = counters.REQ_Q_FULL_DROP if rules.counts_syn_queue else 0
            return Verdict(Action.DROP, counted | dropped, rule.SYN_QUEUE_FULL)
        counted = counters.REQ_Q_FULL_DO_COOKIES if rules.counts_syn_queue else 0
    if listener.accept_queue_full and (listener.young > 1 or not rules.accept_queue_young):
        overflow = counters.LISTEN_OVERFLOWS if rules.counts_listen_drops else 0
        return Verdict(Action.DROP, counted | overflow | dropped, rule.ACCEPT_QUEUE_FULL)
    if cookie:
        sent = counters.SYNCOOKIES_SENT | (counters.LISTEN_DROPS if rules.cookie_counts_drop else 0)
        return Verdict(Action.COOKIE, counted | sent, rule.COOKIE)
    why = judge(rules, knobs, record, has_ts, tsval, now_s, ipv6, routed)
    if why in (rule.RECYCLE_OLD_TS, rule.RECYCLE_NO_TS):
        return Verdict(Action.DROP, counters.PAWS_PASSIVE | dropped, why)
    if listener.last_quarter and _last_quarter_counts(rules, knobs, record, has_ts, ipv6, routed):
        known = listener.proven or (rules.record_store == INET_PEER and record.stamp != 0)
        if not known:
            return Verdict(Action.DROP, dropped, rule.LAST_QUARTER)
    return Verdict(Action.ACCEPT, 0, why)


def _last_quarter_counts(rules: Rules, knobs: Knobs, record: Record, has_ts: bool, ipv6: bool, routed: bool) -> bool:
    """Whether the last quarter of the SYN queue is kept for proven peers: without SYN cookies only.

    It stands in the else-branch of the recycle check, whose condition came to hold less and less.
    """
    if knobs.tcp_syncookies:
        return False
    if ipv6 and rules.record_store == INET_PEER:  # tcp_v6_conn_request() of 2.6.32 has neither of the two checks
        return False
    if rules.record_store == NO_RECORD or knobs.tcp_tw_recycle == 0:
        return True
    asked = has_ts and knobs.tcp_timestamps != 0 and routed
    if rules.record_store == INET_PEER:
        return not (asked and record.stamp != 0)
    return rules.record_store == METRICS and not asked
