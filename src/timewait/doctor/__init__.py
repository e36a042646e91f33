"""Looks at this host and at a target before any load: limits, settings, ports, and what the target does.

Joins observe (what the kernel says), stress.probe (what the target does) and diagnose (what that means).
"""

from __future__ import annotations

import socket

import msgspec

from timewait.diagnose import Exit, Finding, diagnose
from timewait.doctor.rates import Sustainable, sustainable
from timewait.doctor.settings import Setting, judge
from timewait.observe.addresses import label
from timewait.observe.host import read_host
from timewait.observe.limits import raise_open_files
from timewait.observe.watcher import Watcher
from timewait.plan import Plan, Ports
from timewait.run import Host, PortUse, Run
from timewait.stress.endpoints import ResolveError, check_sources, destination, resolve
from timewait.stress.probe import Behaviour, probe
from timewait.tcp import ports

__all__ = ["Examination", "Sustainable", "Target", "examine"]

OWN_FAULTS = ("EADDRNOTAVAIL", "EADDRINUSE", "EMFILE", "ENFILE")  # the probe could not even leave this host


class Target(msgspec.Struct, kw_only=True):
    """Where the URL leads, and what is there."""

    url: str
    addresses: list[str] = []  # all that the name resolved to
    error: str = ""  # no address answers: why, one sentence
    errno: str = ""
    behaviours: list[Behaviour] = []  # one per address tried, in order; the first reachable one is asked everything

    @property
    def seen(self) -> Behaviour | None:
        """The address that answered."""
        return next((behaviour for behaviour in self.behaviours if behaviour.reachable), None)


class Examination(msgspec.Struct, kw_only=True):
    """All that `timewait doctor` found out; `--json` prints it as it is."""

    host: Host
    settings: list[Setting]
    target: Target | None = None
    ports: list[PortUse] = []  # toward the target; without one, toward any single destination
    rates: list[Sustainable] = []
    findings: list[Finding] = []
    exit_code: int = 0


def examine(plan: Plan | None, *, sources: tuple[str, ...] = (), idle: float = 3.0) -> Examination:
    """Reads this host and, with a plan, asks the target of its first request.

    `sources`: the addresses a load would use, for the port budget. `idle`: seconds a connection lies idle to see who
    ends it. Raises PlanError: a source that is not of this host, a CA file that cannot be read.
    """
    for source in sources:
        check_sources((source,), _family(source))
    raise_open_files()
    target, where = _resolve(plan) if plan else (None, [])
    host = read_host(where, Ports())
    # Looked at before the probe, whose own connections leave TIME_WAIT behind.
    with Watcher(where, sources, host.port_low, host.port_high, host.reserved_ports) as watcher:
        snapshot = watcher.snapshot(0.0)
        host.unreadable += watcher.unreadable
    if plan and target:
        _ask(plan, target, where, idle)
        host.addresses = {plan.requests_list[0].host: target.addresses}
    seen = target.seen if target else None
    asked = label(seen.address, seen.port) if seen else None
    use = next((use for use in snapshot.ports if asked in (None, use.destination)), _anywhere(host, sources))
    found = Examination(host=host, settings=judge(host), target=target, ports=[use])
    found.rates = sustainable(host, use, seen)
    if plan:
        found.findings = diagnose(Run(plan=plan, host=host, before=snapshot, after=snapshot))
    if target and target.error:
        found.exit_code = Exit.MACHINE_LIMITED if target.errno in OWN_FAULTS else Exit.TARGET_FAILED
    return found


def _resolve(plan: Plan) -> tuple[Target, list[tuple[str, int]]]:
    request = plan.requests_list[0]
    found = Target(url=request.url)
    name, port = destination(plan, request)
    try:
        found.addresses = resolve(name, plan.family)
    except ResolveError as error:
        found.error = str(error)
    return found, [(address, port) for address in found.addresses]


def _ask(plan: Plan, target: Target, where: list[tuple[str, int]], idle: float) -> None:
    """Address by address until one answers; that one is asked everything."""
    for address, port in where:
        check_sources(plan.sources, _family(address))
        target.behaviours.append(probe(plan, plan.requests_list[0], address, port, idle))
        if target.behaviours[-1].reachable:
            return
    if where:
        target.error, target.errno = target.behaviours[0].error, target.behaviours[0].errno


def _family(address: str) -> int:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def _anywhere(host: Host, sources: tuple[str, ...]) -> PortUse:
    """The budget toward a destination nobody has named yet, of which no port is taken."""
    whole = ports.capacity(host.port_low, host.port_high, host.reserved_ports, len(sources))
    return PortUse(destination="any one address and port", capacity=whole, free=whole)
