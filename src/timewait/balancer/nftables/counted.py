"""What nftables and conntrack counted, as the balancer's statistics."""

from __future__ import annotations

import json
import socket
from collections import Counter
from collections.abc import Mapping
from typing import Any

from timewait.balancer.config.addresses import Place, bound, place
from timewait.balancer.config.model import Configuration, Listener, Nat, Protocol
from timewait.balancer.nft import Nft
from timewait.balancer.nftables.census import Way
from timewait.balancer.nftables.conntrack import Flow, end
from timewait.balancer.nftables.ruleset import listeners_of, sets_of
from timewait.balancer.statistics import ListenerStatistics, Statistics, TargetStatistics

UNKNOWN = (
    "requests",
    "reused",
    "refused",
    "made_by_balancer",
    "made_by_target",
    "statuses",
    "retried",
    "bytes_in",
    "bytes_out",
    "closes",
    "connected",
    "timed_out",
    "no_port",
    "failed",
    "idle",
)
_NUMBERS = {Protocol.TCP: socket.IPPROTO_TCP, Protocol.UDP: socket.IPPROTO_UDP}


def counters(nft: Nft, name: str, configuration: Configuration) -> dict[str, int]:
    """Packets by counter, and by `SET ADDRESS PORT`. The rules count a connection's first packet only."""
    found: dict[str, int] = {}
    for one in json.loads(nft.run(f"list counters table inet {name}", json=True))["nftables"]:
        if "counter" in one:
            found[one["counter"]["name"]] = one["counter"]["packets"]
    for one in _listed(nft, name, sets_of(configuration)):
        for element in one.get("set", {}).get("elem", ()):
            body: dict[str, Any] = element["elem"]
            address, port = body["val"]["concat"]
            found[f"{one['set']['name']} {address} {port}"] = body["counter"]["packets"]
    return found


def _listed(nft: Nft, name: str, sets: list[str]) -> list[dict[str, Any]]:
    """Only these: sets of sessions may have a million elements."""
    answers = [json.loads(nft.run(f"list set inet {name} {one}", json=True))["nftables"] for one in sets]
    return [one for answer in answers for one in answer]


def statistics(configuration: Configuration, counted: dict[str, int], ways: Mapping[Way, int]) -> Statistics:
    """Counters and connections put together. Pure."""
    services: Counter[str] = Counter()
    targets: Counter[str] = Counter()
    resting: Counter[str] = Counter()
    for way, count in ways.items():
        listener = listener_of(configuration, way)
        if listener is None:
            continue
        if way.open:
            services[listener.name] += count
            targets[_key(listener.pool, way.target)] += count
        elif configuration.pool_named(listener.pool).nat is Nat.FULL:
            resting[_key(listener.pool, way.target)] += count
    found = Statistics(unknown=UNKNOWN)
    for listener in listeners_of(configuration):
        found.listeners[listener.name] = ListenerStatistics(
            name=listener.name,
            accepted=counted.get(f"new-{listener.name}", 0),
            active=services[listener.name],
            over_max_conn=counted.get(f"full-{listener.name}", 0),
            over_max_cps=counted.get(f"fast-{listener.name}", 0),
        )
        pool = configuration.pool_named(listener.pool)
        for target in pool.target:
            at = place(target.addr)
            connects = sum(
                counted.get(f"at-{pool.name}-{protocol}-{at.address.version} {at.address} {at.port}", 0)
                for protocol in _NUMBERS
            )
            key = _key(pool.name, end(at.address, at.port))
            found.targets[f"{pool.name}/{target.addr}"] = TargetStatistics(
                pool=pool.name,
                address=target.addr,
                connects=connects,
                active=targets[key],
                resting=resting[key],
            )
    return found


def listener_of(configuration: Configuration, flow: Flow | Way) -> Listener | None:
    """Whose a connection is: whom the client wanted, and who answers; None where it is somebody else's."""
    for listener in listeners_of(configuration):
        if _NUMBERS.get(listener.protocol) != flow.protocol or not _is_for(listener, flow.service):
            continue
        return listener
    return None


def is_toward(configuration: Configuration, flow: Flow | Way, pool: str, target: str) -> bool:
    """Whether a connection goes to this target of this pool."""
    at = place(target)
    if flow.target != end(at.address, at.port):
        return False
    listener = listener_of(configuration, flow)
    return listener is not None and listener.pool == pool


def _is_for(listener: Listener, service: tuple[bytes, int]) -> bool:
    for at in map(bound, listener.bind):
        if not isinstance(at, Place) or at.port != service[1]:
            continue
        if at.address.is_unspecified and (at.address.version == 6 or len(service[0]) == 4):
            return True
        if at.address.packed == service[0]:
            return True
    return False


def _key(pool: str, target: tuple[bytes, int]) -> str:
    return f"{pool} {target[0].hex()} {target[1]}"
