"""A balancer's configuration as a table of nftables (nft(8)). Pure.

The way of a connection's first packet, the only one of it that sees these rules (the others go by conntrack):

    prerouting (clients elsewhere), output (clients on this machine)
      -> on-LISTENER    is it a beginning? too many? its timeout, its counter
      -> to-POOL-...    whose turn it is: dnat
    postrouting
      -> counted by target; full NAT: the source address becomes one of ours (from-LISTENER-...)

A segment without a connection that is no SYN is answered by a reset: it belongs to one that was cut, or idled out.
What conntrack calls invalid must not reach this machine's own TCP, which knows nothing of the connection and would
reset it; that is the input chain. Packets that are forwarded do not pass it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from ipaddress import ip_address

from timewait.balancer import timestamps
from timewait.balancer.config.addresses import Place, bound, place, source
from timewait.balancer.config.effective import idle
from timewait.balancer.config.model import (
    Configuration,
    Engine,
    Listener,
    Nat,
    Pool,
    Protocol,
    Scheduler,
    SessionType,
)
from timewait.balancer.engine import Rotation
from timewait.balancer.nftables import turns
from timewait.balancer.nftables.table import Table, rendered

NAME = "timewait"
FAMILIES = {4: "ip", 6: "ip6"}
_SEED = 0x7117  # of jhash: fixed, so that a client's target is the same after a restart
_SESSIONS = 1 << 20  # clients remembered for a target; one more is not, and gets its turn each time
_RESET = {Protocol.TCP: "reject with tcp reset", Protocol.UDP: "reject with icmpx port-unreachable"}
_BEGINS = "tcp flags & (fin | syn | rst | ack) != syn"


def text(configuration: Configuration, rotations: Mapping[str, Rotation] | None = None) -> str:
    """The ruleset as it can be read and loaded (`nft -f`); without rotations, with the file's weights."""
    return rendered(table(configuration, rotations), NAME, owner=False)


def listeners_of(configuration: Configuration) -> list[Listener]:
    """Those that nftables forwards for."""
    return [one for one in configuration.listener if configuration.engine_of(one) is Engine.NFTABLES]


def sets_of(configuration: Configuration) -> list[str]:
    """Names of the sets whose elements are targets, with a counter each."""
    found = []
    for listener in listeners_of(configuration):
        pool = configuration.pool_named(listener.pool)
        found += [_at(pool, listener.protocol, version) for version in FAMILIES if _targets(pool, version)]
    return list(dict.fromkeys(found))


def weights_of(pool: Pool, rotations: Mapping[str, Rotation] | None) -> tuple[tuple[str, int], ...]:
    """The weights that count now; the file's where nobody said otherwise."""
    rotation = (rotations or {}).get(pool.name)
    known = dict(rotation.weights) if rotation else {}
    return tuple((target.addr, known.get(target.addr, target.weight)) for target in pool.target)


def table(
    configuration: Configuration, rotations: Mapping[str, Rotation] | None = None, *, closed: bool = False
) -> Table:
    """The table; `closed`: new connections are refused, and those that are open go on."""
    build = _Build(configuration, rotations)
    listeners = listeners_of(configuration)
    for listener in listeners:
        build.listener(listener, closed)
    for pool, protocol in dict.fromkeys((one.pool, one.protocol) for one in listeners):
        build.pool(configuration.pool_named(pool), protocol)
    build.hooks(listeners)
    return Table(objects=build.objects, elements=build.elements, chains=build.chains)


