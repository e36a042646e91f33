"""The balancer with eyes: its supervisor, what the kernel says of its connections, and the engines there are."""

from __future__ import annotations

import asyncio
import os
import time
from collections import deque
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, NamedTuple

from timewait.balancer.config.addresses import bound, place
from timewait.balancer.config.model import Configuration, Engine
from timewait.balancer.engine import BalancerError, DataPlane
from timewait.balancer.origins import From, origins, source_counts, translations
from timewait.balancer.statistics import Statistics
from timewait.balancer.views import Kernel, Notice
from timewait.port_use import PortUse
from timewait.tcp import ports as rules

if TYPE_CHECKING:
    from timewait.diagnose.upstream import Upstream
    from timewait.observe.sock_diag import SockDiag
    from timewait.observe.watcher import Watcher

_SHARE = 0.02  # of one core, at most, for counting TIME_WAIT
_LONGEST = 3.0  # seconds that count may be old, however dear it is
_FAR, _NEAR = 10.0, 1.0  # seconds: a rate is measured over at most, and looks kept are at least so far apart


def run(
    configuration: Configuration,
    path: str,
    *,
    say: Callable[[str], None],
    on_ready: Callable[[str], None],
) -> int:
    """Runs a balancer until a signal ends it; its exit code.

    `path` is where `configuration` was read from (`-`: standard input), for reloads; `say` takes a line of the log,
    which begins with the time of day, `on_ready` the line that says that everything accepts. Raises
    BalancerError with nothing started.
    """
    from timewait.balancer.service import Service
    from timewait.balancer.source import Source

    def tell(line: str) -> None:
        try:
            say(f"{time.strftime('%H:%M:%S')} {line}")
        except OSError:  # whoever read the log is gone; clients are not to suffer for it
            pass

    async def main() -> int:
        look = Lookout()
        try:
            service = Service(
                configuration,
                Source(path),
                make=lambda engine: engine_named(engine, tell),
                say=tell,
                on_ready=on_ready,
                look=look,
            )
            return await service.run()
        finally:
            look.close()

    return asyncio.run(main())


def engine_named(engine: Engine, say: Callable[[str], None]) -> DataPlane:
    """The engine of that name, not started yet."""
    if engine is Engine.EMBEDDED:
        from timewait.balancer.embedded.engine import EmbeddedEngine

        return EmbeddedEngine(say=say)
    if engine is Engine.HAPROXY:
        from timewait.balancer.haproxy.engine import HaproxyEngine

        return HaproxyEngine(say=say)
    if engine is Engine.NFTABLES:
        from timewait.balancer.nftables.engine import NftablesEngine

        return NftablesEngine(say=say)
    raise BalancerError(f"no engine is named {engine!r}")


class _Past(NamedTuple):
    """An earlier look, by target address."""

    at: float
    closed_first: dict[str, int]
    no_port: dict[str, int]
    time_wait: dict[str, int]


