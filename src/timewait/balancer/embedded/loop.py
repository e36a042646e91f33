"""One worker's event loop: epoll, coarse timers, and deadlines that cost nothing while they are met.

Everything is edge-triggered (EPOLLET): a descriptor is registered once and never again for as long as it lives, so a
request on a kept connection costs no epoll_ctl(). Whoever gets an event must read until there is no more (EAGAIN, or
on a plain stream socket fewer bytes than asked for, epoll(7)), or remember that it did not.

Two kinds of time. `after()` is a timer for what is rare. What every connection has all the time, "something must
happen within 60 s", is a field: set `deadline`, and `guard()` the object once; a sweep looks at all of them four
times a second. So a request sets a float where a timer would cost an insertion and a removal, and a timeout comes up
to SWEEP late, never early.
"""

from __future__ import annotations

import select
import time
from collections.abc import Callable
from heapq import heappop, heappush
from typing import Any, Protocol

IN, OUT = select.EPOLLIN, select.EPOLLOUT
PEER_CLOSED = select.EPOLLRDHUP  # the peer sent FIN; what it sent before may still be unread
BROKEN = select.EPOLLHUP | select.EPOLLERR  # both directions are over, or an error waits in SO_ERROR
READ = select.EPOLLIN | select.EPOLLRDHUP | select.EPOLLET
READ_AND_WRITE = READ | select.EPOLLOUT
ONE_OF_MANY = select.EPOLLIN | select.EPOLLEXCLUSIVE  # a listening socket shared by processes: level-triggered

TICK = 0.05  # seconds between looks at guarded objects, each at a part of them
SWEEP = 0.25  # seconds in which each of them is looked at once
LEAST_PART = 64  # of the guarded objects, looked at in one tick; a small worker looks at all of them
NEVER = float("inf")

Handler = Callable[[int], None]


class Guarded(Protocol):
    """What has a deadline: CLOCK_MONOTONIC seconds, NEVER for none."""

    deadline: float

    def expired(self, now: float) -> None:
        """The deadline has passed. Set another one or stop being guarded, else it is called again."""


class Timer:
    """What after() gives back; only cancel() wants it."""

    __slots__ = ("callback",)

    def __init__(self, callback: Callable[[], None]) -> None:
        self.callback: Callable[[], None] | None = callback


