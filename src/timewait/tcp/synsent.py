"""What an opener in SYN_SENT does with the answer to its SYN: `tcp_rcv_synsent_state_process()`, tcp_input.c.

The bare ACK of a TIME_WAIT acknowledges the old connection, so it is not acceptable here. The RST that answers it is
what ends that TIME_WAIT.
"""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple

from timewait.tcp import counters
from timewait.tcp import rulebook as rule
from timewait.tcp.profiles import Rules
from timewait.tcp.segment import ACK, RST, SYN, Segment, after, u32

TCP_TIMEOUT_MIN = 2  # jiffies


class Next(IntEnum):
    """What follows."""

    CONNECTED = 0  # an acceptable SYN-ACK
    RESET = 1  # a RST leaves, with the acknowledged sequence number; the socket stays in SYN_SENT
    REFUSED = 2  # an acceptable RST: connect() fails with ECONNREFUSED
    IGNORE = 3
    SIMULTANEOUS = 4  # a SYN without ACK: SYN_RECV


class Reaction(NamedTuple):
    """What the opener does."""

    next: int  # a Next
    seq: int  # of the RST
    resend_jiffies: int  # the SYN's timer is set to so many jiffies; 0: it runs on
    counters: int
    rule: int


def react(
    rules: Rules,
    snd_una: int,
    snd_nxt: int,
    segment: Segment,
    sent_ts: int,
    now_ts: int,
    retransmits: int = 0,
) -> Reaction:
    """`snd_una`, `snd_nxt`: of our SYN. `sent_ts`, `now_ts`: our clock when it was first sent, and now.

    `retransmits`: SYNs sent again so far; only before the first does 5.6+ hurry the next one.
    """
    if segment.flags & ACK:
        fits = segment.ack == snd_nxt
        if not rules.ack_must_be_next:
            fits = after(segment.ack, snd_una) and not after(segment.ack, snd_nxt)
        reset = segment.flags & RST == 0  # a RST is never answered with one
        if not fits:
            hurry = TCP_TIMEOUT_MIN if rules.fast_syn_resend and retransmits == 0 else 0
            return Reaction(Next.RESET if reset else Next.IGNORE, segment.ack, hurry, 0, rule.SYNSENT_ACK)
        if segment.has_ts and segment.tsecr and not _between(segment.tsecr, sent_ts, now_ts):
            following = Next.RESET if reset else Next.IGNORE
            return Reaction(following, segment.ack, 0, counters.PAWS_ACTIVE, rule.SYNSENT_TSECR)
        if not reset:
            return Reaction(Next.REFUSED, 0, 0, 0, rule.SYNSENT_RST)
        if not segment.flags & SYN:
            return Reaction(Next.IGNORE, 0, 0, 0, rule.SYNSENT_NO_SYN)
        return Reaction(Next.CONNECTED, 0, 0, 0, rule.SYNSENT_SYNACK)
    if segment.flags & RST or not segment.flags & SYN:
        return Reaction(Next.IGNORE, 0, 0, 0, rule.SYNSENT_NO_SYN)
    return Reaction(Next.SIMULTANEOUS, 0, 0, 0, rule.SYNSENT_BOTH)


def _between(value: int, first: int, last: int) -> bool:
    """`between()`, include/net/tcp.h: value lies in first..last, modulo 2^32."""
    return u32(last - first) >= u32(value - first)
