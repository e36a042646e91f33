"""When a SYN that gets no answer is sent again, and how to recognise it in connect times.

A connect that succeeds on the k-th retransmission takes as long as the sum of the first k timeouts, plus one round
trip. Those sums are few and far apart, so clusters of connect times betray lost SYNs (or lost answers to them)
without a packet capture: 1, 3, 7 s with doubling timeouts; 1, 2, 3, 4, 5 s and then 7, 11 s since the first timeouts
stay at 1 s (tcp_syn_linear_timeouts, 4 by default, 6.5+).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import NamedTuple

from timewait.tcp.kernels import Kernel
from timewait.tcp.profiles import Rules

TCP_RTO_MAX = 120.0  # s
JIFFIES_2 = 2  # TCP_TIMEOUT_MIN, the fast second SYN of 5.6+
EARLY, LATE = 0.1, 0.45  # how far from the sum a connect time still belongs to it: clock ticks, and the round trip


class Schedule(NamedTuple):
    """`sends`: seconds after connect() at which a SYN leaves, 0.0 first; `gives_up`: when connect() fails with
    ETIMEDOUT; `linear`: whether the first timeouts do not double."""

    sends: tuple[float, ...]
    gives_up: float
    linear: bool


def schedule(kernel: Kernel, *, retries: int | None = None, linear: int | None = None) -> Schedule:
    """The schedule of a kernel; `retries` and `linear` are tcp_syn_retries and tcp_syn_linear_timeouts where known.

    First timeout 3 s in 2.6.32, 1 s since 3.1 (RFC 6298) and in late el6; `tcp_retransmit_timer()`.
    """
    retries = kernel.defaults.tcp_syn_retries if retries is None else retries
    linear = kernel.defaults.tcp_syn_linear_timeouts if linear is None else linear
    first = kernel.rules.syn_rto_ms / 1000
    retries, linear = min(max(0, retries), 255), min(max(0, linear), 255)
    waits = [first] * linear + [min(TCP_RTO_MAX, first * 2.0 ** min(step, 10)) for step in range(retries + 1)]
    *sends, gives_up = accumulate(waits)
    return Schedule((0.0, *sends), gives_up, linear > 0)


class Fingerprint(NamedTuple):
    """Slow connects sorted by the retransmission that was answered."""

    clusters: tuple[tuple[float, int], ...]  # (seconds of the schedule, connects there), empty ones left out
    matched: int
    slow: int  # all connects at or past the first retransmission

    @property
    def share(self) -> float:
        return self.matched / self.slow if self.slow else 0.0


def fingerprint(between: Callable[[float, float], int], plan: Schedule) -> Fingerprint:
    """`between(low, high)` counts connects in [low, high) seconds, as histogram.Histogram.between does."""
    resends = plan.sends[1:]
    if not resends:
        return Fingerprint((), 0, 0)
    counts = [(at, between(at - EARLY, at + LATE)) for at in resends]
    slow = between(resends[0] - EARLY, 3600.0)
    return Fingerprint(tuple((at, n) for at, n in counts if n), sum(n for _, n in counts), slow)


def shape(clusters: Sequence[tuple[float, int]]) -> str:
    """ "linear", "exponential", or "" where one cluster alone cannot tell them apart.

    A cluster at 2, 4 or 5 s exists only with linear timeouts; one at 3 or 7 s and none at 2 s speaks for doubling.
    """
    at = {round(seconds) for seconds, count in clusters if count}
    if at & {2, 4, 5}:
        return "linear"
    return "exponential" if at & {3, 7, 15} else ""


def seconds_until_connected(rules: Rules, round_trip: float, hz: int = 250) -> float:
    """How long connect() takes when its first SYN meets a TIME_WAIT that answers with a bare ACK, unfiltered.

    We answer that ACK with a RST, which ends the TIME_WAIT (rfc1337=0), and the next SYN succeeds: after two jiffies
    since 5.6 (`tcp_rcv_synsent_state_process()`), after the first timeout before.
    """
    if rules.fast_syn_resend:
        return 2 * round_trip + JIFFIES_2 / hz
    return rules.syn_rto_ms / 1000 + round_trip
