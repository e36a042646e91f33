"""The places that several experiments share: a client with few ports and a balancer that answers itself."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from timewait.claims.stage import Stage, Target
from timewait.lab import topologies
from timewait.lab.network import LabHost

LOW, HIGH = 20_000, 20_999
PORTS = HIGH - LOW + 1  # few, so that the wall comes in seconds: the kernel's timers stay as they are
NO_REUSE = {"net.ipv4.tcp_tw_reuse": "0"}
NO_TIMESTAMPS = {"net.ipv4.tcp_timestamps": "0"}


@dataclass(frozen=True)
class Pair:
    """A client and what it connects to."""

    client: LabHost
    balancer: LabHost
    target: Target

    @property
    def url(self) -> str:
        return f"http://{self.target[0]}:{self.target[1]}/"


@contextmanager
def pair(
    stage: Stage,
    *,
    client: Mapping[str, str] | None = None,
    balancer: Mapping[str, str] | None = None,
    ports: tuple[int, int] | None = (LOW, HIGH),
    loopback: bool = False,
) -> Iterator[Pair]:
    """The topology `direct` with these sysctls; the client has PORTS ports and tcp_tw_reuse=0 unless said otherwise.

    `loopback`: the balancer stands on the client's own 127.0.0.1.
    """
    topology = topologies.direct().changed("client", sysctls={**NO_REUSE, **(client or {})}, ports=ports)
    topology = topology.changed("balancer", sysctls=dict(balancer or {}))
    with stage.network(topology) as network:
        where = network["client"] if loopback else network["balancer"]
        address = "127.0.0.1" if loopback else where.address
        stage.answering(where)
        yield Pair(network["client"], where, (address, 80))
