"""What the supervisor wants of whoever forwards: one interface, and the records that cross it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import msgspec

from timewait.balancer.config.model import Configuration, Then
from timewait.balancer.statistics import Statistics


class BalancerError(Exception):
    """Something the user can mend: one sentence that says what is wrong, where, and what to do."""


class Rotation(msgspec.Struct, frozen=True):
    """Which targets of a pool get new traffic, and how much of it.

    `weights` has every target of the pool in the file's order, with the weight that counts now: 0 for one that is
    drained or down. Where every healthy target is gone and the pool says `all`, the weights are those of all targets
    again; where it says `reject`, all weights are 0. `balancer/rotation.py` computes it; no engine decides about
    health.
    """

    pool: str
    weights: tuple[tuple[str, int], ...]  # ((address, weight), ...)


class DataPlane(Protocol):
    """An engine, driven by the supervisor. Only listeners that `Configuration.engine_of` gives it are its business.

    Every method may be called at any time between start() and stop(). A failure that the user can mend is a
    BalancerError, after which things are as they were before the call.
    """

    async def start(self, configuration: Configuration, rotations: Mapping[str, Rotation]) -> None:
        """Binds, starts and serves; when it returns, connections are accepted."""

    async def reload(self, configuration: Configuration, rotations: Mapping[str, Rotation]) -> None:
        """Another configuration, without losing a connection or one in the accept queue."""

    async def rotate(self, rotations: Mapping[str, Rotation]) -> None:
        """Other weights (or the same targets in another state of health); by pool, only those that changed."""

    async def cut(self, pool: str, target: str, then: Then) -> int:
        """Ends what is still open toward a target, as `then` says; how many connections that were."""

    async def active(self, pool: str, target: str) -> int:
        """How many connections toward a target are in use by clients now (idle ones in the pool do not count)."""

    async def statistics(self) -> Statistics:
        """Everything counted since start()."""

    async def drain(self) -> None:
        """Accepts nothing more, tells kept connections to end (`Connection: close`); returns at once."""

    async def remaining(self) -> int:
        """Clients' connections still open after drain()."""

    async def stop(self) -> None:
        """Ends everything at once, and leaves nothing behind: no process, socket, rule or file."""

    async def failed(self) -> str:
        """Waits until the engine cannot go on by itself (processes that die as often as they are started, a flushed
        ruleset) and says what happened."""
