"""An engine that forwards nothing: it listens, remembers what it was told, and does as a test says.

`python -m kit.fake_plane FILE` (with tests/ in PYTHONPATH) is a whole balancer on it: signals, admin API, log.
"""

from __future__ import annotations

import asyncio
import socket
import sys
import time
from collections.abc import Mapping

from timewait.balancer.config.addresses import bound
from timewait.balancer.config.model import Configuration, Then
from timewait.balancer.engine import BalancerError, Rotation
from timewait.balancer.statistics import ListenerStatistics, Statistics, TargetStatistics


class FakePlane:
    """Set `open` (connections toward targets), `clients` (after drain) and `refuses` to say what happens."""

    def __init__(self, *, listens: bool = False) -> None:
        self._listens = listens
        self.calls: list[str] = []
        self.configuration: Configuration | None = None
        self.weights: dict[str, dict[str, int]] = {}
        self.open: dict[tuple[str, str], int] = {}
        self.clients = 0
        self.refuses = ""
        self.died: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._sockets: list[socket.socket] = []

    async def start(self, configuration: Configuration, rotations: Mapping[str, Rotation]) -> None:
        if self._listens:
            self._listen(configuration)
        self._take("start", configuration, rotations)

    async def reload(self, configuration: Configuration, rotations: Mapping[str, Rotation]) -> None:
        self._take("reload", configuration, rotations)

    async def rotate(self, rotations: Mapping[str, Rotation]) -> None:
        self._take("rotate", None, rotations)

    async def cut(self, pool: str, target: str, then: Then) -> int:
        self.calls.append(f"cut {pool} {target} {then}")
        return self.open.pop((pool, target), 0)

    async def active(self, pool: str, target: str) -> int:
        return self.open.get((pool, target), 0)

    async def statistics(self) -> Statistics:
        assert self.configuration is not None
        found = Statistics(unknown=("tls_handshakes",))
        for listener in self.configuration.listener:
            found.listeners[listener.name] = ListenerStatistics(
                name=listener.name,
                accepted=7,
                active=2,
                requests=9,
                made_by_balancer={404: 1},
                made_by_target={200: 8},
            )
        for pool in self.configuration.pool:
            for one in pool.target:
                key = f"{pool.name}/{one.addr}"
                found.targets[key] = TargetStatistics(pool=pool.name, address=one.addr, connects=3, statuses={200: 8})
        return found

    async def drain(self) -> None:
        self.calls.append("drain")

    async def remaining(self) -> int:
        return self.clients

    async def stop(self) -> None:
        self.calls.append("stop")
        for sock in self._sockets:
            sock.close()

    async def failed(self) -> str:
        return await self.died

    def _listen(self, configuration: Configuration) -> None:
        for listener in configuration.listener:
            for text in listener.bind:
                where = bound(text)
                assert not isinstance(where, str)
                try:
                    self._sockets.append(socket.create_server((str(where.address), where.port)))
                except OSError as problem:
                    raise BalancerError(f"listener {listener.name}: {text}: {problem.strerror}") from None

    def _take(self, call: str, configuration: Configuration | None, rotations: Mapping[str, Rotation]) -> None:
        if self.refuses:
            raise BalancerError(self.refuses)
        if configuration is not None:
            self.configuration, self.weights = configuration, {}
        for name, one in rotations.items():
            self.weights[name] = dict(one.weights)
        self.calls.append(call)


def main() -> int:
    """A balancer; the number of clients that stay open after a drain is the second word."""
    from timewait.balancer.service import Service
    from timewait.balancer.source import Source

    async def run() -> int:
        plane = FakePlane(listens=True)
        plane.clients = int(sys.argv[2]) if len(sys.argv) > 2 else 0
        source = Source(sys.argv[1])
        service = Service(
            source.read().configuration,
            source,
            make=lambda engine: plane,
            say=_say,
            on_ready=lambda line: print(line),
        )
        return await service.run()

    try:
        return asyncio.run(run())
    except BalancerError as problem:
        _say(str(problem))
        return 2


def _say(line: str) -> None:
    print(f"{time.monotonic():.3f} {line}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    sys.exit(main())
