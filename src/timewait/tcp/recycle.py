"""tcp_tw_recycle: the SYN that is dropped without a word, and the record per peer that it is judged by.

A host that itself enters TIME_WAIT remembers the last timestamp of the peer, under the peer's address. While that
record is less than 60 s old, a SYN from the same address whose timestamp lies more than one tick behind it is
dropped. Hosts behind one NAT address have clocks of their own, so all but the one whose clock is ahead are locked
out. Linux 4.12 removed it.
"""

from __future__ import annotations

from typing import NamedTuple

from timewait.tcp import rulebook as rule
from timewait.tcp.knobs import Knobs
from timewait.tcp.paws import TCP_PAWS_MSL, TCP_PAWS_WINDOW
from timewait.tcp.profiles import INET_PEER, METRICS_PAIR, NO_RECORD, Rules
from timewait.tcp.segment import older, s32, u32

TCP_METRICS_RECLAIM_DEPTH = 5  # entries in one hash chain, net/ipv4/tcp_metrics.c
TCP_METRICS_TIMEOUT = 3600  # seconds


class Record(NamedTuple):
    """What is remembered of a peer. `stamp` 0: nothing."""

    ts: int = 0  # last timestamp of an in-order segment of the peer
    stamp: int = 0  # the second it was stored


NOTHING = Record()


def is_fresh(rules: Rules, record: Record, now_s: int) -> bool:
    """Whether the record may drop a SYN: younger than 60 s.

    2.6.32 adds (`now < stamp + 60`), so a record from the future, after the wall clock was set back, counts as
    fresh. Later kernels subtract without sign (`tcp_peer_is_proven()`): it does not.
    """
    if record.stamp == 0:
        return False
    if rules.record_store == INET_PEER:
        return now_s < record.stamp + TCP_PAWS_MSL
    return u32(now_s - record.stamp) < TCP_PAWS_MSL


def judge(
    rules: Rules,
    knobs: Knobs,
    record: Record,
    has_ts: bool,
    tsval: int,
    now_s: int,
    ipv6: bool = False,
    routed: bool = True,
) -> int:
    """What tcp_tw_recycle makes of a SYN that reached a listener and no TIME_WAIT: the number of the rule.

    RECYCLE_OLD_TS and RECYCLE_NO_TS drop it, the others let it pass. `routed`: the route back leads to the SYN's
    source address (with source routing it does not). `tcp_v4_conn_request()` up to 3.10, then `tcp_conn_request()`
    with `tcp_peer_is_proven()`.
    """
    if rules.record_store == NO_RECORD:
        return rule.RECYCLE_GONE
    if knobs.tcp_tw_recycle == 0:
        return rule.RECYCLE_OFF
    if ipv6 and not rules.record_ipv6:
        return rule.RECYCLE_IPV6
    without = not has_ts or knobs.tcp_timestamps == 0  # the option is not even read where timestamps are off
    if without and not rules.record_without_ts_drops:
        return rule.RECYCLE_WITHOUT_TS
    if not routed:
        return rule.RECYCLE_UNROUTED
    if record.stamp == 0:
        return rule.RECYCLE_NOTHING_KNOWN
    if not is_fresh(rules, record, now_s):
        return rule.RECYCLE_STALE
    if without:
        return rule.RECYCLE_NO_TS
    return rule.RECYCLE_OLD_TS if older(record.ts, tsval, TCP_PAWS_WINDOW) else rule.RECYCLE_NOT_OLDER


def drops_syn(
    rules: Rules,
    knobs: Knobs,
    record: Record,
    has_ts: bool,
    tsval: int,
    now_s: int,
    ipv6: bool = False,
    routed: bool = True,
) -> bool:
    """Whether tcp_tw_recycle drops the SYN; see `judge`. One that a SYN cookie answers never gets so far."""
    why = judge(rules, knobs, record, has_ts, tsval, now_s, ipv6, routed)
    return why in (rule.RECYCLE_OLD_TS, rule.RECYCLE_NO_TS)


