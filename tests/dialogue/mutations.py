"""Scripts with one expectation turned into another: each of them must fail."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import msgspec

from timewait.lab.dialogue.script import GONE, Call, Count, Expect, Nothing, Script, State, Step
from timewait.tcp.segment import ACK, RST, u32


class Flipped(NamedTuple):
    """A script with one change."""

    what: str
    line: str
    kernels: tuple[str, ...]  # the script's that play this line
    script: Script


def flipped(script: Script) -> Iterator[Flipped]:
    """Every change of every line that is not implied by `given`."""
    for place, step in enumerate(script.steps):
        if not step.implied:
            for what, other in _others(step):
                steps = (*script.steps[:place], other, *script.steps[place + 1 :])
                wrong = msgspec.structs.replace(script, steps=steps)
                yield Flipped(what, f"line {step.line}: {step.text}", step.only or script.kernels, wrong)


def _others(step: Step) -> Iterator[tuple[str, Step]]:
    change = msgspec.structs.replace
    match step:
        case Expect():
            yield "flags", change(step, flags=step.flags ^ RST)
            yield "length", change(step, length=step.length + 1)
            if step.seq is not None:
                yield "seq", change(step, seq=u32(step.seq + 1))
            if step.ack is not None:
                yield "ack", change(step, ack=u32(step.ack - 1))
            if step.tsecr is not None:
                yield "ecr", change(step, tsecr=u32(step.tsecr + 1))
            if step.timestamps is not None:
                yield "timestamps", change(step, timestamps=not step.timestamps, tsecr=None)
            yield "port", change(step, port=1)
        case Nothing():
            yield "something", _segment(step)
        case Count():
            yield "one more", change(step, moved=(*step.moved, ("TCPAbortOnMemory", 1)))
            if step.moved:
                yield "one less", change(step, moved=step.moved[1:])
        case State():
            yield "state", change(step, name="ESTABLISHED" if step.name == GONE else GONE)
            if step.timer is not None:
                yield "later", change(step, timer=step.timer + 1)
                yield "earlier", change(step, timer=step.timer - 0.1)
        case Call():
            yield "errno", change(step, errno="" if step.errno else "EPIPE")


def _segment(step: Step) -> Expect:
    return Expect(
        line=step.line,
        text="< ACK",
        only=step.only,
        flags=ACK,
        seq=None,
        ack=None,
        length=0,
        timestamps=None,
        tsecr=None,
        port=None,
        fresh=False,
    )
