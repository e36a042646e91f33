"""Plays a script on a stage, step by step, and compares: the same code whatever the stage is.

Every step takes all that the host has sent by then. What is not expected there and then is a difference, also at the
end; so "and nothing else is sent" needs no line of its own.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import msgspec

from timewait.lab.dialogue.script import (
    CLIENT_PORT,
    GONE,
    Call,
    Count,
    Expect,
    Given,
    Nothing,
    Script,
    Send,
    SetKnobs,
    State,
    Step,
    Wait,
)
from timewait.lab.dialogue.stage import Sent, Stage
from timewait.tcp.segment import ACK, FIN, PSH, RST, SYN, Segment, end_seq, u32

_JIFFIES = 0.02  # two jiffies at HZ=100, the coarsest kernel: a timer is set and shown in jiffies
_LATE = 0.1  # seconds behind the script's clock from which a real kernel's timers may have run out meanwhile


class Line(msgspec.Struct, frozen=True):
    """One line as it was played."""

    number: int
    text: str
    came: tuple[str, ...] = ()  # what the host sent on it, or what was found, in the script's own words
    differs: str = ""  # what is wrong with that; "" where all is as expected
    implied: bool = False


class Played(msgspec.Struct, frozen=True):
    """A script as it was played to its end, or to the first difference."""

    script: str
    kernel: str  # the profile
    where: str  # "model", or `uname -r` of a real kernel
    lines: tuple[Line, ...]
    late: float = 0.0  # seconds the stage was behind the script's clock at the end

    @property
    def differs(self) -> str:
        """What differs, "" where nothing does."""
        return self.lines[-1].differs if self.lines else ""

    @property
    def is_late(self) -> bool:
        """The machine was too busy for a difference to mean anything."""
        return self.late > _LATE


class _Turn(NamedTuple):
    """When a step was played: by the script's clock, and by the stage's."""

    at: float
    begun: float
    ended: float


def play(script: Script, kernel: str, stage: Stage, where: str = "model") -> Played:
    """Plays the steps for this profile until one differs."""
    return _Player(script, kernel, stage).play(where)


def written(segment: Segment, base: int) -> str:
    """A segment of the host in the words of a script; its numbers count from `base`."""
    words = [name for flag, name in _FLAGS if segment.flags & flag]
    words.append(f"seq={u32(segment.seq - base)}")
    if segment.flags & ACK:
        words.append(f"ack={segment.ack}")
    if segment.length:
        words.append(f"len={segment.length}")
    if segment.has_ts:
        words += ["ts", f"ecr={segment.tsecr}"]
    return f"< {' '.join(words)}"


_FLAGS = ((SYN, "SYN"), (FIN, "FIN"), (RST, "RST"), (ACK, "ACK"))


class _Player:
    def __init__(self, script: Script, kernel: str, stage: Stage) -> None:
        self._script = script
        self._kernel = kernel
        self._stage = stage
        self._pending: deque[Sent] = deque()
        self._base: dict[int, int] = {}  # client port -> the host's sequence number that counts as 0
        self._tsval: dict[int, int] = {}  # client port -> the host's last TSval
        self._port = CLIENT_PORT
        self._at = 0.0  # the script's clock
        self._turns: list[_Turn] = []
        self._counted = stage.counters()

    def play(self, where: str) -> Played:
        begun = self._stage.now()
        lines: list[Line] = []
        for step in self._script.steps_for(self._kernel):
            lines.append(self._play(step))
            if lines[-1].differs:
                break
        else:
            lines += self._unexpected(0, "at the end")
        late = self._stage.now() - begun - self._at
        return Played(self._script.name, self._kernel, where, tuple(lines), max(0.0, late))

    def _play(self, step: Step) -> Line:
        if not isinstance(step, Expect):
            for line in self._unexpected(step.line, step.text):
                return line
        came, differs = self._look(step) if isinstance(step, Expect | Count | State) else self._act(step)
        return Line(step.line, step.text, tuple(came), differs, step.implied)

    def _unexpected(self, number: int, text: str) -> Iterator[Line]:
        """A line for what the host sent and no step expected."""
        if self._pending:
            came = tuple(self._written(sent) for sent in self._pending)
            yield Line(number, text, came, "the host sent what no line expects")

    def _written(self, sent: Sent) -> str:
        fresh = sent.segment.seq if sent.segment.flags & SYN else 0
        text = written(sent.segment, self._base.get(sent.port, fresh))
        return text if sent.port == self._port else f"{text} port={sent.port}"

    # What happens.

    def _act(self, step: Step) -> tuple[Sequence[str], str]:
        begun = self._stage.now()
        came, differs = self._do(step)
        self._pending.extend(self._stage.sent())
        for sent in self._pending:
            # A bare ACK is not echoed: one may answer a SYN, which no real peer would go on from.
            if sent.segment.has_ts and end_seq(sent.segment) != sent.segment.seq:
                self._tsval[sent.port] = sent.segment.tsval
        if isinstance(step, Wait):
            self._at += step.seconds
        else:
            self._turns.append(_Turn(self._at, begun, self._stage.now()))
        return came, differs

    def _do(self, step: Step) -> tuple[Sequence[str], str]:
        """Returns what was found at once, and what is wrong with it."""
        match step:
            case Send():
                port = step.port or self._port
                tsecr = step.tsecr
                if tsecr is None:
                    tsecr = self._tsval.get(port, 0) if step.flags & ACK else 0
                ack = u32(self._base.get(port, 0) + step.ack) if step.flags & ACK else 0
                has_ts = step.tsval is not None
                segment = Segment(
                    step.seq, ack, step.flags, step.length, has_ts, step.tsval or 0, tsecr if has_ts else 0
                )
                self._stage.send(segment, port)
            case Call():
                outcome = self._stage.call(step)
                if outcome != step.errno:
                    wanted = step.errno or f"{step.number} bytes" if step.verb == "recv" else step.errno
                    return [outcome or "it succeeds"], f"{step.verb} gives this, not {wanted or 'success'}"
            case SetKnobs():
                for name, value in step.values:
                    self._stage.set_knob(name, value)
            case Wait():
                self._stage.wait(step.seconds)
            case Given():
                self._counted = self._stage.counters()
            case Nothing():
                pass
        return [], ""

    # What is looked at.

    def _look(self, step: Step) -> tuple[Sequence[str], str]:
        match step:
            case Expect():
                return self._expect(step)
            case Count():
                return self._count(step)
            case State():
                return self._state(step)
        raise TypeError(step)

    def _expect(self, step: Expect) -> tuple[Sequence[str], str]:
        if not self._pending:
            return ["nothing"], "the host sends nothing"
        sent = self._pending.popleft()
        segment = sent.segment
        opens = segment.flags & SYN and not segment.flags & ACK  # only a host that connects sends one
        if opens and step.port is None:
            self._port = sent.port
        if segment.flags & SYN and (step.fresh or sent.port not in self._base):
            self._base[sent.port] = segment.seq
        wrong = self._differences(step, sent)
        return [self._written(sent)], "; ".join(wrong)

    def _differences(self, step: Expect, sent: Sent) -> Iterator[str]:
        segment = sent.segment
        compared = (
            ("port", step.port or self._port, sent.port),
            ("seq", step.seq, u32(segment.seq - self._base.get(sent.port, 0))),
            ("ack", step.ack, segment.ack),
            ("len", step.length, segment.length),
        )
        if (step.flags ^ segment.flags) & ~PSH:
            yield "other flags"
        if step.fresh and not segment.flags & SYN:
            yield "no SYN, so it has no initial sequence number"
        for name, wanted, found in compared:
            if wanted is not None and wanted != found:
                yield f"{name} is {found}, not {wanted}"
        if step.timestamps is not None and step.timestamps != segment.has_ts:
            yield "it has no timestamps" if step.timestamps else "it has timestamps"
        elif step.tsecr is not None and segment.has_ts and step.tsecr != segment.tsecr:
            yield f"ecr is {segment.tsecr}, not {step.tsecr}"

    def _count(self, step: Count) -> tuple[Sequence[str], str]:
        before, self._counted = self._counted, self._stage.counters()
        moved = {name: value - before.get(name, 0) for name, value in self._counted.items()}
        found = {name: by for name, by in moved.items() if by}
        wanted = dict(step.moved)
        names = sorted(found.keys() | wanted.keys())
        wrong = [name for name in names if found.get(name, 0) != wanted.get(name, 0)]
        words = [f"{name} moves by {found.get(name, 0)}, not by {wanted.get(name, 0)}" for name in wrong]
        return [f"count {' '.join(f'{k}+{v}' for k, v in sorted(found.items())) or 'nothing'}"], "; ".join(words)

    def _state(self, step: State) -> tuple[Sequence[str], str]:
        begun = self._stage.now()
        shown = self._stage.state(step.port or self._port)
        ended = self._stage.now()
        found = shown.state if shown else GONE
        words = [found] if shown is None or shown.left is None else [found, f"with {shown.left:.1f}s left"]
        came = [f"state {' '.join(words)}"]
        if found != step.name:
            return came, f"it is {found}, not {step.name}"
        if step.timer is None or shown is None:
            return came, ""
        if shown.left is None:
            return came, "no timer runs"
        turns = [turn for turn in self._turns if abs(turn.at - (self._at - step.age)) < 1e-6]
        if not turns:
            return came, f"no step of the script stands {step.age:g} s back, so nothing can have set a timer then"
        ran = step.timer - shown.left
        if ended - ran < turns[0].begun - _JIFFIES or begun - ran > turns[-1].ended + _JIFFIES:
            return came, f"the timer would have been set {ran:.2f} s ago, not {step.age:g} s ago"
        return came, ""
