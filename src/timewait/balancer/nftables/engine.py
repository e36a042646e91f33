"""The kernel forwards, as a DataPlane: rules kept up to date, connections counted and cut by conntrack."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable, Mapping

from timewait.balancer.config.addresses import place
from timewait.balancer.config.model import Configuration, Protocol, Then
from timewait.balancer.engine import BalancerError, Rotation
from timewait.balancer.listening import reserve
from timewait.balancer.nft import Nft
from timewait.balancer.nftables import conntrack, counted, forwarding, nudge
from timewait.balancer.nftables.census import Shared
from timewait.balancer.nftables.conntrack import end
from timewait.balancer.nftables.ruleset import NAME, listeners_of, table
from timewait.balancer.nftables.table import Table, changes, rendered
from timewait.balancer.statistics import Statistics

_KINDS = {Protocol.TCP: socket.SOCK_STREAM, Protocol.UDP: socket.SOCK_DGRAM}
_WATCHED = 2.0  # seconds between two looks whether it still works


class NftablesEngine:
    """One table that belongs to this process: the kernel takes it away when this process ends, however it ends.

    Needs CAP_NET_ADMIN in its network namespace, and forwarding switched on where a target is another machine.
    """

    def __init__(self, *, say: Callable[[str], None] = lambda line: None) -> None:
        self._say = say
        self._name = f"{NAME}-{os.getpid()}"
        self._nft: Nft | None = None
        self._configuration: Configuration | None = None
        self._rotations: dict[str, Rotation] = {}
        self._table = Table()
        self._counted = Shared()
        self._closed = False
        self._reserved: dict[tuple[str, int], socket.socket | None] = {}

    async def start(self, configuration: Configuration, rotations: Mapping[str, Rotation]) -> None:
        """Loads the rules. Raises BalancerError, and leaves nothing then."""
        forwarding.check(configuration)
        try:
            self._reserve(configuration)
            self._nft = Nft()
            wanted = table(configuration, rotations)
            self._nft.run(rendered(wanted, self._name, owner=True))
        except BaseException:
            self._release()
            raise
        self._configuration, self._rotations, self._table = configuration, dict(rotations), wanted

    async def reload(self, configuration: Configuration, rotations: Mapping[str, Rotation]) -> None:
        """Changes the rules that differ, in one transaction; connections that are open go on."""
        forwarding.check(configuration)
        before = set(self._reserved)
        try:
            self._reserve(configuration)
            self._load(configuration, {**self._rotations, **rotations})
        except BaseException:
            self._free([key for key in self._reserved if key not in before])
            raise
        wanted = _places(configuration)
        self._free([key for key in self._reserved if key not in wanted])

    async def rotate(self, rotations: Mapping[str, Rotation]) -> None:
        """Other weights, in one transaction; clients that were tied to a target without weight are free again."""
        if self._configuration is not None:
            self._load(self._configuration, {**self._rotations, **rotations})

    def _load(self, configuration: Configuration, rotations: dict[str, Rotation]) -> None:
        assert self._nft is not None
        wanted = table(configuration, rotations, closed=self._closed)
        commands = changes(self._table, wanted, self._name)
        if commands:
            self._nft.run(commands)
        self._counted.outdate()
        self._configuration, self._rotations, self._table = configuration, rotations, wanted

    async def cut(self, pool: str, target: str, then: Then) -> int:
        """Forgets the connections to a target, and has both of its ends reset; how many they were."""
        if then is Then.LEAVE or self._configuration is None:
            return 0
        gone = await asyncio.to_thread(self._cut, self._configuration, pool, target)
        self._counted.outdate()
        return gone

    def _cut(self, configuration: Configuration, pool: str, target: str) -> int:
        at = place(target)
        found = [
            flow for name in _protocols(configuration) for flow in conntrack.toward(name, end(at.address, at.port))
        ]
        mine = [flow for flow in found if flow.open and counted.is_toward(configuration, flow, pool, target)]
        gone = conntrack.forget(mine)
        nudge.send(mine)
        return gone

    async def active(self, pool: str, target: str) -> int:
        """Connections to a target that conntrack holds for open; for UDP those that have not timed out."""
        configuration = self._configuration
        if configuration is None:
            return 0
        ways = await self._counted.counts(_protocols(configuration))
        toward = counted.is_toward
        return sum(count for way, count in ways.items() if way.open and toward(configuration, way, pool, target))

    async def statistics(self) -> Statistics:
        """Counters of the rules, connections of conntrack. A kernel that forwards sees packets, no requests."""
        configuration = self._configuration
        if self._nft is None or configuration is None:
            return Statistics(unknown=counted.UNKNOWN)
        counters = counted.counters(self._nft, self._name, configuration)
        return counted.statistics(configuration, counters, await self._counted.counts(_protocols(configuration)))

    async def drain(self) -> None:
        """Refuses new connections."""
        self._closed = True
        if self._configuration is not None:
            self._load(self._configuration, self._rotations)

    async def remaining(self) -> int:
        """TCP connections that are still open; an exchange by UDP has no end that could be awaited."""
        configuration = self._configuration
        if configuration is None:
            return 0
        ways = await self._counted.counts(_protocols(configuration))
        mine = [way for way in ways if way.open and way.protocol == socket.IPPROTO_TCP]
        return sum(ways[way] for way in mine if counted.listener_of(configuration, way) is not None)

    async def stop(self) -> None:
        """Takes the rules away, and forgets and resets what was open."""
        configuration, self._configuration = self._configuration, None
        mine = await asyncio.to_thread(_all_of, configuration) if configuration is not None else []
        self._release()
        await asyncio.to_thread(_end, mine)

    async def failed(self) -> str:
        """Nobody can flush a table that we own; but whoever switches forwarding off stops all traffic."""
        while True:
            await asyncio.sleep(_WATCHED)
            if self._configuration is None:
                continue
            try:
                forwarding.check(self._configuration)
            except BalancerError as error:
                return str(error)

    def _reserve(self, configuration: Configuration) -> None:
        """Keeps others from listening where our rules would take their connections away."""
        for bind, kind in _places(configuration):
            if (bind, kind) not in self._reserved:
                self._reserved[bind, kind] = reserve(bind, kind)

    def _free(self, keys: list[tuple[str, int]]) -> None:
        for key in keys:
            held = self._reserved.pop(key)
            if held is not None:
                held.close()

    def _release(self) -> None:
        if self._nft is not None:
            self._nft.close()
            self._nft = None
        self._free(list(self._reserved))


def _places(configuration: Configuration) -> set[tuple[str, int]]:
    return {(bind, _KINDS[one.protocol]) for one in listeners_of(configuration) for bind in one.bind}


def _protocols(configuration: Configuration) -> set[str]:
    return {str(listener.protocol) for listener in listeners_of(configuration)}


def _all_of(configuration: Configuration) -> list[conntrack.Flow]:
    found = conntrack.flows(_protocols(configuration))
    return [flow for flow in found if counted.listener_of(configuration, flow) is not None]


def _end(mine: list[conntrack.Flow]) -> None:
    if mine:
        conntrack.forget(mine)
        nudge.send([flow for flow in mine if flow.open])
