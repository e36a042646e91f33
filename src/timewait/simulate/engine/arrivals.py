"""When the next connection is opened, and by whom."""

from __future__ import annotations

import math

from timewait.simulate.engine.draws import below, draw, exponential, happens
from timewait.simulate.engine.state import (
    CONSTANT,
    DIURNAL,
    G_ARRIVAL,
    G_ARRIVALS,
    G_CANDIDATES,
    G_IDLE,
    G_OPENER,
    NEVER,
    THINK,
    TRACE,
    Fixed,
    State,
)


def schedule_arrival(s: State, f: Fixed, at: int) -> None:
    """Sets when the connection after the last is opened; `at`: ns, when that was, 0 before the first."""
    g = s.m
    if f.process != THINK and f.process != CONSTANT:
        g[G_OPENER] = below(draw(f.keys.client, g[G_ARRIVALS]), f.clients)
    if f.process == CONSTANT:
        g[G_ARRIVAL] = int(g[G_ARRIVALS] * f.gap)
    elif f.process == TRACE:
        g[G_ARRIVAL] = g[f.times_at + g[G_ARRIVALS]] if g[G_ARRIVALS] < f.times else NEVER
    elif f.process == THINK:
        _think(s, f, at)
    elif f.process == DIURNAL:
        g[G_ARRIVAL] = _diurnal(s, f, at)
    else:
        g[G_ARRIVAL] = at + exponential(draw(f.keys.gap, g[G_ARRIVALS]), f.gap)


def _think(s: State, f: Fixed, at: int) -> None:
    """Of n clients that think, the first to finish; exponential waits have no memory, so it is drawn anew each time
    their number changes."""
    g = s.m
    if g[G_IDLE] == 0:
        g[G_ARRIVAL] = NEVER
        return
    g[G_ARRIVAL] = at + exponential(draw(f.keys.gap, g[G_CANDIDATES]), f.gap / g[G_IDLE])
    g[G_CANDIDATES] += 1


def _diurnal(s: State, f: Fixed, at: int) -> int:
    """A Poisson process of the highest rate, thinned to the rate of the hour."""
    g = s.m
    while True:
        number = g[G_CANDIDATES]
        g[G_CANDIDATES] += 1
        at += exponential(draw(f.keys.gap, number), f.gap / (1.0 + f.swing))
        rate = 1.0 + f.swing * math.cos(2.0 * math.pi * (at - f.peak_at) / f.period)
        if happens(draw(f.keys.thinning, number), rate / (1.0 + f.swing)):
            return at


def who(s: State, f: Fixed) -> int:
    """The client that opens the connection whose time has come."""
    g = s.m
    number = g[G_ARRIVALS]
    if f.process == THINK:
        at = below(draw(f.keys.client, number), g[G_IDLE])
        client = s.m[f.idle_at + at]
        g[G_IDLE] -= 1
        s.m[f.idle_at + at] = s.m[f.idle_at + g[G_IDLE]]
        return int(client)
    if f.process == CONSTANT:
        return int(number % f.clients)
    return int(g[G_OPENER])


def thinks(s: State, f: Fixed, client: int, at: int) -> None:
    """A client's connection has ended."""
    if f.process == THINK:
        s.m[f.idle_at + s.m[G_IDLE]] = client
        s.m[G_IDLE] += 1
        schedule_arrival(s, f, at)