class Loop:
    """Calls handlers as events come in. One thread, nothing blocks, `now` is the time of the present turn."""

    def __init__(
        self,
        on_error: Callable[[int, Exception], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`on_error(fd, error)`: a handler or callback raised, which is a bug; None lets run() raise it. `clock`:
        tests give one that they can move."""
        self._clock = clock
        self.now = clock()
        self._on_error = on_error
        self._epoll = select.epoll()
        self._handlers: dict[int, Handler] = {}
        self._forgotten: set[int] = set()  # in the present turn: what it still holds for them is not for their heirs
        self._timers: list[tuple[float, int, Timer]] = []
        self._timers_made = 0
        self._guarded: dict[Guarded, None] = {}
        self._unswept: list[Guarded] = []
        self._next_tick = self.now + TICK
        self._soon: list[Callable[[], None]] = []
        self._stopped = False

    # descriptors -----------------------------------------------------------------------------------------------

    def watch(self, fd: int, events: int, handler: Handler) -> None:
        """Calls `handler(events)` when something happens at `fd`. Raises OSError (ENOSPC, EMFILE, EPERM)."""
        self._epoll.register(fd, events)
        self._handlers[fd] = handler

    def change(self, fd: int, events: int) -> None:
        """Other events for a watched descriptor; edge-triggered ones that hold already are told again."""
        self._epoll.modify(fd, events)

    def hand_over(self, fd: int, handler: Handler) -> None:
        """The descriptor stays as it is, its events go to another handler."""
        self._handlers[fd] = handler

    def handler_of(self, fd: int) -> Handler | None:
        """Who gets the events of a descriptor."""
        return self._handlers.get(fd)

    def forget(self, fd: int) -> None:
        """No more events for `fd`, which is still open."""
        if self._handlers.pop(fd, None) is not None:
            self._forgotten.add(fd)
            self._epoll.unregister(fd)

    def closed(self, fd: int) -> None:
        """No more events for `fd`, which is about to be closed: close(2) takes it out of epoll by itself."""
        if self._handlers.pop(fd, None) is not None:
            self._forgotten.add(fd)

    # time ------------------------------------------------------------------------------------------------------

    def after(self, seconds: float, callback: Callable[[], None]) -> Timer:
        """Calls back once, `seconds` from now or a little later (milliseconds)."""
        timer = Timer(callback)
        self._timers_made += 1
        heappush(self._timers, (self._clock() + seconds, self._timers_made, timer))
        return timer

    def cancel(self, timer: Timer) -> None:
        """The timer will not call back; nothing if it has already."""
        timer.callback = None

    def soon(self, callback: Callable[[], None]) -> None:
        """Calls back once, after the events of this turn and before waiting for others."""
        self._soon.append(callback)

    def guard(self, thing: Guarded) -> None:
        """Looks at `thing.deadline` from now on, and calls `thing.expired(now)` once it has passed."""
        self._guarded[thing] = None

    def unguard(self, thing: Guarded) -> None:
        """Looks at it no more."""
        self._guarded.pop(thing, None)

    # running ---------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Turns until stop()."""
        wait, handlers, forgotten, clock = self._epoll.poll, self._handlers, self._forgotten, self._clock
        while not self._stopped:
            if forgotten:  # by timers too: what wait() tells from now on is for whoever has the descriptor now
                forgotten.clear()
            events = wait(self._rest())
            self.now = clock()
            for fd, event in events:
                handler = handlers.get(fd)
                if handler is not None and (not forgotten or fd not in forgotten):
                    try:
                        handler(event)
                    except Exception as error:
                        self.bug(fd, error)
            if self._soon:
                self._run_soon()
            if self.now >= self._next_tick:
                self._tick(self.now)
            if self._timers and self._timers[0][0] <= self.now:
                self._run_timers(self.now)

    def stop(self) -> None:
        """run() returns after the present turn."""
        self._stopped = True

    def close(self) -> None:
        """Gives the epoll descriptor back."""
        self._epoll.close()

    def bug(self, fd: int, error: Exception) -> None:
        """One connection's bug must not end all the others. `fd` is negative where it is not known.

        Whoever it passed through, the innermost first, is told by crashed(), if there is one: it ends its connection,
        whatever half-done state it is in, for else the other end would wait for ever.
        """
        if self._on_error is None:
            raise error
        self._on_error(fd, error)
        for owner in _passed(error):
            try:
                owner.crashed()
            except Exception as another:
                self._on_error(fd, another)

    def _rest(self) -> float | None:
        """Seconds that epoll_wait() may take; None: until something happens."""
        if self._soon:
            return 0
        due = self._next_tick if self._guarded else NEVER
        if self._timers and self._timers[0][0] < due:
            due = self._timers[0][0]
        return None if due == NEVER else max(0.0, due - self._clock())

    def _run_soon(self) -> None:
        callbacks, self._soon = self._soon, []
        for callback in callbacks:
            self._call(callback)

    def _call(self, callback: Callable[[], None]) -> None:
        try:
            callback()
        except Exception as error:
            self.bug(-1, error)

    def _run_timers(self, now: float) -> None:
        timers = self._timers
        while timers and timers[0][0] <= now:
            callback = heappop(timers)[2].callback
            if callback is not None:
                self._call(callback)

    def _tick(self, now: float) -> None:
        """Looks at a part of the guarded objects, such that each has its turn within SWEEP."""
        self._next_tick = now + TICK
        if not self._unswept:
            self._unswept = list(self._guarded)
        part = max(LEAST_PART, int(len(self._guarded) * TICK / SWEEP) + 1)
        things, self._unswept[-part:] = self._unswept[-part:], []
        guarded = self._guarded
        for thing in things:
            if thing.deadline <= now and thing in guarded:
                try:
                    thing.expired(now)
                except Exception as error:
                    self.unguard(thing)  # it would raise again at each sweep
                    self.bug(-1, error)


def _passed(error: Exception) -> list[Any]:
    """The objects in whose methods an exception was on its way, the innermost first, that can be told."""
    found: dict[int, Any] = {}
    step = error.__traceback__
    while step is not None:
        owner = step.tb_frame.f_locals.get("self")
        if hasattr(owner, "crashed"):
            found[id(owner)] = owner
        step = step.tb_next
    return list(reversed(found.values()))