def writes(rules: Rules, knobs: Knobs, stamp: int, ipv6: bool, known: bool, creates: bool) -> bool:
    """Whether an event that remembers a peer does so; the TIME_WAIT becomes the short one exactly then.

    `stamp` of the ending connection (0: it had no timestamps), `known`: the peer already has a record, `creates`: the
    event makes one where there is none, see `creates_at_fin`. `tcp_remember_stamp()`, `tcp_tw_remember_stamp()`.
    """
    if rules.record_store == NO_RECORD or knobs.tcp_tw_recycle == 0 or stamp == 0:
        return False
    if ipv6 and not rules.record_ipv6:
        return False
    return known or creates


def creates_at_fin(rules: Rules) -> bool:
    """Whether a FIN that turns FIN_WAIT2 of a TIME_WAIT socket into TIME_WAIT makes a record for an unknown peer.

    `tcp_time_wait()` itself always does. `tcp_v4_tw_remember_stamp()` of 2.6.32 does; `tcp_tw_remember_stamp()`, 3.10
    and later, only updates.
    """
    return rules.record_store == INET_PEER


def written(record: Record, new_ts: int, new_stamp: int, now_s: int, store: int = INET_PEER) -> Record:
    """The record after an event that remembers (new_ts, new_stamp); `tcp_remember_stamp()`.

    Newer or equal: taken. Older: only when the record is more than 60 s old and was not stored later. So within its
    60 s a record never moves backwards, whatever a slower clock behind the same address sends. `store`: that of the
    rules; from 3.10 on a record from the future, after the wall clock was set back, counts as old.
    """
    if record.stamp == 0 or s32(record.ts - new_ts) <= 0:
        return Record(u32(new_ts), new_stamp)
    age = now_s - record.stamp if store == INET_PEER else u32(now_s - record.stamp)
    if age > TCP_PAWS_MSL and record.stamp <= new_stamp:
        return Record(u32(new_ts), new_stamp)
    return record


def key(rules: Rules, local: int, remote: int) -> tuple[int, int]:
    """What a record is kept under, addresses as integers: the peer alone, or the pair (el7, 4.1 and later)."""
    if rules.record_store == METRICS_PAIR:
        return local, remote
    return 0, remote


def unused_ttl(knobs: Knobs, peers: int) -> int:
    """Seconds an unused inet_peer is kept (2.6.32, el6) while the host knows `peers`; 0: gone with the next new peer.

    `peer_check_expire()` and `inet_getpeer()`, net/ipv4/inetpeer.c.
    """
    if peers >= knobs.inet_peer_threshold:
        return 0
    spread = knobs.inet_peer_maxttl - knobs.inet_peer_minttl
    return knobs.inet_peer_maxttl - spread * peers // max(1, knobs.inet_peer_threshold)


def is_kept(rules: Rules, knobs: Knobs, age_s: int, population: int) -> bool:
    """Whether a record untouched for `age_s` still stands.

    `population`: peers of the host (inet_peer), or entries in the record's hash chain at the next new peer
    (tcp_metrics, where the oldest of a chain deeper than 5 is taken, and an hour empties an entry).
    """
    if rules.record_store == NO_RECORD:
        return False
    if rules.record_store == INET_PEER:
        return age_s < unused_ttl(knobs, population)
    return age_s <= TCP_METRICS_TIMEOUT and population <= TCP_METRICS_RECLAIM_DEPTH


def is_loaded_by_connect(rules: Rules, knobs: Knobs, record: Record, now_s: int, ipv6: bool = False) -> bool:
    """Whether connect() takes the record over as its connection's last timestamp: the SYN then carries a TSecr.

    At an age of exactly 60 s still, where the check of a SYN has ended; nothing is rejected by it.
    `tcp_v4_connect()`.
    """
    if rules.record_store == NO_RECORD or knobs.tcp_tw_recycle == 0 or record.stamp == 0:
        return False
    if ipv6 and not rules.record_ipv6:
        return False
    return u32(now_s - record.stamp) <= TCP_PAWS_MSL
