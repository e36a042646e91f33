"""Everything counted, as Prometheus reads it: one table of names, and the exposition of prometheus-client."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import msgspec
from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import choose_encoder

from timewait.balancer.rotation import IN_TRAFFIC
from timewait.balancer.statistics import Closes, ListenerStatistics, TargetStatistics
from timewait.balancer.views import Stats

PREFIX = "timewait_balancer"
GAUGES = frozenset({"active", "idle", "resting"})
_LISTENER, _TARGET = ("listener",), ("pool", "target")

# Fields that become one metric with a label for what they tell apart; all other numbers are metrics by their names.
_TURNED_AWAY = {"over_max_conn": "max_conn", "over_max_cps": "max_cps"}
_FAILURES = ("refused", "timed_out", "no_port", "failed")

MEANINGS = {
    "accepted": "connections of clients accepted",
    "active": "connections open (listener), or in use toward a target",
    "idle": "connections kept and waiting for a request",
    "resting": "connections that are over and whose source ports conntrack still holds (engine nftables, full NAT)",
    "requests": "requests, or streams at layer 4",
    "reused": "requests that were not the first on their connection",
    "retried": "requests sent again to another target or on another connection",
    "bytes_in": "bytes of bodies or streams that came in",
    "bytes_out": "bytes of bodies or streams that went out",
    "tls_handshakes": "TLS handshakes completed",
    "tls_failed": "TLS handshakes that failed",
    "connects": "connections to a target begun",
    "connected": "connections to a target established",
}


def exposition(stats: Stats, accept: str = "") -> tuple[bytes, str]:
    """The text and its content type, in the format that the client's Accept header asks for."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Collected(stats))
    encode, content_type = choose_encoder(accept)
    return encode(registry), content_type


class _Collected:
    """A collector of prometheus-client over one reading."""

    def __init__(self, stats: Stats) -> None:
        self._stats = stats

    def collect(self) -> Iterator[Metric]:
        stats = self._stats
        listeners = [((name,), one) for name, one in stats.listeners.items()]
        targets = [((one.pool, one.address), one) for one in stats.targets.values()]
        yield from _plain("listener", _LISTENER, ListenerStatistics, listeners)
        yield from _split("listener", _LISTENER, listeners)
        yield from _plain("target", _TARGET, TargetStatistics, targets)
        yield from _split("target", _TARGET, targets)
        yield from _health(stats)
        yield from _kernel(stats)
        meaning = "lines of the access log that could not be written"
        yield _counter("access_log_lost_lines", meaning, (), [((), stats.log_lost)])
        yield _gauge("uptime_seconds", "since the balancer started", (), [((), stats.uptime)])


Row = tuple[tuple[str, ...], Any]


def _plain(kind: str, labels: tuple[str, ...], of: type[msgspec.Struct], rows: Sequence[Row]) -> Iterator[Metric]:
    """A metric for every field that is one number."""
    apart = {*_TURNED_AWAY, *_FAILURES}
    for field in msgspec.structs.fields(of):
        if field.type is int and field.name not in apart:
            make = _gauge if field.name in GAUGES else _counter
            values = [(names, getattr(one, field.name)) for names, one in rows]
            yield make(f"{kind}_{field.name}", MEANINGS[field.name], labels, values)


def _split(kind: str, labels: tuple[str, ...], rows: Sequence[Row]) -> Iterator[Metric]:
    """Metrics with a label more: by status, by who closed, by what went wrong."""
    responses, closes, troubles = [], [], []
    for names, one in rows:
        closes += [((*names, field), getattr(one.closes, field)) for field in Closes.__struct_fields__]
        if isinstance(one, ListenerStatistics):
            for by, codes in (("balancer", one.made_by_balancer), ("target", one.made_by_target)):
                responses += [((*names, by, str(code)), count) for code, count in sorted(codes.items())]
            troubles += [((*names, reason), count) for reason, count in sorted(one.refused.items())]
            troubles += [((*names, limit), getattr(one, field)) for field, limit in _TURNED_AWAY.items()]
        else:
            responses += [((*names, str(code)), count) for code, count in sorted(one.statuses.items())]
            troubles += [((*names, field), getattr(one, field)) for field in _FAILURES]
    if kind == "listener":
        yield _counter("listener_responses", "answers by who made them", (*labels, "made_by", "code"), responses)
        yield _counter("listener_refused", "requests and connections turned away", (*labels, "reason"), troubles)
    else:
        yield _counter("target_responses", "answers of a target by status", (*labels, "code"), responses)
        yield _counter(
            "target_failures",
            "connections and requests that failed; no_port: EADDRNOTAVAIL",
            (*labels, "kind"),
            troubles,
        )
    meaning = "connections by who ended them first; timeout: of these, ended by one"
    yield _counter(f"{kind}_closes", meaning, (*labels, "by"), closes)


def _health(stats: Stats) -> Iterator[Metric]:
    rows = [((one.pool, one.address), one) for one in stats.health]
    up = [(names, int(one.state in IN_TRAFFIC)) for names, one in rows]
    yield _gauge("target_healthy", "1: healthy, or not checked; 0: unhealthy, or not known yet", _TARGET, up)
    yield _gauge("target_weight", "as wished", _TARGET, [(names, one.weight) for names, one in rows])
    yield _gauge(
        "target_effective_weight",
        "what counts now: 0 out of traffic",
        _TARGET,
        [(n, one.effective) for n, one in rows],
    )
    checks = [
        ((*names, result), getattr(one, result)) for names, one in rows for result in ("passed", "failed", "void")
    ]
    yield _counter("target_checks", "health checks; void: could not be made here", (*_TARGET, "result"), checks)


def _kernel(stats: Stats) -> Iterator[Metric]:
    kernel = stats.kernel
    time_wait = [((name,), count) for name, count in kernel.time_wait.items()]
    yield _gauge("listener_time_wait", "sockets in TIME_WAIT on a listener's ports", _LISTENER, time_wait)
    ports = [
        ((address, state), getattr(use, state))
        for address, use in kernel.ports.items()
        for state in ("in_use", "time_wait", "free")
    ]
    yield _gauge("ports", "source ports toward a target's address, by what they are", ("address", "state"), ports)
    left = [((address,), seconds) for address, seconds in kernel.seconds_left.items()]
    meaning = "until no source port is free at the present pace; absent: no wall in sight"
    yield _gauge("ports_seconds_left", meaning, ("address",), left)


def _counter(
    name: str, meaning: str, labels: tuple[str, ...], rows: Sequence[tuple[tuple[str, ...], float]]
) -> Metric:
    family = CounterMetricFamily(f"{PREFIX}_{name}", meaning, labels=labels)
    for values, value in rows:
        family.add_metric(values, value)
    return family


def _gauge(name: str, meaning: str, labels: tuple[str, ...], rows: Sequence[tuple[tuple[str, ...], float]]) -> Metric:
    family = GaugeMetricFamily(f"{PREFIX}_{name}", meaning, labels=labels)
    for values, value in rows:
        family.add_metric(values, value)
    return family
