"""Drains: what is open toward a target may end by itself for a while, and is then ended as the pool says."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from timewait.balancer.config.model import Drain, Then
from timewait.balancer.engine import BalancerError
from timewait.balancer.overlay import Key
from timewait.balancer.planes import Planes
from timewait.balancer.views import Drained
from timewait.balancer.words import plural, seconds

_LOOK_AGAIN = 0.1  # seconds between two questions how many connections are left


class _Draining:
    """A drain under way."""

    def __init__(self, leaving: bool, begun: float) -> None:
        self.leaving, self.begun = leaving, begun
        self.ended: asyncio.Future[Drained] = asyncio.get_running_loop().create_future()
        self.task: asyncio.Task[None] | None = None


class Drains:
    """`departed` is called once a target that is leaving is drained."""

    def __init__(
        self,
        planes: Planes,
        say: Callable[[str], None],
        now: Callable[[], float],
        departed: Callable[[Key], Awaitable[None]],
    ) -> None:
        self._planes, self._say, self._now, self._departed = planes, say, now, departed
        self._open: dict[Key, _Draining] = {}

    def begin(self, key: Key, rules: Drain, *, leaving: bool = False) -> asyncio.Future[Drained]:
        """Begins a drain, in place of one under way; what comes of it."""
        self.end(key)
        draining = self._open[key] = _Draining(leaving, self._now())
        draining.task = asyncio.create_task(self._run(key, rules, draining))
        return draining.ended

    def end(self, key: Key) -> None:
        """The target gets traffic again, or is drained by other rules."""
        draining = self._open.pop(key, None)
        if draining is not None and draining.task is not None:
            draining.task.cancel()
            if not draining.ended.done():
                draining.ended.set_result(Drained(pool=key[0], target=key[1], ended="cancelled"))

    def is_draining(self, key: Key) -> bool:
        return key in self._open

    def is_leaving(self, key: Key) -> bool:
        return key in self._open and self._open[key].leaving

    def close(self) -> None:
        for key in list(self._open):
            self.end(key)

    async def _run(self, key: Key, rules: Drain, draining: _Draining) -> None:
        told = Drained(pool=key[0], target=key[1], ended="idle")
        try:
            left = told.connections = await self._planes.active(*key)
            while left and self._now() < draining.begun + rules.timeout:
                await asyncio.sleep(_LOOK_AGAIN)
                left = await self._planes.active(*key)
            if left and rules.then is Then.LEAVE:
                told.ended = "left"
            elif left:
                told.ended, told.cut = "cut", await self._planes.cut(*key, rules.then)
        except BalancerError as problem:
            told.ended = "left"
            self._say(f"target {' '.join(key)}: cannot be drained: {problem}")
        told.seconds = self._now() - draining.begun
        self._say(_sentence(told, rules.then))
        if draining.leaving:
            await self._departed(key)
        del self._open[key]
        draining.ended.set_result(told)


def _sentence(told: Drained, then: Then) -> str:
    how = {
        "idle": f"all {plural(told.connections, 'connection')} ended by themselves"
        if told.connections
        else "no connection was open",
        "cut": f"{plural(told.cut, 'connection')} of {told.connections} cut ({then})",
        "left": "what is open is left open",
    }[told.ended]
    return f"target {told.pool} {told.target}: drained after {seconds(told.seconds)}: {how}"
