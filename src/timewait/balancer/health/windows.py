"""When the next check of a target is due, and what its answers make of it. Pure: time is an argument.

The times are CLB's (its documentation, "Health check overview"). At layer 4 the interval counts from one check sent
to the next, so that a target is given up `interval x (fall - 1)` after its first failure: 10 s by default. At layer 7
it counts from an answer, or its timeout, to the next check: a target that does not answer is given up
`timeout x fall + interval x (fall - 1)` after the first check it left unanswered: 16 s by default.

A target added to a running pool waits: its first check is sent one interval later, and it gets traffic after
`interval x rise` (layer 4). Where a whole pool is new, at the start of the balancer or by a reload, nobody wants to
wait that long for what worked a moment ago: the first check is sent at once, and its answer alone decides, either
way; from the second on `rise` and `fall` count.
"""

from __future__ import annotations

import math

from timewait.balancer.config.model import CheckType, Health
from timewait.balancer.rotation import State


class Window:
    """One target's checks: `due` says when to send; `sent` and `answered` say what happened."""

    def __init__(self, rules: Health, kind: CheckType, now: float, *, first_decides: bool = False) -> None:
        self.rules, self.kind = rules, kind
        self.state = State.PROBING
        self.since = now  # in this state
        self.due = now if first_decides else now + rules.interval  # infinite while one is under way
        self.passed = self.failed = 0  # in a row; one of them is 0
        self.reason = ""  # of the last failure; stays until one passes
        self._first_decides = first_decides
        self._slot = self.due

    def sent(self, now: float) -> None:
        """A check goes out. What is late by less than an interval does not move those after it."""
        self._slot = self.due if now < self.due + self.rules.interval else now
        self.due = math.inf

    def answered(self, now: float, passed: bool | None, reason: str = "") -> bool:
        """The check ended; whether that changed the state.

        None: nothing was learned about the target, for want of a port or a descriptor at this end. It counts as no
        check at all: a balancer that runs out of ports must not conclude that its targets are dead.
        """
        self.due = now + self.rules.interval
        if self.kind is not CheckType.HTTP:
            self.due = max(now, self._slot + self.rules.interval)
        if passed is None:
            return False
        self.passed, self.failed = (self.passed + 1, 0) if passed else (0, self.failed + 1)
        self.reason = "" if passed else reason
        decided, self._first_decides = self._first_decides, False
        if passed and (decided or self.passed >= self.rules.rise):
            return self._become(State.HEALTHY, now)
        if not passed and (decided or self.failed >= self.rules.fall):
            return self._become(State.UNHEALTHY, now)
        return False

    def retuned(self, rules: Health, kind: CheckType) -> None:
        """Other rules (a reload): the state stays as it is, the count begins anew, the next check is when it was
        due, or one new interval from the last where that is sooner."""
        self.due = min(self.due, self._slot + rules.interval) if math.isfinite(self.due) else self.due
        self.rules, self.kind = rules, kind
        self.passed = self.failed = 0

    def _become(self, state: State, now: float) -> bool:
        if state is self.state:
            return False
        self.state, self.since = state, now
        return True


def seconds_to_fall(rules: Health, kind: CheckType) -> float:
    """From the first failure (layer 7: from the first check without an answer) until a target is given up."""
    gaps = rules.interval * (rules.fall - 1)
    return gaps + rules.timeout * rules.fall if kind is CheckType.HTTP else gaps
