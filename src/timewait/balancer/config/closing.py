"""Who closes first, and where TIME_WAIT stands: a configuration told in plain words, with what it costs in ports.

TIME_WAIT stays with whoever sends the first FIN (RFC 9293, 3.6), for 60 s on Linux. At a listening port it costs
memory; at the end that connected it keeps a source port toward that destination. Pure.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator

from timewait.balancer.config import addresses
from timewait.balancer.config.effective import idle
from timewait.balancer.config.model import (
    ClientClose,
    Configuration,
    Engine,
    Listener,
    Nat,
    Protocol,
    Timestamps,
    UpstreamClose,
)
from timewait.balancer.config.units import duration_text
from timewait.tcp import ports

HTTP = (Protocol.HTTP, Protocol.HTTPS)
WIDTH = 100
NAT_PORTS = ports.NAT_PORTS[1] - ports.NAT_PORTS[0] + 1
_UNIX = ["they come over a unix socket, which has neither ports nor TIME_WAIT."]


def summary(configuration: Configuration) -> list[str]:
    """Comment lines: a heading, then for each listener its two sides."""
    found = ["# Who closes first, and where TIME_WAIT stands"]
    for listener in configuration.listener:
        engine = configuration.engine_of(listener)
        for side, sentences in sides(configuration, listener, engine):
            text = f"{listener.name}, {side}: {' '.join(sentences)}"
            found += ["#", *textwrap.wrap(text, WIDTH, initial_indent="# ", subsequent_indent="#   ")]
    return found


def sides(configuration: Configuration, listener: Listener, engine: Engine) -> Iterator[tuple[str, list[str]]]:
    """("clients", sentences), ("targets of app", sentences)."""
    names = list(dict.fromkeys([listener.pool] if listener.pool else [rule.pool for rule in listener.rule]))
    targets = f"targets of {_and(names)}"
    if engine is Engine.NFTABLES:
        yield "clients", _packets(listener)
        full = any(configuration.pool_named(name).nat is Nat.FULL for name in names)
        yield targets, _translated(listener) if full else _untouched()
    elif listener.protocol in HTTP:
        told = [*_http_clients(listener, engine), *_timestamps(listener)]
        yield "clients", _UNIX if _only_unix(listener) else told
        yield targets, _http_targets(listener)
    else:
        yield "clients", _UNIX if _only_unix(listener) else [*_relay_clients(listener), *_timestamps(listener)]
        yield targets, _relay_targets(listener)


def _http_clients(listener: Listener, engine: Engine) -> list[str]:
    client = listener.client
    kept = f"after {duration_text(client.keepalive)} without a request"
    when = f"on `Connection: close`, HTTP/1.0, and {kept}" if client.keepalive else "after every answer"
    when += f", and after {client.max_requests:,} requests" if client.max_requests else ""
    if client.close is ClientClose.FIN:
        return [
            f"the balancer closes first, {when}.",
            f"TIME_WAIT stands here, at {_places(listener)}: it costs memory and no port.",
            "The client keeps nothing. A client that closes first keeps TIME_WAIT itself.",
        ]
    if client.close is ClientClose.FIN_RST:
        return [
            f"the balancer closes first, {when}: with a FIN, and a reset once everything was acknowledged.",
            "TIME_WAIT stands nowhere.",
            "HAProxy resets a client that closes first, too."
            if engine is Engine.HAPROXY
            else "A client that closes first keeps it itself.",
        ]
    return [
        f"the balancer says `Connection: close` and waits {duration_text(client.close_wait)} for the client to",
        f"close, {when}. TIME_WAIT stands at the client and keeps its port for 60 s.",
        f"Of a client that does not close in time it stands here, at {_places(listener)}.",
    ]


def _relay_clients(listener: Listener) -> list[str]:
    how = {
        ClientClose.FIN: f"with a FIN, and TIME_WAIT stands here, at {_places(listener)}: no port is used up.",
        ClientClose.FIN_RST: "with a FIN, and a reset once everything was acknowledged: TIME_WAIT stands nowhere.",
        ClientClose.PEER: f"only {duration_text(listener.client.close_wait)} later, so that the client may be first.",
    }
    return [
        "whoever closes first is first here, too: a client that does keeps TIME_WAIT itself.",
        f"Where the target does, or after {duration_text(idle(listener))} without a byte, the balancer closes",
        how[listener.client.close],
    ]


def _timestamps(listener: Listener) -> list[str]:
    if listener.timestamps is Timestamps.STRIP:
        return [
            "Without timestamps a client's tcp_tw_reuse is void, and a five-tuple that comes back while it is in",
            "TIME_WAIT here is taken up when its sequence number is higher.",
        ]
    return [
        "With timestamps a client's tcp_tw_reuse works, but of clients behind one NAT a SYN is dropped (PAWS) whose",
        "five-tuple is in TIME_WAIT here with a later timestamp.",
    ]


def _http_targets(listener: Listener) -> list[str]:
    upstream = listener.upstream
    if upstream.close is UpstreamClose.PEER:
        return [
            "a connection for each request; the balancer asks for `Connection: close`, the target closes first.",
            "TIME_WAIT stands at the target's port: it costs memory there, and no port here.",
            _at_once(listener),
        ]
    kept = f"kept for up to {duration_text(upstream.idle)} between requests" if upstream.keepalive else ""
    life = f"connections are {kept}" if kept else "a connection for each request"
    if upstream.close is UpstreamClose.RST:
        ends = f"{life}, ended with a reset after a whole answer: TIME_WAIT stands nowhere."
        return [ends, _at_once(listener), "A target that closes first keeps TIME_WAIT itself."]
    return [f"{life}, and the balancer closes first, with a FIN.", *_walls(listener)]


def _relay_targets(listener: Listener) -> list[str]:
    return [
        "a connection for each client's. A client that closes first makes the balancer close first toward the",
        "target, since its FIN is passed on.",
        *_walls(listener),
        "Where the target closes first it keeps TIME_WAIT itself.",
    ]


def _walls(listener: Listener) -> list[str]:
    count = _ports(listener)
    return [
        f"TIME_WAIT stands here and keeps the source port toward that target for 60 s: {count:,} ports",
        f"({_range(listener)}) last for {ports.sustainable(count):,.0f} such connections a second to each target;",
        "more source addresses or targets give more.",
    ]


def _at_once(listener: Listener) -> str:
    return f"A source port is taken while its connection is open: {_ports(listener):,} at once to each target."


def _packets(listener: Listener) -> list[str]:
    if listener.protocol is Protocol.UDP:
        return ["there is nothing to close; UDP knows no TIME_WAIT."]
    return ["the kernel passes FINs on: TIME_WAIT stands at the client if it closes first, else at the target."]


def _translated(listener: Listener) -> list[str]:
    """Full NAT: each entry of conntrack has a source port of this machine."""
    count = _ports(listener, NAT_PORTS)
    if listener.protocol is Protocol.UDP:
        rest = idle(listener)
        lead = "a flow keeps its source port here until it was silent for"
        return [f"{lead} {duration_text(rest)}: {_nat_wall(count, rest, 'flows')}"]
    rest = ports.CONNTRACK_TIME_WAIT_SECONDS
    lead = "there is no socket here, but conntrack keeps the source port of an ended connection for"
    return [
        f"{lead} {rest:.0f} s: {_nat_wall(count, rest, 'connections')}",
        "Linux 6.5 and later take such a port over earlier, where no other is free.",  # see tcp.ports.conntrack_rest
    ]


def _nat_wall(count: int, rest: float, what: str) -> str:
    return f"{count:,} ports last for {ports.sustainable(count, rest):,.0f} new {what} a second to each target."


def _untouched() -> list[str]:
    return ["they see the client's own address and port: this machine gives none of its own."]


def _ports(listener: Listener, default: int = ports.DEFAULT_HIGH - ports.DEFAULT_LOW + 1) -> int:
    """Source ports toward one target, over all source addresses."""
    sources = [addresses.source(text) for text in listener.upstream.source]
    return sum(one.high - one.low + 1 if one.high else default for one in sources) or default


def _range(listener: Listener) -> str:
    return "upstream.source" if listener.upstream.source else "Linux's ip_local_port_range"


def _places(listener: Listener) -> str:
    """Where it can stand: a unix socket has no TIME_WAIT."""
    return _and([bind for bind in listener.bind if not bind.startswith("unix:")])


def _and(names: list[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    return " and ".join(filter(None, [", ".join(names[:-1]), *names[-1:]]))


def _only_unix(listener: Listener) -> bool:
    return all(bind.startswith("unix:") for bind in listener.bind)
