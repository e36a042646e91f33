"""What cannot be simulated, said before anything is: sizes, names, memory."""

from __future__ import annotations

import difflib
import itertools
import math
from typing import NamedTuple

from timewait.durations import written as duration
from timewait.simulate.settings import DURATIONS
from timewait.simulate.world import (
    PortChoice,
    Process,
    Scenario,
    Settings,
    addresses_of,
    ports_of,
)
from timewait.tcp import kernels
from timewait.tcp.kernels import Kernel, Knobs


class WorldError(ValueError):
    """A world that cannot be: one sentence saying what is wrong, where, and what to do."""


class Side(NamedTuple):
    """One end's kernel and its sysctls."""

    kernel: Kernel
    knobs: Knobs


def side(where: str, kernel: str, sysctls: Settings, hz: int = 0) -> Side:
    """The kernel and its knobs; `where` ("server") stands in the message of WorldError."""
    try:
        row = kernels.kernel(kernel)
    except kernels.UnknownKernelError as error:
        raise WorldError(f"{where}.kernel: {error}") from None
    if hz:
        row = row._replace(rules=row.rules._replace(hz=hz))
    try:
        return Side(row, kernels.knobs(row, sysctls))
    except kernels.UnknownKnobError as error:
        raise WorldError(f"{where}.sysctls: {error}") from None


def check(scenario: Scenario) -> None:
    """Raises WorldError for what is impossible, the first thing found."""
    _numbers(scenario)
    clients = side("clients", scenario.clients.kernel, scenario.clients.sysctls, scenario.clients.hz)
    side("server", scenario.server.kernel, scenario.server.sysctls, scenario.server.hz)
    _arrivals(scenario)
    _tuples(scenario, clients.knobs)
    _fit(scenario, clients)


class _Range(NamedTuple):
    field: str
    low: float
    high: float
    whole: bool = False


MOST_SECONDS = 10 * 366 * 86400.0  # what can be simulated

_RANGES = (
    _Range("duration", 0.001, MOST_SECONDS),
    _Range("tick", 0.001, 86400.0),
    _Range("clients.count", 1, 100_000_000, True),
    _Range("clients.hz", 0, 1000, True),
    _Range("clients.uptime_low", 0, 10 * 366 * 86400.0),
    _Range("clients.uptime_high", 0, 10 * 366 * 86400.0),
    _Range("clients.requests", 1, 1_000_000, True),
    _Range("clients.pause", 0, 86400),
    _Range("clients.connect_timeout", 0, 3600),
    _Range("clients.sent", 0, 2**31, True),
    _Range("clients.received", 0, 2**31, True),
    _Range("arrivals.rate", 1e-6, 1e8),
    _Range("arrivals.swing", 0, 1),
    _Range("arrivals.period", 1, 366 * 86400.0),
    _Range("arrivals.peak_at", 0, 366 * 86400.0),
    _Range("arrivals.think", 1e-3, 366 * 86400.0),
    _Range("nat.addresses", 1, 1_000_000, True),
    _Range("nat.low", 1, 65535, True),
    _Range("nat.high", 1, 65535, True),
    _Range("nat.block", 1, 65535, True),
    _Range("nat.rest", 0, 86400),
    _Range("nat.per_client", 0, 65535, True),
    _Range("network.access", 0, 0.2),  # a round trip must stay below the first retransmission timeout, 1 s
    _Range("network.delay", 0, 0.2),
    _Range("network.loss", 0, 1),
    _Range("network.eats_ack", 0, 1),
    _Range("server.hz", 0, 1000, True),
    _Range("server.boxes", 1, 4096, True),
    _Range("server.destinations", 1, 4096, True),
    _Range("server.backlog", 1, 2**31 - 1, True),
    _Range("server.accepts", 0, 1e9),
    _Range("server.answer", 0, 3600),
    _Range("backend.servers", 1, 4096, True),
    _Range("backend.sources", 1, 65536, True),
)