class _Build:
    """A table under way."""

    def __init__(self, configuration: Configuration, rotations: Mapping[str, Rotation] | None) -> None:
        self._configuration, self._rotations = configuration, rotations
        self.objects: dict[str, tuple[str, ...]] = {}
        self.elements: dict[str, tuple[str, ...]] = {}
        self.chains: dict[str, tuple[str, ...]] = {}

    def listener(self, listener: Listener, closed: bool) -> None:
        """The chain that admits, and the one that gives source addresses."""
        reset = _RESET[listener.protocol]
        rules = [f"{_BEGINS} {reset}"] if listener.protocol is Protocol.TCP else []
        # The rate first: `ct count` counts whoever comes by, also whom a later rule turns away.
        for limit, kind, match in (
            (listener.max_cps, "fast", "limit rate over {0}/second burst {0} packets"),
            (listener.max_conn, "full", "ct count over {}"),
        ):
            if limit >= 0:
                self.objects[f"counter {kind}-{listener.name}"] = ()
                rules.append(f'{match.format(limit)} counter name "{kind}-{listener.name}" {reset}')
        self.objects[f"counter new-{listener.name}"] = ()
        rules += [self._timeout(listener), f'counter name "new-{listener.name}"']
        pool = self._configuration.pool_named(listener.pool)
        for version in _versions(listener):
            if _targets(pool, version):
                rules.append(f"meta nfproto ipv{version} goto {_to(pool, listener.protocol, version)}")
        self.chains[f"on-{listener.name}"] = (reset,) if closed else (*rules, reset)
        for version in _versions(listener):
            sources = _snat(listener, version)
            if len(sources) > 1:
                self.chains[f"from-{listener.name}-{version}"] = tuple(sources)

    def _timeout(self, listener: Listener) -> str:
        seconds = round(idle(listener))
        name = f"idle-{listener.protocol}-{seconds}"
        state = "established" if listener.protocol is Protocol.TCP else "replied"
        self.objects[f"ct timeout {name}"] = (
            f"protocol {listener.protocol};",
            "l3proto inet;",
            f"policy = {{ {state} : {seconds} }};",
        )
        return f'ct timeout set "{name}"'

    def pool(self, pool: Pool, protocol: Protocol) -> None:
        """The chains that choose a target, one for each family of addresses."""
        for version, family in FAMILIES.items():
            targets = _targets(pool, version)
            if not targets:
                continue
            known = dict(weights_of(pool, self._rotations))
            weights = [(address, known[address]) for address in targets]
            name = _to(pool, protocol, version)
            addresses = _addresses(version)
            self.objects[f"set {_at(pool, protocol, version)}"] = (f"type {addresses}; counter;",)
            self.elements[f"set {_at(pool, protocol, version)}"] = tuple(map(_pair, targets))
            if pool.session.type is SessionType.SOURCE_IP and turns.in_turn(weights):
                self._sessions(pool, protocol, version, weights)
                continue
            dnat = f"meta l4proto {protocol} dnat {family} to"
            self.chains[name] = (_choice(pool, family, weights, dnat) or _RESET[protocol],)

    def _sessions(self, pool: Pool, protocol: Protocol, version: int, weights: turns.Weights) -> None:
        """A set of clients for each target, whose time begins anew with each connection. A target that leaves the
        rotation takes its set along. (One map of clients to targets would be shorter, but nft 1.0.6 has not registers
        enough for one of IPv6, and gives up by abort().)"""
        family, name = FAMILIES[version], _to(pool, protocol, version)
        ring = turns.in_turn(weights)
        rules = []
        chains = {address: f"{name}-{_word(address)}" for address in dict.fromkeys(ring)}
        for address, chain in chains.items():
            kept = f"keep-{pool.name}-{protocol}-{_word(address)}-{round(pool.session.ttl)}"
            self.objects[f"set {kept}"] = (
                f"type {'ipv4_addr' if version == 4 else 'ipv6_addr'};",
                f"flags dynamic,timeout; timeout {round(pool.session.ttl)}s; size {_SESSIONS};",
            )
            self.chains[chain] = (
                f"update @{kept} {{ {family} saddr }}",
                f"meta l4proto {protocol} dnat {family} to {place(address)}",
            )
            rules.append(f"{family} saddr @{kept} goto {chain}")
        verdicts = ", ".join(f"{number} : goto {chains[address]}" for number, address in turns.ranges(ring))
        self.chains[name] = (*rules, f"numgen inc mod {len(ring)} vmap {{ {verdicts} }}")

    def hooks(self, listeners: list[Listener]) -> None:
        """The base chains, where the kernel comes in."""
        stripped = timestamps.rules(listeners)
        if stripped:
            self.chains["strip-in"] = (timestamps.IN, *stripped)
            self.chains["strip-out"] = (timestamps.OUT, *stripped)
        entries, here = [], set()
        for listener in listeners:
            for at in _places(listener):
                entries += [f"{match} goto on-{listener.name}" for match in self._meant(listener, at)]
                here.add((str(listener.protocol), at.port))
        self.chains["prerouting"] = ("type nat hook prerouting priority dstnat; policy accept;", *entries)
        self.chains["output"] = ("type nat hook output priority -100; policy accept;", *entries)
        self.chains["input"] = (
            "type filter hook input priority filter; policy accept;",
            *(f"ct state invalid {protocol} dport {port} drop" for protocol, port in sorted(here)),
            *dict.fromkeys(rule for listener in listeners for rule in self._invalid(listener)),
        )
        self.chains["postrouting"] = (
            "type nat hook postrouting priority srcnat; policy accept;",
            *dict.fromkeys(rule for listener in listeners for rule in self._leaving(listener, listeners)),
        )

    def _meant(self, listener: Listener, at: Place) -> list[str]:
        """What is for a listener. 127.0.0.1 cannot be the source of a packet that leaves the machine, so a wildcard
        means it only where its targets are there too."""
        if not at.address.is_unspecified:
            return [timestamps.meant(at, listener.protocol)]
        targets = [place(target.addr).address for target in self._configuration.pool_named(listener.pool).target]
        match = f"{listener.protocol} dport {at.port} fib daddr type local"
        spared = "" if any(one.is_loopback for one in targets) else " ip daddr != 127.0.0.0/8"
        four = f"meta nfproto ipv4 {match}{spared}"
        return [four] if at.address.version == 4 else [four, f"meta nfproto ipv6 {match}"]

    def _invalid(self, listener: Listener) -> Iterator[str]:
        for family, at in self._sets(listener):
            yield f"ct state invalid {family} saddr . {listener.protocol} sport @{at} drop"

    def _leaving(self, listener: Listener, listeners: list[Listener]) -> Iterator[str]:
        """After dnat: counted by the set of targets; then full NAT, but not to this machine itself."""
        pool = self._configuration.pool_named(listener.pool)
        for family, at in self._sets(listener):
            version = 4 if family == "ip" else 6
            rule = f"{family} daddr . {listener.protocol} dport @{at}"
            if pool.nat is Nat.FULL:
                sources = _snat(listener, version)
                many = f"goto from-{listener.name}-{version}"
                rule += f' oifname != "lo" {many if len(sources) > 1 else sources[0]}'
            for wanted in _wanted(listener, listeners, version):
                yield f"meta l4proto {listener.protocol} ct status dnat {wanted} {rule}"

    def _sets(self, listener: Listener) -> Iterator[tuple[str, str]]:
        pool = self._configuration.pool_named(listener.pool)
        for version, family in FAMILIES.items():
            name = _at(pool, listener.protocol, version)
            if f"set {name}" in self.objects:
                yield family, name


