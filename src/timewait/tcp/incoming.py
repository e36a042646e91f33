"""A segment meets a connection that is open, or being opened from outside.

`tcp_validate_incoming()`, net/ipv4/tcp_input.c, and `tcp_check_req()`, net/ipv4/tcp_minisocks.c: whether the segment
counts at all, before anything of it is taken. TIME_WAIT has rules of its own (`timewait`).

Left out: the host-wide limit of challenge ACKs (tcp_challenge_ack_limit), RSTs that match a SACK block, Fast Open.
"""

from __future__ import annotations

from typing import NamedTuple

from timewait.tcp import counters
from timewait.tcp.action import Action
from timewait.tcp.knobs import Knobs
from timewait.tcp.paws import TCP_PAWS_WINDOW, passes, rejects
from timewait.tcp.profiles import Rules
from timewait.tcp.ratelimit import concerns, is_held_back
from timewait.tcp.segment import ACK, FIN, RST, SYN, Segment, after, end_seq, in_window, s32, u32

_FLAGS = SYN | RST | ACK


class Receiver(NamedTuple):
    """What an open connection judges a segment by."""

    rcv_nxt: int
    rcv_wup: int  # rcv_nxt when the last segment left, so what the peer knows of it
    rcv_wnd: int  # bytes from rcv_wup on
    snd_una: int
    has_ts: bool  # both ends send timestamps
    ts: int  # the peer's last one
    stamp: int  # the second it was stored
    rto_ms: int
    got_fin: bool  # CLOSE_WAIT, LAST_ACK, CLOSING
    last_ack_ms: int  # the last answer that counts for tcp_invalid_ratelimit; 0: none


class Judgement(NamedTuple):
    """What becomes of the segment.

    ACCEPT: it is processed. ACK: an ACK leaves, and no more. KILL: the connection ends. RESET: it ends, or was none,
    and a RST leaves.
    """

    action: int  # an Action
    counters: int
    last_ack_ms: int


def judge(rules: Rules, knobs: Knobs, receiver: Receiver, segment: Segment, now_s: int, now_ms: int) -> Judgement:
    """A segment for a connection in ESTABLISHED or any later state but TIME_WAIT."""
    flags, last = segment.flags, receiver.last_ack_ms
    if not flags & _FLAGS:
        return Judgement(Action.IGNORE, 0, last)
    if _is_old(rules, receiver, segment, now_s) and not flags & RST:
        return _old(rules, knobs, receiver, segment, now_ms)
    if not _fits(receiver, segment):
        if flags & RST:
            ends = rules.fits_rst_before_fin and _precedes_fin(receiver, segment)
            return Judgement(Action.KILL if ends else Action.IGNORE, 0, last)
        if flags & SYN and rules.challenges:
            return _challenge(rules, knobs, segment, last, counters.SYN_CHALLENGE, now_ms)
        return _dupack(rules, knobs, segment, last, 0, counters.ACK_SKIPPED_SEQ, now_ms)
    if flags & RST:
        exact = segment.seq == receiver.rcv_nxt
        if exact or not rules.challenges or (rules.fits_rst_before_fin and _precedes_fin(receiver, segment)):
            return Judgement(Action.KILL, 0, last)
        return _challenge(rules, knobs, segment, last, 0, now_ms)
    if flags & SYN:
        if rules.challenges:
            return _challenge(rules, knobs, segment, last, counters.SYN_CHALLENGE, now_ms)
        if not after(receiver.rcv_nxt, segment.seq):
            return Judgement(Action.RESET, counters.ABORT_ON_SYN, last)
    return Judgement(Action.ACCEPT if flags & ACK else Action.IGNORE, 0, last)


def _is_old(rules: Rules, receiver: Receiver, segment: Segment, now_s: int) -> bool:
    """Whether PAWS rejects it; a RST is let off by the caller."""
    if not (receiver.has_ts and segment.has_ts):
        return False
    if passes(rules, receiver.ts, receiver.stamp, segment.tsval, TCP_PAWS_WINDOW, now_s):
        return False
    return not _is_disordered(receiver, segment)


def _is_disordered(receiver: Receiver, segment: Segment) -> bool:
    """A pure ACK that was overtaken on its way, harmless; `tcp_disordered_ack()`. Our peers never move the window."""
    replay_ticks = receiver.rto_ms * 1200 // 1000  # the peer's clock may run at 1200 Hz; 1024 up to 6.1
    empty_in_place = end_seq(segment) == segment.seq == receiver.rcv_nxt and segment.flags & ACK
    fresh = s32(receiver.ts - segment.tsval) <= replay_ticks
    return bool(empty_in_place) and segment.ack == receiver.snd_una and fresh


def _old(rules: Rules, knobs: Knobs, receiver: Receiver, segment: Segment, now_ms: int) -> Judgement:
    """A timestamp too old."""
    last = receiver.last_ack_ms
    if segment.flags & SYN and rules.challenges_old_syn:
        return _challenge(rules, knobs, segment, last, counters.SYN_CHALLENGE, now_ms)
    if rules.old_ack_counter != counters.PAWS_ESTAB:
        pure = segment.flags & ACK and end_seq(segment) == segment.seq
        if pure and after(receiver.rcv_nxt, segment.seq):
            return Judgement(Action.IGNORE, rules.old_ack_counter, last)
    return _dupack(rules, knobs, segment, last, counters.PAWS_ESTAB, counters.ACK_SKIPPED_PAWS, now_ms)


