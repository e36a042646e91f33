"""What a worker that has ended had counted stays; what it had open does not."""

from __future__ import annotations

from msgspec.structs import replace

from timewait.balancer.statistics import Statistics


def ended(statistics: Statistics) -> Statistics:
    """Of a worker that has ended: what it counted, and nothing that is open."""
    listeners = {name: replace(one, active=0, idle=0) for name, one in statistics.listeners.items()}
    targets = {key: replace(one, active=0, idle=0) for key, one in statistics.targets.items()}
    return replace(statistics, listeners=listeners, targets=targets)
