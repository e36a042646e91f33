"""From where the balancer's connections come: source addresses and ports toward each target. Pure.

Toward its targets a balancer is a client, by sockets, or, where the kernel forwards with full NAT, by conntrack.
"""

from __future__ import annotations

from typing import NamedTuple

from timewait.balancer.config.addresses import place
from timewait.balancer.config.addresses import source as source_of
from timewait.balancer.config.model import Configuration, Engine, Listener, Nat, Pool, Protocol, Target
from timewait.balancer.statistics import Statistics
from timewait.port_use import PortUse
from timewait.tcp import ports as rules


class From(NamedTuple):
    """Where connections toward some targets come from: addresses (none: the kernel chooses), and ports (0: the
    kernel's range)."""

    addresses: tuple[str, ...] = ()
    low: int = 0
    high: int = 0


def origins(configuration: Configuration) -> dict[From, list[str]]:
    """From where connections go to which targets; of all listeners whose engine connects through sockets."""
    plain: dict[str, list[str]] = {}
    found: dict[From, list[str]] = {}
    for target, sources in _sources(configuration).items():
        plain[target] = []
        for text in sources:
            one = source_of(text)
            if one.low:
                found.setdefault(From((str(one.address),), one.low, one.high), []).append(target)
            else:
                plain[target].append(str(one.address))
        if plain[target] or not sources:
            found.setdefault(From(tuple(plain[target])), []).append(target)
    return found


def translations(configuration: Configuration, statistics: Statistics) -> dict[str, PortUse]:
    """TCP source ports that full NAT in the kernel takes toward targets, as conntrack has them. Without a source it
    is the address of the way there. A target at 127.0.0.1 sees clients' own ports (see nftables/ruleset.py)."""
    found = {}
    for address, sources in _sources(configuration, translated=True).items():
        spans = [(one.low, one.high) if one.low else rules.NAT_PORTS for one in map(source_of, sources)]
        capacity = sum(high - low + 1 for low, high in spans or [rules.NAT_PORTS])
        counts = [one for one in statistics.targets.values() if one.address == address]
        in_use, resting = sum(one.active for one in counts), sum(one.resting for one in counts)
        free = max(0, capacity - in_use - resting)
        found[address] = PortUse(destination=address, capacity=capacity, in_use=in_use, time_wait=resting, free=free)
    return found


def _sources(configuration: Configuration, *, translated: bool = False) -> dict[str, list[str]]:
    """By target address, the sources of all listeners that lead to it by sockets, or `translated` by the kernel; each
    once."""
    found: dict[str, list[str]] = {}
    for listener in configuration.listener:
        if (configuration.engine_of(listener) is Engine.NFTABLES) is not translated:
            continue
        for name in dict.fromkeys(filter(None, [listener.pool, *(rule.pool for rule in listener.rule)])):
            for target in configuration.pool_named(name).target:
                if translated and not _is_translated(listener, configuration.pool_named(name), target):
                    continue
                family = place(target.addr).address.version
                texts = [one for one in listener.upstream.source if source_of(one).address.version == family]
                known = found.setdefault(target.addr, [])
                known += [text for text in texts if text not in known]
    return found


def _is_translated(listener: Listener, pool: Pool, target: Target) -> bool:
    loopback = place(target.addr).address.is_loopback
    return pool.nat is Nat.FULL and listener.protocol is Protocol.TCP and not loopback


def source_counts(configuration: Configuration) -> dict[str, int]:
    """Source addresses, or ranges of ports, by target."""
    both = {**_sources(configuration, translated=True), **_sources(configuration)}
    return {target: max(1, len(sources)) for target, sources in both.items()}
