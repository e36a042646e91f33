"""Ways for a connection to end: who closes first, and who then holds TIME_WAIT.

The ends are called closer (who ends the connection first) and other. Only who sends the first FIN, and gets one back,
comes into TIME_WAIT; the one that answers never does. Whatever ends by RST leaves none at either end.
"""

from __future__ import annotations

from typing import NamedTuple

from timewait.tcp import counters
from timewait.tcp.knobs import Knobs
from timewait.tcp.length import fin_time, orphan, overflow_counters, overflows
from timewait.tcp.profiles import Rules
from timewait.tcp.states import Event, Sends, State, step

# As plain integers: compiled code does not take a State for the number it is.
_CLOSE, _FIN_WAIT2, _TIME_WAIT = int(State.CLOSE), int(State.FIN_WAIT2), int(State.TIME_WAIT)
_NOTHING, _ACK, _RST = int(Sends.NOTHING), int(Sends.ACK), int(Sends.RST)


class End(NamedTuple):
    """One end of a connection."""

    state: int = 1  # a State; ESTABLISHED
    orphan: bool = False  # close() was called: nobody can read any more
    fin_wait2: bool = False  # in state TIME_WAIT: its substate, the peer's FIN is still to come


class Conditions(NamedTuple):
    """What an ending depends on beside the events."""

    rto_ms: int = 200
    linger2_s: int = 0  # TCP_LINGER2; 0: not set
    buckets: int = 0  # TIME_WAIT sockets that exist
    too_many_orphans: bool = False  # tcp_max_orphans is reached, or memory is short


class Change(NamedTuple):
    """What an event changes."""

    end: End
    sends: int  # a Sends
    counters: int
    full_ms: int  # an orphan stays a full socket in FIN_WAIT2 for so long
    time_wait_ms: int  # then, or now, it is a TIME_WAIT socket in substate FIN_WAIT2 for so long; 0: none


def after(rules: Rules, knobs: Knobs, end: End, event: int, given: Conditions) -> Change:
    """One event at one end."""
    if end.fin_wait2:
        return _in_fin_wait2(end, event)
    orphan = end.orphan or event in (Event.CLOSE, Event.CLOSE_UNREAD, Event.CLOSE_LINGER_0)
    state, sends, counted = step(end.state, event)
    if event == Event.DATA and end.orphan and end.state in (State.FIN_WAIT1, State.FIN_WAIT2):
        return Change(End(_CLOSE, True, False), _RST, counters.ABORT_ON_DATA, 0, 0)
    if state == State.FIN_WAIT2 and orphan and event in (Event.CLOSE, Event.ACK_OF_FIN):
        return _orphaned(rules, knobs, given, event == Event.CLOSE)
    if event == Event.CLOSE and given.too_many_orphans and state not in (State.CLOSE, State.TIME_WAIT):
        return Change(End(_CLOSE, True, False), _RST, counted | counters.ABORT_ON_MEMORY, 0, 0)
    if state == State.TIME_WAIT and end.state != State.TIME_WAIT and overflows(knobs, given.buckets):
        return Change(End(_CLOSE, orphan, False), sends, counted | overflow_counters(rules), 0, 0)
    return Change(End(state, orphan, False), sends, counted, 0, 0)


def _in_fin_wait2(end: End, event: int) -> Change:
    """A TIME_WAIT socket whose peer has not sent its FIN: the outline of what `timewait.answer` says in full."""
    if event in (Event.FIN, Event.FIN_AND_ACK):
        return Change(End(_TIME_WAIT, True, False), _ACK, 0, 0, 0)
    if event == Event.DATA:
        return Change(End(_CLOSE, True, False), _RST, 0, 0, 0)
    if event == Event.RST:
        return Change(End(_CLOSE, True, False), _NOTHING, 0, 0, 0)
    return Change(end, _NOTHING, 0, 0, 0)


