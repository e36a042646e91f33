"""The ready-made topologies, and the scheme of their names and addresses.

`10.0.0.0/24` is the net in front of the balancer (its address is 10.0.0.1 everywhere), `10.1.N.0/24` joins client N
to its gateway, `10.2.N.0/24` joins the balancer to server N; a second gateway stands in `10.0.1.0/24`. Every link has
IPv6 too: 10.A.B.C is fd00:A:B::C. A host with one link calls its interface eth0; the others name theirs after whom
they lead to.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterable, Iterator

from timewait.lab.topology import (
    End,
    Forward,
    Host,
    Link,
    Nat,
    Role,
    Route,
    Target,
    Topology,
    TopologyError,
    unknown,
)

BALANCER = "10.0.0.1"
# A gateway of a carrier: few ports, forgotten soon, so that a five-tuple comes back within the 60 s of TIME_WAIT.
NAT_PORTS = (20_000, 20_999)
NAT_TIMEOUTS = {"time_wait": 2, "fin_wait": 5, "last_ack": 2, "close_wait": 5, "close": 1, "syn_sent": 5}


def topology(name: str) -> Topology:
    """One of the ready-made ones. Raises TopologyError naming the nearest."""
    if name not in TOPOLOGIES:
        raise TopologyError(unknown("topology", name, TOPOLOGIES))
    return TOPOLOGIES[name]()


def six(address: str) -> str:
    """The IPv6 address beside an IPv4 one: 10.1.2.3 has fd00:1:2::3."""
    _, a, b, c = address.split(".")
    return str(ipaddress.ip_address(f"fd00:{a}:{b}::{c}"))


def direct() -> Topology:
    """A client and a balancer that answers itself."""
    return Topology(
        name="direct",
        title="a client, and a balancer that answers itself",
        hosts=(Host("client", Role.CLIENT), Host("balancer", Role.BALANCER)),
        links=(_link("client", "eth0", "10.0.0.2", "balancer", "eth0", BALANCER),),
    )


def proxy(servers: int = 1, sources: int = 1) -> Topology:
    """A balancer between a client and servers, with this many source addresses toward each of them."""
    return Topology(
        name="proxy",
        title="a client, a balancer, and servers behind it",
        hosts=(Host("client", Role.CLIENT), Host("balancer", Role.BALANCER), *_servers(servers)),
        links=(_link("client", "eth0", "10.0.0.2", "balancer", "client", BALANCER), *_back(servers, sources)),
    )


def nat(clients: int = 3, servers: int = 2, *, pool: int = 1) -> Topology:
    """Clients behind a gateway that translates their addresses to `pool` of its own."""
    return Topology(
        name="nat",
        title="clients behind a NAT gateway, a balancer, and servers behind it",
        hosts=(
            *_clients(_named("client", clients)),
            _gateway("gateway", "10.0.0.2", pool),
            Host("balancer", Role.BALANCER),
            *_servers(servers),
        ),
        links=(
            *(_inside(n, name, "gateway") for n, name in _named("client", clients)),
            _front("gateway", 0, pool),
            *_back(servers),
        ),
    )


def layer4(servers: int = 2, *, full: bool = True) -> Topology:
    """A balancer in the kernel: it forwards packets and ends no connection itself."""
    balancer = Host(
        "balancer",
        Role.BALANCER,
        forward=Forward(
            addresses=(BALANCER, six(BALANCER)),
            targets=tuple(
                Target(address) for n in range(1, servers + 1) for address in (f"10.2.{n}.2", six(f"10.2.{n}.2"))
            ),
            full=full,
        ),
    )
    return Topology(
        name="layer4",
        title="a client, a layer-4 balancer in the kernel (nftables), and servers behind it",
        hosts=(Host("client", Role.CLIENT, routes=_ways(BALANCER)), balancer, *_servers(servers)),
        links=(_link("client", "eth0", "10.0.0.2", "balancer", "client", BALANCER), *_back(servers)),
    )


def two_gateways(clients: int = 2, servers: int = 1, *, pool: int = 1) -> Topology:
    """Two NAT gateways with clients each, in front of one balancer."""
    named = list(_named("client", 2 * clients))
    halves = {1: named[:clients], 2: named[clients:]}
    second = _gateway(
        "gateway-2", "10.0.1.2", pool, (Route(BALANCER, "10.0.1.1"), Route(six(BALANCER), six("10.0.1.1")))
    )
    return Topology(
        name="two-gateways",
        title="two NAT gateways with clients behind each, a balancer, and a server behind it",
        hosts=(
            *_clients(halves[1]),
            _gateway("gateway-1", "10.0.0.2", pool),
            *_clients(halves[2]),
            second,
            Host("balancer", Role.BALANCER),
            *_servers(servers),
        ),
        links=(
            *(_inside(n, name, f"gateway-{half}") for half, names in halves.items() for n, name in names),
            _front("gateway-1", 0, pool),
            _front("gateway-2", 1, pool),
            *_back(servers),
        ),
    )


TOPOLOGIES: dict[str, Callable[[], Topology]] = {
    "direct": direct,
    "proxy": proxy,
    "nat": nat,
    "layer4": layer4,
    "two-gateways": two_gateways,
}


def _link(one: str, its: str, address: str, other: str, others: str, peer: str, extra: tuple[str, ...] = ()) -> Link:
    """`extra` addresses are the other end's."""
    return Link((End(one, its, _both(address)), End(other, others, _both(peer, *extra))))


