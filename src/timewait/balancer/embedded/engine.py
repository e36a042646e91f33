"""The embedded engine: binds, starts workers, replaces them at a reload or when one dies, adds up what they counted.

This process keeps every listening socket open as long as its listener exists, and workers inherit it. So there is one
accept queue for each address whatever workers do: at a reload new ones accept before old ones stop, and where all of
them died, clients wait in the queue for the next.

Weights, health and other targets of a pool are messages. Everything else is another generation of workers; the one
before accepts nothing more, lets its connections end, and is ended after `stop_timeout`.
"""

from __future__ import annotations

import asyncio
import os
import secrets
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import msgspec

from timewait.balancer.accidents import Accidents
from timewait.balancer.config.model import Configuration, Engine, Listener, Then
from timewait.balancer.embedded import messages, privileges, shared
from timewait.balancer.embedded.crew import LAST_WORDS, Member
from timewait.balancer.embedded.ground import Ground
from timewait.balancer.engine import BalancerError, Rotation
from timewait.balancer.statistics import Statistics, ended, summed
from timewait.balancer.timestamps import Stripped


class EmbeddedEngine:
    """See engine.DataPlane."""

    def __init__(self, *, say: Callable[[str], None] = lambda text: None) -> None:
        """`say` gets a line for the log when something happened that nobody asked for."""
        self._say = say
        self._members: list[Member] = []
        self._ended = Statistics()  # what workers that are gone had counted
        self._next_number = 0
        self._generation = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._accidents = Accidents()
        self._key = secrets.token_bytes(32)
        self._draining = self._stopped = False
        self._shared = -1
        self._ground = Ground()
        self._stripped = Stripped("embedded")
        self._failure: asyncio.Future[str] | None = None

    # DataPlane --------------------------------------------------------------------------------------------------

    async def start(self, configuration: Configuration, rotations: Mapping[str, Rotation]) -> None:
        """See DataPlane."""
        self._failure = asyncio.get_running_loop().create_future()
        self._shared = shared.create()
        self._memory = shared.Shared(os.dup(self._shared))
        self._configuration, self._rotations = configuration, dict(rotations)
        try:
            self._identity = self._whom_to_become(configuration.user)
            self._ground = Ground.prepare(configuration, _ours(configuration), self._ground)
            self._stripped.apply(_ours(configuration))
            await self._another_generation()
        except BaseException:
            await self.stop()
            raise

    async def reload(self, configuration: Configuration, rotations: Mapping[str, Rotation]) -> None:
        """See DataPlane. Where only targets differ, workers stay; the same configuration again is a wish for new
        workers, with renewed certificates and the log opened anew."""
        if self._only_targets_differ(configuration):
            self._configuration, self._rotations = configuration, dict(rotations)
            self._tell_all(messages.Adopt(pools=configuration.pool, rotations=tuple(rotations.values())))
            return
        before = self._configuration, self._rotations, self._ground
        ground = Ground.prepare(configuration, _ours(configuration), self._ground)
        self._configuration, self._rotations, self._ground = configuration, dict(rotations), ground
        retiring = [member for member in self._members if not member.retired]
        try:
            self._stripped.apply(_ours(configuration))
            await self._another_generation()
        except BaseException:
            self._configuration, self._rotations, self._ground = before
            self._stripped.apply(_ours(before[0]))
            ground.release(keep=self._ground)
            raise
        old = before[2]
        gone = old.binds - ground.binds
        old.release(keep=ground)  # before workers do: whoever closes last resets who came after its last look
        # When it returns, whoever is accepted is accepted by the new generation.
        await asyncio.gather(*(self._retire(member, gone) for member in retiring))
        for member in retiring:
            self._background(self._stop_late(member, configuration.stop_timeout))

    async def rotate(self, rotations: Mapping[str, Rotation]) -> None:
        """See DataPlane."""
        self._rotations.update(rotations)
        self._tell_all(messages.Rotate(rotations=tuple(rotations.values())))

    async def cut(self, pool: str, target: str, then: Then) -> int:
        """See DataPlane."""
        return await self._sum(lambda number: messages.Cut(id=number, pool=pool, target=target, then=then))

    async def active(self, pool: str, target: str) -> int:
        """See DataPlane."""
        return await self._sum(lambda number: messages.CountActive(id=number, pool=pool, target=target))

    async def statistics(self) -> Statistics:
        """See DataPlane."""
        await self._ask_all(lambda number: messages.Report(id=number))  # which is kept as member.statistics
        return summed([self._ended, *(member.statistics for member in self._members)])

    async def drain(self) -> None:
        """See DataPlane."""
        self._draining = True
        binds = self._ground.binds
        self._ground.release()
        await asyncio.gather(*(self._retire(member, binds) for member in self._members if not member.retired))

    async def remaining(self) -> int:
        """See DataPlane."""
        found = await self.statistics()
        return sum(listener.active for listener in found.listeners.values())

    async def stop(self) -> None:
        """See DataPlane."""
        self._stopped = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*(member.kill(LAST_WORDS) for member in self._members))
        for member in list(self._members):
            self._gone(member)
        self._ground.release()
        self._stripped.close()
        if self._shared >= 0:
            self._memory.close()
            os.close(self._shared)
            self._shared = -1

    async def failed(self) -> str:
        """See DataPlane."""
        assert self._failure is not None
        return await asyncio.shield(self._failure)

    # workers ----------------------------------------------------------------------------------------------------

    async def _another_generation(self) -> None:
        """Starts as many workers as there shall be; all of them accept when it returns. Raises BalancerError, and
        then none of them is left."""
        self._generation += 1
        count = self._configuration.workers or len(os.sched_getaffinity(0))
        begun = await asyncio.gather(
            *(self._start_member(self._generation) for _ in range(count)), return_exceptions=True
        )
        problems = [one for one in begun if isinstance(one, BaseException)]
        if problems:
            for member in [one for one in begun if isinstance(one, Member)]:
                member.retired = True
                await member.kill()
                self._gone(member)
            raise problems[0]

    async def _start_member(self, generation: int) -> Member:
        self._next_number += 1
        member = Member(self._next_number, self._free_slot(), generation)
        self._members.append(member)
        ground = self._ground
        for row in ground.rows.values():
            self._memory.take_slot(row, member.slot)
        begin = messages.Begin(
            number=member.number,
            slot=member.slot,
            configuration=self._configuration,
            rotations=tuple(self._rotations.values()),
            sockets=ground.sockets,
            names=ground.names,
            rows=ground.rows,
            shared=self._shared,
            log=ground.log,
            key=self._key,
            identity=self._identity,
        )
        try:
            await member.start(begin, ground.inherited | {self._shared}, self._say)
        except BaseException:
            self._members.remove(member)
            raise
        self._background(self._watch(member, asyncio.get_running_loop().time()))
        return member

    def _free_slot(self) -> int:
        """The lowest that no worker has, those that only drain counted in."""
        taken = {member.slot for member in self._members}
        slot = next((slot for slot in range(shared.SLOTS) if slot not in taken), None)
        if slot is None:
            raise BalancerError(
                f"{shared.SLOTS} workers of earlier reloads still drain; shorten stop_timeout, or wait"
            )
        return slot

    async def _watch(self, member: Member, since: float) -> None:
        """Waits for a worker's end; one that nobody asked for is told, and another worker takes its place."""
        assert member.end is not None
        await asyncio.wait([member.end])
        known = member in self._members
        self._gone(member)
        if self._stopped or member.retired or not known:
            return
        pause = self._accidents.pause(asyncio.get_running_loop().time() - since)
        if pause is None:
            self._fail(f"{member.how_it_ended()}, {self._accidents.habit()}")
            return
        self._say(f"{member.how_it_ended()}; its connections are lost, another worker takes its place")
        await asyncio.sleep(pause)
        if not self._draining and member.generation == self._generation:
            try:
                await self._start_member(member.generation)
            except BalancerError as error:
                self._fail(f"{member.how_it_ended()}, and no other could be started: {error}")

    def _gone(self, member: Member) -> None:
        if member in self._members:
            self._members.remove(member)
            self._ended = summed([self._ended, ended(member.statistics)])
            for row in self._ground.rows.values():
                self._memory.take_slot(row, member.slot)

    async def _retire(self, member: Member, closing: Iterable[str]) -> None:
        """It accepts nothing more, and ends with its last connection."""
        member.retired = True
        await member.ask(lambda number: messages.Retire(id=number, closing=tuple(closing)), 0)

    async def _stop_late(self, member: Member, seconds: float) -> None:
        if member.end is not None:
            await asyncio.wait([member.end], timeout=seconds)
        if member.end is None or not member.end.done():
            await member.kill(LAST_WORDS)

    # helpers ----------------------------------------------------------------------------------------------------

    def _whom_to_become(self, user: str) -> messages.Identity | None:
        identity = privileges.identity(user)
        if identity is not None and not privileges.reachable(identity):
            self._say(
                f"workers stay root: there is no user {identity.name} in this user namespace, where root is an "
                "ordinary user"
            )
            return None
        return identity

    def _only_targets_differ(self, configuration: Configuration) -> bool:
        old = self._configuration
        if configuration == old or not self._ground.is_fresh(configuration):
            return False
        return _without_targets(configuration) == _without_targets(old)

    def _tell_all(self, message: messages.ToWorker) -> None:
        for member in self._members:
            member.tell(message)

    async def _sum(self, make: Callable[[int], messages.ToWorker]) -> int:
        answers: list[int] = await self._ask_all(make)
        return sum(answers)

    async def _ask_all(self, make: Callable[[int], messages.ToWorker]) -> list[Any]:
        return await asyncio.gather(*(member.ask(make, 0) for member in self._members if member.ready))

    def _background(self, work: Any) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _fail(self, sentence: str) -> None:
        if self._failure is not None and not self._failure.done():
            self._failure.set_result(sentence)


def _ours(configuration: Configuration) -> list[Listener]:
    return [listener for listener in configuration.listener if configuration.engine_of(listener) is Engine.EMBEDDED]


def _without_targets(configuration: Configuration) -> Configuration:
    pools = tuple(msgspec.structs.replace(pool, target=()) for pool in configuration.pool)
    return msgspec.structs.replace(configuration, pool=pools)
