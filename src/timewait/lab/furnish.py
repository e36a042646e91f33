"""Puts the programs into a network: servers on the servers, and whatever plays the balancer."""

from __future__ import annotations

import msgspec

from timewait.lab import programs
from timewait.lab.network import Network
from timewait.lab.topology import Role, TopologyError, unknown

KERNEL, OWN, NONE = "kernel", "own", "none"
CHOICES = (*programs.BALANCERS, OWN, NONE)


def furnish(network: Network, balancer: str = "", settings: programs.Settings | None = None) -> str:
    """Starts everything; what plays the balancer then: timewait, nginx, haproxy, own, kernel or none.

    An empty `balancer` means `timewait`; `own` is the lab's server, which answers itself and asks no server. Raises
    MissingProgramError, ProgramError, or TopologyError for a wrong choice.
    """
    roles = {role: [host for host in network.hosts.values() if host.host.role == role] for role in Role}
    for server in roles[Role.SERVER]:
        server.serve()
    balancers = roles[Role.BALANCER]
    in_kernel = [host for host in balancers if host.host.forward]
    if in_kernel and balancer not in ("", NONE):
        raise TopologyError(
            f"the balancer of topology {network.topology.name!r} is the kernel itself; leave --balancer out"
        )
    if balancer and balancer not in CHOICES:
        raise TopologyError(unknown("balancer", balancer, CHOICES))
    if in_kernel or balancer == NONE:
        return KERNEL if in_kernel else NONE
    chosen = balancer or next(iter(programs.BALANCERS))
    wished = settings or programs.Settings()
    wished = msgspec.structs.replace(wished, servers=tuple(f"{one.address}:80" for one in roles[Role.SERVER]))
    for host in balancers:
        if chosen == OWN:
            host.serve()
        else:
            programs.BALANCERS[chosen](host, wished)
    return chosen
