"""The sysctls the rules depend on, under the kernel's names, and in which kernels each exists."""

from __future__ import annotations

from typing import NamedTuple


class Knobs(NamedTuple):
    """Values of sysctls, all integers. A knob the kernel does not have stands at the value that leaves it out."""

    tcp_timestamps: int = 1  # 2 (documented 4.19+): timestamps without a random offset
    tcp_tw_recycle: int = 0
    tcp_tw_reuse: int = 0  # 2 (4.19+): for loopback only
    tcp_tw_reuse_delay: int = 1000  # ms
    tcp_rfc1337: int = 0
    tcp_fin_timeout: int = 60  # s
    tcp_max_tw_buckets: int = 131072  # half the established hash: by memory; this is the value of a host with 24 GB
    tcp_syn_retries: int = 6
    tcp_syn_linear_timeouts: int = 0
    tcp_invalid_ratelimit: int = 500  # ms
    tcp_syncookies: int = 1  # 2: always
    inet_peer_threshold: int = 65664
    inet_peer_minttl: int = 120  # s
    inet_peer_maxttl: int = 600  # s
    ip_local_port_range: tuple[int, int] = (32768, 60999)  # both included


class Span(NamedTuple):
    """Where a knob exists and what it may be."""

    low: int
    high: int
    since: tuple[int, int] = (0, 0)  # the first mainline release that has it
    until: tuple[int, int] = (99, 0)  # the first that has it no longer
    also: tuple[str, ...] = ()  # rows of distributions that took it over earlier


INT_MAX = 2**31 - 1

SPANS: dict[str, Span] = {
    "tcp_timestamps": Span(0, 2),
    "tcp_tw_recycle": Span(0, 1, until=(4, 12)),
    "tcp_tw_reuse": Span(0, 2),
    "tcp_tw_reuse_delay": Span(1, INT_MAX, since=(6, 14)),
    "tcp_rfc1337": Span(0, 1),
    "tcp_fin_timeout": Span(0, INT_MAX // 1000),
    "tcp_max_tw_buckets": Span(0, INT_MAX),
    "tcp_syn_retries": Span(0, 255),
    "tcp_syn_linear_timeouts": Span(0, 255, since=(6, 5)),
    "tcp_invalid_ratelimit": Span(0, INT_MAX, since=(4, 0), also=("el7",)),
    "tcp_syncookies": Span(0, 2),
    "inet_peer_threshold": Span(0, INT_MAX, until=(3, 6)),
    "inet_peer_minttl": Span(0, INT_MAX // 1000, until=(3, 6)),
    "inet_peer_maxttl": Span(0, INT_MAX // 1000, until=(3, 6)),
    "ip_local_port_range": Span(1, 65535),
}
"""inet_peer_* exist in later kernels too, but the record of tcp_tw_recycle left the inet_peer tree with 3.6."""
