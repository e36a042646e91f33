"""A topology built: namespaces, links, addresses, routes, sysctls, NAT; gone with the process.

Call `enter()` once before `build`. Only descriptors of this process hold the namespaces, and the programs inside are
killed with it, so nothing is left behind however it ends.
"""

from __future__ import annotations

import difflib
import errno
import ipaddress
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path

from pyroute2 import IPRoute

from timewait.lab import links, nat, processes
from timewait.lab.namespaces import Namespace
from timewait.lab.processes import Process, ProgramError
from timewait.lab.server import BODY, Server
from timewait.lab.topology import Host, Link, Topology, TopologyError, unknown
from timewait.lab.wire import Wire, WireSpec

_FORWARDING = {"net.ipv4.ip_forward": "1", "net.ipv6.conf.all.forwarding": "1"}


class LabHost:
    """A host that is up."""

    def __init__(self, host: Host, namespace: Namespace, addresses: list[str]) -> None:
        self.host = host
        self.name = host.name
        self.namespace = namespace
        self.addresses = addresses  # without prefix length, in the topology's order: IPv4 before IPv6
        self.programs: list[str] = []  # that were started inside, "nginx"
        self.watched: list[Callable[[], str | None]] = []  # each says how a process ended, or None
        self._ended = ExitStack()

    def __repr__(self) -> str:
        return f"<LabHost {self.name} {' '.join(self.addresses)}>"

    @property
    def address(self) -> str:
        """Its first IPv4 address. Raises TopologyError where it has none, as `address6` does."""
        return self._first(".", "IPv4")

    @property
    def address6(self) -> str:
        """Its first IPv6 address."""
        return self._first(":", "IPv6")

    def _first(self, sign: str, family: str) -> str:
        found = next((address for address in self.addresses if sign in address), "")
        if not found:
            raise TopologyError(f"host {self.name!r} has no {family} address")
        return found

    def entered(self) -> AbstractContextManager[None]:
        """The calling thread is inside, as `Namespace.entered` says."""
        return self.namespace.entered()

    def run(self, words: Sequence[str], *, input: str = "", timeout: float = 30.0) -> str:
        """Runs a command inside to its end; what it printed. Raises ProgramError when it fails, with its words."""
        with self.entered():
            done = processes.run(words, input=input, timeout=timeout)
        if done.status:
            said = (done.stderr.strip() or done.stdout.strip()).splitlines()
            errors = [line for line in said if "Error" in line]  # nft shows a line and points at a word of it then
            reason = (errors or said[-1:] or [processes.death("it", done.status)])[0]
            raise ProgramError(f"{' '.join(words)} on {self.name}: {reason}")
        return done.stdout

    def start(
        self,
        words: Sequence[str],
        *,
        name: str = "",
        keep: Iterable[int] = (),
        prepare: Callable[[], None] = lambda: None,
        environment: Mapping[str, str] | None = None,
    ) -> Process:
        """Starts a program inside, as `processes.start` says; it ends with the network and is told of in `died`."""
        name = name or Path(words[0]).name
        with self.entered():
            process = processes.start(
                f"{name} on {self.name}", words, keep=keep, prepare=prepare, environment=environment
            )
        self._ended.callback(process.close)
        self.watched.append(process.died)
        self.programs.append(name)
        return process

    def serve(
        self, port: int = 80, body: bytes = BODY, *, address: str = "", sized: bool = True
    ) -> list[Server]:  # fmt: skip
        """Starts the lab's `Server` on every address, or on one: one for each family, IPv4 first."""
        servers = []
        for one in [address] if address else ["0.0.0.0", "::"] if links.has_ipv6() else ["0.0.0.0"]:
            with self.entered():
                server = Server(one, port, body, sized=sized)
            self._ended.callback(server.stop)
            self.watched.append(lambda server=server: _server_died(self.name, server))  # type: ignore[misc]
            servers.append(server)
        self.programs.append("server")
        return servers

    def sysctl(self, name: str) -> str:
        with self.entered():
            return Path("/proc/sys", name.replace(".", "/")).read_text().strip()

    def set_sysctl(self, name: str, value: str) -> None:
        """Raises OSError: FileNotFoundError where the kernel has none of that name."""
        with self.entered():
            links.set_sysctl(name, value)

    def close(self) -> None:
        self.watched.clear()
        self._ended.close()


class Network:
    """What `build` gives: hosts by name."""

    def __init__(self, topology: Topology) -> None:
        self.topology = topology
        self.hosts: dict[str, LabHost] = {}
        self.wires: list[Wire] = []  # in the order of the topology's links that have one

    def __getitem__(self, name: str) -> LabHost:
        """Raises TopologyError, naming the nearest, where there is no such host."""
        if name not in self.hosts:
            raise TopologyError(unknown("host", name, self.hosts))
        return self.hosts[name]

    def died(self) -> list[str]:
        """One sentence about each process of ours that has ended by itself: `nginx on balancer was ended by ...`."""
        watches = [watch for host in self.hosts.values() for watch in host.watched]
        return [told for watch in (*watches, *(wire.died for wire in self.wires)) if (told := watch())]