def _span(field: str, low: float, high: float, whole: bool) -> str:
    if field in DURATIONS:
        return f"a duration from {duration(low)} to {duration(high)}"
    if whole:
        return f"a whole number from {low:,.0f} to {high:,.0f}"
    return f"a number from {low:,g} to {high:,.0f}"


def _numbers(scenario: Scenario) -> None:
    for field, low, high, whole in _RANGES:
        value: object = scenario
        for part in field.split("."):
            value = getattr(value, part) if value is not None else None
        if isinstance(value, int | float) and not low <= value <= high:
            raise WorldError(f"{field} = {value:g}: write {_span(field, low, high, whole)}")
    clients, server, nat = scenario.clients, scenario.server, scenario.nat
    if clients.uptime_low > clients.uptime_high:
        raise WorldError(
            f"clients.uptime_low = {duration(clients.uptime_low)} is above uptime_high = "
            f"{duration(clients.uptime_high)}"
        )
    if nat is not None and nat.low > nat.high:
        raise WorldError(f"nat.low = {nat.low} is above nat.high = {nat.high}")
    if server.layer not in (4, 7):
        raise WorldError(f"server.layer = {server.layer}: write 4 or 7")
    if server.answer_spread not in ("exponential", "constant"):
        near = difflib.get_close_matches(server.answer_spread, ("exponential", "constant"), n=1)
        hint = near[0] if near else "exponential or constant"
        raise WorldError(f"server.answer_spread = {server.answer_spread!r}: write {hint}")
    if scenario.backend is not None and server.layer == 4:
        raise WorldError(
            "backend: a balancer of layer 4 opens no connections of its own; write server.layer = 7, or leave the "
            "table out (its full-NAT form is a [nat] with the balancer's source addresses)"
        )


def _arrivals(scenario: Scenario) -> None:
    times = scenario.arrivals.times
    if scenario.arrivals.process is Process.TRACE and not times:
        raise WorldError("arrivals.times is empty: a trace needs the moments at which connections are opened")
    for number, at in enumerate(times, 1):
        if not 0 <= at <= MOST_SECONDS:
            raise WorldError(f"arrivals.times: number {number}, {at:g}, is no moment from 0 to {MOST_SECONDS:,.0f} s")
    for number, (first, second) in enumerate(itertools.pairwise(times), 2):
        if second < first:
            raise WorldError(
                f"arrivals.times: number {number}, {second:g}, is before the one in front of it, {first:g}"
            )


def _tuples(scenario: Scenario, knobs: Knobs) -> None:
    low, high = ports_of(scenario, knobs)
    ports, nat = high - low + 1, scenario.nat
    if nat is None:
        return
    tuples = nat.addresses * ports
    if scenario.clients.count > tuples:
        raise WorldError(
            f"{scenario.clients.count:,} clients are more than the {tuples:,} tuples that nat.addresses = "
            f"{nat.addresses:,} with ports {low}-{high} ({ports:,} each) can give out; "
            f"{-(-scenario.clients.count // ports):,} addresses would give each client one"
        )
    if nat.choice is PortChoice.BLOCKS and nat.block > ports:
        raise WorldError(f"nat.block = {nat.block:,} is more than the {ports:,} ports of an address ({low}-{high})")


PAGE = 4096
ROW = 64  # octets that a five-tuple takes in the engine
PORT = 8 / 32  # a bit for each, 32 to a number
SLOT = 144  # a connection that is open or being opened
RESTING = 24  # a port at rest
BOX = 1 << 20  # a ring of the milliseconds in which TIME_WAITs end
GROWTH = 2  # what grows doubles
TICK = 3000  # a row of the record: counts, reasons, latencies
PROGRAM = 240 << 20  # interpreter, NumPy, numba and its compiled code