def _choice(pool: Pool, family: str, weights: turns.Weights, dnat: str) -> str:
    """The rule that sends on; empty where nobody is in rotation."""
    hashed = pool.scheduler is Scheduler.IP_HASH
    ring = turns.by_hash(weights) if hashed else turns.in_turn(weights)
    if not ring:
        return ""
    if len(set(ring)) == 1:
        return f"{dnat} {place(ring[0])}"
    number = f"jhash {family} saddr mod {len(ring)} seed {_SEED:#x}" if hashed else f"numgen inc mod {len(ring)}"
    shares = turns.ranges(ring) if len(ring) > 256 else [(str(i), address) for i, address in enumerate(ring)]
    return f"{dnat} {number} map {{ {', '.join(f'{turn} : {_pair(address)}' for turn, address in shares)} }}"


def _snat(listener: Listener, version: int) -> list[str]:
    """A rule for each source address, in turn: the first takes one of n, the next one of the n - 1 left."""
    found = []
    for one in map(source, listener.upstream.source):
        if one.address.version != version:
            continue
        address = f"[{one.address}]" if version == 6 and one.low else str(one.address)
        ports = f":{one.low}-{one.high}" if one.low else ""
        found.append(f"meta l4proto {listener.protocol} snat {FAMILIES[version]} to {address}{ports}")
    left = range(len(found), 1, -1)
    turned = [f"numgen inc mod {count} 0 {rule}" for count, rule in zip(left, found, strict=False)]
    return [*turned, found[-1]] if found else ["masquerade"]


def _wanted(listener: Listener, listeners: list[Listener], version: int) -> list[str]:
    """Matches of whom clients wanted before dnat; by port alone where that is enough."""
    places = _places(listener)
    ports = sorted({at.port for at in places})
    others = [at for other in listeners if other is not listener for at in _places(other)]
    if not any(at.port in ports for at in others):
        return [f"ct original proto-dst {{ {', '.join(map(str, ports))} }}"]
    found = []
    for at in places:
        port = f"ct original proto-dst {at.port}"
        if at.address.is_unspecified:
            found.append(port)
        elif at.address.version == version:
            found.append(f"ct original {FAMILIES[version]} daddr {at.address} {port}")
    return found


def _places(listener: Listener) -> list[Place]:
    return [at for at in map(bound, listener.bind) if isinstance(at, Place)]


def _versions(listener: Listener) -> list[int]:
    """IP versions that clients may come with; `[::]` takes both."""
    found: set[int] = set()
    for at in _places(listener):
        found |= {4, 6} if at.address.version == 6 and at.address.is_unspecified else {at.address.version}
    return sorted(found)


def _targets(pool: Pool, version: int) -> list[str]:
    return [target.addr for target in pool.target if place(target.addr).address.version == version]


def _to(pool: Pool, protocol: Protocol, version: int) -> str:
    return f"to-{pool.name}-{protocol}-{version}"


def _at(pool: Pool, protocol: Protocol, version: int) -> str:
    return f"at-{pool.name}-{protocol}-{version}"


def _addresses(version: int) -> str:
    return f"{'ipv4_addr' if version == 4 else 'ipv6_addr'} . inet_service"


def _pair(address: str) -> str:
    at = place(address)
    return f"{ip_address(at.address)} . {at.port}"


def _word(address: str) -> str:
    """An address in a chain's name."""
    at = place(address)
    return f"{str(at.address).replace(':', '_')}_{at.port}"