def _both(*addresses: str) -> tuple[str, ...]:
    return tuple(f"{address}/24" for address in addresses) + tuple(f"{six(address)}/64" for address in addresses)


def _ways(gateway: str) -> tuple[Route, Route]:
    return Route("default", gateway), Route("::/0", six(gateway))


def _named(kind: str, count: int) -> Iterator[tuple[int, str]]:
    """(1, "server-1"), (2, "server-2"); one alone is called "server"."""
    return ((n, f"{kind}-{n}" if count > 1 else kind) for n in range(1, count + 1))


def _clients(named: Iterable[tuple[int, str]]) -> tuple[Host, ...]:
    return tuple(Host(name, Role.CLIENT, routes=_ways(f"10.1.{n}.1")) for n, name in named)


def _servers(count: int) -> tuple[Host, ...]:
    return tuple(Host(name, Role.SERVER, routes=_ways(f"10.2.{n}.1")) for n, name in _named("server", count))


def _inside(number: int, name: str, gateway: str) -> Link:
    return _link(name, "eth0", f"10.1.{number}.2", gateway, name, f"10.1.{number}.1")


def _gateway(name: str, outside: str, pool: int, routes: tuple[Route, ...] = ()) -> Host:
    addresses = _pool(outside, pool)
    return Host(
        name,
        Role.GATEWAY,
        routes=routes,
        nat=Nat("balancer", (*addresses, *map(six, addresses)), ports=NAT_PORTS, timeouts=NAT_TIMEOUTS),
    )


def _front(gateway: str, net: int, pool: int) -> Link:
    """From the balancer's side to the gateway's: its end has all addresses of the pool."""
    end = End("balancer", gateway, _both(f"10.0.{net}.1"))
    return Link((End(gateway, "balancer", _both(*_pool(f"10.0.{net}.2", pool))), end))


def _pool(first: str, count: int) -> tuple[str, ...]:
    net, _, last = first.rpartition(".")
    return tuple(f"{net}.{int(last) + n}" for n in range(count))


def _back(servers: int, sources: int = 1) -> tuple[Link, ...]:
    """From the balancer to each server; further source addresses are 10.2.N.11, .12, ..."""
    return tuple(
        _link(
            name,
            "eth0",
            f"10.2.{n}.2",
            "balancer",
            name,
            f"10.2.{n}.1",
            tuple(f"10.2.{n}.{10 + k}" for k in range(1, sources)),
        )
        for n, name in _named("server", servers)
    )
