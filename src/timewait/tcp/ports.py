"""Source ports toward one destination: how many there are, how fast they may be used, when they run out.

A connection is a five-tuple. With source address, destination address and destination port given, only the source
port is left to differ, so a host can have one connection per port of `ip_local_port_range` and source address, and a
port whose connection we ended first is taken for another 60 s (TCP_TIMEWAIT_LEN, include/net/tcp.h, every version;
no sysctl changes it).
"""

from __future__ import annotations

import math
from typing import NamedTuple

from timewait.tcp.release import Release

TIME_WAIT_SECONDS = 60.0  # TCP_TIMEWAIT_LEN
REUSE_DELAY_MS = (
    1000  # default of tcp_tw_reuse_delay (6.14+); before, the rule was one tick of a clock of whole seconds
)
DEFAULT_LOW, DEFAULT_HIGH = 32768, 60999  # ip_local_port_range of el6-642, el7 and 4.9+; 61000 in vanilla <= 4.1
EXHAUSTED = ("EADDRNOTAVAIL", "EADDRINUSE")
"""Both are the same event. connect() that finds no port fails with EADDRNOTAVAIL (`__inet_hash_connect`); bind() to
port 0 that finds none fails with EADDRINUSE (`inet_csk_get_port`)."""


def capacity(low: int, high: int, reserved: int, sources: int) -> int:
    """Connections this host can have toward one destination address and port.

    `low`..`high` inclusive, `reserved` of ip_local_reserved_ports inside it, `sources` local addresses (0 counts as
    the one the routing table chooses).
    """
    return max(0, high - low + 1 - reserved) * max(1, sources)


def sustainable(ports: int, time_wait_seconds: float = TIME_WAIT_SECONDS) -> float:
    """New connections a second that `ports` carry for ever when each rests `time_wait_seconds` after use."""
    return ports / time_wait_seconds if time_wait_seconds > 0 else math.inf


def seconds_to_wall(
    free: int, rate: float, capacity: int, time_wait_seconds: float = TIME_WAIT_SECONDS
) -> float | None:
    """Seconds until no port is left at `rate` new connections a second; None when that never happens.

    Nothing comes back before `time_wait_seconds` have passed, so the first stretch is plain division; a load whose
    need for one whole period fits into `capacity` never meets the wall. TIME_WAIT left from before the run, which
    would come back earlier, is taken as staying: the figure is never too late.
    """
    if rate <= 0 or rate * time_wait_seconds <= capacity:
        return None
    return max(0, free) / rate


def sources_needed(rate: float, ports_per_source: int, time_wait_seconds: float = TIME_WAIT_SECONDS) -> int:
    """Source addresses with which `rate` new connections a second never run out; 0 when no number is enough."""
    if ports_per_source <= 0:
        return 0
    return max(1, math.ceil(rate * time_wait_seconds / ports_per_source))


def reuse_in_force(tw_reuse: int, loopback: bool) -> bool:
    """Whether sysctl tcp_tw_reuse applies: 1 everywhere, 2 (default since 4.19) only to 127.0.0.0/8 and ::1.

    `tcp_twsk_unique()`, net/ipv4/tcp_ipv4.c. A host talking to its own 10.x address is not loopback.
    """
    return tw_reuse == 1 or (tw_reuse == 2 and loopback)


class TimeWait(NamedTuple):
    """A connection of ours in TIME_WAIT, as far as taking it over asks."""

    stamp: int  # tw_ts_recent_stamp: second in which the peer's timestamp was last stored; 0: no timestamps
    entered_ms: int = 0  # when it became TIME_WAIT, ms
    loopback: bool = False
    fin_wait2: bool = False  # substate: we have sent our FIN, the peer has not


def allows_reuse(
    release: Release,
    tw: TimeWait,
    *,
    now_ms: int,
    tw_reuse: int,
    bound: bool = False,
    delay_ms: int = REUSE_DELAY_MS,
) -> bool:
    """May connect() take over this TIME_WAIT of the very same five-tuple? `tcp_twsk_unique()`.

    Without timestamps never. A port bound before connect() (twp == NULL): at once, whatever tcp_tw_reuse says. An
    automatic port: only with tcp_tw_reuse, and old enough, where the rule changed twice: whole seconds more than 1
    apart (to 4.18), at least 1 apart (4.19 to 6.13), strictly more than tcp_tw_reuse_delay ms (6.14+). The substate
    FIN_WAIT2 rules it out since 6.12 (and in late stable releases of 5.4 and 5.15, which count as older here).
    """
    if tw.stamp == 0:
        return False
    if bound:
        return True
    if release < (4, 19, 0):
        return tw_reuse != 0 and now_ms // 1000 - tw.stamp > 1
    if not reuse_in_force(tw_reuse, tw.loopback) or (tw.fin_wait2 and release >= (6, 12, 0)):
        return False
    if release < (6, 14, 0):
        return now_ms // 1000 - tw.stamp >= 1
    return now_ms - tw.entered_ms > delay_ms


def rest(
    *,
    tw_reuse: int,
    loopback: bool,
    timestamps: bool,
    bound: bool = False,
    delay_ms: int = REUSE_DELAY_MS,
) -> float:
    """Seconds a port must rest after a connection we ended first, on a present kernel: 60, about 1, or 0."""
    if not timestamps:
        return TIME_WAIT_SECONDS
    if bound:
        return 0.0
    return delay_ms / 1000 if reuse_in_force(tw_reuse, loopback) else TIME_WAIT_SECONDS
