"""Links, addresses, routes and sysctls, all of the namespace the calling thread is in (`Namespace.entered`)."""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import TYPE_CHECKING

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

if TYPE_CHECKING:
    from timewait.lab.namespaces import Namespace

__all__ = ["NetlinkError", "add_address", "add_route", "has_ipv6", "join", "set_sysctl", "up"]

IFA_F_NODAD = 2  # linux/if_addr.h: usable at once; on a link of two there is nobody to ask for a duplicate


def join(first: Namespace, first_name: str, second: Namespace, second_name: str) -> None:
    """A veth pair between two namespaces, both ends up. Raises NetlinkError (EEXIST: a name is taken)."""
    with first.entered(), IPRoute() as netlink:
        netlink.link("add", ifname=first_name, kind="veth", peer={"ifname": second_name, "net_ns_fd": second.fd})
    for end, name in ((first, first_name), (second, second_name)):
        with end.entered():
            up(name)


def up(name: str) -> None:
    """Sets an interface up. Raises NetlinkError, or LookupError when there is none of that name."""
    with IPRoute() as netlink:
        netlink.link("set", index=_index(netlink, name), state="up")


def add_address(name: str, address: str) -> None:
    """Gives an interface an address with its prefix length, `10.0.0.1/24` or `fd00::1/64`, usable at once."""
    interface = ipaddress.ip_interface(address)
    flags = {"flags": IFA_F_NODAD} if interface.version == 6 else {}
    with IPRoute() as netlink:
        index = _index(netlink, name)
        netlink.addr("add", index=index, address=str(interface.ip), prefixlen=interface.network.prefixlen, **flags)


def add_route(network: str, gateway: str) -> None:
    """Sends what is for `network` (`10.1.0.0/16`, `default`) through `gateway`. Raises NetlinkError."""
    with IPRoute() as netlink:
        netlink.route("add", dst=network, gateway=gateway)


def set_sysctl(name: str, value: str) -> None:
    """Sets `net.ipv4.tcp_tw_reuse` and the like. Raises OSError: FileNotFoundError where the kernel has none."""
    Path("/proc/sys", name.replace(".", "/")).write_text(value)


def has_ipv6() -> bool:
    """Whether this kernel has IPv6 (it may be built, or booted, without)."""
    return Path("/proc/sys/net/ipv6").exists()


def _index(netlink: IPRoute, name: str) -> int:
    found = netlink.link_lookup(ifname=name)
    if not found:
        raise LookupError(f"no interface {name!r} in this namespace")
    return int(found[0])
