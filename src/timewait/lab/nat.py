"""What gateways and layer-4 balancers do to packets, done by the kernel's own nftables (nft(8)).

The rules are one text per host, given to `nft -f -` in its namespace. Conntrack's timeouts are
sysctls of that namespace.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from timewait.lab import links
from timewait.lab.processes import find
from timewait.lab.topology import Forward, Host, Nat, PortChoice, Target

if TYPE_CHECKING:
    from typing import Protocol

    class Runs(Protocol):
        def __call__(self, words: list[str], *, input: str = "") -> str: ...


PACKAGE = "nftables"  # Debian's, of nft
_FAMILIES = {"ip": ".", "ip6": ":"}  # and what an address of it has in its text
_TIMEOUT = "net.netfilter.nf_conntrack_tcp_timeout_"


def apply(host: Host, run: Runs) -> dict[str, str]:
    """Loads the host's rules through `run`; the sysctls that go with them. Raises MissingProgramError."""
    text = ruleset(host, ipv6=links.has_ipv6())
    if not text:
        return {}
    run([find("nft", PACKAGE), "-f", "-"], input=text)
    timeouts: dict[str, int] = {}
    for part in (host.nat, host.forward):
        timeouts |= part.timeouts if part else {}
    return {_TIMEOUT + name: str(seconds) for name, seconds in timeouts.items()}


def ruleset(host: Host, *, ipv6: bool = True) -> str:
    """The rules of a host in nft's language; empty where it translates nothing."""
    families = _FAMILIES if ipv6 else {"ip": "."}
    lines: list[str] = []
    if host.nat:
        lines += _source_nat(host.nat, families)
        drops = [DROP_INVALID] * host.nat.drop_invalid + [DROP_ACKS_TO_SYNS] * host.nat.drop_acks_to_syns
        if drops:
            lines += _table("inet", "firewall", "forward", "filter", "forward", "filter", drops)
    if host.forward:
        lines += _forward(host.forward, families)
    return "".join(f"{line}\n" for line in lines)


DROP_INVALID = "ct state invalid counter drop"
# A connection is assured from the client's second segment on (tcp_packet(), net/netfilter/nf_conntrack_proto_tcp.c).
DROP_ACKS_TO_SYNS = "ct direction reply ct status & assured == 0 tcp flags & (syn | rst | ack) == ack counter drop"


def _source_nat(nat: Nat, families: dict[str, str]) -> Iterator[str]:
    flags = [nat.choice.value] if nat.choice is not PortChoice.KEEP else []
    flags += ["persistent"] if nat.persistent else []
    for family, sign in families.items():
        pool = [address for address in nat.pool if sign in address]
        if not pool:
            continue
        words = " ".join(flags)
        out = f'oifname "{nat.outside}"'
        rules = [
            f"{out} meta l4proto tcp snat to {_ranges(family, pool, nat.ports)} {words}".rstrip(),
            f"{out} snat to {_ranges(family, pool, None)}",
        ]
        yield from _table(family, "nat", "postrouting", "nat", "postrouting", "srcnat", rules)


def _ranges(family: str, pool: list[str], ports: tuple[int, int] | None) -> str:
    """`10.0.0.2-10.0.0.5:20000-20999`. A pool is a run of addresses, as snat takes no list."""
    ends = [f"[{address}]" if family == "ip6" and ports else address for address in (pool[0], pool[-1])]
    addresses = ends[0] if len(pool) == 1 else "-".join(ends)
    return addresses + (f":{ports[0]}-{ports[1]}" if ports else "")


def _forward(forward: Forward, families: dict[str, str]) -> Iterator[str]:
    for family, sign in families.items():
        addresses = [address for address in forward.addresses if sign in address]
        targets = [target for target in forward.targets if sign in target.address and target.weight]
        if not addresses or not targets:
            continue
        meant = f"{family} daddr {{ {', '.join(addresses)} }} tcp dport {forward.port}"
        if forward.strip_timestamps:
            strip = f"{meant} tcp flags & (syn | rst | fin) == syn reset tcp option timestamp"
            yield from _table(family, "strip", "prerouting", "filter", "prerouting", "raw", [strip])
        turn = f"{meant} dnat to {_turns(targets)}"
        yield from _table(family, "balance", "prerouting", "nat", "prerouting", "dstnat", [turn])
        if forward.full:
            rules = ["ct status dnat masquerade"]
            yield from _table(family, "full", "postrouting", "nat", "postrouting", "srcnat", rules)


def _turns(targets: list[Target]) -> str:
    """Weighted round robin, a connection at a time: of every ten the first six to one, the other four to the next."""
    places, start = [], 0
    for target in targets:
        last = start + target.weight - 1
        turns = str(start) if last == start else f"{start}-{last}"
        places.append(f"{turns} : {target.address} . {target.port}")
        start = last + 1
    return f"numgen inc mod {start} map {{ {', '.join(places)} }}"


def _table(
    family: str, table: str, chain: str, kind: str, hook: str, priority: str, rules: list[str]
) -> list[str]:  # fmt: skip
    head = f"type {kind} hook {hook} priority {priority}; policy accept;"
    return [
        f"table {family} {table} {{",
        f"  chain {chain} {{",
        f"    {head}",
        *(f"    {r}" for r in rules),
        "  }",
        "}",
    ]
