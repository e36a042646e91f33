"""Statistics of several workers as those of one engine; what a worker that ended had counted stays."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from timewait.balancer.statistics import ListenerStatistics, Statistics, TargetStatistics


def total(parts: Iterable[Statistics]) -> Statistics:
    """Their sum; the parts stay as they are."""
    whole = Statistics()
    for part in parts:
        add(whole, part)
    return whole


def add(whole: Statistics, part: Statistics) -> None:
    """`whole` grows by `part`."""
    whole.log_lost += part.log_lost
    for name, listener in part.listeners.items():
        _add(whole.listeners.setdefault(name, ListenerStatistics(name=name)), listener)
    for key, target in part.targets.items():
        _add(whole.targets.setdefault(key, TargetStatistics(pool=target.pool, address=target.address)), target)


def ended(statistics: Statistics) -> Statistics:
    """Of a worker that has ended: what it counted, and nothing that is open."""
    kept = total([statistics])
    for listener in kept.listeners.values():
        listener.active = listener.idle = 0
    for target in kept.targets.values():
        target.active = target.idle = 0
    return kept


def _add(whole: Any, part: Any) -> None:
    for field in msgspec.structs.fields(type(part)):
        name = field.name
        value = getattr(part, name)
        if isinstance(value, int):
            setattr(whole, name, getattr(whole, name) + value)
        elif isinstance(value, dict):
            known = getattr(whole, name)
            for key, number in value.items():
                known[key] = known.get(key, 0) + number
        elif isinstance(value, msgspec.Struct):
            _add(getattr(whole, name), value)
