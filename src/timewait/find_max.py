"""`--find-max`: raises the rate step by step until failures, latency or this machine stop it, and says which.

Doubling finds the order of magnitude, bisection the rest. Each step is a whole run with its own diagnosis; the record
returned is that of the last step that held, with every step listed.
"""

from __future__ import annotations

import msgspec

from timewait.diagnose import LIMITS, diagnose
from timewait.experiment import Listener, stress
from timewait.histogram import quantiles
from timewait.plan import Plan, Rate, RateUnit
from timewait.run import Run, Step

FIRST_RATE = 100.0  # per second
STEP_SECONDS = 3.0  # unless --duration says how long a step takes
FAILED_SHARE = 0.001  # more failures than this stop it
SLOW_FACTOR, SLOW_FLOOR = 10.0, 0.05  # so does a p99 above ten times the first step's, and above 50 ms
BEHIND = 0.95  # ... or less than this share of the asked rate answered
FINE = 1.1  # the answer is known to ten percent


def find_max(plan: Plan, listener: Listener | None = None) -> Run:
    """The highest rate that held. Raises PlanError as `stress` does."""
    listener = listener or Listener()
    seconds = plan.duration if plan.duration and plan.duration != 10.0 else STEP_SECONDS
    steps: list[Step] = []
    kept: Run | None = None
    stopped: Run | None = None
    low, high, rate, base = 0.0, 0.0, FIRST_RATE, 0.0
    while True:
        wanted = msgspec.structs.replace(plan, rate=Rate(rate, RateUnit.REQUESTS), duration=seconds)
        run = stress(wanted, for_step(listener, first=not steps))
        step = judge(run, rate, base)
        steps.append(step)
        listener.on_step(step)
        base = base or step.p99
        if step.held:
            low, kept = rate, run
        else:
            high, stopped = rate, run
            kept = run if kept is None or not low else kept
        # Ports in TIME_WAIT stay away for a minute: a further step would measure this one's remains.
        spent = step.stopped_by in ("ports-exhausted", "ports-held-open")
        if run.interrupted or spent or (high and (high / max(low, FIRST_RATE / 4) <= FINE or rate <= FIRST_RATE / 4)):
            break
        rate = (low * high) ** 0.5 if low and high else rate * 2 if not high else rate / 2
    kept.steps = steps
    if stopped is not None and stopped is not kept:
        kept.stopped = msgspec.structs.replace(stopped, ticks=[], snapshots=[])
    kept.interrupted = run.interrupted
    if listener.save:
        listener.save.start(kept)
        for tick, snapshot in zip(kept.ticks, kept.snapshots, strict=True):
            listener.save.tick(tick, snapshot)
        listener.save.end(kept)
    return kept


def for_step(listener: Listener, *, first: bool) -> Listener:
    """The same ears without the file, and without a new heading: one record, not one per step."""
    on_start = listener.on_start if first else Listener.on_start
    return Listener(on_start=on_start, on_tick=listener.on_tick, signals=listener.signals)


def judge(run: Run, rate: float, base: float) -> Step:
    """Whether this step held, and if not, what stopped it."""
    total = run.total
    attempts = total.succeeded + total.failed
    share = total.failed / attempts if attempts else 1.0
    p99 = quantiles(total.total, (0.99,))[0]
    duration = run.plan.duration or total.seconds
    machine = [finding.id for finding in diagnose(run) if finding.id in LIMITS and finding.blame == "machine"]
    stopped = ""
    if machine:
        stopped = machine[0]
    elif share > FAILED_SHARE:
        stopped = "failures"
    elif late(run, p99):
        stopped = "client-limited"
    elif base and p99 > max(SLOW_FLOOR, base * SLOW_FACTOR):
        stopped = "latency"
    elif total.succeeded < BEHIND * rate * duration:
        stopped = "schedule"
    return Step(
        rate=rate, succeeded_per_second=total.succeeded / duration, failed_share=share, p99=p99,
        held=not stopped, stopped_by=stopped,
    )  # fmt: skip


def late(run: Run, p99: float) -> bool:
    """Whether most of the latency is our own lateness though slots were free: this machine, not the target."""
    own = quantiles(run.total.late, (0.99,))[0]
    return p99 > SLOW_FLOOR and own > p99 / 2 and run.peak_open < run.plan.concurrency
