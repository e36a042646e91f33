"""What does not change during a run: kernel, limits, settings, and where the destinations live."""

from __future__ import annotations

import os
from collections.abc import Sequence

from timewait.observe import addresses, counters, limits, sysctls
from timewait.observe.netlink import NetlinkError
from timewait.observe.sock_diag import SockDiag
from timewait.plan import Ports
from timewait.run import Host


def read_host(destinations: Sequence[tuple[str, int]], ports: Ports) -> Host:
    """This machine as the calling thread's network namespace sees it. Never raises: see Host.unreadable.

    `destinations` are numeric addresses and ports. The port range is that of `ports`, or ip_local_port_range;
    `Host.addresses` is left to whoever resolved the names.
    """
    settings = sysctls.read_sysctls()
    host = Host(kernel=os.uname().release, cores=len(os.sched_getaffinity(0)), sysctls=settings.values)
    host.unreadable = list(settings.unreadable)
    host.nofile_soft, host.nofile_hard = limits.open_file_limits()
    _read_ports(host, ports)
    _read_counters(host)
    places = [addresses.destination(*pair) for pair in destinations]
    host.loopback = bool(places) and all(place.address.is_loopback for place in places)
    try:
        with SockDiag() as table:
            host.local_target = any(addresses.has_listener(table, place) for place in places)
    except NetlinkError as problem:
        host.unreadable.append(f"{problem}; ports and TIME_WAIT stay unknown")
    return host


def _read_ports(host: Host, ports: Ports) -> None:
    try:
        low, high = sysctls.port_range(host.sysctls["net.ipv4.ip_local_port_range"])
    except (KeyError, ValueError):
        low, high = host.port_low, host.port_high
        host.unreadable.append(f"net.ipv4.ip_local_port_range cannot be read; {low}-{high} is assumed")
    host.port_low, host.port_high = ports.low or low, ports.high or high
    reserved = host.sysctls.get("net.ipv4.ip_local_reserved_ports", "")
    try:
        host.reserved_ports = sysctls.reserved_within(reserved, host.port_low, host.port_high)
    except ValueError:
        host.unreadable.append(f"net.ipv4.ip_local_reserved_ports {reserved!r} is not understood; none is assumed")


def _read_counters(host: Host) -> None:
    try:
        found = counters.read_counters()
    except OSError as problem:
        host.unreadable.append(f"the TCP counters in /proc/net/snmp cannot be read: {problem.strerror}")
        return
    if not any(name.startswith("TcpExt.") for name in found):
        host.unreadable.append("the TcpExt counters in /proc/net/netstat cannot be read")
    if "net.netfilter.nf_conntrack_max" in host.sysctls and counters.read_conntrack() is None:
        host.unreadable.append("conntrack is loaded, but its number of entries cannot be read")
