"""Who checks: a task per target that follows its window. There is one prober for all engines."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from timewait.balancer.config.model import CheckType
from timewait.balancer.health.icmp import Icmp
from timewait.balancer.health.probes import Check, Outcome, Probe, endpoint, probe
from timewait.balancer.health.windows import Window

MOST_AT_ONCE = 256  # checks under way: each has a descriptor
Key = tuple[str, str]  # pool, address


class Watched:
    """A target that is checked."""

    def __init__(self, check: Check, window: Window) -> None:
        self.check, self.window = check, window
        self.last: Outcome | None = None
        self.passed = self.failed = self.void = 0  # checks so far
        self.woken = asyncio.Event()  # its rules changed
        self.task: asyncio.Task[None] | None = None


class Prober:
    """`watch` and `forget` targets; `told(key, watched, changed)` is called after each check.

    `make` makes a check, `now` is the monotonic clock; tests give others.
    """

    def __init__(
        self,
        told: Callable[[Key, Watched, bool], None],
        make: Probe = probe,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self.watched: dict[Key, Watched] = {}
        self._told, self._make, self._now = told, make, now
        self._room = asyncio.Semaphore(MOST_AT_ONCE)
        self._icmp = Icmp()

    def prepare(self, checks: list[Check]) -> None:
        """Opens what these checks need beyond the ordinary. Raises BalancerError where this user may not."""
        for check in checks:
            if check.kind is CheckType.PING:
                self._icmp.open(endpoint(check.address)[0])

    def watch(self, key: Key, check: Check, *, first_decides: bool) -> None:
        """Begins to check a target, or goes on by other rules with what is known of it."""
        known = self.watched.get(key)
        if known is not None:
            if known.check != check:
                known.check = check
                known.window.retuned(check.rules, check.kind)
                known.woken.set()
            return
        window = Window(check.rules, check.kind, self._now(), first_decides=first_decides)
        watched = self.watched[key] = Watched(check, window)
        watched.task = asyncio.create_task(self._run(key, watched))

    def forget(self, key: Key) -> None:
        watched = self.watched.pop(key, None)
        if watched is not None and watched.task is not None:
            watched.task.cancel()

    async def first_round(self, patience: float) -> None:
        """Waits until every target was checked once, at most `patience` seconds."""
        limit = self._now() + patience
        while self._now() < limit and any(one.last is None for one in self.watched.values()):
            await asyncio.sleep(0.01)

    def close(self) -> None:
        for key in list(self.watched):
            self.forget(key)
        self._icmp.close()

    async def _run(self, key: Key, watched: Watched) -> None:
        while True:
            await self._due(watched)
            async with self._room:
                watched.window.sent(self._now())
                outcome = await self._make(watched.check, self._icmp)
            watched.last = outcome
            watched.passed += outcome.passed is True
            watched.failed += outcome.passed is False
            watched.void += outcome.passed is None
            changed = watched.window.answered(self._now(), outcome.passed, outcome.reason)
            self._told(key, watched, changed)

    async def _due(self, watched: Watched) -> None:
        while (wait := watched.window.due - self._now()) > 0:
            try:
                async with asyncio.timeout(wait):
                    await watched.woken.wait()
            except TimeoutError:
                return
            watched.woken.clear()
