"""What will happen to this host's ports, said before the first packet.

A connection needs one port while it lives; one that this host closes first keeps it for another 60 s. Everything
follows from that, the ports there are, and the rate.
"""

from __future__ import annotations

from typing import NamedTuple

from timewait.diagnose.facts import TW_REUSE, capacity_of, connections_asked, our_ports, sysctl, taken, we_close_first
from timewait.diagnose.words import asked, count, plural, rate, seconds
from timewait.plan import Closing, Plan
from timewait.run import Host, Snapshot
from timewait.tcp import ports as rules


class _Budget(NamedTuple):
    """Ports toward the destination that has fewest, and the part of the load that goes there."""

    capacity: int
    free: int
    residue: int  # in TIME_WAIT already
    destinations: int  # connections go to them in turn


def forecast(plan: Plan, host: Host, before: Snapshot) -> str | None:
    """One sentence: how many ports the load needs, how many there are, and when they run out.

    `before` is the state of the sockets just before the run. None where no port range is known.
    """
    budget = _budget(plan, host, before)
    if budget.capacity <= 0:
        return None
    if budget.free <= 0:
        return (
            f"none of {plural(budget.capacity, 'port')} is free ({count(budget.residue)} in TIME_WAIT): "
            "fails at once; wait 60 s or add --source addresses."
        )
    if not we_close_first(plan):
        return _held(plan, budget)
    wanted = connections_asked(plan)
    if wanted is None:
        return _unknown_rate(plan, host, budget)
    return _known_rate(plan, host, budget, wanted / budget.destinations)


def _budget(plan: Plan, host: Host, before: Snapshot) -> _Budget:
    known = [use for use in before.ports if use.capacity > 0]
    if not known:
        capacity = capacity_of(plan, host)
        return _Budget(capacity, capacity, 0, max(1, len(before.ports)))
    use = min(known, key=lambda use: use.capacity - taken(use))
    return _Budget(use.capacity, max(0, use.capacity - taken(use)), use.time_wait, len(known))


def _held(plan: Plan, budget: _Budget) -> str:
    """Connections that leave nothing behind: as many ports as are open at once."""
    most = -(-plan.concurrency // budget.destinations)
    # The open loop's 10,000 is a bound nobody asked for; what it needs is set by how long a connection lives.
    bound_only = plan.rate is not None and plan.connections is None
    why = {
        Closing.SERVER: "the target closes first and holds TIME_WAIT",
        Closing.RESET: "a reset leaves no TIME_WAIT",
    }.get(plan.closing, "connections are kept")
    has = _has(budget)
    if most <= budget.free:
        return f"needs {'at most ' if bound_only else ''}{plural(most, 'port')} at once, {has}: enough; {why}."
    if bound_only:
        return f"needs a port for each open connection, {has}: fails past that many at once; {why}."
    missing = most - budget.free
    sources = -(-most // max(1, budget.capacity // max(1, len(plan.sources))))
    return (
        f"needs {plural(most, 'port')} at once, {has}: {plural(missing, 'connection')} will not open; "
        f"`--source` with {plural(sources, 'address')} would do."
    )


def _known_rate(plan: Plan, host: Host, budget: _Budget, wanted: float) -> str:
    """Open loop, this host closes first."""
    lasts = _lasts(plan)
    needs = f"needs {_number(wanted)} ports a second for 60 s each, {_has(budget)}"
    wall = rules.seconds_to_wall(budget.free, wanted, budget.capacity)
    if wall is None or (lasts is not None and lasts <= wall):
        left = _residue_first(budget, wanted, lasts)
        return f"{needs}: enough{left}."
    rest = _rest(plan, host)
    if rest < rules.TIME_WAIT_SECONDS:
        early = rules.seconds_to_wall(budget.free, wanted, budget.capacity, rest)
        if early is None:
            return (
                f"{needs}: enough if the target negotiates timestamps, for {_why_early(plan, host, rest)}; "
                f"if not, fails after {seconds(wall)} ({_instead(plan)})."
            )
    return f"{needs}: fails after {seconds(wall)}; {_instead(plan)}."


def _unknown_rate(plan: Plan, host: Host, budget: _Budget) -> str:
    """Closed loop, this host closes first: as fast as the target answers, which nobody knows yet."""
    number = _connections(plan)
    if number is not None and number <= budget.free * budget.destinations:
        return f"needs at most {plural(-(-number // budget.destinations), 'port')}, {_has(budget)}: enough."
    rest, lasts = _rest(plan, host), plan.duration
    for_ever = rules.sustainable(budget.capacity)
    most = max(for_ever, budget.free / lasts) if lasts else for_ever
    how_long = f"for {seconds(lasts)}" if lasts and most > for_ever else "for ever"
    wall = f"fails after {plural(budget.free, 'connection')}"
    needs = f"needs a port for 60 s per connection, {_has(budget)}"
    if rest < rules.TIME_WAIT_SECONDS:
        early = f"up to {rate(rules.sustainable(budget.capacity, rest))}" if rest else "at any rate"
        return (
            f"{needs}: enough {early} if the target negotiates timestamps, for {_why_early(plan, host, rest)}; if "
            f"not, enough up to {rate(most)} {how_long}, and faster {wall} ({_instead(plan)})."
        )
    return f"{needs}: enough up to {rate(most)} {how_long}; faster {wall}; {_instead(plan)}."


def _has(budget: _Budget) -> str:
    if budget.residue:
        return f"has {count(budget.free)} ({count(budget.residue)} still in TIME_WAIT)"
    return f"has {count(budget.free)}"


def _number(per_second: float) -> str:
    return asked(per_second).removesuffix("/s")


def _lasts(plan: Plan) -> float | None:
    """Seconds this open loop will run; None: until interrupted."""
    ends = [] if plan.duration is None else [plan.duration]
    number, wanted = _connections(plan), connections_asked(plan)
    if number is not None and wanted:
        ends.append(number / wanted)
    return min(ends, default=None)


def _connections(plan: Plan) -> int | None:
    """Connections that -n makes."""
    return None if plan.requests is None else -(-plan.requests // max(1, plan.requests_per_connection or 1))


def _residue_first(budget: _Budget, wanted: float, lasts: float | None) -> str:
    """A warning where the load fits for ever, but not beside what an earlier run has left."""
    until = budget.free / wanted
    if until >= rules.TIME_WAIT_SECONDS or (lasts is not None and lasts <= until) or not budget.residue:
        return ""
    return f" once they have ended; may fail after {seconds(until)} until then"


def _rest(plan: Plan, host: Host) -> float:
    """Seconds a port rests, if the target negotiates timestamps, which is not known before the first packet."""
    delay = sysctl(host, "net.ipv4.tcp_tw_reuse_delay")
    return rules.rest(
        tw_reuse=sysctl(host, TW_REUSE) or 0,
        loopback=host.loopback,
        timestamps=sysctl(host, "net.ipv4.tcp_timestamps") != 0,
        bound=our_ports(plan),
        delay_ms=rules.REUSE_DELAY_MS if delay is None else delay,
    )


def _why_early(plan: Plan, host: Host, rest: float) -> str:
    if our_ports(plan):
        return f"a port bound by `--ports {plan.ports.policy}` is taken over at once"
    where = " on loopback" if sysctl(host, TW_REUSE) == 2 else ""
    return f"tcp_tw_reuse{where} gives a port back after {seconds(rest)}"


def _instead(plan: Plan) -> str:
    if plan.scheme == "tcp":
        return "`--close reset` needs none"
    return "`--close server` or `--close reset` needs none"
