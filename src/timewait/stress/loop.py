"""The hot loop: one epoll turn after the other. THE LABELLED EXCEPTION to our limits on length and repetition.

What happens most, an answer equal to the last one checked, is inlined here: one recv(), one comparison, one send().
`Engine` holds the readable version of the same steps and everything else. Measured reasons:

* level of C needs few system calls: edge-triggered epoll, no epoll_ctl per request, no second recv() for EAGAIN;
* epoll_wait() counts whole milliseconds; select() on the epoll descriptor sleeps to the microsecond, which keeps
  due times without spinning.
"""

from __future__ import annotations

import heapq
import select
from collections.abc import Callable
from math import ceil

from timewait.plan import Closing
from timewait.stress.connection import WAITING, Connection
from timewait.stress.core import IN
from timewait.stress.engine import Engine
from timewait.stress.meters import clock

CHORES = 0.02  # seconds between looks at deadlines, each at a part of the slots
SWEEP = 0.2  # seconds in which every slot is looked at once
POUR = 0.1  # seconds between pouring the lists of durations into the histograms
COARSE = 0.0025  # from here on epoll_wait()'s milliseconds are fine enough
FINE = 0.00004  # below this a sleep costs more than it saves
BATCH = 32  # connections that may be opened between two looks at the events ...
ARRIVAL_SECONDS = 0.004  # ... or more of them while that takes no longer than this
FILL = 512  # the same two of the closed loop, where the first answers would otherwise keep the rest from opening
FILL_SECONDS = 0.02

RDHUP = select.EPOLLRDHUP


def run(engine: Engine, control: int, on_control: Callable[[], None], on_second: Callable[[float], None]) -> None:
    """Drives the engine until its work is done or it was stopped and drained.

    `control`: descriptor of the parent's pipe; `on_control()` reads it. `on_second(now)` is called at every full
    second of the run.
    """
    poll = engine.poll
    poll.register(control, select.EPOLLIN)
    epoll_wait, by_fd, meters = poll.poll, engine.by_fd, engine.meters
    whole, select_ = meters.whole, select.select
    epoll_fd = [poll.fileno()]
    renewable = engine.renewable()
    renewals: list[Connection] = []
    planned_end = RDHUP if engine.closing is Closing.SERVER else 0
    kept_loop = engine.schedule is None or engine.by_connection
    next_chore = next_pour = engine.start_at
    next_tick = engine.start_at + 1.0
    sweep_at = 0
    turn_began = clock()

    while True:
        now = clock()
        if now >= next_chore:
            next_chore = now + CHORES
            sweep_at = sweep(engine, sweep_at, turn_began)
            if now >= next_pour:
                next_pour = now + POUR
                meters.pour()
            if now >= next_tick:
                on_second(now)
                next_tick += 1.0
            if engine.stopped and (engine.busy == 0 or now >= engine.drain_until):
                return
            if engine.finished:
                engine.stop(now, engine.patience)
        wake = min(next_chore, launch(engine, now))
        before = clock()
        if before - turn_began > meters.lag_max:
            meters.lag_max = before - turn_began
        rest = wake - before
        if rest > COARSE:
            events = epoll_wait(rest - 0.001)
        elif rest > FINE:
            select_(epoll_fd, (), (), rest)
            events = epoll_wait(0)
        else:
            events = epoll_wait(0)
        turn_began = clock()
        meters.waited += turn_began - before

        for fd, event in events:
            c = by_fd.get(fd)
            if c is None:
                if fd == control:
                    on_control()
                continue
            if c.state != WAITING or c.channel is not None or not event & IN:
                engine.event(c, event, clock())
                continue
            try:
                data = c.sock.recv(engine.read_size)
            except BlockingIOError:
                continue
            except OSError as error:
                engine.broken(c, error)
                continue
            ask = c.ask
            if data != ask.expected:
                if engine.received(c, data, event, clock()):
                    engine.read(c, event, clock())
                continue
            now = clock()
            whole.append(now - c.due)
            ask.hits += 1
            if renewable and event & RDHUP == planned_end and engine.budget > 0 and engine.direct:
                engine.budget -= 1
                renewals.append(c)
            elif c.left > 2 and kept_loop and engine.budget > 0 and not event & RDHUP:
                engine.budget -= 1
                c.left -= 1
                c.served += 1
                if len(c.endpoint.asks) > 1:
                    engine.choose(c)
                    ask = c.ask
                try:
                    sent = c.sock.send(ask.data)
                except BlockingIOError:
                    sent = 0
                except OSError as error:
                    meters.requests += 1
                    engine.broken(c, error)
                    continue
                c.due = now
                if sent == len(ask.data):
                    meters.requests += 1
                    meters.bytes_out += sent
                    c.began = now
                else:
                    engine.sent_in_part(c, ask.data, sent, now)
            else:
                engine.answered(c, now, peer_closed=bool(event & RDHUP), closes=ask.closes)

        if renewals:
            engine.renew_all(renewals)
            renewals.clear()


def sweep(engine: Engine, at: int, now: float) -> int:
    """Looks at a part of the slots for passed deadlines; returns where to go on next time.

    `now` is when the events were fetched that have been dealt with: what came after that, while this machine let us
    wait, may be the very thing a deadline is for, and is not yet read.
    """
    slots = engine.connections
    if not slots:
        return 0
    limits = engine.limits
    upto = min(len(slots), at + ceil(len(slots) * CHORES / SWEEP))
    for c in slots[at:upto]:
        limit = limits[c.state]
        if limit and now - c.began > limit:
            engine.timed_out(c, now)
    return upto if upto < len(slots) else 0


def launch(engine: Engine, now: float) -> float:
    """Begins what is due; returns when to look again (monotonic seconds)."""
    if engine.stopped:
        return now + CHORES
    retries = engine.retries
    while retries and retries[0][0] <= now and engine.budget > 0:
        c = heapq.heappop(retries)[2]
        engine.budget -= 1
        engine.busy += 1
        engine.start(c, clock())
    wake = retries[0][0] if retries and engine.budget > 0 else now + CHORES
    if engine.schedule is None:
        return min(wake, fill(engine, now))
    return min(wake, arrivals(engine, now))


def fill(engine: Engine, now: float) -> float:
    """Closed loop: opens slots until as many as asked for are in use."""
    wanted = engine.asked(now)
    count = 0
    while len(engine.connections) < wanted and engine.budget > 0:
        if count >= FILL and clock() - now > FILL_SECONDS:
            return now  # events first, then more
        count += 1
        c = engine.add_slot()
        engine.budget -= 1
        engine.busy += 1
        engine.start(c, clock())
    return now + CHORES


def arrivals(engine: Engine, now: float) -> float:
    """Open loop: serves arrivals that are due, as long as a connection or a slot is there for them."""
    schedule, start_at, late = engine.schedule, engine.start_at, engine.meters.late
    assert schedule is not None
    count, began = 0, now
    while engine.budget > 0:
        due = start_at + schedule.due(engine.arrival)
        if due > now:
            return due
        if due >= engine.end_at:
            return now + CHORES
        if count >= BATCH and now - began > ARRIVAL_SECONDS:
            return now
        c = engine.take_idle()
        fresh = engine.take_slot() if c is None else None
        if c is None and fresh is None:
            return now + CHORES  # all are busy: the arrival waits, and its latency counts from its due time
        count += 1
        engine.arrival += 1
        engine.budget -= 1
        engine.busy += 1
        late.append(now - due)
        if c is not None:
            c.left -= 1
            engine.request(c, now, due)
        elif fresh is not None:
            engine.start(fresh, due)
        now = clock()
    return now + CHORES
