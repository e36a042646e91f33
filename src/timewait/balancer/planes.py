"""The engines in use, as one: each gets the whole configuration and forwards for the listeners that are its own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

from timewait.balancer.config.model import Configuration, Engine, Then
from timewait.balancer.engine import BalancerError, DataPlane, Rotation
from timewait.balancer.listening import check_sources, listen, release
from timewait.balancer.statistics import Statistics, summed

Rotations = Mapping[str, Rotation]


def engines_of(configuration: Configuration) -> list[Engine]:
    """Those that have a listener, in the file's order."""
    return list(dict.fromkeys(configuration.engine_of(listener) for listener in configuration.listener))


def moved(before: Configuration, after: Configuration) -> dict[str, int]:
    """Binds that a process listens on and another engine's will, with their backlog. Pure."""
    was = {bind: before.engine_of(one) for one in before.listener for bind in one.bind}
    return {
        bind: one.backlog
        for one in after.listener
        for bind in one.bind
        if bind in was and was[bind] is not after.engine_of(one)
    }


def refuse_moves(before: Configuration, after: Configuration) -> None:
    """Raises BalancerError for a bind that goes from a process to the kernel's rules, or back. Pure."""
    was = {bind: before.engine_of(one) for one in before.listener for bind in one.bind}
    for one in after.listener:
        for bind in one.bind:
            pair = {was.get(bind, after.engine_of(one)), after.engine_of(one)}
            if len(pair) > 1 and Engine.NFTABLES in pair:
                raise BalancerError(
                    f"listener {one.name}: a reload cannot move {bind} from engine {was[bind]} to "
                    f"{after.engine_of(one)}: connections that are open could not go on; restart the balancer, or "
                    "choose another port"
                )


class Planes:
    """`make` makes an engine; it is started when a listener wants it and stopped when none does any more."""

    def __init__(self, make: Callable[[Engine], DataPlane], say: Callable[[str], None]) -> None:
        self._make, self._say = make, say
        self._planes: dict[Engine, DataPlane] = {}
        self._parting: dict[asyncio.Task[None], DataPlane] = {}  # drained, because no listener wants them any more
        self._watching: dict[asyncio.Task[str], Engine] = {}
        self._changed = asyncio.Event()

    async def start(self, configuration: Configuration, rotations: Rotations) -> None:
        """All of them, or none: BalancerError of the first that cannot."""
        check_sources(configuration)
        try:
            for engine in engines_of(configuration):
                await self._begin(engine, configuration, rotations)
        except BaseException:
            await self.stop()
            raise

    async def _begin(self, engine: Engine, configuration: Configuration, rotations: Rotations) -> None:
        plane = self._make(engine)
        await plane.start(configuration, rotations)
        self._planes[engine] = plane
        self._watching[asyncio.create_task(plane.failed())] = engine
        self._changed.set()

    async def reload(self, before: Configuration, after: Configuration, rotations: Rotations, old: Rotations) -> None:
        """Another configuration for all of them. Where one refuses (BalancerError), the others are led back.

        What moves from one to another is listened on by us meanwhile: its accept queue has an owner at any time.
        """
        check_sources(after)
        refuse_moves(before, after)
        kept = [(bind, listen(bind, backlog)) for bind, backlog in moved(before, after).items()]
        try:
            await self._reload(before, after, rotations, old)
        finally:
            for bind, sock in kept:
                release(bind, sock)

    async def _reload(
        self, before: Configuration, after: Configuration, rotations: Rotations, old: Rotations
    ) -> None:
        wanted = engines_of(after)
        done: list[Engine] = []
        try:
            for engine in wanted:
                if engine in self._planes:
                    await self._planes[engine].reload(after, rotations)
                else:
                    await self._begin(engine, after, rotations)
                done.append(engine)
        except Exception:
            await self._lead_back(done, before, old)
            raise
        for engine in [engine for engine in self._planes if engine not in wanted]:
            await self._part(engine, after.stop_timeout)

    async def _lead_back(self, done: list[Engine], before: Configuration, old: Rotations) -> None:
        for engine in done:
            try:
                if engine in engines_of(before):
                    await self._planes[engine].reload(before, old)
                else:
                    await self._unwatched(engine).stop()
            except BalancerError as problem:
                self._say(f"engine {engine}: could not go back to the old configuration: {problem}")

    async def _part(self, engine: Engine, patience: float) -> None:
        plane = self._unwatched(engine)
        await plane.drain()
        task = asyncio.create_task(_ended(plane, patience))
        self._parting[task] = plane
        task.add_done_callback(lambda done: self._parting.pop(done, None))

    def _unwatched(self, engine: Engine) -> DataPlane:
        for task in [task for task, watched in self._watching.items() if watched == engine]:
            del self._watching[task]
            task.cancel()
        self._changed.set()
        return self._planes.pop(engine)

    async def rotate(self, rotations: Rotations) -> None:
        for plane in list(self._planes.values()):
            await plane.rotate(rotations)

    async def cut(self, pool: str, target: str, then: Then) -> int:
        return sum([await plane.cut(pool, target, then) for plane in self._all()])

    async def active(self, pool: str, target: str) -> int:
        return sum([await plane.active(pool, target) for plane in self._all()])

    async def statistics(self) -> Statistics:
        return summed([await plane.statistics() for plane in list(self._planes.values())])

    async def drain(self) -> None:
        for plane in list(self._planes.values()):
            await plane.drain()

    async def remaining(self) -> int:
        return sum([await plane.remaining() for plane in self._all()])

    async def stop(self) -> None:
        """Ends everything, whatever one of them says."""
        parting = dict(self._parting)
        for task in parting:
            task.cancel()
        for plane in [*(self._unwatched(engine) for engine in list(self._planes)), *parting.values()]:
            try:
                await plane.stop()
            except (BalancerError, OSError) as problem:
                self._say(f"an engine did not stop in order: {problem}")

    async def failed(self) -> str:
        """Waits until an engine died of itself, and says which and why."""
        while True:
            self._changed.clear()
            changed = asyncio.create_task(self._changed.wait())
            await asyncio.wait([changed, *self._watching], return_when=asyncio.FIRST_COMPLETED)
            changed.cancel()
            for task, engine in self._watching.items():
                if task.done():
                    problem = task.exception()
                    return f"engine {engine}: {problem if problem else task.result()}"

    def _all(self) -> list[DataPlane]:
        return [*self._planes.values(), *self._parting.values()]


async def _ended(plane: DataPlane, patience: float) -> None:
    """Until its clients are gone, or the time is over."""
    try:
        async with asyncio.timeout(patience):
            while await plane.remaining():
                await asyncio.sleep(0.2)
    except TimeoutError:
        pass
    await plane.stop()
