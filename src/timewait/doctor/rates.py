"""The highest rate of new connections that each way of closing sustains, by this host's ports and open files.

Two bounds. A port rests after use: the full 60 s of TIME_WAIT when we closed first, not at all when the peer did or
RST ended it (`tcp.ports.rest`). And a port and a file are taken while a connection lives, so the connections open at
once bound the rate whatever the closing: rate x lifetime = connections at once. What the target, the network and the
CPU can do is not in these figures.
"""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from timewait.diagnose.facts import sysctl
from timewait.diagnose.words import rate, seconds
from timewait.run import Host, PortUse
from timewait.stress.probe import Behaviour, How
from timewait.tcp import ports

FILES_KEPT = 32  # a process has these open beside its connections: standard streams, epoll, pipes, imported libraries
PORTS, FILES, TIME_WAIT = "source ports", "open files", "TIME_WAIT on this host"


class Sustainable(msgspec.Struct, frozen=True):
    """One way to close, and what it allows for ever."""

    flags: str  # of `timewait stress`
    closes_first: str  # "us", "peer", "nobody": who ends the connection, so who holds TIME_WAIT
    per_second: float | None  # new connections a second; None: depends on how long one lives, which is not known
    limit: str  # what stops it there
    note: str  # what it takes, and what happens beyond


@dataclass(frozen=True)
class _Bounds:
    """What one destination allows, whatever the closing."""

    capacity: int
    at_once: int
    limit: str  # of at_once
    lifetime: float | None  # seconds a connection is open

    def row(self, flags: str, closes_first: str, rest: float, note: str) -> Sustainable:
        """The stricter of the two bounds; `rest`: seconds a port is away after its connection."""
        alive = self.at_once / max(self.lifetime, 1e-6) if self.lifetime is not None else None
        if rest:
            resting = ports.sustainable(self.capacity, rest + (self.lifetime or 0.0))
            if alive is None or resting < alive:
                return Sustainable(flags, closes_first, resting, TIME_WAIT, note)
        return Sustainable(flags, closes_first, alive, self.limit, note)


def sustainable(host: Host, use: PortUse, seen: Behaviour | None) -> list[Sustainable]:
    """One row per closing toward one destination. `seen` None: no target was asked, timestamps are taken as usual."""
    at_once = max(0, min(use.capacity, host.nofile_hard - FILES_KEPT))
    bounds = _Bounds(
        use.capacity, at_once, FILES if at_once < use.capacity else PORTS, seen.lifetime if seen else None
    )
    by_kernel, by_us = rests(host, timestamps=seen.timestamps is not False if seen else True)
    return [
        bounds.row("--close client", "us", by_kernel, _wall(host, use, by_kernel)),
        bounds.row("--close client --ports oldest", "us", by_us, _own_ports(by_us)),
        _server(bounds, seen, by_kernel),
        bounds.row("--close reset", "nobody", 0.0, "RST ends the connection on both sides: no TIME_WAIT anywhere"),
    ]


def at_once(host: Host, use: PortUse) -> int:
    """Connections one process of this host can hold open toward the destination."""
    return max(0, min(use.capacity, host.nofile_hard - FILES_KEPT))


def rests(host: Host, *, timestamps: bool) -> tuple[float, float]:
    """Seconds a port rests after we closed first: when the kernel chooses ports, and when we bind them ourselves."""
    delay = sysctl(host, "net.ipv4.tcp_tw_reuse_delay")
    kernel, bound = (
        ports.rest(
            tw_reuse=sysctl(host, "net.ipv4.tcp_tw_reuse") or 0,
            loopback=host.loopback,
            timestamps=timestamps and sysctl(host, "net.ipv4.tcp_timestamps") != 0,
            bound=bound,
            delay_ms=ports.REUSE_DELAY_MS if delay is None else delay,
        )
        for bound in (False, True)
    )
    return kernel, bound


def _server(bounds: _Bounds, seen: Behaviour | None, rest: float) -> Sustainable:
    flags = "--close server"
    if seen is not None and seen.on_close is not None:
        if seen.on_close.how is How.OPEN:
            return bounds.row(flags, "us", rest, "the target ignores `Connection: close`: the end is left to us")
        return bounds.row(flags, "peer", 0.0, "the target holds the TIME_WAIT: 60 s times the rate of them")
    return bounds.row(flags, "peer", 0.0, "if the target ends its connections; it holds the TIME_WAIT then")


def _wall(host: Host, use: PortUse, rest: float) -> str:
    edge = ports.sustainable(use.capacity)
    if rest < ports.TIME_WAIT_SECONDS:
        why = f"tcp_tw_reuse brings a port back after {seconds(rest)}"
        narrow = host.loopback and sysctl(host, "net.ipv4.tcp_tw_reuse") == 2
        return f"{why}; that is for loopback only, toward any other host it is {rate(edge)}" if narrow else why
    wall = ports.seconds_to_wall(use.free, 2 * edge, use.capacity)
    end = f"at {rate(2 * edge)} connect() fails with EADDRNOTAVAIL after {seconds(wall or 0.0)}"
    return f"{end}; from {rate(edge / 2)} on, with half the ports taken, the kernel's search for one gets slow"


def _own_ports(rest: float) -> str:
    if rest:
        return "without timestamps a port in TIME_WAIT cannot be taken over"
    return "bound ports take over this host's TIME_WAIT, thanks to timestamps"
