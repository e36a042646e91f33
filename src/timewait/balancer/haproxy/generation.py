"""One HAProxy with the configuration it was started with, and what it was told since."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping

import msgspec

from timewait.balancer.config.model import Configuration, Listener, Pool, SessionType
from timewait.balancer.engine import Rotation
from timewait.balancer.haproxy import backends, counted
from timewait.balancer.haproxy.log import Log
from timewait.balancer.haproxy.process import Process
from timewait.balancer.haproxy.text import listeners_of, pools_of
from timewait.balancer.haproxy.words import backend, server
from timewait.balancer.statistics import Statistics, ended

_MOST_GONE = 100  # targets that left a pool, until another HAProxy takes over without them


class Generation:
    """The methods that ask it something raise GoneError when it is gone."""

    def __init__(
        self,
        process: Process,
        configuration: Configuration,
        rotations: Mapping[str, Rotation],
        log: Log | None = None,
    ) -> None:
        self.process = process
        self.log = log
        self.configuration = configuration
        self.counted = Statistics()  # when it was asked last
        self.complete = False  # whether that was after its last connection
        # Of every target it ever had: one that left stays in maintenance, with its figures, and may come back.
        self._weights = {pool.name: backends.weights_of(pool, rotations) for pool in configuration.pool}

    async def rotate(self, rotations: Mapping[str, Rotation]) -> None:
        """Tells it the weights that differ from what it knows."""
        told = []
        for listener, pool in self._uses():
            if pool in rotations:
                told += list(self._changes(listener, pool, dict(rotations[pool].weights)))
        await self.process.commands.ask_all(told)
        for name, rotation in rotations.items():
            self._weights.setdefault(name, {}).update(rotation.weights)

    def _changes(self, listener: Listener, pool: str, weights: Mapping[str, int]) -> Iterator[str]:
        known = self._weights.get(pool, {})
        for address, weight in weights.items():
            if address in known and known[address] != weight:
                for name in _servers(listener, pool, address):
                    yield from _state(name, weight, known[address])

    async def adopt(self, configuration: Configuration, rotations: Mapping[str, Rotation]) -> bool:
        """Takes over a configuration in which only targets differ; False where it needs another HAProxy. The same one
        again does: that is a wish for one."""
        if self.configuration == configuration or not _only_targets_differ(self.configuration, configuration):
            return False
        added: list[str] = []
        others: list[str] = []
        weights = {pool.name: backends.weights_of(pool, rotations) for pool in configuration.pool}
        for listener, name in self._uses():
            pool, known = configuration.pool_named(name), self._weights[name]
            new = {address: weight for address, weight in weights[name].items() if address not in known}
            if (new and pool.session.type is SessionType.COOKIE_INSERT) or len(known) > len(pool.target) + _MOST_GONE:
                return False  # HAProxy 2.6 gives no cookie to a server that is added
            added += [f"add server {line}" for line in self._lines(listener, pool, rotations, new)]
            ready = [address for address, weight in new.items() if weight]
            others += [f"set server {one} state ready" for at in ready for one in _servers(listener, name, at)]
            others += self._changes(listener, name, {**dict.fromkeys(known, 0), **weights[name]})
        answers = await self.process.commands.ask_all(added)
        if any("registered" not in answer for answer in answers):
            return False
        await self.process.commands.ask_all(others)
        self.configuration = configuration
        if self.log is not None:
            self.log.learn(configuration)
        for name, known in self._weights.items():
            self._weights[name] = {**dict.fromkeys(known, 0), **weights[name]}
        return True

    def _lines(
        self, listener: Listener, pool: Pool, rotations: Mapping[str, Rotation], addresses: Iterable[str]
    ) -> list[str]:
        found = backends.servers(listener, pool, rotations)
        where = backend(listener, pool.name)
        return [f"{where}/{line}" for address in addresses for line in found[address]]

    async def cut(self, pool: str, target: str) -> int:
        """Ends the sessions of a target; how many there were."""
        count = await self.active(pool, target)
        names = [name for listener, used in self._uses() if used == pool for name in _servers(listener, pool, target)]
        await self.process.commands.ask_all([f"shutdown sessions server {name}" for name in names])
        return count

    async def active(self, pool: str, target: str) -> int:
        """Sessions of a target."""
        found = (await self.statistics()).targets.get(f"{pool}/{target}")
        return found.active if found else 0

    async def statistics(self) -> Statistics:
        """What it counted so far."""
        rows = counted.rows(await self.process.commands.ask("show stat"))
        self.counted = counted.statistics(self.configuration, rows, self._weights)
        if self.log is not None:
            self.log.dropped(await self._info("DroppedLogs"))
            self.counted.log_lost = self.log.lost
        return self.counted

    def final(self) -> Statistics:
        """What it had counted when it was asked last, and nothing that is open."""
        found = ended(self.counted)
        return found if self.log is None else msgspec.structs.replace(found, log_lost=self.log.lost)

    async def connections(self) -> int:
        """Clients' connections."""
        return await self._info("CurrConns")

    async def streams(self) -> int:
        """Requests and streams under way: connections that are kept and idle do not count."""
        rows = counted.rows(await self.process.commands.ask("show stat"))
        return sum(counted.number(row, "scur") for (_, server), row in rows.items() if server == "BACKEND")

    async def leaves(self) -> bool:
        """Whether it accepts nothing more, as it was told."""
        return await self._info("Stopping") == 1

    async def is_last(self) -> bool:
        """Whether our session is all that keeps it from ending (`Jobs`: listeners, connections, sessions)."""
        return await self._info("Jobs") <= 1

    async def _info(self, name: str) -> int:
        answer = await self.process.commands.ask("show info")
        found = re.search(rf"^{name}: (\d+)$", answer, re.MULTILINE)
        return int(found[1]) if found else 0

    def finish(self) -> None:
        """The process has ended."""
        self.process.commands.close()
        if self.log is not None:
            self.log.finish()

    def _uses(self) -> list[tuple[Listener, str]]:
        return [(listener, pool) for listener in listeners_of(self.configuration) for pool in pools_of(listener)]


def _servers(listener: Listener, pool: str, address: str) -> list[str]:
    """`web:app/10.0.1.11:8080`, for each source address."""
    count = len(backends.sources_for(listener, address))
    return [f"{backend(listener, pool)}/{server(address, number)}" for number in range(count)]


def _state(name: str, weight: int, before: int) -> Iterator[str]:
    if weight:
        yield f"set server {name} weight {weight}"
    if bool(weight) != bool(before):
        yield f"set server {name} state {'ready' if weight else 'maint'}"


def _only_targets_differ(before: Configuration, after: Configuration) -> bool:
    def bare(configuration: Configuration) -> Configuration:
        pools = tuple(msgspec.structs.replace(pool, target=()) for pool in configuration.pool)
        return msgspec.structs.replace(configuration, pool=pools)

    return bare(before) == bare(after)
