"""The balancer's own wall: source ports toward a target, with a forecast. The rules are those of `tcp.ports`.

Toward its targets a balancer is a client. A connection that it closes first with FIN keeps its port for 60 s, as on
any client; so does the sentence here what `forecast` and `ports` do for a load test. Where the kernel forwards with
full NAT, conntrack gives each connection a source port instead, and keeps it for its own TIME_WAIT.
"""

from __future__ import annotations

from typing import NamedTuple

from timewait.diagnose.facts import taken
from timewait.diagnose.finding import CERTAIN, LIKELY, Evidence, Finding, Remedy
from timewait.diagnose.ports import SOCK_DIAG
from timewait.diagnose.words import asked, count, plural, rate, seconds
from timewait.port_use import PortUse
from timewait.tcp import ports as rules

EXHAUSTED, HELD, AHEAD = "upstream-ports-exhausted", "upstream-ports-held-open", "upstream-ports-wall"
MEANINGS = {
    AHEAD: "at the present pace no source port toward a target will be left within ten minutes",
    EXHAUSTED: "no source port was left toward a target: TIME_WAIT of connections it closed first holds them",
    HELD: "no source port was left toward a target: open connections hold them",
}
CONNTRACK = "conntrack"
NEARLY = 0.95  # of the ports: from here on a moment's load may find none
SOON = 600.0  # seconds: a wall further away than that is no news yet


class Upstream(NamedTuple):
    """What is known of the connections toward one target."""

    use: PortUse  # of all source addresses together
    resting: float  # connections a second after which a port rests: the balancer closed first, or conntrack's all
    no_port: int  # connections that found no port (EADDRNOTAVAIL) since the last looks
    rest: float = rules.TIME_WAIT_SECONDS  # seconds a port rests
    sources: int = 1
    conntrack: bool = False  # the ports are those of full NAT in the kernel


def seconds_left(one: Upstream) -> float | None:
    """Until no port is free at the present pace; None where that does not happen."""
    return rules.seconds_to_wall(one.use.free, one.resting, one.use.capacity, one.rest)


def upstream_ports(one: Upstream) -> Finding | None:
    """No port left toward a target, or none soon; None where all is well."""
    use, left = one.use, seconds_left(one)
    if use.capacity <= 0:
        return None
    mostly_open = use.in_use > use.time_wait
    gone = taken(use) if one.rest else use.in_use  # what rests for no time is given out again at need
    if one.no_port or gone >= NEARLY * use.capacity:
        return _now(one, mostly_open)
    if left is not None and left <= SOON:
        return Finding(
            id=AHEAD,
            summary=(
                f"Toward {use.destination} {_needs(one)}, has {count(use.free)} of {count(use.capacity)} free: "
                f"connections fail after {seconds(left)}."
            ),
            evidence=_evidence(one),
            remedy=_remedies(one, mostly_open),
            wrong=[_WRONG[one.conntrack]],
            confidence=LIKELY,
        )
    return None


_WRONG = {
    False: "tcp_fin_timeout: it ends FIN_WAIT2, never TIME_WAIT, which is 60 s in every kernel",
    True: "a shorter nf_conntrack_tcp_timeout_time_wait: below 60 s the port comes back to a target that may still "
    "hold TIME_WAIT on it",
}


def _now(one: Upstream, mostly_open: bool) -> Finding:
    use = one.use
    held = f"open connections hold {count(use.in_use)}" if mostly_open else f"TIME_WAIT holds {count(use.time_wait)}"
    failed = f"{plural(one.no_port, 'connection')} found no source port" if one.no_port else "hardly a port is free"
    return Finding(
        id=HELD if mostly_open else EXHAUSTED,
        summary=f"Toward {use.destination} {failed}: {held} of {plural(use.capacity, 'port')}.",
        evidence=_evidence(one),
        remedy=_remedies(one, mostly_open),
        wrong=["more workers: they share the same ports"],
        confidence=CERTAIN if one.no_port else LIKELY,
    )


def _needs(one: Upstream) -> str:
    return f"the balancer needs {asked(one.resting).removesuffix('/s')} ports a second for {seconds(one.rest)} each"


def _evidence(one: Upstream) -> list[Evidence]:
    use = one.use
    found = [
        Evidence(
            f"{count(use.in_use)} in use, {count(use.time_wait)} in TIME_WAIT, {count(use.free)} free of "
            f"{plural(use.capacity, 'port')} toward {use.destination}",
            CONNTRACK if one.conntrack else SOCK_DIAG,
        )
    ]
    if one.resting and one.rest:
        carried = rate(rules.sustainable(use.capacity, one.rest))
        pace = asked(one.resting)
        what = f"{pace} begin" if one.conntrack else f"the balancer closes {pace} first"
        found.append(Evidence(f"{what}; {carried} are carried for ever", "its own counters"))
    if one.no_port:
        found.append(Evidence(f"EADDRNOTAVAIL {count(one.no_port)} of late", "errno of connect()"))
    return found


def _remedies(one: Upstream, mostly_open: bool) -> list[Remedy]:
    """The best first."""
    found = []
    if not mostly_open and not one.conntrack:
        found += [
            Remedy(
                'upstream.keepalive = true with upstream.reuse = "always"',
                "requests share connections, which need a port each only once",
                "a target sees clients mixed on one connection",
            ),
            Remedy(
                'upstream.close = "rst"',
                "after a complete answer no TIME_WAIT stays at either end: the port is free at once",
                "targets may log resets",
            ),
            Remedy(
                'upstream.close = "peer" with upstream.keepalive = false',
                "the target closes first and holds TIME_WAIT on the port it listens on",
                "the target must honour `Connection: close`; TIME_WAIT costs it memory, no port",
            ),
        ]
    each = one.use.capacity // max(1, one.sources)
    wanted = rules.sources_needed(one.resting, each, one.rest) if one.resting and one.rest else one.sources + 1
    if wanted > one.sources:
        found.append(
            Remedy(
                f"upstream.source with {plural(wanted, 'address')}",
                f"{plural(wanted * each, 'port')} instead of {count(one.use.capacity)}",
                "the addresses must exist on this host: ip address add ADDRESS/32 dev INTERFACE",
            )
        )
    if one.conntrack:
        found.append(
            Remedy(
                'nat = "dnat" in the pool',
                "targets see clients' own addresses and ports, and none of the balancer's is needed",
                "targets must send their answers back through the balancer",
            )
        )
    return found
