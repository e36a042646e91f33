"""HAProxy forwards, as a DataPlane.

The listening sockets are ours, and every HAProxy inherits them: at a reload another one is started on the same accept
queues and serves before the old one is told to stop, so nothing that waits in a queue is lost. The old one ends when
its connections have ended, or after `stop_timeout`. One that dies is replaced likewise, and clients wait in the queue
meanwhile. Who is in rotation is told through its command line.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
import socket
from collections.abc import Callable, Mapping
from pathlib import Path

from timewait.balancer.accidents import Accidents
from timewait.balancer.config.model import Configuration, Then
from timewait.balancer.engine import BalancerError, Rotation
from timewait.balancer.haproxy import tables
from timewait.balancer.haproxy.commands import GoneError
from timewait.balancer.haproxy.generation import Generation
from timewait.balancer.haproxy.log import Log
from timewait.balancer.haproxy.process import Process, memory, program
from timewait.balancer.haproxy.text import Handed, listeners_of, written
from timewait.balancer.listening import listen, release
from timewait.balancer.statistics import Statistics, summed
from timewait.balancer.timestamps import Stripped

_GRACE = 1.0  # seconds
_SOON = 0.002
_POLLED = 0.2  # seconds between two looks at a HAProxy that is to end


class HaproxyEngine:
    """See engine.DataPlane. HAProxy has no rights that an ordinary user has not, and leaves no file."""

    def __init__(self, *, say: Callable[[str], None] = lambda line: None) -> None:
        self._say = say
        self._sockets: dict[str, socket.socket] = {}  # by bind
        self._current: Generation | None = None
        self._leaving: list[Generation] = []
        self._rotations: dict[str, Rotation] = {}
        self._accidents = Accidents()
        self._numbers = itertools.count(1)  # of HAProxys that log
        self._certificates: dict[str, bytes] = {}  # "/certificate /key" -> both, as they were read last
        self._ended = Statistics()  # what those that are gone had counted
        self._tasks: set[asyncio.Task[None]] = set()
        self._stripped = Stripped("haproxy")
        self._failure: asyncio.Future[str] | None = None
        self._stopping = False
        self._drained = 0.0

    async def start(self, configuration: Configuration, rotations: Mapping[str, Rotation]) -> None:
        """Binds and starts. Raises BalancerError, and leaves nothing then."""
        program()
        self._failure = asyncio.get_running_loop().create_future()
        try:
            self._bind(configuration)
            self._stripped.apply(listeners_of(configuration))
            self._rotations = dict(rotations)
            self._current = await self._begin(configuration, self._rotations)
        except BaseException:
            await self.stop()
            raise

    async def reload(self, configuration: Configuration, rotations: Mapping[str, Rotation]) -> None:
        """Other targets are told; everything else is another HAProxy, also the same configuration again and renewed
        certificates. Raises BalancerError: nothing has changed."""
        old = self._current
        assert old is not None
        if self._is_fresh(configuration, old) and await _adopted(old, configuration, rotations):
            self._rotations = dict(rotations)
            return
        before = set(self._sockets)
        try:
            self._bind(configuration)
            new = await self._begin(configuration, dict(rotations))
            try:
                self._stripped.apply(listeners_of(configuration))
                await tables.copy(old, new)
            except GoneError:
                pass  # the old one is dead, and that is told
            except BaseException:
                await new.process.kill()
                raise
        except BaseException:
            self._release(set(self._sockets) - before)
            raise
        self._current, self._rotations = new, dict(rotations)
        await self._retire(old)
        self._background(self._stop_late(old, configuration.stop_timeout))
        self._release(set(self._sockets) - _binds(configuration))

    async def rotate(self, rotations: Mapping[str, Rotation]) -> None:
        """Other weights, for connections that a HAProxy of before still has, too."""
        self._rotations.update(rotations)
        for generation in self._all():
            try:
                await generation.rotate(rotations)
            except GoneError:
                pass

    async def cut(self, pool: str, target: str, then: Then) -> int:
        """Ends sessions: a reset to the target, a FIN to the client."""
        if then is Then.LEAVE:
            return 0
        return await self._sum(lambda generation: generation.cut(pool, target))

    async def active(self, pool: str, target: str) -> int:
        """Sessions: requests under way, or streams."""
        return await self._sum(lambda generation: generation.active(pool, target))

    async def statistics(self) -> Statistics:
        """See counted.py."""
        found = [self._ended]
        for generation in self._all():
            try:
                found.append(await generation.statistics())
            except GoneError:
                found.append(generation.final())
        return summed(found)

    async def drain(self) -> None:
        """Stops accepting. Kept connections end with their next answer."""
        self._drained = asyncio.get_running_loop().time()
        if self._current is not None:
            old, self._current = self._current, None
            await self._retire(old)
        self._release(set(self._sockets))

    async def remaining(self) -> int:
        """Clients' connections; those that are kept and idle only for a second, in which a request that is on its way
        arrives. HAProxy cannot be told to close just them, stop() will."""
        if asyncio.get_running_loop().time() < self._drained + _GRACE:
            return await self._sum(lambda generation: generation.connections())
        return await self._sum(lambda generation: generation.streams())

    async def stop(self) -> None:
        """Kills every HAProxy."""
        self._stopping = True
        for generation in self._all():
            await generation.process.kill()
            generation.finish()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._current = None
        self._leaving.clear()
        self._release(set(self._sockets))
        self._stripped.close()

    async def failed(self) -> str:
        """HAProxy dies as often as it is started, or cannot be started again."""
        assert self._failure is not None
        return await asyncio.shield(self._failure)

    def _all(self) -> list[Generation]:
        return [*([self._current] if self._current else []), *self._leaving]

    async def _sum(self, figure: Callable[[Generation], asyncio.Future[int] | object]) -> int:
        total = 0
        for generation in self._all():
            try:
                total += await figure(generation)  # type: ignore[misc]
            except GoneError:
                pass
        return total

    # processes ----------------------------------------------------------------------------------------------------

    async def _begin(self, configuration: Configuration, rotations: dict[str, Rotation]) -> Generation:
        """Another HAProxy, which serves when this returns."""
        ours, theirs = socket.socketpair()
        pems = _certificates(configuration)
        certificates: dict[str, int] = {}
        log: Log | None = None
        try:
            if configuration.access_log:
                log = Log(configuration, next(self._numbers), self._say)
            for key, content in pems.items():
                certificates[key] = memory("certificate", content)
            handed = Handed(
                sockets={bind: found.fileno() for bind, found in self._sockets.items()},
                certificates={key: f"/proc/self/fd/{number}" for key, number in certificates.items()},
                commands=theirs.fileno(),
                log=log.theirs if log else -1,
            )
            keep = [*handed.sockets.values(), *certificates.values(), theirs.fileno(), *([log.theirs] if log else [])]
            text = written(configuration, rotations, handed).encode()
            process = await Process.start(text, keep, ours, configuration)
        except BaseException:
            ours.close()
            if log is not None:
                log.finish()
            raise
        finally:
            theirs.close()
            for number in certificates.values():
                os.close(number)
        self._certificates = pems
        if log is not None:
            log.begin()
        found = Generation(process, configuration, rotations, log)
        self._background(self._watch(found, asyncio.get_running_loop().time()))
        return found

    def _is_fresh(self, configuration: Configuration, running: Generation) -> bool:
        """Whether certificates and the log are still the files they were."""
        fresh_log = running.log is None or running.log.is_fresh
        return fresh_log and _certificates(configuration) == self._certificates

    async def _watch(self, generation: Generation, since: float) -> None:
        try:
            how = await generation.process.ended()
        finally:
            generation.finish()
        if self._stopping:
            return
        if generation is self._current:
            await self._replace(generation, how, asyncio.get_running_loop().time() - since)
        elif generation in self._leaving:
            self._leaving.remove(generation)
            self._gone(generation)
            if not generation.complete:
                self._say(f"a HAProxy of before the last reload: {how}")

    async def _replace(self, dead: Generation, how: str, lived: float) -> None:
        """Starts another one with the same configuration, unless a reload or the end comes first."""
        pause = self._accidents.pause(lived)
        if pause is None:
            self._fail(f"{how}, {self._accidents.habit()}")
            return
        self._say(f"{how}; its connections are lost, another one takes its place")
        await asyncio.sleep(pause)
        if dead is not self._current:
            return
        try:
            new = await self._begin(dead.configuration, self._rotations)
        except BalancerError as error:
            if dead is self._current:
                self._fail(f"{how}, and no other could be started: {error}")
            return
        if dead is not self._current:
            await new.process.kill()
            return
        self._gone(dead)
        self._current = new
        await self.rotate(dict(self._rotations))  # what changed while it started

    def _gone(self, generation: Generation) -> None:
        """It has ended: what it had counted when it was asked last stays."""
        self._ended = summed([self._ended, generation.final()])

    def _fail(self, sentence: str) -> None:
        assert self._failure is not None
        if not self._failure.done():
            self._failure.set_result(sentence)

    async def _retire(self, generation: Generation) -> None:
        """Has it stop accepting; it ends when it has no connection any more."""
        if not generation.process.running:
            self._gone(generation)
            return
        self._leaving.append(generation)
        generation.process.tell(signal.SIGUSR1)
        self._background(self._see_off(generation))
        try:
            while not await generation.leaves():
                await asyncio.sleep(_SOON)
        except GoneError:
            pass

    async def _stop_late(self, generation: Generation, seconds: float) -> None:
        await asyncio.sleep(seconds)
        if generation not in self._leaving:
            return
        try:
            await generation.statistics()
        except GoneError:
            return
        generation.complete = True
        await generation.process.kill()

    async def _see_off(self, generation: Generation) -> None:
        """Our session with it is the last that keeps it: it is closed once its figures are final."""
        try:
            while not await generation.is_last():
                await asyncio.sleep(_POLLED)
            await generation.statistics()
            generation.complete = True
        except GoneError:
            return
        generation.process.commands.close()

    def _background(self, what: object) -> None:
        task: asyncio.Task[None] = asyncio.create_task(what)  # type: ignore[arg-type]
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # sockets ------------------------------------------------------------------------------------------------------

    def _bind(self, configuration: Configuration) -> None:
        """Binds what is not bound yet. Raises BalancerError, and then nothing more is bound than before."""
        added: set[str] = set()
        try:
            for listener in listeners_of(configuration):
                for bind in listener.bind:
                    if bind not in self._sockets:
                        self._sockets[bind] = listen(bind, listener.backlog)
                        added.add(bind)
        except BaseException:
            self._release(added)
            raise

    def _release(self, binds: set[str]) -> None:
        for bind in binds:
            release(bind, self._sockets.pop(bind))


async def _adopted(old: Generation, configuration: Configuration, rotations: Mapping[str, Rotation]) -> bool:
    """Whether the one that runs took over the configuration by being told."""
    try:
        return await old.adopt(configuration, dict(rotations))
    except GoneError:
        return False


def _binds(configuration: Configuration) -> set[str]:
    return {bind for listener in listeners_of(configuration) for bind in listener.bind}


def _certificates(configuration: Configuration) -> dict[str, bytes]:
    """Each certificate and its key in one, as HAProxy wants them. Raises BalancerError."""
    found = {}
    for listener in listeners_of(configuration):
        for one in listener.tls.certificate:
            try:
                parts = [Path(path).read_bytes() for path in dict.fromkeys((one.certificate, one.key))]
            except OSError as error:
                raise BalancerError(f"{error.filename}: cannot be read ({error.strerror})") from None
            found[f"{one.certificate} {one.key}"] = b"\n".join(parts)
    return found
