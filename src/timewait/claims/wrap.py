"""The claims about 32 bits: when a timestamp or a sequence number counts as older, and for how long."""

from __future__ import annotations

import socket
import time
from typing import NamedTuple

from timewait.claims.claim import claim
from timewait.claims.stage import InconclusiveError, Stage
from timewait.lab import topologies
from timewait.lab.crafted import Crafted, Talk
from timewait.lab.network import LabHost
from timewait.tcp import counters
from timewait.tcp.action import Action
from timewait.tcp.kernels import kernel
from timewait.tcp.segment import RST, SYN, Segment, u32
from timewait.tcp.timewait import Answer, TimeWait, answer
from timewait.verdict import Measure, Outcome, between

HALF = 2**31
_ADDRESS = "10.0.0.99"  # of the crafted host: nobody's
_FIRST_PORT = 40_000


class Case(NamedTuple):
    """A SYN: its distance from what the TIME_WAIT holds."""

    seq: int  # to rcv_nxt
    tsval: int  # to ts_recent


TIMESTAMPS = [Case(-1000, step) for step in (-HALF, -HALF + 1, -2, -1, 0, 1, HALF - 1)]
SEQUENCES = [Case(step, 0) for step in (-HALF + 1, -1, 0, 1, HALF - 1, HALF, HALF + 1)]
STARTS = (100_000, 2**32 - 1)  # last timestamp before the SYN: in the middle, and where the next tick is 0


@claim(
    "wrap",
    "Timestamps are compared as signed 32 bits: at 1 ms a tick one counts as older for 24.8 days.",
    topology="direct",
    needs=(),
)
def wrap(stage: Stage) -> Outcome:
    with stage.network(topologies.direct()) as network:
        client, balancer = network["client"], network["balancer"]
        with balancer.entered():
            listener = socket.create_server((balancer.address, 80))
        with listener, _crafted(client, balancer) as peer:
            measures: list[Measure] = []
            for start in STARTS:
                for case in TIMESTAMPS + SEQUENCES:
                    stage.say(f"TSval {case.tsval:+d}, sequence {case.seq:+d} ...")
                    port = _FIRST_PORT + len(measures)
                    measures.append(_one(stage, balancer, listener, peer, port, start, case))
    oldest, newest = kernel("2.6.32"), stage.kernel
    return Outcome(
        measures=(_all(measures), *measures),
        notes=(
            f"A stored timestamp stops rejecting after {oldest.rules.paws_wrap_s / 86400:.0f} days in "
            f"{oldest.name}, after {newest.rules.paws_wrap_s:,} s in {newest.name}: `wrap-age` waits for it.",
        ),
    )


def _all(measures: list[Measure]) -> Measure:
    agree = sum(one.agrees for one in measures)
    what = "boundaries of timestamp and sequence number, tick by tick"
    return Measure(what, f"{len(measures)} answers", f"{agree} as predicted", agree == len(measures))


def _crafted(client: LabHost, balancer: LabHost) -> Crafted:
    return Crafted(client.namespace, "eth0", address=_ADDRESS, target=balancer.address)


def _one(
    stage: Stage, balancer: LabHost, listener: socket.socket, peer: Crafted, port: int, start: int, case: Case
) -> Measure:  # fmt: skip
    talk = _closed_by_it(peer, listener, port, start)
    syn = Segment(u32(talk.snd_nxt + case.seq), flags=SYN, has_ts=True, tsval=u32(start + case.tsval))
    expected = _expected(stage, talk, start, syn)
    with stage.counted(balancer) as moved:
        said = _answer_to(peer, syn, port)
    wanted = _in_words(expected.action, counters.names(expected.counters))
    rose = tuple(name for name in counters.names(-1) if moved.get(f"TcpExt.{name}"))
    got = _in_words(said, tuple(name for name in rose if name.startswith("PAWS")))
    if said is Action.ACCEPT:  # leave no half-open connection that sends its SYN-ACK again
        peer.send(Segment(u32(syn.seq + 1), flags=RST), port=port, to=80)
    what = f"last TSval {start:,}: SYN with TSval {_step(case.tsval)}, sequence {_step(case.seq)}"
    return Measure(what, wanted, got, wanted == got)


def _closed_by_it(peer: Crafted, listener: socket.socket, port: int, tsval: int) -> Talk:
    """A connection that the host under test closed first; its last timestamp from us is `tsval`."""
    talk = peer.connect(to=80, port=port, isn=5_000_000, tsval=tsval)
    connection, _ = listener.accept()
    connection.close()
    peer.close_by_other(talk)
    return talk


def _expected(stage: Stage, talk: Talk, ts: int, syn: Segment) -> Answer:
    rules, knobs = stage.kernel.rules, stage.kernel.defaults
    return answer(rules, knobs, TimeWait(talk.snd_nxt, talk.rcv_nxt, ts, stamp=1), syn, now_s=1, now_ms=1_000)


def _answer_to(peer: Crafted, syn: Segment, port: int) -> Action:
    peer.send(syn, port=port, to=80)
    for seen in peer.settled():
        if seen.port == port:
            if seen.segment.flags & SYN:
                return Action.ACCEPT
            return Action.RESET if seen.segment.flags & RST else Action.ACK
    return Action.DROP


_WORDS = {Action.ACCEPT: "SYN-ACK", Action.ACK: "ACK", Action.RESET: "RST"}


def _in_words(action: int, counted: tuple[str, ...]) -> str:
    return ", ".join([_WORDS.get(Action(action), "nothing"), *counted])


def _step(step: int) -> str:
    for power, name in ((HALF, "2^31"),):
        if abs(abs(step) - power) <= 1:
            rest = abs(step) - power
            return f"{'-' if step < 0 else '+'}{f'({name}{rest:+d})' if rest else name}"
    return f"{step:+d}" if step else "equal"


_EVERY = 20.0  # seconds between two SYNs that keep the TIME_WAIT alive: each rejected one starts its 60 s again
_CLOSELY = 10  # seconds before and after the boundary in which one is sent every half second


@claim(
    "wrap-age",
    "A timestamp stored long ago rejects nothing any more: after 24 days, since 6.7 after 2,147 s.",
    topology="direct",
    needs=(),
    slow=True,
    limit=2_400.0,
)
def wrap_age(stage: Stage) -> Outcome:
    limit = stage.kernel.rules.paws_wrap_s
    if limit > 2 * 3600:
        raise InconclusiveError(f"this kernel keeps a timestamp for {limit / 86400:.0f} days: too long to wait for")
    with stage.network(topologies.direct()) as network:
        client, balancer = network["client"], network["balancer"]
        with balancer.entered():
            listener = socket.create_server((balancer.address, 80))
        with listener, _crafted(client, balancer) as peer:
            talk = _closed_by_it(peer, listener, _FIRST_PORT, 100_000)
            stored, rejected = time.monotonic(), 0
            syn = Segment(u32(talk.snd_nxt + 1000), flags=SYN, has_ts=True, tsval=99_999)
            while _answer_to(peer, syn, _FIRST_PORT) is not Action.ACCEPT:
                age = time.monotonic() - stored
                rejected += 1
                if age > limit + 60:
                    break
                close = age > limit - _CLOSELY - _EVERY
                stage.wait(0.5 if close else _EVERY, f"{age:,.0f} s of {limit:,} s, {rejected} SYNs rejected")
            age = time.monotonic() - stored
    # Both ends of the comparison are whole seconds, and a SYN is sent every half second.
    return Outcome(
        measures=(between("age of the timestamp when an older one passes", limit - 1, age, limit + 1.5, " s"),)
    )
