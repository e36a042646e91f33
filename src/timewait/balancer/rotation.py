"""Which targets get new traffic: pure, of what was wished, what health checks found and what is being drained.

As CLB: only healthy targets get traffic, a new one not before it was found healthy; where none is, all of them do
(all-dead-all-live), unless the pool says `reject`. Weight 0 stays 0 whatever happens.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import NamedTuple

from timewait.balancer.config.model import AllDown
from timewait.balancer.engine import Rotation


class State(StrEnum):
    """What is known of a target."""

    PROBING = "probing"  # new: not enough checks yet to say
    HEALTHY = "healthy"
    UNHEALTHY = "unhealthy"
    UNCHECKED = "unchecked"  # checks are off: it always gets traffic


IN_TRAFFIC = frozenset({State.HEALTHY, State.UNCHECKED})


class Member(NamedTuple):
    """A target of a pool as it stands. `weight` is what was wished; a target on its way out counts as 0."""

    address: str
    weight: int
    state: State
    leaving: bool = False


def rotation(pool: str, all_down: AllDown, members: Iterable[Member]) -> Rotation:
    """The weights that count now."""
    members = tuple(members)
    wanted = {one.address: 0 if one.leaving else one.weight for one in members}
    serving = {one.address for one in members if wanted[one.address] and one.state in IN_TRAFFIC}
    if not serving and all_down is AllDown.ALL:
        serving = {address for address, weight in wanted.items() if weight}
    return Rotation(pool, tuple((address, weight if address in serving else 0) for address, weight in wanted.items()))


def is_all_down(members: Iterable[Member]) -> bool:
    """Whether every target that should get traffic was found unhealthy; a new one may still turn out well."""
    wanted = [one.state for one in members if one.weight and not one.leaving]
    return bool(wanted) and all(state is State.UNHEALTHY for state in wanted)


def changed(before: Mapping[str, Rotation], after: Mapping[str, Rotation]) -> dict[str, Rotation]:
    """The rotations of `after` that an engine that knows `before` must be told."""
    return {pool: one for pool, one in after.items() if before.get(pool) != one}
