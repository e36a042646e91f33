"""What is odd about a configuration that can be run: CLB's quotas, and settings without an effect. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_network

from timewait.balancer.config.capability import users
from timewait.balancer.config.effective import check_type
from timewait.balancer.config.model import (
    CheckType,
    ClientClose,
    Configuration,
    CustomCheck,
    Health,
    HttpCheck,
    Listener,
    Pool,
    Protocol,
    Session,
    SessionType,
    UpstreamSide,
)
from timewait.balancer.config.problem import Problem
from timewait.toml_lines import Path

LISTENERS, RULES, TARGETS = 50, 50, 100  # CLB's quotas: of an instance, of a layer-7 listener, of a rule
L4_SESSION = 3600.0  # seconds: CLB, SessionExpireTime at layer 4
HTTP = (Protocol.HTTP, Protocol.HTTPS)


def warnings(configuration: Configuration) -> Iterator[Problem]:
    """One sentence each."""
    if len(configuration.listener) > LISTENERS:
        what = f"{len(configuration.listener)} listeners are more than the {LISTENERS} of a CLB instance"
        yield Problem(("listener", LISTENERS), f"{what}; here they run")
    for index, listener in enumerate(configuration.listener):
        yield from _listener(listener, ("listener", index))
    for index, pool in enumerate(configuration.pool):
        yield from _pool(configuration, pool, ("pool", index))


def _listener(listener: Listener, at: Path) -> Iterator[Problem]:
    if len(listener.rule) > RULES:
        what = f"{len(listener.rule)} rules of listener {listener.name} are more than the {RULES} that CLB takes"
        yield Problem((*at, "rule", RULES), f"{what}; here they run")
    for number, text in enumerate(listener.real_ip.trusted):
        if ip_network(text).prefixlen == 0:
            what = f"listener {listener.name} trusts {text}: everybody can claim to be any client"
            yield Problem((*at, "real_ip", "trusted", number), what)
    client, upstream, default = listener.client, listener.upstream, UpstreamSide()
    if client.close is not ClientClose.PEER and client.close_wait != type(client)().close_wait:
        yield Problem((*at, "client", "close_wait"), 'client.close_wait has no effect without close = "peer"')
    if listener.protocol in HTTP and not upstream.keepalive:
        for field in ("reuse", "idle", "pool_max"):
            if getattr(upstream, field) != getattr(default, field):
                what = f"upstream.{field} has no effect with keepalive = false"
                yield Problem((*at, "upstream", field), what)


def _pool(configuration: Configuration, pool: Pool, at: Path) -> Iterator[Problem]:
    if len(pool.target) > TARGETS:
        what = f"{len(pool.target)} targets of pool {pool.name} are more than the {TARGETS} that CLB takes"
        yield Problem((*at, "target", TARGETS), f"{what}; here they run")
    listeners = users(configuration, pool)
    if not listeners:
        yield Problem(at, f"pool {pool.name} is used by no listener")
    if all(target.weight == 0 for target in pool.target):
        yield Problem(at, f"pool {pool.name} gets no traffic: the weight of every target is 0")
    yield from _session(pool, listeners, at)
    if listeners:
        yield from _health(pool.health, check_type(configuration, pool), (*at, "health"))


def _session(pool: Pool, listeners: list[Listener], at: Path) -> Iterator[Problem]:
    session, default = pool.session, Session()
    if session.type is SessionType.NONE and session.ttl != default.ttl:
        yield Problem((*at, "session", "ttl"), f"session.ttl of pool {pool.name} has no effect without session.type")
    if session.type is not SessionType.COOKIE_INSERT and session.cookie != default.cookie:
        what = f"session.cookie of pool {pool.name} has no effect"
        yield Problem((*at, "session", "cookie"), f'{what} without type = "cookie_insert"')
    layer4 = any(listener.protocol not in HTTP for listener in listeners)
    if session.type is SessionType.SOURCE_IP and session.ttl > L4_SESSION and layer4:
        what = f"session.ttl of pool {pool.name} is longer than the hour that CLB takes at layer 4"
        yield Problem((*at, "session", "ttl"), f"{what}; here it holds")


def _health(health: Health, kind: CheckType, at: Path) -> Iterator[Problem]:
    if not health.enabled:
        if health != Health(enabled=False):
            yield Problem(at, "the rest of pool.health has no effect with enabled = false")
        return
    if kind is not CheckType.HTTP and health.http != HttpCheck():
        yield Problem((*at, "http"), f"pool.health.http has no effect on a check of type {kind}")
    if kind is not CheckType.CUSTOM and health.custom != CustomCheck():
        yield Problem((*at, "custom"), f"pool.health.custom has no effect on a check of type {kind}")