def memory(scenario: Scenario) -> dict[str, int]:
    """Octets the simulation will take, by what for; what stands open is estimated from rate and duration."""
    clients = side("clients", scenario.clients.kernel, scenario.clients.sysctls, scenario.clients.hz)
    server = side("server", scenario.server.kernel, scenario.server.sysctls, scenario.server.hz)
    low, high = ports_of(scenario, clients.knobs)
    nat, count = scenario.nat, scenario.clients.count
    addresses, destinations, boxes = addresses_of(scenario), scenario.server.destinations, scenario.server.boxes
    tuples = addresses * (high - low + 1) * destinations
    lists = (scenario.arrivals.process is Process.THINK) + (nat is not None and nat.choice is PortChoice.BLOCKS)
    queues = 8 if nat is not None and nat.choice is PortChoice.OLDEST else 0
    rests = nat.rest + 2 * scenario.network.delay if nat is not None else 60.0  # TCP_TIMEWAIT_LEN
    # Behind a NAT all ports come up; a client of its own address uses few of those it has, a page for each at most.
    touched = PAGE * rate_of(scenario) * scenario.duration if nat is None else math.inf
    parts = {
        "clients": 8 * count * (1 + lists),
        "five-tuples": int(min(ROW * tuples, touched) + tuples * (2 * PORT + queues)),
        "records": 16 * addresses * boxes + 24 * addresses * destinations,
        "boxes": BOX * (boxes + 2),
        "open": SLOT * GROWTH * max(1024, int(open_at_once(scenario))),
        "resting": RESTING * GROWTH * max(1024, int(min(tuples, rate_of(scenario) * rests))),
        "ticks": int(TICK * scenario.duration / scenario.tick),
        "program": PROGRAM,
    }
    if scenario.backend is not None:
        first, last = server.knobs.ip_local_port_range
        pairs = boxes * scenario.backend.sources * scenario.backend.servers
        parts["backend"] = int(pairs * (last - first + 1) * (ROW + PORT))
    return parts


def rate_of(scenario: Scenario) -> float:
    """New connections a second that are asked for, at most."""
    arrivals = scenario.arrivals
    if arrivals.process is Process.THINK:
        return scenario.clients.count / (arrivals.think + life(scenario))
    if arrivals.process is Process.TRACE:
        return len(arrivals.times) / max(1e-9, min(scenario.duration, arrivals.times[-1] if arrivals.times else 1.0))
    return arrivals.rate * (1 + arrivals.swing if arrivals.process is Process.DIURNAL else 1)


def life(scenario: Scenario) -> float:
    """Mean seconds from SYN to end of a connection that is answered."""
    trip = scenario.network.access + 2 * scenario.network.delay
    requests = scenario.clients.requests
    return 2 * trip + requests * (trip + scenario.server.answer) + (requests - 1) * scenario.clients.pause


def open_at_once(scenario: Scenario) -> float:
    """Connections that are open, or being opened, at one moment: all clients where each waits for its last."""
    if scenario.arrivals.process is Process.THINK:
        return float(scenario.clients.count)
    return rate_of(scenario) * life(scenario)


def _fit(scenario: Scenario, clients: Side) -> None:
    """Sizes whose memory no machine has are refused here; what this machine has, `run_world` asks."""
    low, high = ports_of(scenario, clients.knobs)
    tuples = addresses_of(scenario) * (high - low + 1) * scenario.server.destinations
    if tuples >= 2**40:
        raise WorldError(f"{tuples:,} five-tuples: {ROW * tuples / 1e12:,.0f} TB; simulate fewer addresses or ports")


def refuse_if_too_large(scenario: Scenario, available: int) -> None:
    """Raises WorldError with the estimate when it does not fit into `available` octets."""
    parts = memory(scenario)
    needed = sum(parts.values())
    if needed <= available:
        return
    largest = max(parts, key=lambda name: parts[name])
    advice = {
        "five-tuples": "give nat.addresses, nat.low and nat.high a smaller range; without [nat] every client is an "
        "address with all its ports",
        "clients": "simulate fewer clients",
        "ticks": "give tick a longer time",
        "open": "lower arrivals.rate or shorten how long a connection lasts",
    }.get(largest, "simulate less")
    raise WorldError(
        f"this world needs about {needed / 1e9:,.1f} GB of memory ({largest}: {parts[largest] / 1e9:,.1f} GB) and "
        f"{available / 1e9:,.1f} GB are free; {advice}"
    )
