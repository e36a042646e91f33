"""The demonstration: one load, three ways to end its connections, on a network made for it.

A client with a small port range, a balancer (`timewait balance`) and a server stand in a namespace each. Closed by
the client, every connection leaves a TIME_WAIT that keeps its source port for 60 s, and the ports run out; closed by
the balancer or by a reset, none is kept. Toward its server the balancer keeps its connections, so that it does not
meet the same wall there. Every round gets a network of its own, so that no round inherits residue.

Where namespaces are forbidden the same runs over loopback, which hides a part; `hidden` says which.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field

from timewait import experiment
from timewait.diagnose import Finding, diagnose, forecast
from timewait.lab import Server, topologies
from timewait.lab.network import build
from timewait.lab.programs import Here, Settings, Upstream, timewait
from timewait.observe.sock_diag import SockDiag, held_at, toward
from timewait.observe.sysctls import port_range, read_sysctls
from timewait.observe.watcher import Watcher
from timewait.plan import Closing, Plan, Ports, Rate, RateUnit, parse_url
from timewait.run import Run, Snapshot, Tick
from timewait.stress.opening import has_local_port_range

CLOSINGS = (Closing.CLIENT, Closing.SERVER, Closing.RESET)
PER_SECOND = 500  # new connections: far below what any machine can do, so that only ports can be short
SECONDS = 3.0
PORTS = 1_000  # two thirds of what the load needs: the wall comes after two seconds
# With tcp_tw_reuse=2 loopback's TIME_WAIT is free again after a second (tcp_tw_reuse_delay, Linux 6.14; 1 to 2 s
# before), so the wall only shows where one second needs more ports than there are.
LOOPBACK_PORTS = 250


@dataclass(frozen=True)
class Scene:
    """A network for one round."""

    address: str  # the balancer's
    port: int
    ports: Ports  # the client's, (kernel, 0, 0) where the namespace's own range is meant
    low: int
    high: int
    at_client: Callable[[], AbstractContextManager[None]]  # the calling thread is where the client is
    at_balancer: Callable[[], AbstractContextManager[None]]

    @property
    def url(self) -> str:
        return f"http://{self.address}:{self.port}/"


Stage = Callable[[], AbstractContextManager[Scene]]


@dataclass
class Round:
    """One way of closing and what came of it."""

    closing: Closing
    run: Run
    findings: list[Finding]
    client_time_wait: int
    balancer_time_wait: int
    forecast: str | None = None


@dataclass
class Audience:
    """Who wants to hear while it happens."""

    on_start: Callable[[Closing, str | None], None] = lambda closing, told: None
    on_tick: Callable[[Closing, Tick, Snapshot], None] = lambda closing, total, snapshot: None
    rounds: list[Round] = field(default_factory=list)


@contextmanager
def namespaces() -> Iterator[Scene]:
    """Client, balancer and server in namespaces of their own, links between them. Call lab.enter() once before."""
    low, _ = port_range(read_sysctls().values["net.ipv4.ip_local_port_range"])
    high = low + PORTS - 1
    with build(topologies.proxy().changed("client", ports=(low, high))) as network:
        client, balancer, server = (network[name] for name in ("client", "balancer", "server"))
        server.serve()
        timewait(balancer, Settings(servers=(f"{server.address}:80",), upstream=Upstream.POOL))
        yield Scene(balancer.address, 80, Ports(), low, high, client.entered, balancer.entered)


@contextmanager
def loopback() -> Iterator[Scene]:
    """All three on 127.0.0.1; a new port of the balancer each time, so that ports used before do not count."""
    low, high = port_range(read_sysctls().values["net.ipv4.ip_local_port_range"])
    ports = Ports()
    if has_local_port_range():
        low = max(low, high - LOOPBACK_PORTS + 1)
        ports = Ports(low=low, high=high)
    with Server() as server, Here() as here:
        settings = Settings(
            servers=(f"{server.address}:{server.port}",), upstream=Upstream.POOL, port=here.free_port()
        )
        timewait(here, settings)
        yield Scene("127.0.0.1", settings.port, ports, low, high, nullcontext, nullcontext)


def hidden() -> list[str]:
    """What loopback does not show, one sentence each."""
    told = ["Client, balancer and server share one kernel: its port table, CPU and counters are those of all three."]
    if read_sysctls().values.get("net.ipv4.tcp_tw_reuse") == "2":
        told.append(
            "tcp_tw_reuse=2, the default, lets the kernel take loopback's TIME_WAIT ports again after a second: "
            "here the wall lets some through every second; toward another host it stands for 60 s."
        )
    if not has_local_port_range():
        told.append(
            "This kernel (before 6.3) cannot narrow the port range for one program, so all ports are used and "
            "the wall stays out of reach."
        )
    return told


def plan(url: str, closing: Closing, ports: Ports) -> Plan:
    """The load of every round: the same but for the closing."""
    return Plan(
        requests_list=(parse_url(url),),
        rate=Rate(PER_SECOND, RateUnit.CONNECTIONS),
        duration=SECONDS,
        requests_per_connection=1,
        closing=closing,
        ports=ports,
    )


def play(stage: Stage, audience: Audience) -> None:
    """All rounds, kept in `audience.rounds`; an interrupted one is the last."""
    for closing in CLOSINGS:
        with stage() as scene:
            audience.rounds.append(_round(scene, closing, audience))
        if audience.rounds[-1].run.interrupted:
            return


def _round(scene: Scene, closing: Closing, audience: Audience) -> Round:
    told: list[str | None] = []

    def on_start(run: Run) -> None:
        told.append(forecast(run.plan, run.host, run.before))
        audience.on_start(closing, told[0])

    listener = experiment.Listener(
        on_start=on_start, on_tick=lambda tick, snapshot, total: audience.on_tick(closing, total, snapshot)
    )
    wish = plan(scene.url, closing, scene.ports)
    with scene.at_client():
        run = experiment.stress(wish, listener)
        client, _ = _time_wait(scene)
    with scene.at_balancer():
        _, balancer = _time_wait(scene)
    return Round(closing, run, diagnose(run), client, balancer, told[0])


def _time_wait(scene: Scene) -> tuple[int, int]:
    """TIME_WAIT in the namespace the thread is in: toward the balancer, and held by it; once the FINs are in."""
    address = ipaddress.ip_address(scene.address)
    with SockDiag() as table:
        for where in (toward(address, scene.port), held_at(address, scene.port)):
            table.time_wait_left(where)
    with Watcher([(scene.address, scene.port)], [], scene.low, scene.high, 0) as watcher:
        use = watcher.snapshot(0.0, fresh=True).ports[0]
    return use.time_wait, use.peer_time_wait or 0
