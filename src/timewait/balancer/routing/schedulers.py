"""Which target is next. Each scheduler is told the weights that count now; a weight of 0 gets nothing."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from typing import Protocol

from timewait.balancer.config.model import Scheduler

Weights = Sequence[tuple[str, int]]  # (address, weight), as in Rotation.weights


class Schedules(Protocol):
    """What all of them can do."""

    def next(self, source: bytes, active: Mapping[str, int]) -> str | None:
        """A target for a client, or None where every weight is 0.

        `source` is the client's address (only ip_hash looks at it), `active` how many connections or requests each
        target has now (only least_conn does; one that is missing has 0).
        """

    def reweigh(self, weights: Weights) -> None:
        """Other weights or other targets from now on."""


def scheduler(kind: Scheduler, weights: Weights, start: int = 0) -> Schedules:
    """A scheduler of that kind. `start` (a number of turns) lets workers not all begin with the same target."""
    if kind is Scheduler.LEAST_CONN:
        return LeastConn(weights, start)
    return IpHash(weights) if kind is Scheduler.IP_HASH else SmoothWrr(weights, start)


class SmoothWrr:
    """Weighted round robin as nginx's (ngx_http_upstream_get_peer): 5:1:1 gives a a b a c a a, never a a a a a b c.

    In a cycle of sum(weights)/gcd turns each target gets exactly its share. The cycle is computed turn by turn the
    first time and repeated from memory then.
    """

    def __init__(self, weights: Weights, start: int = 0) -> None:
        self._turn = start
        self.reweigh(weights)

    def reweigh(self, weights: Weights) -> None:
        """The next cycle begins where the turns so far would put it, so that frequent changes favour nobody."""
        self._targets = [address for address, weight in weights if weight > 0]
        positive = [weight for _, weight in weights if weight > 0]
        divisor = math.gcd(*positive) if positive else 1
        self._weights = [weight // divisor for weight in positive]
        self._total = sum(self._weights)
        self._current = [0] * len(positive)
        self._cycle: list[str] = []
        for _ in range(self._turn % min(self._total, 64) if self._total else 0):
            self._extend()
        self._position = len(self._cycle)

    def next(self, source: bytes, active: Mapping[str, int]) -> str | None:
        """See Schedules."""
        if not self._total:
            return None
        if self._position == len(self._cycle):
            if self._position < self._total:
                self._extend()
            else:
                self._position = 0
        self._turn += 1
        self._position += 1
        return self._cycle[self._position - 1]

    def _extend(self) -> None:
        current, weights = self._current, self._weights
        best = 0
        for index, weight in enumerate(weights):
            current[index] += weight
            if current[index] > current[best]:
                best = index
        current[best] -= self._total
        self._cycle.append(self._targets[best])


class LeastConn:
    """The target with the least active/weight; among equals smooth weighted round robin, as nginx's least_conn."""

    def __init__(self, weights: Weights, start: int = 0) -> None:
        self._current: dict[str, int] = {}
        self.reweigh(weights)
        for _ in range(start % 64):
            self.next(b"", {})

    def reweigh(self, weights: Weights) -> None:
        """See Schedules."""
        self._weights = [(address, weight) for address, weight in weights if weight > 0]
        self._current = {address: self._current.get(address, 0) for address, _ in self._weights}

    def next(self, source: bytes, active: Mapping[str, int]) -> str | None:
        """See Schedules. Quotients of integers this small are equal exactly where the fractions are."""
        least = math.inf
        among: list[tuple[str, int]] = []
        for address, weight in self._weights:
            load = active.get(address, 0) / weight
            if load < least:
                least, among = load, [(address, weight)]
            elif load == least:
                among.append((address, weight))
        if len(among) < 2:
            return among[0][0] if among else None
        current = self._current
        for address, weight in among:
            current[address] += weight
        best = max(among, key=lambda target: current[target[0]])[0]
        current[best] -= sum(weight for _, weight in among)
        return best


class IpHash:
    """A client's address decides, by a static table of 65,536 places (weighted rendezvous hashing).

    A place belongs to the target with the highest score there; a score depends on that target alone, so a target that
    comes, goes or changes its weight moves only the places that it gains or loses. Every process, on every machine,
    computes the same table.
    """

    def __init__(self, weights: Weights) -> None:
        self.reweigh(weights)

    def reweigh(self, weights: Weights) -> None:
        """See Schedules. Places are filled when they are first asked for."""
        self._weights = [(address.encode(), weight) for address, weight in weights if weight > 0]
        self._table: dict[bytes, str] = {}

    def next(self, source: bytes, active: Mapping[str, int]) -> str | None:
        """See Schedules."""
        place = blake2b(source, digest_size=2).digest()
        found = self._table.get(place)
        if found is None and self._weights:
            found = max(self._weights, key=lambda target: self._score(place, *target))[0].decode()
            self._table[place] = found
        return found

    @staticmethod
    def _score(place: bytes, address: bytes, weight: int) -> float:
        """Weight / -ln(u) with u uniform in (0, 1): the highest is each target's with probability weight/sum."""
        drawn = int.from_bytes(blake2b(place + address, digest_size=8).digest())
        return weight / -math.log((drawn + 0.5) / 2**64)
