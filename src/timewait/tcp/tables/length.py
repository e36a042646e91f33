"""tcp_tw_recycle's memory, and how long TIME_WAIT lasts."""

from __future__ import annotations

from timewait.tcp import counters, length, recycle
from timewait.tcp.kernels import Kernel
from timewait.tcp.profiles import EXACT_TIMER, INET_PEER, NO_RECORD, WHEELS
from timewait.tcp.recycle import Record
from timewait.tcp.tables.table import Ask, Question, Table, by_version, lasts, moved, yes

GONE = "removed"


def _where_it_is(ask: Ask) -> Ask:
    """Asks only kernels that have tcp_tw_recycle."""
    return lambda kernel: GONE if kernel.rules.record_store == NO_RECORD else ask(kernel)


def _first(holds: list[bool]) -> int:
    """The first second for which it no longer holds."""
    return holds.index(False)


def _fresh_for(kernel: Kernel) -> str:
    record = Record(1, 1000)
    return f"{_first([recycle.is_fresh(kernel.rules, record, 1000 + age) for age in range(100)])} s"


def _moves_back_after(kernel: Kernel) -> str:
    record, store = Record(100_000, 1000), kernel.rules.record_store
    stays = [recycle.written(record, 1, 1000 + age, 1000 + age, store) == record for age in range(100)]
    return f"{_first(stays) - 1} s"


def _kept(kernel: Kernel) -> str:
    if kernel.rules.record_store == INET_PEER:
        knobs = kernel.defaults
        few, many = recycle.unused_ttl(knobs, 0), recycle.unused_ttl(knobs, knobs.inet_peer_threshold - 1)
        return f"{few} s, {many} s with many peers; at {knobs.inet_peer_threshold} gone with each new peer"
    hour, depth = recycle.TCP_METRICS_TIMEOUT, recycle.TCP_METRICS_RECLAIM_DEPTH
    return f"{hour} s; the oldest of a hash chain of more than {depth} goes first"


def _key(kernel: Kernel) -> str:
    return "both addresses" if recycle.key(kernel.rules, 1, 2)[0] else "the peer's address"


def _store(kernel: Kernel) -> str:
    return "inet_peer" if kernel.rules.record_store == INET_PEER else "tcp_metrics"


def _future(kernel: Kernel) -> str:
    return yes(recycle.is_fresh(kernel.rules, Record(1, 2000), 1000))


def _at_fin(kernel: Kernel) -> str:
    return "made" if recycle.creates_at_fin(kernel.rules) else "only brought up to date"


def _without(kernel: Kernel) -> str:
    return "dropped" if kernel.rules.record_without_ts_drops else "passes"


def recycling() -> Table:
    """The record."""
    questions: list[Question] = [
        ("kept for", _key),
        ("kept in", _store),
        ("judges a SYN for", _fresh_for),
        ("may go back to an older timestamp after", _moves_back_after),
        ("counts as fresh when its second lies in the future", _future),
        ("of an unknown peer, when FIN ends the substate FIN_WAIT2", _at_fin),
        ("a SYN without timestamps, while it is fresh", _without),
        ("IPv6 too", lambda kernel: yes(kernel.rules.record_ipv6)),
        ("unused, it is kept", _kept),
    ]
    asked = [(label, _where_it_is(ask)) for label, ask in questions]
    return by_version("tcp_tw_recycle: the record of a peer", RECYCLING, "the record is", asked, REMEMBER)


REMEMBER = "`tcp_v4_remember_stamp()`, net/ipv4/tcp_ipv4.c, in 2.6.32; `tcp_remember_stamp()`, net/ipv4/tcp_metrics.c"
RECYCLING = """\
Written by a host that enters TIME_WAIT itself, with the last timestamp of the peer and the second it was
stored, also when tcp_max_tw_buckets is reached; a host that closes second, or resets, remembers nothing. Within
its 60 s a record only moves forward, so a slower clock behind the same address cannot lower it."""


def _time_wait(rto_ms: int = 200, stamp: int = 1, recycle_on: int = 0, fin_wait2: int | None = None) -> Ask:
    def ask(kernel: Kernel) -> str:
        knobs = kernel.defaults._replace(tcp_tw_recycle=recycle_on)
        kept = 0
        if fin_wait2 is not None:
            kept = length.fin_time(knobs._replace(tcp_fin_timeout=fin_wait2), rto_ms, 0, kernel.rules.hz)
        first = length.orphan(kernel.rules, kept)
        found = length.time_wait(kernel.rules, knobs, rto_ms, stamp, False, first.time_wait_ms)
        took = lasts(first.full_ms + found.low_ms, first.late_ms + found.high_ms)
        return f"{took}, {counters.names(found.counter)[0]}"

    return ask


def _timer(kernel: Kernel) -> str:
    if kernel.rules.timer == WHEELS:
        return "two wheels, slots of 128 ms and 7.5 s"
    return "one timer each" if kernel.rules.timer == EXACT_TIMER else "one timer each, late by a step of the wheel"


def lengths() -> Table:
    """How long it lasts."""
    questions: list[Question] = [
        ("any", _time_wait()),
        ("tcp_tw_recycle=1, RTO 200 ms", _time_wait(recycle_on=1)),
        ("tcp_tw_recycle=1, RTO 1 s", _time_wait(1000, recycle_on=1)),
        ("tcp_tw_recycle=1, RTO 3 s", _time_wait(3000, recycle_on=1)),
        ("tcp_tw_recycle=1, no timestamps", _time_wait(stamp=0, recycle_on=1)),
        ("orphan in FIN_WAIT2, tcp_fin_timeout=60", _time_wait(fin_wait2=60)),
        ("orphan in FIN_WAIT2, tcp_fin_timeout=3", _time_wait(fin_wait2=3)),
        ("orphan in FIN_WAIT2, tcp_fin_timeout=70", _time_wait(fin_wait2=70)),
        ("what ends it", _timer),
        ("counted", lambda kernel: "when it begins" if kernel.rules.counts_at_entry else "when it ends"),
        ("tcp_max_tw_buckets reached", lambda kernel: f"none is made{moved(length.overflow_counters(kernel.rules))}"),
    ]
    return by_version("How long TIME_WAIT lasts", LENGTHS, "TIME_WAIT", questions, LENGTH_SOURCE)


LENGTH_SOURCE = "`tcp_time_wait()`, net/ipv4/tcp_minisocks.c; `inet_twsk_schedule()`, net/ipv4/inet_timewait_sock.c"
LENGTHS = """\
At HZ=1000. 60 s (TCP_TIMEWAIT_LEN) is not tunable, and tcp_fin_timeout concerns FIN_WAIT2 only. With
tcp_tw_recycle it is 3.5 times the retransmission timeout, on two-wheel kernels in whole slots of the wheel;
while other short ones wait on the fast wheel, a slot is shared, and TIME_WAIT may end at once or a slot late. A
TIME_WAIT that a RST or a new SYN ends is counted only where counting is done when it begins. Where
tcp_max_tw_buckets is reached the connection is closed without TIME_WAIT, and 2.6.32 leaves no trace but a line
in the kernel's log."""
