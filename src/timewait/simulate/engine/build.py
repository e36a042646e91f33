"""A scenario becomes numbers: what does not change, and the arrays of what does."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from timewait.histogram import Histogram
from timewait.simulate.engine.ports import word_of
from timewait.simulate.engine.state import (
    B_SWEPT,
    BLOCKS,
    BOX,
    BY_CLIENT,
    BY_KERNEL,
    BY_RESET,
    BY_SERVER,
    C_LINK,
    CONSTANT,
    DIURNAL,
    G_BUCKET,
    G_FREE_SLOTS,
    G_IDLE,
    G_SPARE,
    HASHED,
    NOBODY,
    OLDEST,
    POISSON,
    PRESERVED,
    RANDOM,
    REGISTERS,
    RING,
    ROW,
    SEQUENTIAL,
    SLOT,
    THINK,
    TRACE,
    Fixed,
    Pool,
    State,
)
from timewait.simulate.engine.wheel import BUCKETS, LEVELS
from timewait.simulate.limits import Side, open_at_once, rate_of, side
from timewait.simulate.outcome import REASONS, Array, Column
from timewait.simulate.world import Closing, Nat, PortChoice, Process, Scenario, addresses_of, ports_of
from timewait.tcp.profiles import LINEAR, LINEAR_EVEN, PERTURBED, Rules
from timewait.tcp.syn import schedule

NANO = 1_000_000_000
_PROCESS = {
    Process.POISSON: POISSON,
    Process.CONSTANT: CONSTANT,
    Process.DIURNAL: DIURNAL,
    Process.TRACE: TRACE,
    Process.THINK: THINK,
}
_CLOSING = {Closing.SERVER: BY_SERVER, Closing.CLIENT: BY_CLIENT, Closing.RESET: BY_RESET}
_CHOICE = {
    PortChoice.SEQUENTIAL: SEQUENTIAL,
    PortChoice.RANDOM: RANDOM,
    PortChoice.HASH: HASHED,
    PortChoice.PRESERVE: PRESERVED,
    PortChoice.OLDEST: OLDEST,
    PortChoice.BLOCKS: BLOCKS,
}
_KERNEL_NAT = Nat()  # whose block and limits are not asked where there is no NAT


def ns(seconds: float) -> int:
    return round(seconds * NANO)


def numbers(count: int, value: int = 0) -> Array:
    """That many 64-bit integers; long rows of eight begin where a line of cache does."""
    room = np.zeros(count + 8, dtype=np.int64) if value == 0 else np.full(count + 8, value, dtype=np.int64)
    skip = -room.ctypes.data % 64 // 8
    return room[skip : skip + count]


def halves(rules: Rules, ports: int) -> tuple[int, int]:
    """Words of a kernel's pool of ports, and where those of every second port begin (0: not apart)."""
    if rules.port_search in (LINEAR, LINEAR_EVEN) or ports <= 1:
        return -(-ports // 32), 0
    half = -(-((ports + 1) // 2) // 32)
    return 2 * half, half


def width_of(scenario: Scenario) -> int:
    """log2 of the ns in a bucket of the wheel: about one event in each."""
    return min(24, max(6, int(math.log2(NANO / max(1.0, 2 * rate_of(scenario))))))


def fixed(scenario: Scenario, seed: int, width: int | None = None) -> Fixed:
    """Everything that does not change."""
    clients = side("clients", scenario.clients.kernel, scenario.clients.sysctls, scenario.clients.hz)
    server = side("server", scenario.server.kernel, scenario.server.sysctls, scenario.server.hz)
    parts = {
        **_when(scenario),
        **_clients(scenario, clients),
        **_ports(scenario, clients),
        **_network(scenario),
        **_server(scenario, server),
        **_backend(scenario, server),
    }
    return Fixed(seed=seed, width=width_of(scenario) if width is None else width, **parts)


def _when(scenario: Scenario) -> dict[str, Any]:
    arrivals = scenario.arrivals
    gap = arrivals.think * NANO if arrivals.process is Process.THINK else NANO / arrivals.rate
    return {
        "process": _PROCESS[arrivals.process],
        "gap": float(gap),
        "swing": float(arrivals.swing),
        "period": float(arrivals.period * NANO),
        "peak_at": float(arrivals.peak_at * NANO),
        "times": np.array([ns(at) for at in arrivals.times], dtype=np.int64),
    }


def _clients(scenario: Scenario, clients: Side) -> dict[str, Any]:
    wanted = scenario.clients
    plan = schedule(
        clients.kernel, retries=clients.knobs.tcp_syn_retries, linear=clients.knobs.tcp_syn_linear_timeouts
    )
    low, high = clients.knobs.ip_local_port_range
    return {
        "clients": wanted.count,
        "client": clients.kernel.rules,
        "client_knobs": clients.knobs,
        "uptime_low": int(wanted.uptime_low),
        "uptime_span": int(wanted.uptime_high - wanted.uptime_low),
        "sends": np.array([ns(at) for at in plan.sends], dtype=np.int64),
        "gives_up": ns(plan.gives_up),
        "timeout": ns(wanted.connect_timeout),
        "requests": wanted.requests,
        "pause": ns(wanted.pause),
        "closing": _CLOSING[wanted.closing],
        "octets_sent": wanted.sent,
        "octets_received": wanted.received,
        "port_low": low,
        "port_high": high,
    }


def _ports(scenario: Scenario, clients: Side) -> dict[str, Any]:
    low, high = ports_of(scenario, clients.knobs)
    ports, nat = high - low + 1, scenario.nat or _KERNEL_NAT
    if scenario.nat is None:
        words, odd = halves(clients.kernel.rules, ports)
    else:
        words, odd = -(-ports // 32), 0
    block = min(nat.block, ports)
    return {
        "choice": BY_KERNEL if scenario.nat is None else _CHOICE[nat.choice],
        "low": low,
        "high": high,
        "addresses": addresses_of(scenario),
        "destinations": scenario.server.destinations,
        "independent": scenario.nat is not None and nat.mapping == "independent",
        "ports": ports,
        "words": words,
        "odd_word": odd,
        "block": block,
        "block_words": -(-(ports // block) // 32),
        "rest": ns(nat.rest) + 2 * ns(scenario.network.delay),
        "per_client": nat.per_client,
    }


def _network(scenario: Scenario) -> dict[str, Any]:
    network = scenario.network
    direct = scenario.nat is None  # one way for all: the mean
    return {
        "access": 0 if direct else ns(network.access),
        "delay": ns(network.delay + (network.access / 2 if direct else 0)),
        "loss": float(network.loss),
        "eaten": float(network.eats_ack),
    }


def _server(scenario: Scenario, server: Side) -> dict[str, Any]:
    wanted, network = scenario.server, scenario.network
    return {
        "server": server.kernel.rules,
        "server_knobs": server.knobs,
        "boxes": wanted.boxes,
        "backlog": wanted.backlog,
        "accept": max(1, ns(1 / wanted.accepts)) if wanted.accepts else 0,
        "answer": float(wanted.answer * NANO),
        "exponential": wanted.answer_spread == "exponential",
        "rto_ms": 200 + round(1000 * (network.access + 2 * network.delay)),
    }


def _backend(scenario: Scenario, server: Side) -> dict[str, Any]:
    backend = scenario.backend
    low, high = server.knobs.ip_local_port_range
    words, odd = halves(server.kernel.rules, high - low + 1)
    return {
        "servers": backend.servers if backend else 0,
        "sources": backend.sources if backend else 1,
        "kept": bool(backend and backend.pool == "kept"),
        "back_closing": _CLOSING[backend.closing] if backend else BY_RESET,
        "back_ts": bool(backend and backend.timestamps),
        "back_low": low,
        "back_high": high,
        "back_ports": high - low + 1,
        "back_words": words,
        "back_odd": odd,
    }


SLOTS = 1024  # room for connections at the beginning; it grows


def state(scenario: Scenario, f: Fixed) -> State:
    """Everything that changes, as it stands at the beginning."""
    slots = max(SLOTS, int(1.3 * min(open_at_once(scenario), 2e6)))
    made = State(
        g=numbers(REGISTERS),
        conns=numbers(0),
        rows=numbers(f.addresses * f.destinations * f.ports * ROW),
        clients=numbers(f.clients),
        block_of=numbers(f.clients if f.choice == BLOCKS else 1),
        idle=np.arange(f.clients, dtype=np.int64) if f.process == THINK else numbers(1),
        heads=numbers(LEVELS * BUCKETS, NOBODY),
        active=numbers(0),
        ring=numbers((f.boxes + 2) * RING),
        boxes=numbers((f.boxes + 2) * BOX),
        record_ts=numbers(f.boxes * f.addresses),
        record_stamp=numbers(f.boxes * f.addresses),
        port=_pool(f),
        back=_back_pool(f),
        back_rows=numbers(max(1, _pairs(f) * f.back_ports * ROW)),
        tick=numbers(len(Column)),
        drops=numbers(REASONS),
        counters=numbers(32),
        latency=numbers(len(Histogram().counts)),
    )
    from timewait.simulate.engine.server import BASE_S

    made.boxes[B_SWEPT::BOX] = BASE_S * 1000
    made.g[G_SPARE] = NOBODY
    made.g[G_BUCKET] = -1
    made.g[G_IDLE] = f.clients if f.process == THINK else 0
    return with_slots(made, slots)


def with_slots(s: State, slots: int) -> State:
    """The same with room for that many connections at once."""
    had = len(s.conns) // SLOT
    conns, active = numbers(slots * SLOT), numbers(slots)
    conns[: len(s.conns)] = s.conns
    active[: len(s.active)] = s.active
    links = conns[C_LINK::SLOT]
    links[had:slots] = np.arange(had + 1, slots + 1)
    links[slots - 1] = s.g[G_SPARE]
    s.g[G_SPARE] = had
    s.g[G_FREE_SLOTS] += slots - had
    return s._replace(conns=conns, active=active)


def with_room(pool: Pool, head: int, tail: int, room: int) -> Pool:
    """The same with room for that many ports at rest; `head`, `tail`: which ones it holds."""
    was, at = len(pool.rest_when), np.arange(head, tail)
    grown = []
    for old in (pool.rest_when, pool.rest_row, pool.rest_client):
        new = numbers(room)
        if len(old) == was:
            new[at % room] = old[at % was]
        grown.append(new)
    return pool._replace(rest_when=grown[0], rest_row=grown[1], rest_client=grown[2])


def plain(s: State) -> State:
    """Lists in place of arrays: for plain Python, whose numbers never overflow."""
    return _converted(s, lambda part: part.tolist())


def arrays(s: State) -> State:
    """Arrays in place of lists."""
    return _converted(s, lambda part: np.array(part, dtype=np.int64))


def _converted(s: State, change: Callable[[Any], Any]) -> State:
    parts: dict[str, Any] = {
        name: Pool(*(change(item) for item in part)) if isinstance(part, Pool) else change(part)
        for name, part in s._asdict().items()
    }
    return State(**parts)


def _bits(pools: int, words: int, odd: int, ports: int) -> Array:
    """All ports free."""
    one = np.zeros(words, dtype=np.int64)
    for offset in range(ports):
        word, at = word_of(odd, offset)
        one[word + (at >> 5)] |= 1 << (at & 31)
    bits = numbers(pools * words)
    bits.reshape(pools, words)[:] = one
    return bits


def _pool(f: Fixed) -> Pool:
    pools = f.addresses if f.independent else f.addresses * f.destinations
    oldest, blocks = f.choice == OLDEST, f.ports // f.block if f.choice == BLOCKS else 0
    queue = numbers(pools * f.ports if oldest else 1)
    ends = numbers(2 * pools)
    if oldest:
        queue.reshape(pools, f.ports)[:] = np.random.default_rng(f.seed).permutation(f.ports)
        ends[1::2] = f.ports
    return Pool(
        bits=_bits(pools, f.words, f.odd_word, f.ports),
        free=numbers(pools, f.ports),
        hint=_hints(f.client, f.seed, pools),
        queue=queue,
        ends=ends,
        blocks=_bits(f.addresses, f.block_words, 0, blocks) if blocks else numbers(1),
        used=numbers(max(1, f.addresses * blocks)),
        rest_when=numbers(1024),
        rest_row=numbers(1024),
        rest_client=numbers(1024),
        resting=numbers(f.addresses),
    )


def _hints(rules: Rules, seed: int, pools: int) -> Array:
    """Random where the kernel's table is (5.15 and later); 0 at boot before."""
    hints = numbers(pools)
    if rules.port_search == PERTURBED:
        hints[:] = np.random.default_rng(seed).integers(0, 2**32, pools)
    return hints


def _pairs(f: Fixed) -> int:
    """The balancer's source addresses, times the servers."""
    return f.boxes * f.sources * f.servers


def _back_pool(f: Fixed) -> Pool:
    pairs = max(1, _pairs(f))
    return Pool(
        bits=_bits(pairs, f.back_words, f.back_odd, f.back_ports),
        free=numbers(pairs, f.back_ports),
        hint=_hints(f.server, f.seed + 1, pairs),
        queue=numbers(1),
        ends=numbers(1),
        blocks=numbers(1),
        used=numbers(1),
        rest_when=numbers(1024),
        rest_row=numbers(1024),
        rest_client=numbers(1024),
        resting=numbers(1),
    )
