"""Source ports chosen by us, in constant time.

The kernel's own search (`__inet_hash_connect`, inet_hashtables.c) tries one port parity first and walks the range:
past half of it each connect() can cost milliseconds. An explicit bind() costs the same at any occupancy. What it
changes: a bound port takes over this host's TIME_WAIT of the same five-tuple at once if that connection had
timestamps (`tcp_twsk_unique` with twp == NULL), so the failure, if there is one, moves to the peer or to a NAT.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from random import Random
from typing import Protocol

from timewait.plan import PortPolicy


class Allocator(Protocol):
    """Hands out ports of one source address that nobody here holds; every call is O(1)."""

    def take(self) -> int:
        """A free port, or 0 when all are held by connections of this worker."""

    def give(self, port: int) -> None:
        """The connection on `port` has ended."""


class Oldest:
    """The port that has rested longest: a ring."""

    __slots__ = ("_free",)

    def __init__(self, ports: Iterable[int]) -> None:
        self._free = deque(ports)

    def take(self) -> int:
        return self._free.popleft() if self._free else 0

    def give(self, port: int) -> None:
        self._free.append(port)


class Sequential:
    """Upwards through the range and around, skipping ports still held."""

    __slots__ = ("_at", "_held", "_ports")

    def __init__(self, ports: Iterable[int]) -> None:
        self._ports = list(ports)
        self._held: set[int] = set()
        self._at = 0

    def take(self) -> int:
        ports, held = self._ports, self._held
        if len(held) >= len(ports):
            return 0
        while True:  # at most as many steps as connections are held, one in practice: ports come back in turn
            port = ports[self._at]
            self._at = (self._at + 1) % len(ports)
            if port not in held:
                held.add(port)
                return port

    def give(self, port: int) -> None:
        self._held.discard(port)


class Random_:  # noqa: N801  `random.Random` is its own argument
    """Any free port with equal chance: the last one fills the gap of the one taken."""

    __slots__ = ("_free", "_random")

    def __init__(self, ports: Iterable[int], random: Random) -> None:
        self._free = list(ports)
        self._random = random

    def take(self) -> int:
        free = self._free
        if not free:
            return 0
        at = int(self._random.random() * len(free))
        free[at], free[-1] = free[-1], free[at]
        return free.pop()

    def give(self, port: int) -> None:
        self._free.append(port)


def allocator(policy: PortPolicy, ports: list[int], random: Random) -> Allocator | None:
    """The allocator of a policy; None where the kernel chooses."""
    match policy:
        case PortPolicy.KERNEL:
            return None
        case PortPolicy.OLDEST:
            return Oldest(ports)
        case PortPolicy.SEQUENTIAL:
            return Sequential(ports)
        case PortPolicy.RANDOM:
            return Random_(ports, random)


def parse_reserved(text: str) -> set[int]:
    """`ip_local_reserved_ports` (Documentation/networking/ip-sysctl.rst): "1,2-4,10-10" -> ports."""
    found: set[int] = set()
    for piece in filter(None, text.strip().split(",")):
        first, _, last = piece.partition("-")
        found.update(range(int(first), int(last or first) + 1))
    return found


def ports_of(low: int, high: int, reserved: set[int], worker: int, workers: int) -> list[int]:
    """This worker's ports of LOW-HIGH (inclusive): every `workers`-th of those not reserved."""
    return [port for port in range(low, high + 1) if port not in reserved][worker::workers]