def _orphaned(rules: Rules, knobs: Knobs, given: Conditions, at_close: bool) -> Change:
    """An orphan is in FIN_WAIT2: its FIN is acknowledged, the peer's is still to come.

    `at_close`: by close() after shutdown(); otherwise the ACK found it an orphan. How it waits, `length.orphan` says.
    TCP_LINGER2 below 0 ends it with a RST.
    """
    if given.linger2_s < 0:
        counted = counters.ABORT_ON_LINGER if at_close else counters.ABORT_ON_DATA
        return Change(End(_CLOSE, True, False), _RST, counted, 0, 0)
    first = orphan(rules, fin_time(knobs, given.rto_ms, given.linger2_s, rules.hz))
    if first.full_ms:
        return Change(End(_FIN_WAIT2, True, False), _NOTHING, 0, first.full_ms, first.time_wait_ms)
    if overflows(knobs, given.buckets):
        return Change(End(_CLOSE, True, False), _NOTHING, overflow_counters(rules), 0, 0)
    return Change(End(_TIME_WAIT, True, True), _NOTHING, 0, 0, first.time_wait_ms)


class Ending(NamedTuple):
    """One way for a connection to end: what happens at both ends, from ESTABLISHED on."""

    name: str
    closer: tuple[Event, ...]
    other: tuple[Event, ...]
    given: Conditions = Conditions()  # of the closer


_CLOSING = (Event.CLOSE, Event.ACK_OF_FIN, Event.FIN)
_ANSWERING = (Event.FIN, Event.CLOSE, Event.ACK_OF_FIN)

ENDINGS: tuple[Ending, ...] = (
    Ending("close(), answered by close()", _CLOSING, _ANSWERING),
    Ending("the same, ACK and FIN in one segment", (Event.CLOSE, Event.FIN_AND_ACK), _ANSWERING),
    Ending(
        "shutdown(SHUT_WR); the other sends on, then closes",
        (Event.SHUTDOWN, Event.ACK_OF_FIN, Event.DATA, Event.FIN, Event.CLOSE),
        _ANSWERING,
    ),
    Ending(
        "both close() before either FIN arrives",
        (Event.CLOSE, Event.FIN, Event.ACK_OF_FIN),
        (Event.CLOSE, Event.FIN, Event.ACK_OF_FIN),
    ),
    Ending("close() with SO_LINGER on and 0 s", (Event.CLOSE_LINGER_0,), (Event.RST,)),
    Ending("close() with received data unread", (Event.CLOSE_UNREAD,), (Event.RST,)),
    Ending("close(), then the other resets", (*_CLOSING[:2], Event.RST), (Event.FIN, Event.CLOSE_LINGER_0)),
    Ending("close(), then data from the other", (Event.CLOSE, Event.DATA), (Event.RST,)),
    Ending("close(); the other never closes", _CLOSING[:2], (Event.FIN,)),
    Ending("the same, TCP_LINGER2 below 0", _CLOSING[:2], (Event.FIN, Event.RST), Conditions(linger2_s=-1)),
    Ending("close() with tcp_max_tw_buckets reached", _CLOSING[:2], (Event.FIN,), Conditions(buckets=2**31)),
    Ending("close() with too many orphans", (Event.CLOSE,), (Event.RST,), Conditions(too_many_orphans=True)),
)


class Outcome(NamedTuple):
    """What a way to end leaves behind."""

    closer: Change
    other: Change
    counters: int  # of the closer


def play(rules: Rules, knobs: Knobs, ending: Ending) -> Outcome:
    """Both ends through their events."""
    counted = 0
    closer = other = Change(End(), _NOTHING, 0, 0, 0)
    for event in ending.closer:
        closer = after(rules, knobs, closer.end, event, ending.given)
        counted |= closer.counters
    for event in ending.other:
        other = after(rules, knobs, other.end, event, Conditions())
    return Outcome(closer, other, counted)


def holders(outcome: Outcome) -> tuple[str, ...]:
    """Who is left in TIME_WAIT proper: "closer", "other"."""
    ends = {"closer": outcome.closer.end, "other": outcome.other.end}
    return tuple(name for name, end in ends.items() if end.state == State.TIME_WAIT and not end.fin_wait2)
