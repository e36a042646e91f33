"""The two queues of a listener: connections that are open and wait for accept(), and SYNs that wait for their ACK.

`backlog` is what listen() was given, cut to net.core.somaxconn (4096, 128 up to 5.3).
"""

from __future__ import annotations

from timewait.tcp.profiles import AT_BACKLOG, POWER_OF_TWO, Rules

_FEWEST = 8  # requests, `reqsk_queue_alloc()`


def accept_queue_is_full(waiting: int, backlog: int) -> bool:
    """Whether no further connection may wait for accept(): one more than the backlog do; `sk_acceptq_is_full()`."""
    return waiting > backlog


def syn_queue_is_full(rules: Rules, requests: int, backlog: int, max_syn_backlog: int) -> bool:
    """Whether a SYN finds the queue full, so that it is dropped or answered by a cookie.

    `inet_csk_reqsk_queue_is_full()`: since 4.3 the backlog is the limit, and tcp_max_syn_backlog is asked elsewhere
    (the last quarter without cookies). Before it was a power of two above the lesser of both. With backlog 0
    kernels that compare by "at least" answer every SYN by a cookie.
    """
    if rules.syn_queue == POWER_OF_TWO:
        limit = 1
        while limit < max(_FEWEST, min(backlog, max_syn_backlog)) + 1:
            limit *= 2
        return requests >= limit
    return requests >= backlog if rules.syn_queue == AT_BACKLOG else requests > backlog
