"""The targets' side: servers and their weights, timeouts, who closes first. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from timewait.balancer.config.addresses import Source, place, source
from timewait.balancer.config.effective import idle, real_ip_mode
from timewait.balancer.config.model import (
    Configuration,
    Listener,
    Pool,
    Protocol,
    RealIpMode,
    Scheduler,
    SessionType,
    UpstreamClose,
)
from timewait.balancer.engine import Rotation
from timewait.balancer.haproxy.words import backend, cookie, is_six, server, time

_L7 = (Protocol.HTTP, Protocol.HTTPS)
_BALANCE = {
    Scheduler.WRR: ["balance roundrobin"],
    Scheduler.LEAST_CONN: ["balance leastconn"],
    Scheduler.IP_HASH: ["balance source", "hash-type consistent"],
}
_SESSIONS = "1m"  # entries of the table at most; memory is taken as they come


def lines(
    configuration: Configuration, listener: Listener, pool: Pool, rotations: Mapping[str, Rotation] | None
) -> tuple[str, list[str]]:
    """The name and the lines of a backend."""
    http = listener.protocol in _L7
    found = [
        f"mode {'http' if http else 'tcp'}",
        *_BALANCE[pool.scheduler],
        *_timeouts(listener, http),
        *(_connections(listener) if http else ()),
        *_retries(listener),
        *_sessions(listener, pool),
        *(f"server {line}" for lines in servers(listener, pool, rotations).values() for line in lines),
    ]
    return backend(listener, pool.name), found


def sources_for(listener: Listener, address: str) -> list[Source | None]:
    """The source addresses that a target can be connected from: a server line for each; [None]: the kernel's."""
    version = place(address).address.version
    found = [one for one in map(source, listener.upstream.source) if one.address.version == version]
    return list(found) or [None]


def weights_of(pool: Pool, rotations: Mapping[str, Rotation] | None) -> dict[str, int]:
    """By target; the file's where nobody said otherwise."""
    rotation = (rotations or {}).get(pool.name)
    known = dict(rotation.weights) if rotation else {}
    return {target.addr: known.get(target.addr, target.weight) for target in pool.target}


def _timeouts(listener: Listener, http: bool) -> list[str]:
    seconds = time(idle(listener))
    found = [f"timeout connect {time(listener.upstream.connect_timeout)}"]
    if not http:
        return [*found, f"timeout server {seconds}"]
    return [*found, f"timeout server {time(listener.upstream.read_timeout)}", f"timeout tunnel {seconds}"]


def _connections(listener: Listener) -> list[str]:
    """Kept or not, and who ends those that are not (HAProxy ends what is idle by RST)."""
    upstream = listener.upstream
    if upstream.keepalive:
        return [f"http-reuse {upstream.reuse}"]
    found = ["option http-server-close", "http-reuse never"]
    return found if upstream.close is UpstreamClose.PEER else [*found, "option http-pretend-keepalive"]


def _retries(listener: Listener) -> list[str]:
    """A connection that fails is tried again elsewhere at once. What was sent is not sent again (`retry-on
    empty-response`): for that HAProxy 2.6 copies a whole buffer with every request, which took 8 us where a request
    took 18 in all."""
    count = listener.upstream.retries
    return [f"retries {count}", *(["option redispatch 1"] if count else [])]


def _sessions(listener: Listener, pool: Pool) -> Iterator[str]:
    session = pool.session
    if session.type is SessionType.SOURCE_IP:
        kind = "ipv6" if any(map(is_six, listener.bind)) else "ip"
        yield f"stick-table type {kind} size {_SESSIONS} expire {time(session.ttl)}"
        yield "stick on src"
    elif session.type is SessionType.COOKIE_INSERT:
        ttl = round(session.ttl)
        yield f"cookie {session.cookie} insert indirect nocache httponly maxidle {ttl}s maxlife {86400 * 365}s"


def servers(listener: Listener, pool: Pool, rotations: Mapping[str, Rotation] | None) -> dict[str, list[str]]:
    """What stands behind `server` in its lines, by target: a line for each source address. Who is not in rotation is
    in maintenance: no cookie or table brings it a client, and what is open goes on."""
    upstream = listener.upstream
    common = ""
    if listener.protocol in _L7 and upstream.keepalive:
        common += f" pool-max-conn {upstream.pool_max} pool-purge-delay {time(upstream.idle)}"
    headers = {RealIpMode.PROXY_V1: " send-proxy", RealIpMode.PROXY_V2: " send-proxy-v2"}
    common += headers.get(real_ip_mode(listener), "")
    weights = weights_of(pool, rotations)
    found = {}
    for target in pool.target:
        weight = weights[target.addr]
        state = f" weight {weight}" if weight else f" weight {target.weight} disabled"
        if pool.session.type is SessionType.COOKIE_INSERT:
            state += f" cookie {cookie(pool, target.addr)}"
        found[target.addr] = [
            f"{server(target.addr, number)} {target.addr}{state}{common}{f' source {_from(one)}' if one else ''}"
            for number, one in enumerate(sources_for(listener, target.addr))
        ]
    return found


def _from(one: Source) -> str:
    address = f"[{one.address}]" if one.address.version == 6 else str(one.address)
    return f"{address}:{one.low}-{one.high}" if one.low else address
