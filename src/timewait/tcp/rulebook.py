"""The rules by number: a sentence for people, and the kernel function that holds each.

A decision returns a number, for compiled code has no texts. The sentences complete "..., because".
"""

from __future__ import annotations

from typing import NamedTuple

# a segment meets TIME_WAIT
TW_PAWS = 1
SYN_NEWER_TS = 2
SYN_HIGHER_SEQ = 3
SYN_OLD_SEQ = 4
NO_LISTENER = 5
ACCEPT_QUEUE_FULL = 6
RST_KILLS = 7
RST_RFC1337 = 8
RST_ELSEWHERE = 9
TW_BARE_ACK = 10
TW_OUT_OF_WINDOW = 11
ACK_LIMITED = 12
# its substate FIN_WAIT2
FW2_PAWS = 20
FW2_OUT_OF_WINDOW = 21
FW2_RST = 22
FW2_SYN = 23
FW2_NOTHING_NEW = 24
FW2_DATA = 25
FW2_FIN = 26
# tcp_tw_recycle: the first two drop the SYN, the others are why it passes
RECYCLE_OLD_TS = 30
RECYCLE_NO_TS = 31
RECYCLE_GONE = 32
RECYCLE_OFF = 33
RECYCLE_IPV6 = 34
RECYCLE_NOTHING_KNOWN = 35
RECYCLE_STALE = 36
RECYCLE_WITHOUT_TS = 37
RECYCLE_NOT_OLDER = 38
RECYCLE_UNROUTED = 39
# a SYN at a listener
CLOSED_PORT = 40
MULTICAST = 41
SYN_QUEUE_FULL = 42
COOKIE = 43
LAST_QUARTER = 44
# how long TIME_WAIT lasts
LENGTH_60 = 50
LENGTH_RECYCLE = 51
LENGTH_FIN_WAIT2 = 52
LENGTH_LONG_ORPHAN = 53
# tcp_tw_reuse
REUSE_NO_TS = 60
REUSE_BOUND = 61
REUSE_FIN_WAIT2 = 62
REUSE_OFF = 63
REUSE_LOOPBACK = 64
REUSE_TOO_YOUNG = 65
REUSE_OLD_ENOUGH = 66
# the opener in SYN_SENT
SYNSENT_ACK = 70
SYNSENT_TSECR = 71
SYNSENT_RST = 72
SYNSENT_NO_SYN = 73
SYNSENT_SYNACK = 74
SYNSENT_BOTH = 75


class Rule(NamedTuple):
    """One rule, and where it stands."""

    text: str  # a sentence without its end
    function: str  # of the kernel
    file: str
    old_function: str = ""  # up to 3.10, where it stood elsewhere
    old_file: str = ""


_IPV4, _INPUT = "net/ipv4/tcp_ipv4.c", "net/ipv4/tcp_input.c"
_MINISOCKS = "net/ipv4/tcp_minisocks.c"
_PROCESS = ("tcp_timewait_state_process()", _MINISOCKS)
_REQUEST = ("tcp_conn_request()", _INPUT, "tcp_v4_conn_request()", _IPV4)
_UNIQUE = ("tcp_twsk_unique()", _IPV4)
_SYNSENT = ("tcp_rcv_synsent_state_process()", _INPUT)

