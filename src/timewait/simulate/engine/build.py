"""A scenario becomes numbers: what does not change while it is played."""

from __future__ import annotations

import math
from typing import Any

from timewait.simulate.engine.draws import keys
from timewait.simulate.engine.memory import places
from timewait.simulate.engine.state import (
    BLOCKS,
    BY_CLIENT,
    BY_KERNEL,
    BY_RESET,
    BY_SERVER,
    CONSTANT,
    DIURNAL,
    HASHED,
    OLDEST,
    POISSON,
    PRESERVED,
    RANDOM,
    SEQUENTIAL,
    THINK,
    TRACE,
    Fixed,
)
from timewait.simulate.limits import Side, rate_of, side
from timewait.simulate.world import Closing, Nat, PortChoice, Process, Scenario, addresses_of, ports_of
from timewait.tcp.profiles import LINEAR, LINEAR_EVEN, Rules
from timewait.tcp.syn import Schedule, schedule

NANO = 1_000_000_000
_PROCESS = {
    Process.POISSON: POISSON,
    Process.CONSTANT: CONSTANT,
    Process.DIURNAL: DIURNAL,
    Process.TRACE: TRACE,
    Process.THINK: THINK,
}
_CLOSING = {Closing.SERVER: BY_SERVER, Closing.CLIENT: BY_CLIENT, Closing.RESET: BY_RESET}
_CHOICE = {
    PortChoice.SEQUENTIAL: SEQUENTIAL,
    PortChoice.RANDOM: RANDOM,
    PortChoice.HASH: HASHED,
    PortChoice.PRESERVE: PRESERVED,
    PortChoice.OLDEST: OLDEST,
    PortChoice.BLOCKS: BLOCKS,
}
_KERNEL_NAT = Nat()  # whose block and limits are not asked where there is no NAT


def ns(seconds: float) -> int:
    return round(seconds * NANO)


def halves(rules: Rules, ports: int) -> tuple[int, int]:
    """Words of a kernel's pool of ports, and where those of every second port begin (0: not apart)."""
    if rules.port_search in (LINEAR, LINEAR_EVEN) or ports <= 1:
        return -(-ports // 32), 0
    half = -(-((ports + 1) // 2) // 32)
    return 2 * half, half


def width_of(scenario: Scenario) -> int:
    """log2 of the ns in a bucket of the wheel: about one event in each."""
    return min(24, max(6, int(math.log2(NANO / max(1.0, 2 * rate_of(scenario))))))


def fixed(scenario: Scenario, seed: int, width: int | None = None) -> Fixed:
    """Everything that does not change, and where in memory everything else lies."""
    clients = side("clients", scenario.clients.kernel, scenario.clients.sysctls, scenario.clients.hz)
    server = side("server", scenario.server.kernel, scenario.server.sysctls, scenario.server.hz)
    parts: dict[str, Any] = {
        "seed": seed,
        "keys": keys(seed),
        "width": width_of(scenario) if width is None else width,
        **_when(scenario),
        **_clients(scenario, clients),
        **_ports(scenario, clients),
        **_network(scenario),
        **_server(scenario, server),
        **_backend(scenario, server),
    }
    return Fixed(**{**parts, **places(parts)})


def times(scenario: Scenario) -> list[int]:
    """Moments of a trace, ns."""
    return [ns(at) for at in scenario.arrivals.times]


def sends(scenario: Scenario) -> list[int]:
    """When SYNs leave, ns from the first."""
    return [ns(at) for at in _plan(scenario).sends]


def _plan(scenario: Scenario) -> Schedule:
    clients = side("clients", scenario.clients.kernel, scenario.clients.sysctls, scenario.clients.hz)
    return schedule(
        clients.kernel, retries=clients.knobs.tcp_syn_retries, linear=clients.knobs.tcp_syn_linear_timeouts
    )


def _when(scenario: Scenario) -> dict[str, Any]:
    arrivals = scenario.arrivals
    gap = arrivals.think * NANO if arrivals.process is Process.THINK else NANO / arrivals.rate
    return {
        "process": _PROCESS[arrivals.process],
        "gap": float(gap),
        "swing": float(arrivals.swing),
        "period": float(arrivals.period * NANO),
        "peak_at": float(arrivals.peak_at * NANO),
        "times": len(arrivals.times),
    }


def _clients(scenario: Scenario, clients: Side) -> dict[str, Any]:
    wanted = scenario.clients
    plan = _plan(scenario)
    low, high = clients.knobs.ip_local_port_range
    return {
        "clients": wanted.count,
        "client": clients.kernel.rules,
        "client_knobs": clients.knobs,
        "uptime_low": int(wanted.uptime_low),
        "uptime_span": int(wanted.uptime_high - wanted.uptime_low),
        "sends": len(plan.sends),
        "gives_up": ns(plan.gives_up),
        "timeout": ns(wanted.connect_timeout),
        "requests": wanted.requests,
        "pause": ns(wanted.pause),
        "closing": _CLOSING[wanted.closing],
        "octets_sent": wanted.sent,
        "octets_received": wanted.received,
        "port_low": low,
        "port_high": high,
    }


def _ports(scenario: Scenario, clients: Side) -> dict[str, Any]:
    low, high = ports_of(scenario, clients.knobs)
    ports, nat = high - low + 1, scenario.nat or _KERNEL_NAT
    if scenario.nat is None:
        words, odd = halves(clients.kernel.rules, ports)
    else:
        words, odd = -(-ports // 32), 0
    block = min(nat.block, ports)
    return {
        "choice": BY_KERNEL if scenario.nat is None else _CHOICE[nat.choice],
        "low": low,
        "high": high,
        "addresses": addresses_of(scenario),
        "destinations": scenario.server.destinations,
        "independent": scenario.nat is not None and nat.mapping == "independent",
        "ports": ports,
        "words": words,
        "odd_word": odd,
        "block": block,
        "block_words": -(-(ports // block) // 32),
        "rest": ns(nat.rest) + 2 * ns(scenario.network.delay),
        "per_client": nat.per_client,
    }


def _network(scenario: Scenario) -> dict[str, Any]:
    network = scenario.network
    direct = scenario.nat is None  # one way for all: the mean
    return {
        "access": 0 if direct else ns(network.access),
        "delay": ns(network.delay + (network.access / 2 if direct else 0)),
        "loss": float(network.loss),
        "eaten": float(network.eats_ack),
    }


def _server(scenario: Scenario, server: Side) -> dict[str, Any]:
    wanted, network = scenario.server, scenario.network
    return {
        "server": server.kernel.rules,
        "server_knobs": server.knobs,
        "boxes": wanted.boxes,
        "backlog": wanted.backlog,
        "accept": max(1, ns(1 / wanted.accepts)) if wanted.accepts else 0,
        "answer": float(wanted.answer * NANO),
        "exponential": wanted.answer_spread == "exponential",
        "rto_ms": 200 + round(1000 * (network.access + 2 * network.delay)),
    }


def _backend(scenario: Scenario, server: Side) -> dict[str, Any]:
    backend = scenario.backend
    low, high = server.knobs.ip_local_port_range
    words, odd = halves(server.kernel.rules, high - low + 1)
    return {
        "servers": backend.servers if backend else 0,
        "sources": backend.sources if backend else 1,
        "kept": bool(backend and backend.pool == "kept"),
        "back_closing": _CLOSING[backend.closing] if backend else BY_RESET,
        "back_ts": bool(backend and backend.timestamps),
        "back_low": low,
        "back_high": high,
        "back_ports": high - low + 1,
        "back_words": words,
        "back_odd": odd,
    }
