"""What holds where a file says nothing and no one value is right for all: by the listener's protocol. Pure."""

from __future__ import annotations

from typing import Any

from timewait.balancer.config.capability_row import Case
from timewait.balancer.config.model import CheckType, Configuration, Listener, Pool, Protocol, RealIpMode

IDLE, UDP_IDLE = 900.0, 300.0  # seconds: CLB, IdleConnectTimeout of TCP and of UDP


def idle(listener: Listener) -> float:
    """Seconds without a byte after which a relay, a tunnel or a flow of UDP ends."""
    if listener.client.idle is not None:
        return listener.client.idle
    return UDP_IDLE if listener.protocol is Protocol.UDP else IDLE


def real_ip_mode(listener: Listener) -> RealIpMode:
    """How targets learn the client's address."""
    if listener.real_ip.mode is not None:
        return listener.real_ip.mode
    return RealIpMode.XFF if listener.protocol in (Protocol.HTTP, Protocol.HTTPS) else RealIpMode.NONE


def check_type(configuration: Configuration, pool: Pool) -> CheckType:
    """What a health check of this pool does."""
    if pool.health.type is not None:
        return pool.health.type
    protocols = [one.protocol for one in configuration.listener if one.pool == pool.name]
    return CheckType.PING if Protocol.UDP in protocols else CheckType.TCP


def effective_value(field: str, cases: list[Case]) -> list[Any]:
    """What stands for a field that is None; several where a pool's listeners differ."""
    found = dict.fromkeys(_value(field, case) for case in cases)
    return list(found) or [CheckType.TCP]


def _value(field: str, case: Case) -> Any:
    assert case.listener is not None
    if field == "listener.engine":
        return case.configuration.engine
    if field == "listener.client.idle":
        return idle(case.listener)
    if field == "listener.real_ip.mode":
        return real_ip_mode(case.listener)
    assert case.pool is not None
    return check_type(case.configuration, case.pool)
