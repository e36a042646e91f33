"""Source ports toward one destination: how many there are, how fast they may be used, when they run out.

A connection is a five-tuple. With source address, destination address and destination port given, only the source
port is left to differ, so a host can have one connection per port of `ip_local_port_range` and source address, and a
port whose connection we ended first is taken for another 60 s (TCP_TIMEWAIT_LEN, include/net/tcp.h, every version;
no sysctl changes it).
"""

from __future__ import annotations

import math

from timewait.tcp.profiles import KERNELS
from timewait.tcp.release import Release
from timewait.tcp.reuse import is_in_force
from timewait.tcp.timewait import TCP_TIMEWAIT_LEN

_PRESENT = KERNELS[-1]

TIME_WAIT_SECONDS = TCP_TIMEWAIT_LEN / 1000
REUSE_DELAY_MS = _PRESENT.defaults.tcp_tw_reuse_delay  # 6.14+; before, one tick of a clock of whole seconds
DEFAULT_LOW, DEFAULT_HIGH = _PRESENT.defaults.ip_local_port_range
NAT_PORTS = 1024, 65535  # nf_nat_l4proto_unique_tuple: a source port above 1023 stays above it
CONNTRACK_TIME_WAIT_SECONDS = 120.0  # tcp_timeouts[TCP_CONNTRACK_TIME_WAIT], nf_conntrack_proto_tcp.c
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


def conntrack_rest(release: Release, time_wait_seconds: float = CONNTRACK_TIME_WAIT_SECONDS) -> float:
    """Seconds for which full NAT cannot give the source port of a TCP connection that is over to another one.

    `time_wait_seconds`: nf_conntrack_tcp_timeout_time_wait. Since 6.5 nf_nat_used_tuple_harder() evicts an entry in
    TIME_WAIT or CLOSE in the last of its attempts, if the new SYN's sequence number is after the old one's: for that
    it looks at 32 ports and more, of unrelated hosts each is half as likely, so it as good as always finds one.
    """
    return 0.0 if release >= (6, 5, 0) else time_wait_seconds


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
    return delay_ms / 1000 if is_in_force(_PRESENT.rules, tw_reuse, loopback) else TIME_WAIT_SECONDS