@contextmanager
def build(topology: Topology) -> Iterator[Network]:
    """Builds it; all programs started in it and all its namespaces end with the context.

    Raises MissingProgramError where NAT needs `nft` and there is none, TopologyError for a sysctl that this kernel
    does not have or refuses, and OSError or NetlinkError of the kernel (PermissionError: `enter()` was not called).
    """
    network = Network(topology)
    with ExitStack() as stack:
        sockets: dict[str, IPRoute] = {}
        for host in topology.hosts:
            namespace = stack.enter_context(Namespace(host.name))
            lab_host = LabHost(host, namespace, _addresses(topology, host.name))
            network.hosts[host.name] = lab_host
            stack.callback(lab_host.close)
        with ExitStack() as while_building:
            for host in topology.hosts:
                with network[host.name].entered():
                    sockets[host.name] = while_building.enter_context(IPRoute())
            for link in topology.links:
                if link.wire is not None:
                    stack.callback(_wire(network, link, link.wire).stop)
                _join(network, sockets, link)
            for host in topology.hosts:
                _configure(network[host.name], sockets[host.name])
        yield network


@contextmanager
def _refused(what: str) -> Iterator[None]:
    """What the kernel finds wrong with a part of a topology is that topology's fault, unless it is about rights."""
    try:
        yield
    except links.NetlinkError as error:
        if error.code in (errno.EPERM, errno.EOPNOTSUPP):
            raise
        raise TopologyError(f"the kernel refuses {what}: {os.strerror(error.code)}") from None


def _addresses(topology: Topology, host: str) -> list[str]:
    """Without prefix length, IPv4 first."""
    found = [address.partition("/")[0] for end in topology.ends(host) for address in end.addresses]
    four, six = ([address for address in found if sign in address] for sign in ".:")
    return four + (six if links.has_ipv6() else [])


def _wire(network: Network, link: Link, spec: WireSpec) -> Wire:
    """The process between the hosts of a link; it makes their interfaces."""
    a, b = link.ends
    try:
        wire = Wire(spec, (network[a.host].namespace, a.interface), (network[b.host].namespace, b.interface))
    except OSError as error:
        if not spec.pcap or error.filename != spec.pcap:
            raise
        between = f"the wire between {a.host!r} and {b.host!r}"
        raise TopologyError(f"{between} cannot record to {spec.pcap}: {error.strerror}") from None
    network.wires.append(wire)
    return wire


def _join(network: Network, sockets: dict[str, IPRoute], link: Link) -> None:
    """Addresses on both ends of a link; without a wire the link itself too."""
    one, other = link.ends
    if link.wire is None:
        peer = {"ifname": other.interface, "net_ns_fd": network[other.host].namespace.fd}
        with _refused(f"interfaces {one.interface!r} on {one.host!r} and {other.interface!r} on {other.host!r}"):
            sockets[one.host].link("add", ifname=one.interface, kind="veth", peer=peer)
    for end in link.ends:
        sockets[end.host].link("set", ifname=end.interface, state="up")
    # Once both ends are up: an IPv6 address given to an interface without carrier answers nobody for a second.
    for end in link.ends:
        netlink = sockets[end.host]
        index = netlink.link_lookup(ifname=end.interface)[0]
        for address in end.addresses:
            interface = ipaddress.ip_interface(address)
            if interface.version == 6 and not links.has_ipv6():
                continue
            flags = {"flags": links.IFA_F_NODAD} if interface.version == 6 else {}
            with _refused(f"address {address} on {end.host!r}"):
                netlink.addr(
                    "add", index=index, address=str(interface.ip), prefixlen=interface.network.prefixlen, **flags
                )


def _configure(host: LabHost, netlink: IPRoute) -> None:
    for route in host.host.routes:
        if ":" not in route.via or links.has_ipv6():
            with _refused(f"the way of {host.name!r} to {route.network} by {route.via}"):
                netlink.route("add", dst=route.network, gateway=route.via)
    forwards = host.host.nat is not None or host.host.forward is not None
    wishes = {**(_FORWARDING if forwards else {}), **host.host.sysctls}
    if host.host.ports:
        wishes["net.ipv4.ip_local_port_range"] = f"{host.host.ports[0]} {host.host.ports[1]}"
    # Rules first: conntrack's sysctls may exist only once it is at work, and what the host is told comes last.
    for name, value in {**nat.apply(host.host, host.run), **wishes}.items():
        _set(host, name, value)


def _set(host: LabHost, name: str, value: str) -> None:
    try:
        host.set_sysctl(name, value)
    except FileNotFoundError:
        if name.startswith("net.ipv6.") and not links.has_ipv6():
            return
        with host.entered():
            known = [one.name for one in Path("/proc/sys", *name.split(".")[:-1]).glob("*")]
        near = difflib.get_close_matches(name.rpartition(".")[2], known, 3, 0.6)
        hint = f"; did you mean {' or '.join(near)}?" if near else ""
        raise TopologyError(f"{host.name!r}: this kernel ({os.uname().release}) has no sysctl {name}{hint}") from None
    except OSError as error:
        raise TopologyError(f"{host.name!r}: the kernel refuses {name}={value}: {error.strerror}") from None


def _server_died(host: str, server: Server) -> str | None:
    status = server.status
    return None if status is None else processes.death(f"the server on {host}", status)