def _fits(receiver: Receiver, segment: Segment) -> bool:
    """`tcp_sequence()`: measured from what the peer knows, for our last ACK may still be on its way to it."""
    if after(receiver.rcv_wup, end_seq(segment)):
        return False
    return not after(segment.seq, u32(receiver.rcv_wup + receiver.rcv_wnd))


def _precedes_fin(receiver: Receiver, segment: Segment) -> bool:
    """`tcp_reset_check()`: some stacks reset with the number of the FIN they have sent."""
    return receiver.got_fin and segment.seq == u32(receiver.rcv_nxt - 1)


def _dupack(
    rules: Rules, knobs: Knobs, segment: Segment, last: int, counted: int, skipped: int, now_ms: int
) -> Judgement:
    if concerns(rules, segment):
        if is_held_back(knobs, last, now_ms):
            return Judgement(Action.IGNORE, counted | skipped, last)
        last = now_ms
    return Judgement(Action.ACK, counted, last)


def _challenge(rules: Rules, knobs: Knobs, segment: Segment, last: int, counted: int, now_ms: int) -> Judgement:
    """`tcp_send_challenge_ack()`: is it really you who sends that?"""
    if rules.limits_acks:
        if is_held_back(knobs, last, now_ms):
            return Judgement(Action.IGNORE, counted | counters.ACK_SKIPPED_CHALLENGE, last)
        last = now_ms
    return Judgement(Action.ACK, counted | counters.CHALLENGE_ACK, last)


class Request(NamedTuple):
    """A SYN that was answered and waits for its ACK (`struct tcp_request_sock`): SYN_RECV."""

    rcv_isn: int
    snt_isn: int
    rcv_wnd: int
    has_ts: bool
    ts: int  # of the SYN
    last_ack_ms: int = 0
    first_tsval: int = 0  # of our SYN-ACKs: the first one's timestamp,
    last_tsval: int = 0  # and the last one's


def judge_request(
    rules: Rules, knobs: Knobs, request: Request, segment: Segment, now_s: int, now_ms: int
) -> Judgement:
    """A segment for a connection in SYN_RECV.

    ACCEPT: the connection is open. COOKIE stands for the SYN-ACK, sent once more. KILL: the request is forgotten.
    RESET also where the request stays: an ACK of something never sent (`keeps_request`).
    """
    flags, last = segment.flags & _FLAGS, request.last_ack_ms
    rcv_nxt = u32(request.rcv_isn + 1)
    rejected = misquotes = False
    if request.has_ts and segment.has_ts:
        misquotes = rules.checks_echo and segment.tsecr != 0 and not _echoes(request, segment.tsecr)
        # The kernel does not know when the SYN came and takes it to be as old as the SYN-ACK's timer is long.
        rejected = rejects(rules, request.ts, now_s - 1, segment.tsval, flags & RST != 0, now_s)
    if segment.seq == request.rcv_isn and flags == SYN and not rejected:
        if concerns(rules, segment):
            if is_held_back(knobs, last, now_ms):
                return Judgement(Action.IGNORE, counters.ACK_SKIPPED_SYNRECV, last)
            last = now_ms
        return Judgement(Action.COOKIE, 0, last)
    if not keeps_request(request, segment):
        fits = in_window(segment.seq, end_seq(segment), rcv_nxt, u32(rcv_nxt + request.rcv_wnd))
        if rejected or misquotes or not fits:
            counted = counters.PAWS_ESTAB if rejected else counters.TSECR_REJECTED if misquotes else 0
            if flags & RST:
                return Judgement(Action.IGNORE, counted, last)
            if rules.limits_synrecv_acks and concerns(rules, segment):
                if is_held_back(knobs, last, now_ms):
                    return Judgement(Action.IGNORE, counted | counters.ACK_SKIPPED_SYNRECV, last)
                last = now_ms
            return Judgement(Action.ACK, counted, last)
        if segment.seq == request.rcv_isn:
            flags &= ~SYN
        if flags & (RST | SYN):
            counted = counters.ATTEMPT_FAILS | counters.EMBRYONIC_RSTS
            return Judgement(Action.KILL if flags & RST else Action.RESET, counted, last)
        return Judgement(Action.ACCEPT if flags & ACK else Action.IGNORE, 0, last)
    return Judgement(Action.RESET, 0, last)


def _echoes(request: Request, tsecr: int) -> bool:
    """Whether this is the timestamp of a SYN-ACK, or lies between those of two (6.15+)."""
    return u32(request.last_tsval - request.first_tsval) >= u32(tsecr - request.first_tsval)


def keeps_request(request: Request, segment: Segment) -> bool:
    """Whether the segment acknowledges something never sent: the listener resets it, and the request stays."""
    return segment.flags & ACK != 0 and segment.ack != u32(request.snt_isn + 1)


def stores(rules: Rules, receiver: Receiver, segment: Segment, now_s: int) -> bool:
    """Whether the timestamp of an accepted segment becomes the peer's last one: `tcp_replace_ts_recent()`."""
    if not (receiver.has_ts and segment.has_ts) or after(segment.seq, receiver.rcv_wup):
        return False
    return passes(rules, receiver.ts, receiver.stamp, segment.tsval, 0, now_s)


def is_fin_in_place(receiver: Receiver, segment: Segment) -> bool:
    """Whether the peer's FIN comes next, with or without data in front of it."""
    return segment.flags & FIN != 0 and not after(segment.seq, receiver.rcv_nxt)