RULES: dict[int, Rule] = {
    TW_PAWS: Rule("its timestamp is older than the last one of the old connection (PAWS)", *_PROCESS),
    SYN_NEWER_TS: Rule("a SYN with a newer timestamp opens the next connection, whatever its sequence", *_PROCESS),
    SYN_HIGHER_SEQ: Rule("a SYN with a sequence number beyond the old connection opens the next one", *_PROCESS),
    SYN_OLD_SEQ: Rule("neither its timestamp nor its sequence number lies ahead of the old connection's", *_PROCESS),
    NO_LISTENER: Rule("nobody listens any more, so it is answered like any stray segment", "tcp_v4_rcv()", _IPV4),
    ACCEPT_QUEUE_FULL: Rule("the listener's accept queue is full", *_REQUEST),
    RST_KILLS: Rule("a RST exactly at the expected sequence number ends TIME_WAIT (tcp_rfc1337=0)", *_PROCESS),
    RST_RFC1337: Rule("with tcp_rfc1337 a RST does not end TIME_WAIT", *_PROCESS),
    RST_ELSEWHERE: Rule("a RST that does not fit ends nothing and is not answered", *_PROCESS),
    TW_BARE_ACK: Rule("an empty segment at the expected sequence number starts the time again", *_PROCESS),
    TW_OUT_OF_WINDOW: Rule("whatever fits nothing else is answered with an ACK", *_PROCESS),
    ACK_LIMITED: Rule(
        "an ACK left less than tcp_invalid_ratelimit ago, and another is held back", "tcp_oow_rate_limited()", _INPUT
    ),
    FW2_PAWS: Rule("its timestamp is older than the last one of the connection (PAWS)", *_PROCESS),
    FW2_OUT_OF_WINDOW: Rule("it lies outside the window of a connection in FIN_WAIT2", *_PROCESS),
    FW2_RST: Rule("a RST inside the window ends a connection in FIN_WAIT2", *_PROCESS),
    FW2_SYN: Rule("a SYN inside the window resets a connection in FIN_WAIT2, and opens none", *_PROCESS),
    FW2_NOTHING_NEW: Rule("a segment that brings nothing new to FIN_WAIT2 is ignored", *_PROCESS),
    FW2_DATA: Rule("data for a program that has closed is answered with a RST", *_PROCESS),
    FW2_FIN: Rule("the peer's FIN turns FIN_WAIT2 into TIME_WAIT", *_PROCESS),
    RECYCLE_OLD_TS: Rule(
        "tcp_tw_recycle: its timestamp is more than one tick behind what another connection from this address left "
        "less than 60 s ago",
        *_REQUEST,
    ),
    RECYCLE_NO_TS: Rule(
        "tcp_tw_recycle: it has no timestamp, and a connection from this address left one less than 60 s ago",
        *_REQUEST,
    ),
    RECYCLE_GONE: Rule("nothing is against it: this kernel has no tcp_tw_recycle", *_REQUEST),
    RECYCLE_OFF: Rule("nothing is against it: tcp_tw_recycle is off", *_REQUEST),
    RECYCLE_IPV6: Rule(
        "tcp_tw_recycle of this kernel knows IPv4 only", "tcp_v6_conn_request()", "net/ipv6/tcp_ipv6.c"
    ),
    RECYCLE_NOTHING_KNOWN: Rule(
        "nothing is remembered of this address: this host has not closed a connection with it first", *_REQUEST
    ),
    RECYCLE_STALE: Rule("what is remembered of this address is 60 s old, or older", *_REQUEST),
    RECYCLE_WITHOUT_TS: Rule("without a timestamp there is nothing that tcp_tw_recycle compares", *_REQUEST),
    RECYCLE_NOT_OLDER: Rule("its timestamp is at most one tick behind what is remembered of this address", *_REQUEST),
    RECYCLE_UNROUTED: Rule("the route back does not lead to the address it came from", *_REQUEST),
    CLOSED_PORT: Rule("nobody listens on the port", "tcp_v4_rcv()", _IPV4),
    MULTICAST: Rule("it was sent to a broadcast or multicast address", "tcp_v4_conn_request()", _IPV4),
    SYN_QUEUE_FULL: Rule("the SYN queue is full and tcp_syncookies is off", *_REQUEST),
    COOKIE: Rule("it is answered by a SYN cookie, before tcp_tw_recycle is asked", *_REQUEST),
    LAST_QUARTER: Rule("the last quarter of the SYN queue is kept for peers already known", *_REQUEST),
    LENGTH_60: Rule("TIME_WAIT lasts 60 s, and no sysctl changes that", "tcp_time_wait()", _MINISOCKS),
    LENGTH_RECYCLE: Rule(
        "tcp_tw_recycle cuts TIME_WAIT to 3.5 times the retransmission timeout", "tcp_time_wait()", _MINISOCKS
    ),
    LENGTH_FIN_WAIT2: Rule(
        "an orphan waits for the peer's FIN: TCP_LINGER2 or tcp_fin_timeout, at least 3.5 times the retransmission "
        "timeout",
        "tcp_fin_time()",
        "include/net/tcp.h",
    ),
    LENGTH_LONG_ORPHAN: Rule(
        "an orphan that waits for more than 60 s spends what exceeds them as a full socket, and as long once more as "
        "a TIME_WAIT",
        "tcp_keepalive_timer()",
        "net/ipv4/tcp_timer.c",
    ),
    REUSE_NO_TS: Rule("the old connection had no timestamps", *_UNIQUE),
    REUSE_BOUND: Rule("a port bound before connect() takes it over at once, whatever tcp_tw_reuse says", *_UNIQUE),
    REUSE_FIN_WAIT2: Rule("the peer of the old connection has not sent its FIN (substate FIN_WAIT2)", *_UNIQUE),
    REUSE_OFF: Rule("tcp_tw_reuse is off", *_UNIQUE),
    REUSE_LOOPBACK: Rule("tcp_tw_reuse=2 means loopback only", *_UNIQUE),
    REUSE_TOO_YOUNG: Rule("it has not rested long enough", *_UNIQUE),
    REUSE_OLD_ENOUGH: Rule("tcp_tw_reuse is in force and it has rested long enough", *_UNIQUE),
    SYNSENT_ACK: Rule("what it acknowledges is not our SYN", *_SYNSENT),
    SYNSENT_TSECR: Rule("the timestamp it returns is not one we sent", *_SYNSENT),
    SYNSENT_RST: Rule("the peer refuses", *_SYNSENT),
    SYNSENT_NO_SYN: Rule("it is no answer to a SYN", *_SYNSENT),
    SYNSENT_SYNACK: Rule("it answers our SYN", *_SYNSENT),
    SYNSENT_BOTH: Rule("both ends open at once", *_SYNSENT),
}


def source(number: int, version: str, *, old: bool) -> str:
    """Where the rule stands: "tcp_v4_conn_request(), net/ipv4/tcp_ipv4.c, Linux 2.6.32.67".

    `old`: the kernel is 3.10 or earlier by its sources (`kernels.is_old`).
    """
    found = RULES[number]
    if old and found.old_function:
        return f"{found.old_function}, {found.old_file}, Linux {version}"
    return f"{found.function}, {found.file}, Linux {version}"
