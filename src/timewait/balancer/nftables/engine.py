"""The kernel forwards, as a DataPlane: rules kept up to date, connections counted and cut by conntrack."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable, Mapping

from timewait.balancer.config.model import Configuration, Protocol, Then
from timewait.balancer.engine import BalancerError, Rotation
from timewait.balancer.listening import reserve
from timewait.balancer.nft import Nft
from timewait.balancer.nftables import conntrack, counted, forwarding, nudge
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
        self._configuration, self._rotations, self._table = configuration, rotations, wanted

    async def cut(self, pool: str, target: str, then: Then) -> int:
        """Forgets the connections to a target, and has both of its ends reset; how many they were."""
        if then is Then.LEAVE or self._configuration is None:
            return 0
        mine = [
            flow for flow in self._flows() if flow.open and counted.is_toward(self._configuration, flow, pool, target)
        ]
        gone = conntrack.forget(mine)
        nudge.send(mine)
        return gone

    async def active(self, pool: str, target: str) -> int:
        """Connections to a target that conntrack holds for open; for UDP those that have not timed out."""
        if self._configuration is None:
            return 0
        toward = counted.is_toward
        return sum(flow.open and toward(self._configuration, flow, pool, target) for flow in self._flows())

    async def statistics(self) -> Statistics:
        """Counters of the rules, connections of conntrack. A kernel that forwards sees packets, no requests."""
        if self._nft is None or self._configuration is None:
            return Statistics(unknown=counted.UNKNOWN)
        return counted.statistics(self._configuration, counted.counters(self._nft, self._name), self._flows())

    async def drain(self) -> None:
        """Refuses new connections."""
        self._closed = True
        if self._configuration is not None:
            self._load(self._configuration, self._rotations)

    async def remaining(self) -> int:
        """TCP connections that are still open; an exchange by UDP has no end that could be awaited."""
        return sum(flow.open and flow.protocol == socket.IPPROTO_TCP for flow in self._mine())

    async def stop(self) -> None:
        """Takes the rules away, and forgets and resets what was open."""
        mine = self._mine()
        self._release()
        if mine:
            conntrack.forget(mine)
            nudge.send([flow for flow in mine if flow.open])
        self._configuration = None

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

    def _flows(self) -> list[conntrack.Flow]:
        assert self._configuration is not None
        return conntrack.flows({str(listener.protocol) for listener in listeners_of(self._configuration)})

    def _mine(self) -> list[conntrack.Flow]:
        if self._configuration is None:
            return []
        return [flow for flow in self._flows() if counted.listener_of(self._configuration, flow) is not None]

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
