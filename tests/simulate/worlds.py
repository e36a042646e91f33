"""Small worlds for tests of the engine."""

from __future__ import annotations

from timewait.simulate.outcome import Column, Outcome
from timewait.simulate.world import (
    Arrivals,
    Backend,
    Clients,
    Closing,
    Mapping,
    Nat,
    Network,
    Pool,
    PortChoice,
    Process,
    Scenario,
    Server,
    Settings,
)

RECYCLE: Settings = {"tcp_tw_recycle": 1}


def wall(rate: float = 500.0, ports: int = 1000, **knobs: int) -> Scenario:
    """One client that closes first."""
    sysctls: Settings = {"tcp_tw_reuse": 0, "ip_local_port_range": f"20000-{19999 + ports}", **knobs}
    return Scenario(
        duration=30.0,
        clients=Clients(count=1, kernel="6.18", sysctls=sysctls, closing=Closing.CLIENT),
        arrivals=Arrivals(process=Process.CONSTANT, rate=rate),
        network=Network(access=0.0, delay=0.0001),
        server=Server(answer=0.0, answer_spread="constant"),
    )


ALL = {
    "recycle": Scenario(
        duration=40.0,
        clients=Clients(count=60, kernel="4.9", connect_timeout=12.0),
        nat=Nat(addresses=3, high=1223),
        arrivals=Arrivals(rate=40.0),
        network=Network(loss=0.02),
        server=Server(kernel="2.6.32", sysctls=RECYCLE),
    ),
    "tuples come back": Scenario(
        duration=40.0,
        clients=Clients(count=50, kernel="6.12", sent=100),
        nat=Nat(addresses=1, high=1123, choice=PortChoice.OLDEST),
        arrivals=Arrivals(rate=20.0),
        network=Network(eats_ack=0.5, loss=0.05),
    ),
    "blocks, two destinations, kept for three requests": Scenario(
        duration=20.0,
        clients=Clients(count=40, requests=3, pause=0.5, closing=Closing.CLIENT),
        nat=Nat(addresses=2, high=1151, choice=PortChoice.BLOCKS, block=16, rest=2.0, mapping=Mapping.INDEPENDENT),
        arrivals=Arrivals(process=Process.THINK, think=2.0),
        server=Server(destinations=2, boxes=3, layer=4),
    ),
    "the balancer as a client": Scenario(
        duration=20.0,
        clients=Clients(count=5, kernel="5.10"),
        arrivals=Arrivals(rate=100.0),
        server=Server(kernel="5.4", sysctls={"ip_local_port_range": "20000-20199"}),
        backend=Backend(servers=2, sources=2),
    ),
    "a slow program": Scenario(
        duration=30.0,
        clients=Clients(count=20, kernel="el6", closing=Closing.RESET),
        arrivals=Arrivals(process=Process.DIURNAL, rate=60.0, period=30.0, peak_at=10.0),
        nat=Nat(addresses=2, choice=PortChoice.PRESERVE, per_client=4),
        server=Server(backlog=8, accepts=40.0),
        backend=Backend(pool=Pool.KEPT),
    ),
    "tcp_tw_reuse, by two and one left over": Scenario(
        duration=20.0,
        clients=Clients(
            count=2, sysctls={"tcp_tw_reuse": 1, "ip_local_port_range": "20000-20100"}, closing=Closing.CLIENT
        ),
        arrivals=Arrivals(process=Process.CONSTANT, rate=150.0),
    ),
}


def conserved(found: Outcome) -> None:
    """Every attempt has ended in exactly one way, or is still under way."""
    total = found.total
    connected = total(Column.FIRST) + total(Column.RETRIED)
    lost = total(Column.NO_PORT) + total(Column.GAVE_UP) + total(Column.REFUSED)
    assert total(Column.STARTED) == connected + lost + total(Column.CONNECTING)
    ended = total(Column.SUCCEEDED) + total(Column.BACKEND_FAILED) + total(Column.OVERFLOWED)
    assert connected - total(Column.OPEN) <= ended <= connected  # what the balancer fails may still be open
    assert total(Column.SYNS) == connected + int(found.drops.sum())
    assert sum(sum(part.count) for part in found.connect) == connected
