"""How the source ports toward one destination are used: a part of a run's record, and of what a balancer tells.

By itself, because a balancer has no run, and starts without what reading one needs.
"""

from __future__ import annotations

import msgspec


class PortUse(msgspec.Struct, kw_only=True):
    """Source ports toward one destination address and port, all our sources together."""

    destination: str  # "10.0.0.1:80", "[::1]:80"
    capacity: int = 0  # (range - reserved) x sources
    in_use: int = 0  # sockets in any state but TIME_WAIT
    time_wait: int = 0  # TIME_WAIT this host holds toward it
    free: int = 0
    peer_time_wait: int | None = None  # TIME_WAIT held by the other end, where it lives in this namespace
