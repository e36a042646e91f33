"""The rules by number: a sentence for people, and the kernel function that holds each.

A decision returns a number, for compiled code has no texts.
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


class Rule(NamedTuple):
    """One rule."""

    text: str  # a sentence
    function: str  # of the kernel
    file: str


_INPUT = "net/ipv4/tcp_input.c"
_PROCESS = ("tcp_timewait_state_process()", "net/ipv4/tcp_minisocks.c")

RULES: dict[int, Rule] = {
    TW_PAWS: Rule("the timestamp is older than the last one of the old connection (PAWS)", *_PROCESS),
    SYN_NEWER_TS: Rule("a SYN with a newer timestamp opens the next connection, whatever its sequence", *_PROCESS),
    SYN_HIGHER_SEQ: Rule("a SYN with a sequence number beyond the old connection opens the next one", *_PROCESS),
    SYN_OLD_SEQ: Rule("neither timestamp nor sequence number of the SYN lie ahead of the old ones", *_PROCESS),
    NO_LISTENER: Rule("nobody listens any more, so the SYN is answered as any stray segment", *_PROCESS),
    ACCEPT_QUEUE_FULL: Rule("the listener's accept queue is full", "tcp_conn_request()", _INPUT),
    RST_KILLS: Rule("a RST exactly at the expected sequence number ends TIME_WAIT (tcp_rfc1337=0)", *_PROCESS),
    RST_RFC1337: Rule("with tcp_rfc1337 a RST does not end TIME_WAIT", *_PROCESS),
    RST_ELSEWHERE: Rule("a RST that does not fit is ignored", *_PROCESS),
    TW_BARE_ACK: Rule("an empty segment at the expected sequence number starts the 60 s again", *_PROCESS),
    TW_OUT_OF_WINDOW: Rule("whatever else arrives is answered with an ACK", *_PROCESS),
    ACK_LIMITED: Rule("an ACK left less than tcp_invalid_ratelimit ago", "tcp_oow_rate_limited()", _INPUT),
    FW2_PAWS: Rule("the timestamp is older than the last one of the connection (PAWS)", *_PROCESS),
    FW2_OUT_OF_WINDOW: Rule("the segment lies outside the window", *_PROCESS),
    FW2_RST: Rule("a RST inside the window ends a connection in FIN_WAIT2", *_PROCESS),
    FW2_SYN: Rule("a SYN inside the window resets a connection in FIN_WAIT2", *_PROCESS),
    FW2_NOTHING_NEW: Rule("a segment that brings nothing new is ignored", *_PROCESS),
    FW2_DATA: Rule("data for a program that has gone is reset", *_PROCESS),
    FW2_FIN: Rule("the peer's FIN begins TIME_WAIT", *_PROCESS),
}  # fmt: skip
