"""What moved between two looks at a balancer, a second: pure, of two records of its API."""

from __future__ import annotations

import msgspec

from timewait.balancer.statistics import Closes, ListenerStatistics, TargetStatistics
from timewait.balancer.views import Stats


class Rates(msgspec.Struct, kw_only=True):
    """A second, of one listener or target."""

    connections: float = 0.0
    requests: float = 0.0
    failed: float = 0.0  # answers the balancer made of 500 and more; or whatever went wrong toward a target
    balancer_first: float = 0.0  # connections ended by FIN from here: each leaves TIME_WAIT here
    reset: float = 0.0  # ended by RST from here
    peer_first: float = 0.0
    statuses: dict[str, float] = {}  # by class: "2xx"; of a listener, made by anybody


def rates(before: Stats | None, after: Stats) -> dict[str, Rates]:
    """By `listener NAME` and `target POOL/ADDRESS`. Without an earlier look, since the start of the balancer."""
    seconds = after.at - before.at if before else after.uptime
    found: dict[str, Rates] = {}
    for name, one in after.listeners.items():
        known = before.listeners.get(name) if before else None
        found[f"listener {name}"] = _listener(known or ListenerStatistics(name=name), one, seconds)
    for name, target in after.targets.items():
        was = before.targets.get(name) if before else None
        found[f"target {name}"] = _target(
            was or TargetStatistics(pool=target.pool, address=target.address), target, seconds
        )
    return found


def _per_second(before: int, after: int, seconds: float) -> float:
    return max(0, after - before) / seconds if seconds > 0 else 0.0


def _listener(before: ListenerStatistics, after: ListenerStatistics, seconds: float) -> Rates:
    found = _ends(before.closes, after.closes, seconds)
    found.connections = _per_second(before.accepted, after.accepted, seconds)
    found.requests = _per_second(before.requests, after.requests, seconds)
    found.failed = _per_second(_failed(before), _failed(after), seconds)
    found.statuses = _statuses(_all_of(before), _all_of(after), seconds)
    return found


def _failed(one: ListenerStatistics) -> int:
    return sum(number for code, number in one.made_by_balancer.items() if code >= 500)


def _all_of(one: ListenerStatistics) -> dict[int, int]:
    codes = one.made_by_balancer.keys() | one.made_by_target.keys()
    return {code: one.made_by_balancer.get(code, 0) + one.made_by_target.get(code, 0) for code in codes}


def _target(before: TargetStatistics, after: TargetStatistics, seconds: float) -> Rates:
    found = _ends(before.closes, after.closes, seconds)
    found.connections = _per_second(before.connects, after.connects, seconds)
    found.requests = _per_second(before.requests, after.requests, seconds)
    found.failed = _per_second(_troubles(before), _troubles(after), seconds)
    found.statuses = _statuses(before.statuses, after.statuses, seconds)
    return found


def _troubles(one: TargetStatistics) -> int:
    return one.refused + one.timed_out + one.no_port + one.failed


def _ends(before: Closes, after: Closes, seconds: float) -> Rates:
    return Rates(
        balancer_first=_per_second(before.balancer_fin, after.balancer_fin, seconds),
        reset=_per_second(before.balancer_rst, after.balancer_rst, seconds),
        peer_first=_per_second(before.peer_fin + before.peer_rst, after.peer_fin + after.peer_rst, seconds),
    )


def _statuses(before: dict[int, int], after: dict[int, int], seconds: float) -> dict[str, float]:
    found: dict[str, float] = {}
    for code, count in sorted(after.items()):
        moved = _per_second(before.get(code, 0), count, seconds)
        if moved:
            kind = f"{code // 100}xx"
            found[kind] = found.get(kind, 0.0) + moved
    return found
