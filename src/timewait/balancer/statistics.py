"""What is counted, by listener and by target. Counters only grow and add up over workers; gauges are as of now."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

import msgspec


class Closes(msgspec.Struct, kw_only=True):
    """How clients' (or targets') connections ended, by who spoke first. It decides where TIME_WAIT stands."""

    balancer_fin: int = 0  # TIME_WAIT here; toward a target it keeps a source port for 60 s
    balancer_rst: int = 0  # none anywhere
    peer_fin: int = 0  # TIME_WAIT at the other end
    peer_rst: int = 0
    timeout: int = 0  # of the above, ended by one of our timeouts


class ListenerStatistics(msgspec.Struct, kw_only=True):
    """One listener's clients."""

    name: str
    accepted: int = 0
    active: int = 0  # gauge: open connections
    idle: int = 0  # gauge: of these, kept and waiting for a request
    over_max_conn: int = 0  # turned away
    over_max_cps: int = 0
    requests: int = 0
    reused: int = 0  # requests that were not the first on their client's connection
    refused: dict[str, int] = {}  # requests answered 4xx for what they are, by reason ("duplicate-content-length")
    made_by_balancer: dict[int, int] = {}  # answers by status: 400, 404, 408, 413, 431, 499, 502, 503, 504
    made_by_target: dict[int, int] = {}
    retried: int = 0
    bytes_in: int = 0  # of bodies or streams, from clients
    bytes_out: int = 0
    tls_handshakes: int = 0
    tls_failed: int = 0
    closes: Closes = msgspec.field(default_factory=Closes)


class TargetStatistics(msgspec.Struct, kw_only=True):
    """One target of one pool."""

    pool: str
    address: str
    connects: int = 0
    connected: int = 0
    active: int = 0  # gauge: connections in use
    idle: int = 0  # gauge: kept in the pool
    resting: int = 0  # gauge: over, and their source ports not free yet: conntrack's, at full NAT
    requests: int = 0  # or streams at layer 4
    reused: int = 0  # requests on a connection that had carried one before
    refused: int = 0  # ECONNREFUSED
    timed_out: int = 0  # connect or read
    no_port: int = 0  # EADDRNOTAVAIL: the balancer's own wall
    failed: int = 0  # every other failure
    statuses: dict[int, int] = {}
    bytes_in: int = 0  # from the target
    bytes_out: int = 0
    closes: Closes = msgspec.field(default_factory=Closes)


class Statistics(msgspec.Struct, kw_only=True):
    """What an engine counted. What it cannot know stays 0 and is named in `unknown` ("requests")."""

    listeners: dict[str, ListenerStatistics] = {}
    targets: dict[str, TargetStatistics] = {}  # by "POOL/ADDRESS"
    unknown: tuple[str, ...] = ()
    log_lost: int = 0  # lines of the access log that could not be written


def ended(statistics: Statistics) -> Statistics:
    """Of a process that has ended: what it counted, and nothing that is open."""
    listeners = {name: msgspec.structs.replace(one, active=0, idle=0) for name, one in statistics.listeners.items()}
    targets = {
        key: msgspec.structs.replace(one, active=0, idle=0, resting=0) for key, one in statistics.targets.items()
    }
    return msgspec.structs.replace(statistics, listeners=listeners, targets=targets)


_Counts = TypeVar("_Counts", bound=msgspec.Struct)


def summed(parts: Iterable[Statistics]) -> Statistics:
    """Of workers, or of engines: everything that has the same name added up. The parts stay as they are."""
    whole = Statistics()
    for part in parts:
        _add_by_name(whole.listeners, part.listeners)
        _add_by_name(whole.targets, part.targets)
        whole.unknown = tuple(dict.fromkeys(whole.unknown + part.unknown))
        whole.log_lost += part.log_lost
    return whole


def _add_by_name(whole: dict[str, _Counts], part: dict[str, _Counts]) -> None:
    for name, counts in part.items():
        whole[name] = added(whole[name], counts) if name in whole else counts


def added(one: _Counts, other: _Counts) -> _Counts:
    """Two records of one kind, number by number; what is text is taken from the first."""
    values = {}
    for name, value in msgspec.structs.asdict(one).items():
        more = getattr(other, name)
        if isinstance(value, int):
            values[name] = value + more
        elif isinstance(value, dict):
            values[name] = {key: value.get(key, 0) + more.get(key, 0) for key in value | more}
        elif isinstance(value, msgspec.Struct):
            values[name] = added(value, more)
    return msgspec.structs.replace(one, **values)