class Lookout:
    """Asks the kernel about the balancer's connections: `lookout(configuration, statistics, now) -> Kernel`.

    Sockets are those of the network namespace of the process. An nftables engine has none: at full NAT its ports are
    conntrack's, which its statistics count; its listeners have no TIME_WAIT.
    """

    def __init__(self) -> None:
        self._watchers: dict[tuple[From, tuple[str, ...]], Watcher] = {}
        self._past: deque[_Past] = deque()
        self._table: SockDiag | None = None
        self._resting: dict[int, int] = {}
        self._count_again = float("-inf")

    def close(self) -> None:
        for watcher in self._watchers.values():
            watcher.close()
        self._watchers = {}
        if self._table is not None:
            self._table.close()

    def __call__(self, configuration: Configuration, statistics: Statistics, now: float) -> Kernel:
        kernel = Kernel()
        self._ports(configuration, kernel, now)
        self._time_wait(configuration, kernel, now)
        translated = translations(configuration, statistics)
        kernel.ports.update(translated)
        self._findings(statistics, kernel, now, source_counts(configuration), translated.keys())
        return kernel

    def _ports(self, configuration: Configuration, kernel: Kernel, now: float) -> None:
        wanted = {(origin, tuple(targets)) for origin, targets in origins(configuration).items()}
        for key in self._watchers.keys() - wanted:
            self._watchers.pop(key).close()
        for key in wanted:
            watcher = self._watchers.get(key) or self._watch(*key)
            self._watchers[key] = watcher
            for use in watcher.snapshot(now).ports:
                known = kernel.ports.get(use.destination)
                kernel.ports[use.destination] = use if known is None else _together(known, use)
            kernel.unreadable += [one for one in watcher.unreadable if one not in kernel.unreadable]

    def _watch(self, origin: From, targets: tuple[str, ...]) -> Watcher:
        from timewait.observe import sysctls
        from timewait.observe.watcher import Watcher

        values = sysctls.read_sysctls().values
        try:
            low, high = sysctls.port_range(values["net.ipv4.ip_local_port_range"])
            reserved = sysctls.reserved_within(values.get("net.ipv4.ip_local_reserved_ports", ""), low, high)
        except (KeyError, ValueError):
            low, high, reserved = rules.DEFAULT_LOW, rules.DEFAULT_HIGH, 0
        if origin.low:
            low, high, reserved = origin.low, origin.high, 0
        places = [place(target) for target in targets]
        return Watcher([(str(one.address), one.port) for one in places], origin.addresses, low, high, reserved)

    def _time_wait(self, configuration: Configuration, kernel: Kernel, now: float) -> None:
        """TIME_WAIT on the listeners' ports; two listeners on one port of two addresses see each other's."""
        from timewait.observe.netlink import NetlinkError
        from timewait.observe.sock_diag import SockDiag
        from timewait.tcp.states import State

        ports = _listening(configuration)
        try:
            if now >= self._count_again:
                begun = time.thread_time()
                self._table = self._table or SockDiag()
                every = sorted({port for some in ports.values() for port in some})
                self._resting = self._table.by_local_port(every, frozenset({State.TIME_WAIT}))
                self._count_again = now + min((time.thread_time() - begun) / _SHARE, _LONGEST)
            kernel.time_wait = {name: sum(self._resting.get(p, 0) for p in some) for name, some in ports.items()}
        except NetlinkError as problem:
            if str(problem) not in kernel.unreadable:
                kernel.unreadable.append(str(problem))

    def _findings(
        self,
        statistics: Statistics,
        kernel: Kernel,
        now: float,
        sources: dict[str, int],
        translated: Collection[str] = (),
    ) -> None:
        from timewait.diagnose.upstream import seconds_left, upstream_ports

        for one in self._upstreams(statistics, kernel, now, sources, translated):
            left = seconds_left(one)
            if left is not None:
                kernel.seconds_left[one.use.destination] = left
            found = upstream_ports(one)
            if found is not None:
                kernel.findings.append(
                    Notice(
                        id=found.id,
                        about=one.use.destination,
                        summary=found.summary,
                        evidence=[f"{evidence.text} ({evidence.source})" for evidence in found.evidence],
                        remedy=[f"{remedy.action}: {remedy.effect}" for remedy in found.remedy],
                    )
                )

    def _upstreams(
        self,
        statistics: Statistics,
        kernel: Kernel,
        now: float,
        sources: dict[str, int],
        translated: Collection[str],
    ) -> list[Upstream]:
        from timewait.diagnose.upstream import Upstream

        present = _Past(now, {}, {}, {address: use.time_wait for address, use in kernel.ports.items()})
        for target in statistics.targets.values():
            address = target.address
            # conntrack keeps the port of every connection, whoever closed first.
            spent = target.connects if address in translated else target.closes.balancer_fin
            present.closed_first[address] = present.closed_first.get(address, 0) + spent
            present.no_port[address] = present.no_port.get(address, 0) + target.no_port
        past = self._remember(present)
        elapsed = now - past.at
        found = []
        for address, use in kernel.ports.items():
            closed = present.closed_first.get(address, 0) - past.closed_first.get(address, 0)
            # Where an engine cannot count who closed first, the growth of TIME_WAIT tells at least as much.
            grown = use.time_wait - past.time_wait.get(address, use.time_wait)
            resting = max(0, closed, grown) / elapsed if elapsed > 0 else 0.0
            missed = present.no_port.get(address, 0) - past.no_port.get(address, 0)
            conntrack = address in translated
            rest = _conntrack_rest() if conntrack else _rest(address)
            found.append(Upstream(use, resting, max(0, missed), rest, sources.get(address, 1), conntrack))
        return found

    def _remember(self, present: _Past) -> _Past:
        """The look that the present one is compared with."""
        while len(self._past) > 1 and self._past[1].at <= present.at - _FAR:
            self._past.popleft()
        past = self._past[0] if self._past else present
        if not self._past or present.at - self._past[-1].at >= _NEAR:
            self._past.append(present)
        return past


def _listening(configuration: Configuration) -> dict[str, set[int]]:
    """The ports of every listener that has sockets."""
    return {
        listener.name: {one.port for one in map(bound, listener.bind) if not isinstance(one, str)}
        for listener in configuration.listener
        if configuration.engine_of(listener) is not Engine.NFTABLES
    }


def _together(one: PortUse, other: PortUse) -> PortUse:
    """Of the same destination, from other sources or ports."""
    return PortUse(
        destination=one.destination,
        capacity=one.capacity + other.capacity,
        in_use=one.in_use + other.in_use,
        time_wait=one.time_wait + other.time_wait,
        free=one.free + other.free,
        peer_time_wait=one.peer_time_wait,
    )


def _conntrack_rest() -> float:
    """Seconds for which conntrack does not give the port of a connection that is over to another."""
    from timewait.observe import sysctls
    from timewait.tcp.release import parse_release

    name = "net.netfilter.nf_conntrack_tcp_timeout_time_wait"
    value = sysctls.read_sysctls(names=(name,)).values.get(name, "")
    seconds = float(value) if value.isdecimal() else rules.CONNTRACK_TIME_WAIT_SECONDS
    return rules.conntrack_rest(parse_release(os.uname().release), seconds)


def _rest(address: str) -> float:
    """Seconds a port toward this target rests, by this host's settings; that the target negotiates timestamps, as
    Linux does unless told otherwise, is assumed."""
    from timewait.observe import sysctls

    names = ("net.ipv4.tcp_tw_reuse", "net.ipv4.tcp_timestamps", "net.ipv4.tcp_tw_reuse_delay")
    values = sysctls.read_sysctls(names=names).values
    reuse, timestamps, delay = (values.get(name, "") for name in names)
    return rules.rest(
        tw_reuse=int(reuse) if reuse.isdecimal() else 0,
        loopback=place(address).address.is_loopback,
        timestamps=timestamps != "0",
        delay_ms=int(delay) if delay.isdecimal() else rules.REUSE_DELAY_MS,
    )
