"""Claims about what stands behind the balancer: servers it forwards to, and servers it connects to."""

from __future__ import annotations

import msgspec

from timewait.claims.claim import claim
from timewait.claims.places import HIGH, LOW, NO_REUSE, PORTS
from timewait.claims.source_ports import COUNT, RATE, REUSE_ON, wall
from timewait.claims.stage import Stage
from timewait.lab import topologies
from timewait.lab.programs import Settings, Upstream
from timewait.lab.topology import Topology
from timewait.plan import Closing
from timewait.run import Run
from timewait.tcp.ports import capacity
from timewait.verdict import Measure, Outcome, exactly


@claim(
    "layer4-passes",
    "A layer-4 balancer forwards packets: timestamps are negotiated with the server, and tcp_tw_reuse works again.",
    topology="layer4",
    needs=("nft",),
)
def layer4_passes(stage: Stage) -> Outcome:
    topology = topologies.layer4(1).changed("client", sysctls=REUSE_ON, ports=(LOW, HIGH))
    forward = topology.host("balancer").forward
    assert forward is not None
    stripped = topology.changed("balancer", forward=msgspec.structs.replace(forward, strip_timestamps=True))
    passed, recycled, held = _through(stage, topology)
    void, void_recycled, _ = _through(stage, stripped)
    return Outcome(
        measures=(
            exactly(f"failures at {RATE:g}/s over {PORTS:,} ports", 0, passed.total.failed, "failures"),
            exactly("TIME_WAIT taken over (TWRecycled)", passed.total.started - held, recycled),
            *wall(void, what="the same, timestamps taken out of the SYNs on the way: succeeded"),
            exactly("... TIME_WAIT taken over (TWRecycled)", 0, void_recycled),
        ),
    )


def _through(stage: Stage, topology: Topology) -> tuple[Run, int, int]:
    """A load through the balancer's address; the client's TWRecycled and TIME_WAIT afterwards."""
    with stage.network(topology) as network:
        client, address = network["client"], network["balancer"].address
        network["server"].serve()
        with stage.counted(client) as moved:
            run = stage.load(client, f"http://{address}/", Closing.CLIENT, rate=RATE, count=COUNT)
        return run, moved.get("TcpExt.TWRecycled", 0), stage.time_wait(client, to=(address, 80))


_BURST = 1_000.0  # requests a second
_ASKED = 2_000  # twice as many as there are ports


# What a balancer cannot do toward its servers, timewait's does in its stead. nginx does not wait for a server to
# close first: it has the whole answer by its Content-Length and may send its FIN before the server's arrives.
_CANNOT = {"nginx": {Upstream.RESET, Upstream.SERVER}, "haproxy": {Upstream.FIN}}
_NAMES = {"haproxy": "HAProxy"}


@claim("balancer-is-a-client", "The balancer meets the same wall toward its own servers.", topology="proxy")
def balancer_is_a_client(stage: Stage) -> Outcome:
    most = capacity(LOW, HIGH, 0, 1)
    hit, hit_held, program = _relayed(stage, Upstream.FIN)
    measures = [
        exactly(f"{program} closes first (FIN), one address: answered", most, hit.total.succeeded, "answered"),
        Measure("... what its clients get then", "502", _statuses(hit), _statuses(hit) == "502"),
        exactly("... TIME_WAIT toward the server", PORTS, hit_held),
    ]
    for what, upstream, sources, kept in (
        ("connections pooled", Upstream.POOL, 1, None),
        ("closed by RST", Upstream.RESET, 1, 0),
        ("the server closes first", Upstream.SERVER, 1, 0),
        ("closed by FIN, four addresses", Upstream.FIN, 4, None),
    ):
        run, held, program = _relayed(stage, upstream, sources)
        told = f"{what} ({program}): of {_ASKED:,} answered"
        measures.append(exactly(told, _ASKED, run.total.succeeded, "answered"))
        if kept is not None:
            measures.append(exactly("... TIME_WAIT toward the server", kept, held))
    return Outcome(measures=tuple(measures), condition="it closes first, does not pool, and has one source address")


def _relayed(stage: Stage, upstream: Upstream, sources: int = 1) -> tuple[Run, int, str]:
    """A load through a balancer with few ports toward its one server, the TIME_WAIT it holds toward it, and which."""
    program = "timewait" if upstream in _CANNOT.get(stage.balancer, ()) else stage.balancer
    topology = topologies.proxy(1, sources).changed("balancer", sysctls=NO_REUSE, ports=(LOW, HIGH))
    with stage.network(topology) as network:
        client, balancer, server = (network[name] for name in ("client", "balancer", "server"))
        server.serve()
        addresses = tuple(
            one for one in balancer.addresses if one.rpartition(".")[0] == server.address.rpartition(".")[0]
        )
        stage.start(
            program, balancer, Settings(
                servers=(f"{server.address}:80",), upstream=upstream, sources=addresses if sources > 1 else ()
            ),
        )  # fmt: skip
        run = stage.load(
            client, f"http://{balancer.address}/", Closing.SERVER, rate=_BURST, count=_ASKED,
            say=f"{program}, upstream closed by {upstream}, {sources} address(es)",
        )  # fmt: skip
        held = stage.time_wait(balancer, to=(server.address, 80))
    return run, held, _NAMES.get(program, program)


def _statuses(run: Run) -> str:
    return ", ".join(str(code) for code in sorted(run.total.status) if code >= 400) or "none"
