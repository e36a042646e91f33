"""Kernel profiles: what a version decides differently, and its sysctls' defaults.

Every row was read in the sources of exactly the version it names. A decision takes the row's `Rules`, so that no
function of this room asks for a version number.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from timewait.tcp import counters
from timewait.tcp.knobs import Knobs
from timewait.tcp.release import Release

HOST_WIDE, PER_ADDRESSES, PER_TUPLE = 0, 1, 2  # what the offset of a TSval belongs to
LINEAR, LINEAR_EVEN, TWO_PASSES, PERTURBED = 0, 1, 2, 3  # how connect() searches for a port
SECONDS_2, SECONDS_1, DELAY = 0, 1, 2  # how old a TIME_WAIT must be for tcp_tw_reuse
WHEELS, EXACT_TIMER, LAZY_TIMER = 0, 1, 2  # what ends a TIME_WAIT
POWER_OF_TWO, AT_BACKLOG, ABOVE_BACKLOG = 0, 1, 2  # how many requests fill the SYN queue
NO_RECORD, INET_PEER, METRICS, METRICS_PAIR = 0, 1, 2, 3  # where tcp_tw_recycle keeps what it knows of a peer

DAYS_24, INT_MAX_US = 24 * 86400, 2147  # TCP_PAWS_24DAYS; TCP_PAWS_WRAP = INT_MAX / USEC_PER_SEC since 6.7


class Rules(NamedTuple):
    """One field per difference between versions; integers and truth values only."""

    # a segment that meets a TIME_WAIT: tcp_timewait_state_process(), tcp_paws_check()
    paws_wrap_s: int = DAYS_24  # age of the stored timestamp at which PAWS stops rejecting
    zero_ts_passes: bool = True  # a stored timestamp of 0 rejects nothing
    rfc1337_rearms: bool = False  # with tcp_rfc1337 an ignored RST starts the 60 s again
    limits_acks: bool = True  # tcp_invalid_ratelimit
    tw_paws_counter: int = counters.PAWS_ESTAB
    old_ack_counter: int = counters.PAWS_ESTAB  # an old pure ACK of an open connection
    # any segment of an open connection: tcp_validate_incoming(), tcp_check_req()
    challenges: bool = True  # RFC 5961: a SYN, or a RST not exactly at rcv_nxt, is answered with an ACK
    fits_rst_before_fin: bool = True  # after the peer's FIN a RST one before rcv_nxt ends the connection too
    challenges_old_syn: bool = True  # a SYN with an old timestamp is challenged, not counted as PAWS
    limits_synrecv_acks: bool = True  # tcp_invalid_ratelimit also holds for segments that do not fit a SYN_RECV
    # a SYN at a listener: tcp_conn_request()
    syn_queue: int = ABOVE_BACKLOG
    accept_queue_young: bool = False  # a full accept queue drops only while more than one young request waits
    counts_listen_drops: bool = True  # ListenDrops, and ListenOverflows at a full accept queue
    counts_syn_queue: bool = True  # TCPReqQFullDoCookies, TCPReqQFullDrop
    cookie_counts_drop: bool = False  # ListenDrops also rises for a SYN answered by a cookie
    cookies_always: bool = True  # tcp_syncookies=2 is understood
    # tcp_tw_recycle
    record_store: int = NO_RECORD
    record_without_ts_drops: bool = False  # a SYN without timestamps is dropped while the record is fresh
    record_ipv6: bool = False
    # how long TIME_WAIT lasts: tcp_time_wait(), inet_twsk_schedule()
    timer: int = LAZY_TIMER
    counts_at_entry: bool = False  # TW and TWKilled are counted when TIME_WAIT is entered, not when it ends
    counts_bucket_overflow: bool = True
    hz: int = 1000  # a build option; 1000 in RHEL and in the x86 defconfig
    # tcp_tw_reuse: tcp_twsk_unique()
    reuse_age: int = SECONDS_1
    reuse_loopback: bool = True  # tcp_tw_reuse=2 means loopback only
    reuse_not_in_fin_wait2: bool = True
    recycled_overcounts: bool = False  # TWRecycled also rises when no TIME_WAIT was met
    # the search for a port: __inet_hash_connect()
    port_search: int = PERTURBED
    knows_reserved_ports: bool = True
    own_range_by_one: bool = False  # a socket with IP_LOCAL_PORT_RANGE tries every port of it in turn
    sole_owner_unchecked: bool = False  # a bound port nobody else has is hashed without looking for a TIME_WAIT
    # timestamps on the wire
    ts_in_ms: bool = True  # 1 ms ticks; otherwise jiffies
    ts_offset: int = PER_ADDRESSES
    knows_usec_ts: bool = False  # the route feature tcp_usec_ts
    checks_echo: bool = False  # what answers a SYN-ACK must echo a timestamp of one: tcp_check_req()
    # SYNs that get no answer: tcp_retransmit_timer(), tcp_rcv_synsent_state_process()
    syn_rto_ms: int = 1000
    ack_must_be_next: bool = False  # only an ACK of exactly our SYN is acceptable
    fast_syn_resend: bool = True  # two jiffies after an unacceptable ACK
    monotonic_seconds: bool = True  # the clock of whole seconds; the wall clock otherwise


class Kernel(NamedTuple):
    """One row: a version that was read."""

    name: str  # short, as it is asked for: "2.6.32", "el7", "6.18"
    version: str  # exactly what was read: "2.6.32.67"
    release: Release
    rules: Rules
    defaults: Knobs
    aliases: tuple[str, ...] = ()


_OLD_PORTS = (32768, 61000)

_2_6_32 = Rules(
    zero_ts_passes=False,
    rfc1337_rearms=True,
    limits_acks=False,
    challenges=False,
    fits_rst_before_fin=False,
    challenges_old_syn=False,
    limits_synrecv_acks=False,
    syn_queue=POWER_OF_TWO,
    accept_queue_young=True,
    counts_listen_drops=False,
    counts_syn_queue=False,
    cookies_always=False,
    record_store=INET_PEER,
    timer=WHEELS,
    counts_bucket_overflow=False,
    reuse_age=SECONDS_2,
    reuse_loopback=False,
    reuse_not_in_fin_wait2=False,
    recycled_overcounts=True,
    port_search=LINEAR,
    knows_reserved_ports=False,
    sole_owner_unchecked=True,
    ts_in_ms=False,
    ts_offset=HOST_WIDE,
    syn_rto_ms=3000,
    ack_must_be_next=True,
    fast_syn_resend=False,
    monotonic_seconds=False,
)
_EL6 = _2_6_32._replace(
    zero_ts_passes=True,
    challenges=True,
    recycled_overcounts=False,
    port_search=LINEAR_EVEN,
    knows_reserved_ports=True,
    syn_rto_ms=1000,
)
_3_10 = _EL6._replace(
    counts_listen_drops=True,
    counts_syn_queue=True,
    cookie_counts_drop=True,
    record_store=METRICS,
    record_ipv6=True,
    counts_bucket_overflow=True,
    port_search=LINEAR,
    ack_must_be_next=False,
)
_EL7 = _3_10._replace(
    rfc1337_rearms=False,
    limits_acks=True,
    cookies_always=True,
    record_store=METRICS_PAIR,
    record_without_ts_drops=True,
    port_search=LINEAR_EVEN,
)
_4_1 = _EL7._replace(rfc1337_rearms=True, timer=EXACT_TIMER, port_search=LINEAR)
_4_9 = _4_1._replace(
    limits_synrecv_acks=True,
    syn_queue=AT_BACKLOG,
    cookie_counts_drop=False,
    timer=LAZY_TIMER,
    port_search=TWO_PASSES,
)
_4_10_1 = _4_9._replace(ts_offset=PER_TUPLE)
_4_10_17 = _4_9._replace(ts_offset=PER_ADDRESSES)
_4_11 = _4_10_17._replace(fits_rst_before_fin=True, accept_queue_young=False)
_4_12 = _4_11._replace(record_store=NO_RECORD, record_without_ts_drops=False, record_ipv6=False)
_4_19 = _4_12._replace(
    rfc1337_rearms=False, reuse_age=SECONDS_1, reuse_loopback=True, ts_in_ms=True, monotonic_seconds=True
)
_5_4 = _4_19._replace(reuse_not_in_fin_wait2=True, port_search=PERTURBED, sole_owner_unchecked=False)
_5_10 = _4_19._replace(fast_syn_resend=True)
_5_15 = _5_4._replace(fast_syn_resend=True, syn_queue=ABOVE_BACKLOG)
_6_1 = _5_15._replace(syn_queue=AT_BACKLOG, reuse_not_in_fin_wait2=False, counts_at_entry=True)
_6_6 = _6_1._replace(challenges_old_syn=True)
_6_12 = _6_6._replace(
    syn_queue=ABOVE_BACKLOG,
    reuse_not_in_fin_wait2=True,
    paws_wrap_s=INT_MAX_US,
    own_range_by_one=True,
    knows_usec_ts=True,
)
_6_14 = _6_12._replace(reuse_age=DELAY, old_ack_counter=counters.PAWS_OLD_ACK)
_6_18 = _6_14._replace(tw_paws_counter=counters.PAWS_TIMEWAIT, ts_offset=PER_TUPLE, checks_echo=True)

_K_2_6_32 = Knobs(tcp_syn_retries=5, ip_local_port_range=_OLD_PORTS)
_K_4_19 = Knobs(tcp_tw_reuse=2)
_K_6_6 = _K_4_19._replace(tcp_syn_linear_timeouts=4)

KERNELS: tuple[Kernel, ...] = (
    Kernel("2.6.32", "2.6.32.67", (2, 6, 32), _2_6_32, _K_2_6_32),
    Kernel("el6", "2.6.32-642.6.2.el6", (2, 6, 32), _EL6, Knobs(tcp_syn_retries=5), ("el6-642", "rhel6", "centos6")),
    Kernel("3.10", "3.10.65", (3, 10, 65), _3_10, Knobs(ip_local_port_range=_OLD_PORTS)),
    Kernel("el7", "3.10.0-1160.el7", (3, 10, 0), _EL7, Knobs(), ("el7-1160", "rhel7", "centos7")),
    Kernel("4.1", "4.1.3", (4, 1, 3), _4_1, Knobs(ip_local_port_range=_OLD_PORTS)),
    Kernel("4.9", "4.9.80", (4, 9, 80), _4_9, Knobs()),
    Kernel("4.10", "4.10.1", (4, 10, 1), _4_10_1, Knobs()),
    Kernel("4.10.17", "4.10.17", (4, 10, 17), _4_10_17, Knobs()),
    Kernel("4.11", "4.11.6", (4, 11, 6), _4_11, Knobs()),
    Kernel("4.12", "4.12.0", (4, 12, 0), _4_12, Knobs()),
    Kernel("4.19", "4.19.78", (4, 19, 78), _4_19, _K_4_19),
    Kernel("5.4", "5.4.286", (5, 4, 286), _5_4, _K_4_19),
    Kernel("5.10", "5.10.13", (5, 10, 13), _5_10, _K_4_19),
    Kernel("5.15", "5.15.215", (5, 15, 215), _5_15, _K_4_19),
    Kernel("6.1", "6.1.20", (6, 1, 20), _6_1, _K_4_19),
    Kernel("6.6", "6.6.0", (6, 6, 0), _6_6, _K_6_6),
    Kernel("6.12", "6.12.76", (6, 12, 76), _6_12, _K_6_6),
    Kernel("6.13", "6.13.7", (6, 13, 7), _6_12, _K_6_6),
    Kernel("6.14", "6.14.0", (6, 14, 0), _6_14, _K_6_6),
    Kernel("6.18", "6.18.19", (6, 18, 19), _6_18, _K_6_6),
)

CHANGES: tuple[tuple[tuple[int, int], dict[str, Any], dict[str, Any]], ...] = (
    ((3, 1), {"syn_rto_ms": 1000}, {}),
    ((3, 6), {"record_store": METRICS, "record_ipv6": True}, {}),
    ((3, 7), {}, {"tcp_syn_retries": 6}),
    ((3, 17), {"record_without_ts_drops": True}, {}),
    ((4, 13), {"ts_in_ms": True}, {}),
    ((5, 6), {"fast_syn_resend": True}, {}),
    ((6, 5), {}, {"tcp_syn_linear_timeouts": 4}),
    ((6, 7), {"paws_wrap_s": INT_MAX_US, "knows_usec_ts": True}, {}),
    ((6, 15), {"checks_echo": True}, {}),
    ((6, 16), {"tw_paws_counter": counters.PAWS_TIMEWAIT}, {}),
)
"""What changed between the rows, for a running kernel that has no row: release, rules, defaults. These are from the
commits' dates, not from sources that were read."""
