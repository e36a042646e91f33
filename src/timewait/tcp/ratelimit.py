"""How often an unwanted segment is answered: two ends that answer each other's ACKs would never stop.

`tcp_oow_rate_limited()`, net/ipv4/tcp_input.c; sysctl tcp_invalid_ratelimit, el7 and 4.0 on.
"""

from __future__ import annotations

from timewait.tcp.knobs import Knobs
from timewait.tcp.profiles import Rules
from timewait.tcp.segment import SYN, Segment, end_seq


def concerns(rules: Rules, segment: Segment) -> bool:
    """Whether the answer to this segment counts: to a SYN or an empty one. Data is answered always."""
    return rules.limits_acks and (segment.flags & SYN != 0 or end_seq(segment) == segment.seq)


def is_held_back(knobs: Knobs, last_ack_ms: int, now_ms: int) -> bool:
    """Whether the last answer that counts (0: none yet) left so lately that this one does not."""
    return last_ack_ms != 0 and 0 <= now_ms - last_ack_ms < knobs.tcp_invalid_ratelimit
