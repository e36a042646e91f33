"""A balancer as a process: the supervisor, its admin API, and its signals.

SIGTERM and SIGINT drain: nothing is accepted any more, what is open may end within `stop_timeout`. A second one ends
at once. SIGHUP reads the file again; a bad one is refused, and the old configuration goes on.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import signal
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TYPE_CHECKING

from timewait.balancer.changes import Changes
from timewait.balancer.config.model import Configuration, Engine
from timewait.balancer.config.units import duration_text
from timewait.balancer.control.beacon import Beacon
from timewait.balancer.control.door import Door, place
from timewait.balancer.engine import BalancerError, DataPlane
from timewait.balancer.health.probes import endpoint
from timewait.balancer.listening import holder
from timewait.balancer.source import Source
from timewait.balancer.supervisor import Supervisor
from timewait.balancer.views import Look
from timewait.balancer.words import plural, seconds

if TYPE_CHECKING:
    from aiohttp import web

WELL, FAILED, INTERRUPTED = 0, 1, 130  # ended as told; an engine died; a second signal
_LOOK_AGAIN = 0.05  # seconds between two questions how many connections are left
_NOTICE = 5.0  # seconds between two looks at ports and TIME_WAIT
_HEAD_START = 0.01  # seconds for engines to have begun their processes
_API_PATIENCE = 1.0  # seconds that requests to the API may still take at the end


class Service:
    """One balancer. `run` returns its exit code; it raises BalancerError where it cannot start, with nothing left."""

    def __init__(
        self,
        configuration: Configuration,
        source: Source,
        *,
        make: Callable[[Engine], DataPlane],
        say: Callable[[str], None],
        on_ready: Callable[[str], None],
        look: Look | None = None,
    ) -> None:
        self._configuration, self._source, self._say, self._on_ready = configuration, source, say, on_ready
        self.supervisor = Supervisor(configuration, make=make, say=say, look=look, file=source.name)
        self._signals: asyncio.Queue[signal.Signals] = asyncio.Queue()
        self._reloading: set[asyncio.Task[None]] = set()

    async def run(self) -> int:
        """Until it is told to end, or an engine dies."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            loop.add_signal_handler(number, self._signals.put_nowait, number)
        try:
            # The door comes first: a second balancer on the same file should say so, and not that a port is taken.
            async with self._admin() as (path, prepare, answer):
                try:
                    await _both(self.supervisor.start(), prepare())
                    await answer()
                    self._on_ready(f"timewait balance: ready (pid {os.getpid()}, admin socket {path})")
                    return await self._serve()
                finally:
                    await self.supervisor.close()
        finally:
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
                loop.remove_signal_handler(number)

    async def reload(self, reset: bool = False) -> Changes:
        """Reads the file again. Raises BalancerError, and goes on as before, where it cannot be used."""
        try:
            reading = self._source.read()
            for warning in reading.warnings:
                self._say(f"warning: {warning}")
            changes = await self.supervisor.reload(reading.configuration, reset=reset)
        except BalancerError as problem:
            for line in str(problem).split("\n"):
                self._say(f"reload refused: {line}")
            self._say("the old configuration goes on")
            raise
        what = "nothing to change" if changes.nothing else "; ".join(changes.lines())
        self._say(f"reload: {what}")
        return changes

    async def _serve(self) -> int:
        """Follows signals until one of them, or an engine, ends it."""
        died = asyncio.create_task(self.supervisor.planes.failed())
        noticing = asyncio.create_task(self._notice())
        try:
            while True:
                told = asyncio.create_task(self._signals.get())
                await asyncio.wait([died, told], return_when=asyncio.FIRST_COMPLETED)
                if died.done():
                    told.cancel()
                    self._say(f"{died.result()}; the balancer ends")
                    return FAILED
                if told.result() is not signal.SIGHUP:
                    return await self._drain(told.result(), died)
                task = asyncio.create_task(self._hang_up())
                self._reloading.add(task)
                task.add_done_callback(self._reloading.discard)
        finally:
            died.cancel()
            noticing.cancel()

    async def _notice(self) -> None:
        """Looks at the kernel now and then, and logs what is found about the balancer itself, once while it lasts."""
        told: set[str] = set()
        while True:
            await asyncio.sleep(_NOTICE)
            try:
                stats = await self.supervisor.statistics()
            except Exception:  # an engine in the middle of something, or about to die: that is told elsewhere
                continue
            found = {f"{one.id} {one.about}": one for one in stats.kernel.findings}
            for key in found.keys() - told:
                remedy = f" Best: {found[key].remedy[0]}" if found[key].remedy else ""
                self._say(f"{found[key].id}: {found[key].summary}{remedy}")
            told = set(found)

    async def _hang_up(self) -> None:
        try:
            await self.reload()
        except BalancerError:
            pass  # said already
        except Exception as problem:
            self._say(
                f"reload: a fault of its own: {type(problem).__name__}: {problem}; the old configuration goes on"
            )

    async def _drain(self, number: signal.Signals, died: asyncio.Task[str]) -> int:
        """Accepts nothing more, and waits; the exit code."""
        patience = self.supervisor.configuration.stop_timeout
        loop = asyncio.get_running_loop()
        begun = loop.time()
        await self.supervisor.begin_to_stop()
        left = await self.supervisor.remaining()
        self._say(
            f"{number.name}: accepts nothing more; {plural(left, 'connection')} open"
            + (f", at most {duration_text(patience)} more" if left else "")
        )
        while left and loop.time() < begun + patience and not died.done():
            try:
                told = await asyncio.wait_for(self._signals.get(), _LOOK_AGAIN)
            except TimeoutError:
                left = await self.supervisor.remaining()
                continue
            if told is not signal.SIGHUP:
                self._say(f"{told.name} again: ends at once, {plural(left, 'connection')} cut")
                return INTERRUPTED
        how = f"{plural(left, 'connection')} cut" if left else "everything had ended"
        self._say(f"ended after {seconds(loop.time() - begun)}: {how}")
        return WELL

    @contextlib.asynccontextmanager
    async def _admin(
        self,
    ) -> AsyncIterator[tuple[str, Callable[[], Awaitable[None]], Callable[[], Awaitable[None]]]]:
        """The admin socket's path, what loads the API, and what makes it (and metrics, where they are wanted over
        TCP) answer."""
        admin = self._configuration.admin
        sites: list[web.SockSite] = []
        async with contextlib.AsyncExitStack() as stack:
            door = Door(place(admin.socket, self._source.path))
            stack.callback(door.close)
            tcp = _metrics_socket(admin.metrics) if admin.metrics else None
            if tcp is not None:
                stack.callback(tcp.close)

            async def prepare() -> None:
                await asyncio.sleep(_HEAD_START)
                from timewait.balancer.control.api import Api  # 0.2 s, in which workers start, too

                api = Api(self.supervisor, self._source, self.reload)
                sites.append(await _site(stack, api.application(), door.socket))
                if tcp is not None:
                    sites.append(await _site(stack, api.metrics_only(), tcp))

            async def answer() -> None:
                for site in sites:
                    await site.start()
                beacon = Beacon(self._source.name, door.path)
                stack.callback(beacon.close)

            yield str(door.path), prepare, answer


async def _both(first: Awaitable[None], second: Awaitable[None]) -> None:
    """The second while the first waits. Raises what one of them raised, once both are over."""
    for ended in await asyncio.gather(first, second, return_exceptions=True):
        if isinstance(ended, BaseException):
            raise ended


async def _site(stack: contextlib.AsyncExitStack, app: web.Application, sock: socket.socket) -> web.SockSite:
    from aiohttp import web

    runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=_API_PATIENCE)
    await runner.setup()
    stack.push_async_callback(runner.cleanup)
    return web.SockSite(runner, sock)


def _metrics_socket(address: str) -> socket.socket:
    """Raises BalancerError."""
    family, where = endpoint(address)
    try:
        return socket.create_server(where, family=family)
    except OSError as problem:
        reason = os.strerror(problem.errno or 0).lower()
        if problem.errno == errno.EADDRINUSE:
            reason = f"port {where[1]} is in use{holder(where[1])}"
        raise BalancerError(
            f"[admin] metrics {address}: {reason}; name another address, or stop who has it"
        ) from None
