"""PAWS: is a timestamp older than the last one of the connection? RFC 7323 section 5, as Linux has it.

`tcp_paws_check()` and `tcp_paws_reject()`, include/net/tcp.h.
"""

from __future__ import annotations

from timewait.tcp.profiles import Rules
from timewait.tcp.segment import older

TCP_PAWS_MSL = 60  # s, include/net/tcp.h
TCP_PAWS_WINDOW = 1  # ticks an open connection lets a timestamp lie behind; include/net/tcp.h


def passes(rules: Rules, ts: int, stamp: int, tsval: int, window: int, now_s: int) -> bool:
    """Whether `tsval` lies at most `window` ticks behind `ts`, the peer's last timestamp, stored in second `stamp`.

    It also passes once the stored one is so old that it may have wrapped, and, but for 2.6.32, when that is 0.
    """
    if not older(ts, tsval, window) or now_s >= stamp + rules.paws_wrap_s:
        return True
    return rules.zero_ts_passes and ts == 0


def rejects(rules: Rules, ts: int, stamp: int, tsval: int, rst: bool, now_s: int) -> bool:
    """Whether a segment is rejected without a tick of grace, as at a TIME_WAIT; a RST never once 60 s have passed."""
    if passes(rules, ts, stamp, tsval, 0, now_s):
        return False
    return not (rst and now_s >= stamp + TCP_PAWS_MSL)
