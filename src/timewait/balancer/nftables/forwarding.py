"""Whether this machine forwards packets at all: the kernel's switch, which is not ours to turn."""

from __future__ import annotations

import socket
from pathlib import Path

from timewait.balancer.config.addresses import Address, place
from timewait.balancer.config.model import Configuration
from timewait.balancer.engine import BalancerError
from timewait.balancer.nftables.ruleset import listeners_of

_SWITCHES = {4: "net.ipv4.ip_forward", 6: "net.ipv6.conf.all.forwarding"}


def check(configuration: Configuration) -> None:
    """Raises BalancerError where a target is another machine and forwarding is off.

    It makes the whole machine a router, between all of its networks and beyond our end, so its owner decides.
    """
    for pool in {listener.pool for listener in listeners_of(configuration)}:
        for target in configuration.pool_named(pool).target:
            address = place(target.addr).address
            switch = _SWITCHES[address.version]
            if not _is_on(switch) and not is_local(address):
                raise BalancerError(
                    f"target {target.addr} is another machine, and the kernel forwards nothing: "
                    f"`sudo sysctl {switch}=1` (as it is for the whole machine, this is for you to do)"
                )


def _is_on(switch: str) -> bool:
    try:
        return Path("/proc/sys", switch.replace(".", "/")).read_text().strip() != "0"
    except OSError:
        return False


def is_local(address: Address) -> bool:
    """Whether it is an address of this machine."""
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as trial:
            trial.bind((str(address), 0))
    except OSError:
        return False
    return True
