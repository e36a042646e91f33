"""The supervisor: decides which targets get traffic and tells the engines; keeps what was changed by hand; drains.

Everything that changes the balancer goes through one lock, and ends in `_tell`: what the engines should know is
computed anew and compared with what they were told. So no order of events can leave them behind.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import msgspec

from timewait.balancer import changes, overlay, planes, rotation
from timewait.balancer.config.addresses import place
from timewait.balancer.config.model import AllDown, Configuration, Engine, Pool, Then
from timewait.balancer.config.units import duration_text
from timewait.balancer.drains import Drains
from timewait.balancer.engine import BalancerError, DataPlane, Rotation
from timewait.balancer.health.prober import Prober, Watched
from timewait.balancer.health.probes import Outcome, Probe, probe
from timewait.balancer.overlay import Hand, Key
from timewait.balancer.rotation import Member, State
from timewait.balancer.views import Drained, Kernel, Look, Stats, TargetHealth, Weighed
from timewait.balancer.wish import Wish, shape
from timewait.balancer.words import listed

PATIENCE = 5.0  # seconds that the end waits for a change under way
FIRST_LOOK = 0.5  # seconds the first round of checks may hold up the start


class AbsentError(BalancerError):
    """No such pool or target."""


class ConflictError(BalancerError):
    """It cannot be done as things are."""


class Supervisor:
    """`make` makes engines, `say` takes log lines, `look` asks the kernel; tests give other probes and clocks."""

    def __init__(
        self,
        configuration: Configuration,
        *,
        make: Callable[[Engine], DataPlane],
        say: Callable[[str], None],
        look: Look | None = None,
        file: str = "",
        make_check: Probe = probe,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self.file = file
        self.planes = planes.Planes(make, say)
        self.stopping = False
        self._wish = Wish(configuration, {}, {})
        self._say, self._look, self._now = say, look, now
        self._prober = Prober(self._checked, make_check, now)
        self._drains = Drains(self.planes, say, now, self._departed)
        self._lock = asyncio.Lock()
        self._looking = asyncio.Lock()
        self._woken = asyncio.Event()
        self._rotating: asyncio.Task[None] | None = None
        self._told: dict[str, Rotation] = {}
        self._running = configuration  # as the engines have it, weights aside
        self._all_down: set[str] = set()
        self._begun = now()

    # --- what is ------------------------------------------------------------------------------------------------

    @property
    def configuration(self) -> Configuration:
        """The file with what was changed by hand."""
        return overlay.effective(self._wish.file, self._wish.overlay)

    @property
    def by_hand(self) -> list[str]:
        """What was changed by hand, a line each."""
        return overlay.told(self._wish.overlay)

    def members(self, pool: Pool) -> list[Member]:
        """A pool's targets as they stand; `pool` of the effective configuration."""
        return [
            Member(one.addr, one.weight, self._state(pool, one.addr), (pool.name, one.addr) in self._wish.leaving)
            for one in pool.target
        ]

    def rotations(self) -> dict[str, Rotation]:
        """What the engines should know now."""
        pools = self._wish.effective().pool
        return {pool.name: rotation.rotation(pool.name, pool.all_down, self.members(pool)) for pool in pools}

    def health(self) -> list[TargetHealth]:
        """Every target of every pool, in the file's order."""
        return [self._health(pool, one) for pool in self._wish.effective().pool for one in self.members(pool)]

    async def statistics(self) -> Stats:
        """Everything counted, and what the kernel says beside it."""
        counted = await self.planes.statistics()
        kernel, now = Kernel(), self._now()
        if self._look is not None:
            async with self._looking:
                kernel = await asyncio.to_thread(self._look, self._wish.effective(), counted, now)
        return Stats(
            at=now,
            uptime=now - self._begun,
            pid=os.getpid(),
            file=self.file,
            listeners=counted.listeners,
            targets=counted.targets,
            unknown=list(counted.unknown),
            log_lost=counted.log_lost,
            health=self.health(),
            kernel=kernel,
            stopping=self.stopping,
        )

    def _state(self, pool: Pool, address: str) -> State:
        if not pool.health.enabled:
            return State.UNCHECKED
        watched = self._prober.watched.get((pool.name, address))
        return watched.window.state if watched else State.PROBING

    def _health(self, pool: Pool, member: Member) -> TargetHealth:
        key = (pool.name, member.address)
        told = TargetHealth(
            pool=pool.name,
            address=member.address,
            weight=member.weight,
            effective=dict(self._told[pool.name].weights).get(member.address, 0) if pool.name in self._told else 0,
            state=member.state,
            draining=self._drains.is_draining(key),
            leaving=member.leaving,
        )
        watched = self._prober.watched.get(key)
        if watched is not None:
            told.since = self._now() - watched.window.since
            told.reason = watched.window.reason
            told.passed, told.failed, told.void = watched.passed, watched.failed, watched.void
            told.check_seconds = watched.last.seconds if watched.last else 0.0
        return told

    # --- life ---------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Checks every target once, then accepts. Raises BalancerError, after which nothing is left running."""
        try:
            self._begin_checks()
            await self._prober.first_round(FIRST_LOOK)
            self._told = self.rotations()
            await self.planes.start(self._wish.effective(), self._told)
        except BaseException:
            self._prober.close()
            raise
        self._rotating = asyncio.create_task(self._rotate())
        self._woken.set()

    async def begin_to_stop(self) -> None:
        """Accepts nothing more; what is open may end."""
        self.stopping = True
        async with self._settled():
            await self.planes.drain()

    async def remaining(self) -> int:
        """Clients' connections still open."""
        return await self.planes.remaining()

    async def close(self) -> None:
        """Ends everything at once."""
        self.stopping = True
        self._drains.close()
        if self._rotating is not None:
            self._rotating.cancel()
        self._prober.close()
        async with self._settled():
            await self.planes.stop()

    @asynccontextmanager
    async def _settled(self) -> AsyncIterator[None]:
        """Once a change under way is done, so that engines do not start in the middle of an end; but an engine that
        hangs must not keep the balancer from ending."""
        try:
            await asyncio.wait_for(self._lock.acquire(), PATIENCE)
        except TimeoutError:
            self._say("a change under way did not end; the balancer ends without it")
            yield
        else:
            try:
                yield
            finally:
                self._lock.release()

    # --- changes ------------------------------------------------------------------------------------------------

    def would_change(self, file: Configuration, *, reset: bool = False) -> changes.Changes:
        """What `reload` of this file would do."""
        kept = {} if reset else overlay.merged(self._wish.overlay, self._wish.file, file)
        found = changes.between(self.configuration, overlay.effective(file, kept))
        found.by_hand = overlay.told(kept)
        return found

    async def reload(self, file: Configuration, *, reset: bool = False) -> changes.Changes:
        """Another file. Raises BalancerError where an engine cannot; then everything is as it was."""
        async with self._lock:
            found = self.would_change(file, reset=reset)
            kept = {} if reset else overlay.merged(self._wish.overlay, self._wish.file, file)
            await self._change(file, kept, again=bool(found.read_again))
            return found

    async def weigh(self, pool: str, address: str, weight: int) -> Weighed:
        """Another weight. 0 drains as the pool says; anything else ends a drain."""
        async with self._lock:
            key, was = self._known(pool, address), self._weight(pool, address)
            await self._change(self._wish.file, overlay.weighed(self._wish.overlay, self._wish.file, key, weight))
            self._say(f"target {pool} {address}: weight {was} -> {weight}")
            effective = dict(self._told[pool].weights).get(address, 0)
        draining = self._drains.is_draining(key)
        return Weighed(pool=pool, target=address, was=was, weight=weight, effective=effective, draining=draining)

    async def add(self, pool: str, address: str, weight: int) -> Weighed:
        """Another target; it gets traffic once it was found healthy."""
        async with self._lock:
            key = (self._pool(pool).name, address)
            if place(address) in [place(one.addr) for one in self._pool(pool).target]:
                raise ConflictError(f"target {address} is in pool {pool} already; `weight` changes its weight")
            laid = overlay.weighed(self._wish.overlay, self._wish.file, key, weight)
            await self._change(self._wish.file, laid)
            self._say(f"target {pool} {address}: added with weight {weight}")
            effective = dict(self._told[pool].weights).get(address, 0)
        return Weighed(pool=pool, target=address, was=0, weight=weight, effective=effective)

    async def remove(self, pool: str, address: str) -> float:
        """Takes a target away: no new traffic, what is open may end; seconds after which it is cut."""
        async with self._lock:
            key, of = self._known(pool, address), self._pool(pool)
            if len(of.target) == 1:
                raise ConflictError(
                    f"target {address} is the only one of pool {pool}, and a pool needs one; "
                    "give it weight 0, or add another first"
                )
            await self._change(self._wish.file, overlay.removed(self._wish.overlay, self._wish.file, key))
            self._say(f"target {pool} {address}: removed, drains for {duration_text(of.drain.timeout)}")
        return of.drain.timeout

    async def drain(self, pool: str, address: str, timeout: float | None, then: Then | None) -> Drained:
        """Weight 0, and waits until nothing is open toward the target any more, or until it was cut."""
        async with self._lock:
            key, of = self._known(pool, address), self._pool(pool)
            await self._change(self._wish.file, overlay.weighed(self._wish.overlay, self._wish.file, key, 0))
            rules = msgspec.structs.replace(
                of.drain, timeout=of.drain.timeout if timeout is None else timeout, then=then or of.drain.then
            )
            draining = self._drains.begin(key, rules)
        return await asyncio.shield(draining)

    # --- within -------------------------------------------------------------------------------------------------

    async def _change(self, file: Configuration, laid: dict[Key, Hand], *, again: bool = False) -> None:
        """Makes the wish true, or leaves all as it was. Under the lock. `again`: engines reload in any case."""
        if self.stopping:
            raise ConflictError("the balancer is ending; nothing is changed any more")
        before = self._wish
        was, will = overlay.weights(before.effective()), overlay.weights(overlay.effective(file, laid))
        pools = {pool.name: pool for pool in before.effective().pool}
        gone = [key for key in was if key not in will]
        leaving = {key: before.leaving.get(key, pools[key[0]]) for key in gone}
        wish = Wish(file, laid, leaving)
        wish.refuse_what_no_file_may_say()
        self._wish = wish
        try:
            self._begin_checks()
            await self._tell(again=again)
        except BaseException:
            self._wish = before
            self._begin_checks()
            self._end_checks()
            raise
        self._end_checks()
        self._drain_by(was, will, pools)

    def _drain_by(self, was: dict[Key, int], will: dict[Key, int], pools: dict[str, Pool]) -> None:
        """Begins and ends drains as weights went to 0, came back, or vanished."""
        for key in was | will:
            weight = will.get(key, 0)
            if weight:
                self._drains.end(key)
            elif key not in will:
                if not self._drains.is_leaving(key):
                    self._drains.begin(key, pools[key[0]].drain, leaving=True)
            elif was.get(key) or self._drains.is_leaving(key):
                self._drains.begin(key, self._pool(key[0]).drain)

    async def _departed(self, key: Key) -> None:
        """A target that was on its way out is drained: the engines may forget it."""
        async with self._lock:
            if self._wish.leaving.pop(key, None) is not None and not self.stopping:
                try:
                    await self._tell()
                except BalancerError as problem:
                    self._say(f"target {' '.join(key)}: drained, but an engine keeps it: {problem}")

    async def _tell(self, *, again: bool = False) -> None:
        """Tells the engines what they do not know yet."""
        wanted, rotations = self._wish.effective(), self.rotations()
        if again or shape(wanted) != shape(self._running):
            await self.planes.reload(self._running, wanted, rotations, self._told)
        elif news := rotation.changed(self._told, rotations):
            await self.planes.rotate(news)
        self._running, self._told = wanted, rotations

    async def _rotate(self) -> None:
        """Follows the health checks."""
        while True:
            await self._woken.wait()
            self._woken.clear()
            async with self._lock:
                self._tell_all_down()
                try:
                    await self._tell()
                except Exception as problem:  # whatever it is, the next change tells them again
                    self._say(f"an engine did not take the new weights: {problem or type(problem).__name__}")

    def _begin_checks(self) -> None:
        """Checks what should be checked. Of a pool that was not checked before, at the start or when a reload brings
        it, the first check decides. Raises BalancerError where a check is forbidden."""
        wanted = self._wish.checks()
        self._prober.prepare(list(wanted.values()))
        known = {pool for pool, _ in self._prober.watched}
        for key, check in wanted.items():
            self._prober.watch(key, check, first_decides=key[0] not in known)

    def _end_checks(self) -> None:
        """Checks nothing else. Only once a change is done: what is forgotten here begins anew if it comes back."""
        wanted = self._wish.checks()
        for key in [key for key in self._prober.watched if key not in wanted]:
            self._prober.forget(key)

    def _checked(self, key: Key, watched: Watched, changed: bool) -> None:
        if not changed:
            return
        window, outcome = watched.window, watched.last or Outcome(None)
        count = window.passed if window.state is State.HEALTHY else window.failed
        why = f": {window.reason}" if window.reason else ""
        took = f" ({count} {'check' if count == 1 else 'checks'}, the last took {outcome.seconds * 1000:.0f} ms)"
        self._say(f"target {' '.join(key)}: {window.state}{why}{took}")
        self._woken.set()

    def _tell_all_down(self) -> None:
        for pool in self._wish.effective().pool:
            down = rotation.is_all_down(self.members(pool))
            if down and pool.name not in self._all_down:
                what = "all of them get traffic" if pool.all_down is AllDown.ALL else "clients are turned away"
                self._say(f'pool {pool.name}: no target is healthy; {what} (all_down = "{pool.all_down}")')
            elif not down and pool.name in self._all_down:
                self._say(f"pool {pool.name}: has healthy targets again")
            (self._all_down.add if down else self._all_down.discard)(pool.name)

    def _pool(self, name: str) -> Pool:
        for pool in self.configuration.pool:
            if pool.name == name:
                return pool
        raise AbsentError(f"no pool is named {name!r}; there are {listed([p.name for p in self.configuration.pool])}")

    def _known(self, pool: str, address: str) -> Key:
        targets = [one.addr for one in self._pool(pool).target]
        if address not in targets:
            raise AbsentError(f"pool {pool} has no target {address!r}; it has {listed(targets)}")
        return pool, address

    def _weight(self, pool: str, address: str) -> int:
        return overlay.weights(self.configuration)[pool, address]
