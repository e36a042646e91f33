"""A world of `timewait simulate` written plainly in SimPy: a process for each connection, objects, dictionaries.

Clients behind a NAT with random ports, a balancer that closes first and has tcp_tw_recycle. The rules are asked of
the same functions; everything else is written again, so that both can be held against each other.
"""

from __future__ import annotations

import random
from collections.abc import Generator
from typing import Any

import msgspec
import simpy

from timewait.simulate.engine.server import fires
from timewait.simulate.limits import side
from timewait.simulate.world import Scenario
from timewait.tcp import clock, length, listener, recycle, timewait
from timewait.tcp.action import Action
from timewait.tcp.segment import ACK, RST, SYN, Segment, u32
from timewait.tcp.syn import schedule
from timewait.tcp.synsent import Next, react
from timewait.tcp.timewait import TimeWait

Process = Generator[simpy.Event, Any, None]
BOOT = 10_000_000  # seconds on the clocks when the simulation begins


class Counts(msgspec.Struct):
    """What came of it."""

    started: int = 0
    first: int = 0
    retried: int = 0
    gave_up: int = 0
    syns: int = 0
    dropped: int = 0  # SYNs, by tcp_tw_recycle

    @property
    def shares(self) -> dict[str, float]:
        """Of attempts connected at once; of SYNs dropped by tcp_tw_recycle."""
        return {"first": self.first / max(1, self.started), "dropped": self.dropped / max(1, self.syns)}


class World:
    """The state of it."""

    def __init__(self, scenario: Scenario, seed: int) -> None:
        assert scenario.nat is not None
        self.scenario, self.nat, self.random = scenario, scenario.nat, random.Random(seed)
        self.env, self.counts = simpy.Environment(), Counts()
        self.client = side("clients", scenario.clients.kernel, scenario.clients.sysctls)
        self.server = side("server", scenario.server.kernel, scenario.server.sysctls)
        self.sends = schedule(self.client.kernel)
        self.limit = scenario.clients.connect_timeout
        clients = scenario.clients
        self.uptimes = [self.random.uniform(clients.uptime_low, clients.uptime_high) for _ in range(clients.count)]
        self.access = [self.random.uniform(0, scenario.network.access) for _ in range(clients.count)]
        self.taken: set[tuple[int, int]] = set()
        self.waits: dict[tuple[int, int], tuple[TimeWait, float]] = {}
        self.records: dict[int, recycle.Record] = {}

    def run(self) -> Counts:
        self.env.process(self.arrivals())
        self.env.run(until=self.scenario.duration)
        return self.counts

    def arrivals(self) -> Process:
        while True:
            yield self.env.timeout(self.random.expovariate(self.scenario.arrivals.rate))
            self.env.process(self.connection(self.random.randrange(self.scenario.clients.count)))

    def tsval(self, client: int) -> int:
        up = self.uptimes[client] + self.env.now - self.access[client]
        return clock.tsval(self.client.kernel.rules, self.client.knobs, int(up * 1e6))

    def connection(self, client: int) -> Process:
        """From connect() to the end of TIME_WAIT's beginning."""
        self.counts.started += 1
        address = client % self.nat.addresses
        port = self.random.randint(self.nat.low, self.nat.high)
        while (address, port) in self.taken:
            port = port + 1 if port < self.nat.high else self.nat.low
        tuple_ = (address, port)
        self.taken.add(tuple_)
        isn = self.random.getrandbits(32)
        trip = 2 * (self.access[client] + self.scenario.network.delay)
        began, tries = self.env.now, 0
        while True:
            tries += 1
            self.counts.syns += 1
            acked = self.syn(tuple_, isn, self.tsval(client))
            if acked is None:
                break
            due = self.sends.sends[tries] if tries < len(self.sends.sends) else self.sends.gives_up
            last = tries == len(self.sends.sends) or 0 < self.limit <= due
            due = min(due, self.limit) if self.limit else due
            if acked >= 0 and self.resets(isn, acked):
                yield self.env.timeout(trip)
                self.meet(tuple_, Segment(seq=acked, flags=RST))
            yield self.env.timeout(max(0.0, began + due - self.env.now))
            if last:
                self.counts.gave_up += 1
                self.taken.discard(tuple_)
                return
        if tries == 1:
            self.counts.first += 1
        else:
            self.counts.retried += 1
        answer = self.random.expovariate(1 / self.scenario.server.answer)
        yield self.env.timeout(2 * trip + answer)
        self.closed(tuple_, u32(isn + 2 + self.scenario.clients.sent), self.tsval(client))
        yield self.env.timeout(2 * self.scenario.network.delay + self.nat.rest)
        self.taken.discard(tuple_)

    def now(self) -> float:
        return BOOT + self.env.now + self.scenario.network.delay

    def syn(self, tuple_: tuple[int, int], isn: int, tsval: int) -> int | None:
        """None: it is accepted. Otherwise what an ACK acknowledges, -1 when there was none."""
        wait = self.waits.get(tuple_)
        if wait is not None and wait[1] > self.now():
            found = self.meet(tuple_, Segment(seq=isn, flags=SYN, has_ts=True, tsval=tsval))
            if found.action == Action.ACCEPT:
                return None
            return found.before.rcv_nxt if found.action == Action.ACK else -1
        record = self.records.get(tuple_[0], recycle.NOTHING)
        verdict = listener.answer(
            self.server.kernel.rules, self.server.knobs, listener.Listener(), record, True, tsval, int(self.now())
        )
        if verdict.action == Action.ACCEPT:
            return None
        self.counts.dropped += 1
        return -1

    def meet(self, tuple_: tuple[int, int], segment: Segment) -> timewait.Answer:
        tw, until = self.waits[tuple_]
        now = self.now()
        found = timewait.answer(self.server.kernel.rules, self.server.knobs, tw, segment, int(now), int(now * 1000))
        if found.gone:
            self.waits.pop(tuple_)
        else:
            if found.rearm_ms:
                ending = length.ends(self.server.kernel.rules, found.rearm_ms)
                until = fires(ending, int(now * 1000)) / 1000
            self.waits[tuple_] = (found.tw, until)
        return found

    def resets(self, isn: int, acked: int) -> bool:
        segment = Segment(ack=acked, flags=ACK)
        return react(self.client.kernel.rules, isn, u32(isn + 1), segment, 0, 0).next == Next.RESET

    def closed(self, tuple_: tuple[int, int], rcv_nxt: int, ts: int) -> None:
        """The balancer's TIME_WAIT begins."""
        now, rules, knobs = self.now(), self.server.kernel.rules, self.server.knobs
        network = self.scenario.network
        rto = 200 + round(1000 * (network.access + 2 * network.delay))
        found = length.time_wait(rules, knobs, rto, int(now))
        if found.remembers:
            old = self.records.get(tuple_[0], recycle.NOTHING)
            self.records[tuple_[0]] = recycle.written(old, ts, int(now), int(now), rules.record_store)
        until = fires(found.ending, int(now * 1000)) / 1000
        self.waits[tuple_] = (TimeWait(rcv_nxt=rcv_nxt, snd_nxt=1, ts=ts, stamp=int(now)), until)
