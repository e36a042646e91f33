"""The states of a connection that ends, as one table: what a state and an event lead to.

`tcp_close()` with its table `new_state`, net/ipv4/tcp.c; `tcp_fin()` and `tcp_rcv_state_process()`,
net/ipv4/tcp_input.c; the same in every version. What depends on more than the two (orphans, limits) is in endings.py.
"""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple

from timewait.tcp import counters


class State(IntEnum):
    """Names and numbers of include/net/tcp_states.h."""

    ESTABLISHED = 1
    SYN_SENT = 2
    SYN_RECV = 3
    FIN_WAIT1 = 4
    FIN_WAIT2 = 5
    TIME_WAIT = 6
    CLOSE = 7
    CLOSE_WAIT = 8
    LAST_ACK = 9
    LISTEN = 10
    CLOSING = 11


class Event(IntEnum):
    """What happens to one end."""

    CLOSE = 0  # close(), everything read, SO_LINGER unset
    SHUTDOWN = 1  # shutdown(SHUT_WR): half-close, the program goes on reading
    CLOSE_UNREAD = 2  # close() with received data nobody read
    CLOSE_LINGER_0 = 3  # close() with SO_LINGER on and 0 s
    FIN = 4  # the peer's FIN arrives, in order
    ACK_OF_FIN = 5  # our FIN is acknowledged
    FIN_AND_ACK = 6  # both in one segment
    RST = 7  # a fitting RST arrives
    DATA = 8  # data arrives, in order


class Sends(IntEnum):
    """What leaves because of it."""

    NOTHING = 0
    FIN = 1
    ACK = 2
    RST = 3


class Step(NamedTuple):
    """Where an event leads."""

    state: int  # a State
    sends: int  # a Sends
    counters: int = 0


_S, _E, _OUT = State, Event, Sends
_RST_CLOSE = Step(_S.CLOSE, _OUT.NOTHING)
_UNREAD = Step(_S.CLOSE, _OUT.RST, counters.ABORT_ON_CLOSE)  # tested before SO_LINGER
_LINGER_0 = Step(_S.CLOSE, _OUT.RST, counters.ABORT_ON_DATA)

TABLE: dict[tuple[State, Event], Step] = {
    # active: we send the first FIN
    (_S.ESTABLISHED, _E.CLOSE): Step(_S.FIN_WAIT1, _OUT.FIN),
    (_S.ESTABLISHED, _E.SHUTDOWN): Step(_S.FIN_WAIT1, _OUT.FIN),
    (_S.FIN_WAIT1, _E.ACK_OF_FIN): Step(_S.FIN_WAIT2, _OUT.NOTHING),
    (_S.FIN_WAIT1, _E.FIN_AND_ACK): Step(_S.TIME_WAIT, _OUT.ACK),
    (_S.FIN_WAIT1, _E.FIN): Step(_S.CLOSING, _OUT.ACK),  # simultaneous: the peer had not seen our FIN
    (_S.FIN_WAIT1, _E.CLOSE): Step(_S.FIN_WAIT1, _OUT.NOTHING),  # after shutdown(): an orphan from now on
    (_S.FIN_WAIT2, _E.FIN): Step(_S.TIME_WAIT, _OUT.ACK),
    (_S.FIN_WAIT2, _E.FIN_AND_ACK): Step(_S.TIME_WAIT, _OUT.ACK),
    (_S.FIN_WAIT2, _E.CLOSE): Step(_S.FIN_WAIT2, _OUT.NOTHING),
    (_S.CLOSING, _E.ACK_OF_FIN): Step(_S.TIME_WAIT, _OUT.NOTHING),
    (_S.CLOSING, _E.CLOSE): Step(_S.CLOSING, _OUT.NOTHING),
    # passive: the peer's FIN came first
    (_S.ESTABLISHED, _E.FIN): Step(_S.CLOSE_WAIT, _OUT.ACK),
    (_S.CLOSE_WAIT, _E.CLOSE): Step(_S.LAST_ACK, _OUT.FIN),
    (_S.CLOSE_WAIT, _E.SHUTDOWN): Step(_S.LAST_ACK, _OUT.FIN),
    (_S.LAST_ACK, _E.ACK_OF_FIN): Step(_S.CLOSE, _OUT.NOTHING),
    (_S.LAST_ACK, _E.CLOSE): Step(_S.LAST_ACK, _OUT.NOTHING),
    # abortive: a RST, and no TIME_WAIT at either end
    (_S.ESTABLISHED, _E.CLOSE_UNREAD): _UNREAD,
    (_S.CLOSE_WAIT, _E.CLOSE_UNREAD): _UNREAD,
    (_S.FIN_WAIT1, _E.CLOSE_UNREAD): _UNREAD,
    (_S.FIN_WAIT2, _E.CLOSE_UNREAD): _UNREAD,
    (_S.ESTABLISHED, _E.CLOSE_LINGER_0): _LINGER_0,
    (_S.CLOSE_WAIT, _E.CLOSE_LINGER_0): _LINGER_0,
    (_S.FIN_WAIT1, _E.CLOSE_LINGER_0): _LINGER_0,
    # tcp_disconnect() sends a RST where one is due (tcp_need_reset()); in these states none is.
    (_S.FIN_WAIT2, _E.CLOSE_LINGER_0): _LINGER_0,
    (_S.LAST_ACK, _E.CLOSE_LINGER_0): Step(_S.CLOSE, _OUT.NOTHING, counters.ABORT_ON_DATA),
    (_S.CLOSING, _E.CLOSE_LINGER_0): Step(_S.CLOSE, _OUT.NOTHING, counters.ABORT_ON_DATA),
    (_S.ESTABLISHED, _E.RST): _RST_CLOSE,
    (_S.FIN_WAIT1, _E.RST): _RST_CLOSE,
    (_S.FIN_WAIT2, _E.RST): _RST_CLOSE,
    (_S.CLOSING, _E.RST): _RST_CLOSE,
    (_S.CLOSE_WAIT, _E.RST): _RST_CLOSE,
    (_S.LAST_ACK, _E.RST): _RST_CLOSE,
    # data: taken while the program can read
    (_S.ESTABLISHED, _E.DATA): Step(_S.ESTABLISHED, _OUT.ACK),
    (_S.FIN_WAIT1, _E.DATA): Step(_S.FIN_WAIT1, _OUT.ACK),
    (_S.FIN_WAIT2, _E.DATA): Step(_S.FIN_WAIT2, _OUT.ACK),
}

EVENTS = len(Event)
_ROWS = [TABLE.get((State(state), event)) if state else None for state in range(12) for event in Event]

# The table once more, as compiled code can read it, at place `state * EVENTS + event`; -1: nothing changes.
NEXT: tuple[int, ...] = tuple(int(row.state) if row else -1 for row in _ROWS)
SENDS: tuple[int, ...] = tuple(int(row.sends) if row else 0 for row in _ROWS)
COUNTS: tuple[int, ...] = tuple(row.counters if row else 0 for row in _ROWS)


def step(state: int, event: int) -> Step:
    """The table's row; an event that a state does not know changes nothing."""
    place = state * EVENTS + event
    if NEXT[place] < 0:
        return Step(state, 0, 0)
    return Step(NEXT[place], SENDS[place], COUNTS[place])
