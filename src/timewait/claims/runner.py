"""Runs experiments one after the other, each in a process of its own.

The process enters its own namespaces, so nothing of one experiment is left for the next, two runs at once do not
meet, and an experiment that hangs or dies takes nothing along but itself: it is `inconclusive`, with the reason.
"""

from __future__ import annotations

import os
import select
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from timewait.claims.claim import Claim
from timewait.claims.stage import InconclusiveError, Stage
from timewait.lab import ForbiddenError, children, enter
from timewait.verdict import INCONCLUSIVE, Outcome, Result, telling, verdict


@dataclass(frozen=True)
class Settings:
    """How to run them."""

    balancer: str = "timewait"
    pcap: str | None = None  # folder
    time: float = 1.0  # factor on every limit


class _Said(msgspec.Struct, tag="said"):
    text: str


class _Ended(msgspec.Struct, tag="ended"):
    outcome: Outcome


class _Failed(msgspec.Struct, tag="failed"):
    why: str
    notes: tuple[str, ...] = ()


_Line = _Said | _Ended | _Failed

Progress = Callable[[Claim, str], None]


def run(claims: Sequence[Claim], settings: Settings, progress: Progress) -> Iterator[Result]:
    """Results as they come. Closing the iterator early (Ctrl-C) ends the experiment that runs."""
    for one in claims:
        yield run_one(one, settings, lambda text, one=one: progress(one, text))  # type: ignore[misc]


def run_one(claim: Claim, settings: Settings, say: Callable[[str], None]) -> Result:
    """Raises ForbiddenError where this machine makes no namespaces: that is no matter of one claim."""
    began = time.monotonic()
    said = _in_child(claim, settings, say, began + claim.limit * settings.time)
    seconds = time.monotonic() - began
    common: dict[str, Any] = {
        "claim": claim.id,
        "title": claim.title,
        "seconds": round(seconds, 1),
        "kernel": os.uname().release,
        "balancer": settings.balancer if "balancer" in claim.needs else "",
    }
    if isinstance(said, _Failed):
        return Result(predicted="", measured="", verdict=INCONCLUSIVE, why=said.why, notes=said.notes, **common)
    outcome = said.outcome
    if not outcome.measures:
        why = "the experiment measured nothing"
        return Result(predicted="", measured="", verdict=INCONCLUSIVE, why=why, notes=outcome.notes, **common)
    shown = telling(outcome.measures)
    return Result(
        predicted=shown.predicted,
        measured=shown.measured,
        verdict=verdict(outcome),
        measures=outcome.measures,
        notes=outcome.notes,
        **common,
    )


def _in_child(claim: Claim, settings: Settings, say: Callable[[str], None], deadline: float) -> _Ended | _Failed:
    reading, writing = os.pipe()
    forbidden, refusing = os.pipe()

    def work() -> None:
        _experiment(claim, settings, writing, refusing)

    child = children.start(work, keep=[writing, refusing])
    os.close(writing)
    os.close(refusing)
    try:
        ended = _listen(reading, say, deadline)
        if ended is None:
            child.stop()
            limit = claim.limit * settings.time
            return _Failed(f"it was given up after {limit:.0f} s: {_LATE}")
        status = child.wait(5.0)
        refusal = _all(forbidden)
        if refusal:
            raise ForbiddenError(*msgspec.json.decode(refusal, type=tuple[str, str, str]))
        if isinstance(ended, _Said):  # its last word was no result
            return _Failed(f"its process {_death(status)}")
        return ended
    finally:
        child.stop(0.2)
        os.close(reading)
        os.close(forbidden)


_LATE = "a host of the experiment hangs, or this machine is too busy"


def _experiment(claim: Claim, settings: Settings, writing: int, refusing: int) -> None:
    """In the child: the whole experiment, its result down the pipe."""

    def tell(line: _Line) -> None:
        data = msgspec.json.encode(line) + b"\n"
        while data:
            data = data[os.write(writing, data) :]

    try:
        enter()
    except ForbiddenError as error:
        os.write(refusing, msgspec.json.encode((error.reason, error.setting, error.remedy)))
        return
    stage = Stage(claim.id, settings.balancer, settings.pcap, lambda text: tell(_Said(text)))
    try:
        with stage:
            outcome = claim.experiment(stage)
        tell(_Ended(msgspec.structs.replace(outcome, notes=(*outcome.notes, *stage.notes))))
    except InconclusiveError as error:
        tell(_Failed(str(error), tuple(stage.notes)))
    except Exception as error:  # whatever it is, it is no verdict about the kernel
        dead = stage.died()
        place = _where(error)
        tell(_Failed("; ".join(dead) if dead else f"{type(error).__name__}: {error} ({place})", tuple(stage.notes)))


def _where(error: BaseException) -> str:
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return f"{trace.tb_frame.f_code.co_name}, line {trace.tb_lineno}" if trace else "unknown place"


def _listen(reading: int, say: Callable[[str], None], deadline: float) -> _Line | None:
    """The last line of the child; a `_Said` when it ended without a result; None when the time is over."""
    decoder = msgspec.json.Decoder(_Line)
    pending, last = b"", _Said("")
    result: _Line = last
    while True:
        left = deadline - time.monotonic()
        if left <= 0:
            return None
        ready, _, _ = select.select([reading], [], [], min(left, 1.0))
        if not ready:
            continue
        data = os.read(reading, 65536)
        if not data:
            return result
        *lines, pending = (pending + data).split(b"\n")
        for line in lines:
            result = decoder.decode(line)
            if isinstance(result, _Said):
                say(result.text)


def _all(fd: int) -> bytes:
    return b"".join(iter(lambda: os.read(fd, 65536), b""))


def _death(status: int | None) -> str:
    if status is None:
        return "did not end"
    if status < 0:
        return f"was ended by {signal.Signals(-status).name}"
    return f"ended with exit status {status} before it had a result"
