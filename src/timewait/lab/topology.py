"""A network as plain data: hosts, the links between them, what a gateway or a balancer does to packets.

A topology is checked once, when it is made, and right from then on. Nothing here touches the kernel; `network.build`
does. Hosts have the kernel's own defaults for every sysctl that is not named, so `tcp_tw_reuse` is what this kernel
starts a namespace with (2 from Linux 4.19 on, which between hosts is the same as 0: it concerns loopback only).
"""

from __future__ import annotations

import difflib
import ipaddress
import re
from collections.abc import Iterable, Iterator, Mapping
from enum import StrEnum
from typing import Any

import msgspec

from timewait.lab.wire.spec import WireSpec

_LONGEST_NAME = 15  # IFNAMSIZ less its terminating zero, linux/if.h
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,62}")  # of hosts and topologies: in /etc/hosts, sockets, prompts


class TopologyError(ValueError):
    """A network that cannot be built as written: one sentence saying what is wrong and where."""


class Role(StrEnum):
    CLIENT = "client"
    GATEWAY = "gateway"
    BALANCER = "balancer"
    SERVER = "server"


class PortChoice(StrEnum):
    """How source NAT chooses a port, in nft's words (nft(8), "NAT statements")."""

    KEEP = "keep"  # the client's own port where it lies in the range and is free, another one otherwise
    RANDOM = "random"
    FULLY_RANDOM = "fully-random"


