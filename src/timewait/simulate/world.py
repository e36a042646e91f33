"""A world to simulate, as data: clients, their NATs, the network, the balancer, its servers.

Every value has a default with its reason beside it, so that a scenario says only what its question is about. Times
are seconds, shares 0..1, sizes counts. Nothing here decides anything; `limits.check` says what is impossible.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec

from timewait.tcp.knobs import Knobs

Settings = dict[str, int | str]
"""sysctl -> value, with or without "net.ipv4."."""


class Process(StrEnum):
    """When clients open connections."""

    POISSON = "poisson"  # independent of each other: what many users look like from afar
    CONSTANT = "constant"  # evenly spaced: a load generator with a rate
    DIURNAL = "diurnal"  # Poisson, the rate follows a day's curve
    TRACE = "trace"  # at given moments
    THINK = "think"  # each client waits after its last connection has ended, then opens the next


class Closing(StrEnum):
    """Who ends a connection, and how."""

    SERVER = "server"  # the server's FIN comes first: the server holds TIME_WAIT
    CLIENT = "client"  # the client's does: the client holds it
    RESET = "reset"  # by a RST of the client: nobody holds it


class PortChoice(StrEnum):
    """How a NAT chooses the port it puts in place of the client's."""

    SEQUENTIAL = "sequential"  # the one after the last it gave out
    RANDOM = "random"  # from a random one on, the first free
    HASH = "hash"  # from a hash of client and destination on, the first free
    PRESERVE = "preserve"  # the client's own port where free, the next free otherwise (Linux by default)
    OLDEST = "lru"  # the one that has been free longest
    BLOCKS = "blocks"  # out of a random block of ports that the client has for itself (RFC 7422), as carriers do


class Mapping(StrEnum):
    """What a NAT takes a port for (RFC 4787 section 4.1)."""

    DEPENDENT = "dependent"  # for one destination: another may use the same port (Linux)
    INDEPENDENT = "independent"  # for all destinations


class Pool(StrEnum):
    """What a balancer does with connections to its servers."""

    NONE = "none"  # one for each connection of a client
    KEPT = "kept"  # used again, opened only when none is idle


class Clients(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Those who open connections. All are alike but for their clocks."""

    count: int = 1000
    kernel: str = "6.12"  # 6.12: a millisecond clock with an offset for each pair of addresses; most phones today
    sysctls: Settings = {}
    hz: int = 0  # ticks a second where the clock is jiffies; 0: the kernel row's, 1000
    uptime_low: float = 3600.0  # seconds since boot when the simulation begins, evenly spread between the two:
    uptime_high: float = 14 * 86400.0  # two weeks; past 24.8 days clocks of 1 ms come round and pass each other
    requests: int = 1  # on one connection
    pause: float = 1.0  # between two requests on one connection
    closing: Closing = Closing.SERVER  # `Connection: close`, what a balancer without keep-alive does
    connect_timeout: float = 0.0  # 0: until the kernel gives up (tcp_syn_retries); browsers give up earlier
    sent: int = 400  # octets of a request: its headers
    received: int = 2000  # octets of an answer


class Arrivals(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """When they do."""

    process: Process = Process.POISSON
    rate: float = 1000.0  # new connections a second, all clients together; the mean of a diurnal curve
    swing: float = 0.6  # diurnal: the peak lies so much above the mean, the trough so much below
    period: float = 86400.0  # diurnal: length of a day
    peak_at: float = 43200.0  # diurnal: when the peak is, seconds from the beginning
    times: tuple[float, ...] = ()  # trace: ascending
    think: float = 60.0  # think: mean of the (exponentially distributed) wait


class Nat(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Public addresses between clients and balancer, on one gateway or many. A client always leaves by the same."""

    addresses: int = 64  # public addresses, all gateways together; each has all the ports
    low: int = 1024  # RFC 6888 advises against the well-known ports
    high: int = 65535
    choice: PortChoice = PortChoice.RANDOM  # RFC 6056
    block: int = 512  # blocks: ports in one; a usual value of carriers
    rest: float = 0.0  # a port stays unused so long after its connection ended; Linux: 120 (TIME_WAIT), 10 (close)
    mapping: Mapping = Mapping.DEPENDENT
    per_client: int = 0  # ports one client may have at once; 0: any number


class Network(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Between clients and balancer."""

    access: float = 0.010  # one way, client to its gateway: at most so much, evenly spread over the clients
    delay: float = 0.010  # one way, gateway to balancer
    loss: float = 0.0  # share of SYNs, and of answers to them, that are lost
    eats_ack: float = 0.0  # share of the ACKs from a TIME_WAIT that a stateful firewall or NAT drops as invalid


class Server(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What clients connect to: a balancer of layer 7, or servers behind one of layer 4 that only passes packets."""

    kernel: str = "6.12"
    sysctls: Settings = {}
    hz: int = 0  # 0: the kernel row's
    layer: int = 7  # 7: connections end here; 4: on servers behind, and the sysctls are theirs
    boxes: int = 1  # hosts behind the one address; which one is a hash of the five-tuple
    destinations: int = 1  # addresses or ports that clients connect to, evenly
    backlog: int = 4096  # of listen(); somaxconn's default since 5.4
    accepts: float = 0.0  # connections a second that one box accept()s; 0: as fast as they come
    answer: float = 0.005  # from a request to its answer
    answer_spread: str = "exponential"  # or "constant"


class Backend(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The balancer as a client of its servers (layer 7), with the kernel and sysctls of `server`."""

    servers: int = 1  # destinations; used in turn
    sources: int = 1  # addresses of each box toward them; used in turn
    pool: Pool = Pool.NONE
    closing: Closing = Closing.CLIENT  # "client" is the balancer
    timestamps: bool = True  # at the servers; without them tcp_tw_reuse cannot work


class Scenario(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One question, and the world it is asked of."""

    name: str = "custom"
    title: str = ""  # the question in plain words
    duration: float = 300.0  # simulated; five times a TIME_WAIT
    tick: float = 1.0  # a row of the record; results do not depend on it
    clients: Clients = Clients()
    arrivals: Arrivals = Arrivals()
    nat: Nat | None = None  # None: clients have addresses of their own, and their kernel chooses the port
    network: Network = Network()
    server: Server = Server()
    backend: Backend | None = None


def ports_of(scenario: Scenario, knobs: Knobs) -> tuple[int, int]:
    """First and last port that a source address has; `knobs`: those of the clients."""
    if scenario.nat is not None:
        return scenario.nat.low, scenario.nat.high
    return knobs.ip_local_port_range


def addresses_of(scenario: Scenario) -> int:
    """Source addresses that the balancer sees."""
    return scenario.nat.addresses if scenario.nat is not None else scenario.clients.count
