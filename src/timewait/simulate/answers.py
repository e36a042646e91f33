"""What may answer a question: the figures of a simulation, each with its name for people and its sentence."""

from __future__ import annotations

from typing import NamedTuple

from timewait.histogram import quantiles
from timewait.simulate.outcome import Column, Outcome

SHARE, SECONDS, COUNT = "share", "seconds", "count"


class Figure(NamedTuple):
    """`sentence` has one place for the figure with its interval; `none` is what to say of a zero."""

    kind: str
    label: str
    sentence: str
    none: str = ""


FIGURES: dict[str, Figure] = {
    "failed": Figure(SHARE, "connects failed", "{} of the connects fail", "No connect fails"),
    "first_try": Figure(SHARE, "connected by the first SYN", "{} of the connects succeed with their first SYN"),
    "retried": Figure(
        SHARE,
        "connected by a later SYN",
        "{} of the connects succeed only after SYNs sent again",
        "No SYN has to be sent again",
    ),
    "no_port": Figure(
        SHARE, "no source port", "{} of the connects find no source port", "Every connect finds a source port"
    ),
    "gave_up": Figure(
        SHARE, "given up", "{} of the connects get no answer until they are given up", "Every connect is answered"
    ),
    "backend_failed": Figure(
        SHARE,
        "no port toward the servers",
        "for {} of the connections the balancer finds no port toward its servers",
        "The balancer always finds a port toward its servers",
    ),
    "syns_dropped": Figure(
        SHARE, "SYNs without effect", "{} of the SYNs bring no connection", "Every SYN brings a connection"
    ),
    "never": Figure(
        SHARE,
        "clients that never connect",
        "{} of the clients never get a connection",
        "Every client that tries gets a connection",
    ),
    "connected": Figure(COUNT, "connections made", "{} connections are made"),
    "served": Figure(COUNT, "answered", "{} connections are answered"),
    "taken_over": Figure(COUNT, "TIME_WAIT taken over", "{} connections take over a TIME_WAIT (TWRecycled)"),
    "wall": Figure(SECONDS, "until the first lack of a port", "the first connect without a port comes after {}"),
    "connect_p50": Figure(SECONDS, "median connect", "half of the connects take no longer than {}"),
    "connect_p99": Figure(SECONDS, "p99 connect", "one connect of a hundred takes longer than {}"),
    "server_time_wait": Figure(COUNT, "TIME_WAIT at the balancer, most", "the balancer holds at most {} TIME_WAIT"),
    "client_time_wait": Figure(COUNT, "TIME_WAIT at the clients, most", "the clients hold at most {} TIME_WAIT"),
    "ports_taken": Figure(COUNT, "source ports taken, most", "at most {} source ports are taken"),
    "backend_time_wait": Figure(
        COUNT, "TIME_WAIT toward the servers, most", "the balancer holds at most {} TIME_WAIT toward its servers"
    ),
}


def figures(outcome: Outcome) -> dict[str, float]:
    """All of one simulation; `wall` and the latencies only where there are any."""
    found = {name: value for name, value in outcome.figures().items() if name in FIGURES}
    found["connected"] = float(outcome.total(Column.FIRST) + outcome.total(Column.RETRIED))
    found["served"] = float(outcome.total(Column.SUCCEEDED))
    found["taken_over"] = float(outcome.total(Column.REUSED))
    for name, column in (
        ("client_time_wait", Column.CLIENT_TIME_WAIT),
        ("backend_time_wait", Column.BACKEND_TIME_WAIT),
    ):
        found[name] = float(outcome.ticks[:, column].max(initial=0))
    latency = outcome.latency()
    if latency.index:
        found["connect_p50"], found["connect_p99"] = quantiles(latency, (0.5, 0.99))
    wall = wall_at(outcome)
    if wall is not None:
        found["wall"] = wall
    return found


def wall_at(outcome: Outcome) -> float | None:
    """Seconds until the first connect that found no port, interpolated within its tick as for a real run: exact
    where from then on every connect fails. Toward the servers where the balancer is the one that runs out."""
    for column in (Column.NO_PORT, Column.BACKEND_FAILED):
        short = outcome.ticks[:, column]
        if short.any():
            row = int(short.argmax() if short.max() == 0 else (short > 0).argmax())
            start = float(outcome.ends[row - 1]) if row else 0.0
            started = int(outcome.ticks[row, Column.STARTED])
            good = 1 - int(short[row]) / max(1, started)
            return start + (float(outcome.ends[row]) - start) * max(0.0, good)
    return None
