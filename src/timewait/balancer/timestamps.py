"""`timestamps = "strip"`: takes the timestamp option (RFC 7323) out of clients' SYNs, by an nftables rule.

A connection has timestamps only where both SYNs carry the option, so the answer to a stripped SYN has none either.
This is what CLB's layer 7 does, with its consequence: a client's tcp_tw_reuse needs timestamps, and is void then.
"""

from __future__ import annotations

import os
from collections.abc import Iterable

from timewait.balancer.config.addresses import Place, bound
from timewait.balancer.config.model import Listener, Timestamps
from timewait.balancer.engine import BalancerError
from timewait.balancer.nft import Nft

IN = "type filter hook prerouting priority raw; policy accept;"
OUT = "type filter hook output priority raw; policy accept;"  # where a client is on this machine, and NAT comes next


def rules(listeners: Iterable[Listener]) -> list[str]:
    """A rule for each address of those listeners that strip. Pure."""
    places = [
        place
        for listener in listeners
        if listener.timestamps is Timestamps.STRIP
        for place in map(bound, listener.bind)
        if isinstance(place, Place)
    ]
    # SYN without ACK never is data, and of all segments few are SYNs: that test is first.
    return [
        f"tcp flags & (fin | syn | rst | ack) == syn {meant(place, 'tcp')} reset tcp option timestamp"
        for place in places
    ]


def meant(place: Place, protocol: str) -> str:
    """The match of packets to an address and port of this machine: `ip daddr 10.0.0.1 tcp dport 80`.

    `0.0.0.0` is every IPv4 address that is this machine's own, `[::]` every one of both families, as for a socket.
    """
    family = "ip" if place.address.version == 4 else "ip6"
    if not place.address.is_unspecified:
        return f"{family} daddr {place.address} {protocol} dport {place.port}"
    only = "meta nfproto ipv4 " if family == "ip" else ""
    return f"{only}{protocol} dport {place.port} fib daddr type local"


def text(listeners: Iterable[Listener], name: str, *, owner: bool = True) -> str:
    """The whole table, empty where no listener strips. Pure."""
    found = rules(listeners)
    if not found:
        return ""
    lines = "".join(f"\t\t{rule}\n" for rule in found)
    flags = "\tflags owner\n" if owner else ""
    return f"table inet {name} {{\n{flags}\tchain strip-in {{\n\t\t{IN}\n{lines}\t}}\n}}\n"


class Stripped:
    """The rules in the kernel, for as long as this process lives or until `close()`; nothing is done for nobody.

    Raises BalancerError when they are needed and not allowed.
    """

    def __init__(self, engine: str) -> None:
        self._name = f"timewait-{engine}-{os.getpid()}"
        self._nft: Nft | None = None
        self._text = ""

    def apply(self, listeners: Iterable[Listener]) -> None:
        """The rules of these listeners from now on, in place of those before."""
        wanted = text(listeners, self._name)
        if wanted == self._text:
            return
        if self._nft is None:
            self._nft = _opened()
        self._nft.run((f"delete table inet {self._name}\n" if self._text else "") + wanted)
        self._text = wanted

    def close(self) -> None:
        """Takes the rules away."""
        if self._nft is not None:
            self._nft.close()
            self._nft = None
        self._text = ""


def _opened() -> Nft:
    try:
        return Nft()
    except BalancerError as error:
        raise BalancerError(f'timestamps = "strip" is a rule of nftables: {error}') from None