class Route(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    network: str  # "default" (IPv4), "::/0", "10.1.0.0/16"
    via: str  # an address on one of the host's links


class Nat(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Source NAT of a gateway: what leaves through `outside` gets one of the addresses and ports.

    IPv6 is translated alike (NAT66) where the pool has IPv6 addresses, and routed as it is where it has none.
    """

    outside: str  # interface
    pool: tuple[str, ...]  # addresses of that interface
    ports: tuple[int, int] | None = None  # first, last; None: 1024-65535, as the kernel does
    choice: PortChoice = PortChoice.KEEP
    persistent: bool = False  # the same pool address for all connections of a client
    timeouts: Mapping[str, int] = {}  # seconds; "time_wait": 5 is nf_conntrack_tcp_timeout_time_wait
    drop_invalid: bool = False  # drop what conntrack calls invalid, as many firewalls do
    drop_acks_to_syns: bool = False  # and the bare ACK that a TIME_WAIT answers a SYN with: conntrack lets it pass


class Target(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A server behind a balancer."""

    address: str
    port: int = 80
    weight: int = 1


class Forward(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A layer-4 balancer in the kernel: connections to `port` of any of its `addresses` go to the targets in turn."""

    addresses: tuple[str, ...]
    targets: tuple[Target, ...]
    port: int = 80
    full: bool = True  # full NAT: servers see the balancer's address; otherwise they see the client's
    strip_timestamps: bool = False  # take the timestamp option out of SYNs
    timeouts: Mapping[str, int] = {}  # as in Nat


class Host(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: str
    role: Role
    sysctls: Mapping[str, str] = {}  # "net.ipv4.tcp_timestamps": "0"; the kernel's defaults for the others
    ports: tuple[int, int] | None = None  # ip_local_port_range: first, last
    routes: tuple[Route, ...] = ()
    nat: Nat | None = None
    forward: Forward | None = None


class End(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One side of a link. The first address of a family is the one connections of this host leave from."""

    host: str
    interface: str
    addresses: tuple[str, ...]  # with prefix length: "10.0.0.1/24", "fd00::1/64"


class Link(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    ends: tuple[End, End]
    wire: WireSpec | None = None  # a process between the ends, the first one its `a`; None: the kernel's veth alone


class Topology(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: str
    title: str  # one sentence
    hosts: tuple[Host, ...]
    links: tuple[Link, ...]

    def __post_init__(self) -> None:
        for problem in _problems(self):
            raise TopologyError(f"topology {self.name!r}: {problem}")

    def host(self, name: str) -> Host:
        """Raises TopologyError, naming the nearest, when there is none."""
        for host in self.hosts:
            if host.name == name:
                return host
        raise TopologyError(unknown("host", name, [host.name for host in self.hosts]))

    def ends(self, host: str) -> list[End]:
        """This host's ends of its links, in the order of the links."""
        return [end for link in self.links for end in link.ends if end.host == host]

    def changed(self, name: str, **fields: Any) -> Topology:
        """The same network with other fields of one host; `sysctls` are added to what it has."""
        old = self.host(name)
        if "sysctls" in fields:
            fields["sysctls"] = {**old.sysctls, **fields["sysctls"]}
        new = msgspec.structs.replace(old, **fields)
        return msgspec.structs.replace(self, hosts=tuple(new if host is old else host for host in self.hosts))

    def wired(self, first: str, second: str, wire: WireSpec | None) -> Topology:
        """The same network with a wire in the link between two hosts. Raises TopologyError when none joins them."""
        found = [link for link in self.links if {end.host for end in link.ends} == {first, second}]
        if not found:
            raise TopologyError(f"topology {self.name!r} has no link between {first!r} and {second!r}")
        new = msgspec.structs.replace(found[0], wire=wire)
        return msgspec.structs.replace(self, links=tuple(new if link is found[0] else link for link in self.links))


def unknown(kind: str, name: str, known: Iterable[str]) -> str:
    """`no host 'cleint'; did you mean client?`, or the names there are when none is near."""
    names = list(known)
    near = difflib.get_close_matches(name, names, 3, 0.5)
    return f"no {kind} {name!r}; " + (
        f"did you mean {' or '.join(near)}?" if near else f"there is {', '.join(names)}"
    )


def _problems(topology: Topology) -> Iterator[str]:
    names = [host.name for host in topology.hosts]
    if not names:
        yield "it has no host"
    for name in (topology.name, *names):
        if not _NAME.fullmatch(name):
            yield f"{name!r} is no name: up to 63 letters, digits, - and _"
    for name in _twice(names):
        yield f"two hosts are named {name!r}"
    for link in topology.links:
        for end in link.ends:
            if end.host not in names:
                yield f"a link ends at an {unknown('host', end.host, names).replace('no ', 'unknown ', 1)}"
        yield from _link_problems(link)
    addresses = [address for link in topology.links for end in link.ends for address in end.addresses]
    for address in _twice([address.partition("/")[0] for address in addresses]):
        yield f"address {address} is given twice"
    for host in topology.hosts:
        yield from _host_problems(host, topology.ends(host.name))


def _link_problems(link: Link) -> Iterator[str]:
    first, second = link.ends
    between = f"the link between {first.host!r} and {second.host!r}"
    if first.host == second.host:
        yield f"a link joins {first.host!r} to itself"
    for end in link.ends:
        if not 1 <= len(end.interface) <= _LONGEST_NAME or set(end.interface) & set("/: \t\n"):
            yield f"{end.interface!r} on {end.host!r} is no name of an interface: 1 to {_LONGEST_NAME} characters"
        for address in end.addresses:
            if "/" not in address or not _is_interface(address):
                yield f"{address!r} on {end.host!r} is no address with a prefix length, such as 10.0.0.1/24"
                return
    if not _networks(first) & _networks(second):
        yield f"{between} has no network that both ends are in"


def _host_problems(host: Host, ends: list[End]) -> Iterator[str]:
    for name in _twice([end.interface for end in ends]):
        yield f"host {host.name!r} has two interfaces named {name!r}"
    for what, span in (("ports", host.ports), ("NAT ports", host.nat.ports if host.nat else None)):
        if span and not 1 <= span[0] <= span[1] <= 65535:
            yield f"the {what} of {host.name!r}, {span[0]}-{span[1]}, are no range within 1-65535"
    for sysctl in host.sysctls:
        if not re.fullmatch(r"net(\.[^./]+)+", sysctl):  # any other is the whole machine's, and outlasts the lab
            yield f"{sysctl!r} of {host.name!r} is no sysctl of a network, such as net.ipv4.tcp_tw_reuse"
    networks = set().union(*(_networks(end) for end in ends))
    for route in host.routes:
        if route.network != "default" and not _is_interface(route.network):
            yield f"{route.network!r}, a route of {host.name!r}, is no network"
        elif not _reachable(route.via, networks):
            yield f"host {host.name!r} cannot reach {route.via!r}, its way to {route.network}, over any of its links"
    if host.nat:
        yield from _nat_problems(host.name, host.nat, ends)
    if host.forward:
        yield from _forward_problems(host.name, host.forward)


def _nat_problems(name: str, nat: Nat, ends: list[End]) -> Iterator[str]:
    outside = next((end for end in ends if end.interface == nat.outside), None)
    if outside is None:
        yield f"the NAT of {name!r} goes out through an unknown interface: " + unknown(
            "interface", nat.outside, [end.interface for end in ends]
        )
    elif not nat.pool:
        yield f"the NAT of {name!r} has no address to give"
    else:
        own = {address.partition("/")[0] for address in outside.addresses}
        for address in nat.pool:
            if address not in own:
                yield f"the NAT of {name!r} gives {address}, which is no address of its {nat.outside}"


def _forward_problems(name: str, forward: Forward) -> Iterator[str]:
    for address in forward.addresses:
        if not _is_address(address):
            yield f"{name!r} cannot balance what comes to {address!r}, which is no address"
    if not 1 <= forward.port <= 65535:
        yield f"{name!r} cannot balance what comes to port {forward.port}"
    if not forward.targets:
        yield f"the balancer {name!r} has no server to forward to"
    for target in forward.targets:
        if not _is_address(target.address) or not 1 <= target.port <= 65535 or not 0 <= target.weight <= 100:
            yield f"{name!r} cannot forward to {target.address}:{target.port} with weight {target.weight} (0-100)"


def _is_address(text: str) -> bool:
    return "/" not in text and _is_interface(text)


def _is_interface(text: str) -> bool:
    try:
        ipaddress.ip_interface(text)
    except ValueError:
        return False
    return True


def _networks(end: End) -> set[ipaddress.IPv4Network | ipaddress.IPv6Network]:
    return {ipaddress.ip_interface(address).network for address in end.addresses}


def _reachable(address: str, networks: set[ipaddress.IPv4Network | ipaddress.IPv6Network]) -> bool:
    return _is_interface(address) and any(ipaddress.ip_address(address) in network for network in networks)


def _twice(names: Iterable[str]) -> list[str]:
    seen: set[str] = set()
    return [name for name in names if name in seen or seen.add(name)]  # type: ignore[func-returns-value]
